"""The pinned model in the cache: downloaded at its commit, verified by digests, warmed up, and described."""

import json
import re
from pathlib import Path
from typing import Any

COMMIT = re.compile(r"[0-9a-f]{40}")
Result = dict[str, Any]

__salt__: dict[str, Any]
__opts__: dict[str, Any]


def cached(name: str, revision: str, root: str) -> Result:
    """Make the cache below `root` hold model `name` at commit `revision`; only what differs is fetched again.

    The cache is root's alone: the service runs what lies there.
    """
    if not COMMIT.fullmatch(revision):
        comment = f"model.revision is {revision!r}, not a commit of 40 hex digits: pin it in overrides.sls"
        return {"name": name, "result": False, "changes": {}, "comment": comment}
    if __opts__["test"]:
        return _dry_run(name, root)
    answer = _advanced_cache(root)
    if "error" in answer:
        return {"name": name, "result": False, "changes": {}, "comment": answer["error"]}
    changes = {"cache_info.json": answer["reason"]} if answer["changed"] else {}
    comment = f"{len(answer['files'])} files of {name} at {revision} are intact"
    if answer.get("warmup_error"):
        comment += f"; the warm-up failed: {answer['warmup_error']}"
    return {"name": name, "result": True, "changes": changes, "comment": comment}


def _dry_run(name: str, root: str) -> Result:
    changes = {"cache_info.json": "to be written"}
    if not Path(root, "advanced_cache.py").is_file() or not Path(root, "venv/bin/python").exists():
        return {"name": name, "result": None, "changes": changes, "comment": "would be downloaded"}
    answer = _advanced_cache(root, "--check")
    if "error" in answer:
        return {"name": name, "result": None, "changes": changes, "comment": answer["error"]}
    if not answer["ok"]:
        changes = {"cache_info.json": answer["reason"]}
        return {"name": name, "result": None, "changes": changes, "comment": "would be repaired"}
    return {"name": name, "result": True, "changes": {}, "comment": "every file is intact"}


def _advanced_cache(root: str, *arguments: str) -> dict[str, Any]:
    command = [f"{root}/venv/bin/python", f"{root}/advanced_cache.py", "--json", *arguments]
    environment = {"TRANSCRIBE_CONFIG": f"{root}/config/transcribe.json", "PYTHONDONTWRITEBYTECODE": "1"}
    done = __salt__["transcribe_run.locked"]("model", command, environment)
    try:
        answer: dict[str, Any] = json.loads(done["stdout"])
    except ValueError:
        last = (done["stderr"].splitlines() or [f"it ended with {done['code']} and said nothing"])[-1]
        return {"error": last}
    return answer
