"""A virtual environment that holds exactly what a hash lock pins."""

import json
import sys
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[3]  # has salt/ and service/
DONE = {"missing": "installed", "wrong": "replaced", "damaged": "repaired", "extra": "removed"}
Result = dict[str, Any]

__salt__: dict[str, Any]
__opts__: dict[str, Any]


def synced(name: str, lock: str, python: str = "python3") -> Result:
    """Make the environment `name` hold exactly the packages that service/`lock` pins, changing only what differs."""
    arguments = [name, str(SOURCE / "service" / lock)]
    found = _lockedvenv("check", arguments)
    if "error" in found:
        return {"name": name, "result": False, "changes": {}, "comment": found["error"]}
    if not _changes(found):
        comment = f"{found['pinned']} packages are as {lock} pins them"
        return {"name": name, "result": True, "changes": {}, "comment": comment}
    if __opts__["test"]:
        return {"name": name, "result": None, "changes": _changes(found), "comment": f"{lock} would be applied"}
    made = _lockedvenv("sync", [*arguments, "--python", python])
    if "error" in made:
        return {"name": name, "result": False, "changes": {}, "comment": made["error"]}
    return {"name": name, "result": True, "changes": _changes(found), "comment": f"{lock} was applied"}


def _lockedvenv(action: str, arguments: list[str]) -> dict[str, Any]:
    command = [sys.executable, str(SOURCE / "salt/lockedvenv.py"), action, *arguments]
    done = __salt__["transcribe_run.locked"]("venv", command)
    try:
        answer: dict[str, Any] = json.loads(done["stdout"])
    except ValueError:
        said = [f"lockedvenv.py {action} ended with {done['code']} and said nothing", *done["stderr"].splitlines()]
        return {"error": said[-1]}
    return answer


def _changes(found: dict[str, Any]) -> dict[str, str]:
    return {package: what for key, what in DONE.items() for package in found[key]}
