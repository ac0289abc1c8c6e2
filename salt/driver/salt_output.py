"""What salt-call prints and logs, as values. Nothing here runs anything."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import time
from typing import Any

from driver.parameters import DriverError

EXECUTING = re.compile(r"Executing state (?P<module>\w+)\.(?P<function>\w+) for \[(?P<name>.*)\]$")
PROGRESS = re.compile(r"progress of (?P<kind>\w+): (?P<text>.*)$")
MIDNIGHT = "00:00:00.000000"
DAY = 86_400  # seconds
SEPARATOR = "_|-"  # between the parts of a result's key: module, id, name, function


@dataclass(frozen=True)
class HighstatePlan:
    """The states that an apply will run: the id of each, by module and name."""

    ids: Mapping[tuple[str, str], str]

    @property
    def total(self) -> int:
        """How many there are."""
        return len(self.ids)


@dataclass
class Follower:
    """How far an apply is, from the lines of its log."""

    plan: HighstatePlan
    seen: list[str] = field(default_factory=list)  # ids, the last one running
    detail: str = ""

    def read(self, line: str) -> bool:
        """Read one line; returns whether it changed `state`."""
        if match := EXECUTING.search(line):
            name = self.plan.ids.get((match["module"], match["name"]), match["name"])
            self.detail = ""
            if name not in self.seen:
                self.seen.append(name)
            return True
        if match := PROGRESS.search(line):
            self.detail = match["text"]
            return True
        return False

    @property
    def state(self) -> str:
        """The state that is running, with its own progress if it reports any."""
        return f"{self.seen[-1]} {self.detail}".rstrip() if self.seen else ""

    @property
    def done(self) -> int:
        """How many states have ended."""
        return max(len(self.seen) - 1, 0)


def local(text: str, errors: str = "") -> Any:
    """What salt-call printed with --out=json; raises DriverError, with the end of `errors`, if that is no result."""
    try:
        return json.loads(text[text.index("{") :])["local"]
    except (ValueError, KeyError, TypeError):
        words = " ".join((text + errors).split())
        raise DriverError(f"salt-call gave no answer: {words[-400:] or 'no output'}") from None


def plan(highstate: Any) -> HighstatePlan:
    """The plan in the answer of state.show_highstate; raises DriverError if the states do not compile."""
    if not isinstance(highstate, dict) or not highstate:
        raise DriverError(f"the states do not compile: {_problem(highstate)}")
    ids = {}
    for identity, declared in highstate.items():
        for module, arguments in declared.items():
            if module.startswith("__"):
                continue
            named = [item["name"] for item in arguments if isinstance(item, dict) and "name" in item]
            ids[module, str(named[0] if named else identity)] = identity
    return HighstatePlan(ids)


def applied(answer: Any, seconds: float) -> dict[str, Any]:
    """The result of an apply as the report has it. Raises DriverError if nothing was applied at all."""
    if not isinstance(answer, dict) or not answer:
        raise DriverError(f"nothing was applied: {_problem(answer)}")
    ordered = sorted(answer.items(), key=lambda item: item[1].get("__run_num__", 0))
    first = ordered[0][1].get("start_time", MIDNIGHT)
    results = [
        {
            "id": state.get("__id__", key.split(SEPARATOR)[1]),
            "result": state["result"],
            "changed": bool(state.get("changes")),
            "seconds": round(float(state.get("duration", 0)) / 1000, 3),
            "began": _seconds_between(first, state.get("start_time", first)),
        }
        for key, state in ordered
    ]
    # Only True is a success: None is what a dry run answers.
    failed = [
        {"id": result["id"], "comment": _line(state.get("comment"))}
        for result, (_, state) in zip(results, ordered, strict=True)
        if result["result"] is not True
    ]
    changed = sum(result["changed"] for result in results)
    return {"states": len(results), "changed": changed, "failed": failed, "seconds": seconds, "results": results}


def _seconds_between(began: str, now: str) -> float:
    """Seconds from one time of day to another, in Salt's form 23:59:59.250000; midnight may lie between."""
    times = map(time.fromisoformat, (began, now))
    early, late = (at.hour * 3600 + at.minute * 60 + at.second + at.microsecond / 1e6 for at in times)
    return round((late - early) % DAY, 3)


def first_reason(result: Mapping[str, Any]) -> str:
    """Why an apply failed, in one line: the state that failed by itself, not those that needed it."""
    own = [item for item in result["failed"] if not item["comment"].startswith("One or more requisite failed")]
    item = (own or result["failed"])[0]
    more = len(result["failed"]) - 1
    return f"{item['id']}: {item['comment']}" + (f" (and {more} more)" if more else "")


def _problem(answer: Any) -> str:
    """Where states do not compile, Salt returns one message or a list of them."""
    return _line("; ".join(map(str, answer)) if isinstance(answer, list) else answer)


def _line(value: object) -> str:
    return " ".join(str(value).split())[:600]
