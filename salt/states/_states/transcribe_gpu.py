"""The GPU, as the unit transcribe-gpu prepares it for the worker."""

from typing import Any

Result = dict[str, Any]

__salt__: dict[str, Any]
__opts__: dict[str, Any]


def prepared(name: str) -> Result:
    """Make the driver and its device nodes be there; where there is no GPU to use, nothing is needed."""
    if __salt__["transcribe_gpu.active"]():
        return {"name": name, "result": True, "changes": {}, "comment": "prepared since the boot"}
    return _prepare(name)


def mod_watch(name: str, **_: Any) -> Result:
    """Called when the unit or its program has changed."""
    return _prepare(name)


def _prepare(name: str) -> Result:
    if __opts__["test"]:
        return {"name": name, "result": None, "changes": {name: "started"}, "comment": "would be prepared"}
    problem = __salt__["transcribe_gpu.prepare"]()
    if problem:
        return {"name": name, "result": False, "changes": {}, "comment": problem}
    return {"name": name, "result": True, "changes": {name: "started"}, "comment": "prepared"}
