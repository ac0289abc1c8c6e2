"""Estimates the time left of a bake by the last one's durations of phases, machine phases and Salt states."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

INSIDE = {"bake on the machine": "baked", "verify on the image": "verified"}  # phases with a machine's report
FIRST_APPLY = "first apply"  # the only one of the machine's phases whose states take their time
Durations = Sequence[tuple[str, float]]  # names and seconds, in the order in which it went


@dataclass(frozen=True)
class MachineStep:
    """How far the machine is: the phase it is in, the state it runs, states done and in all (0: not known)."""

    phase: str
    state: str = ""
    done: int = 0
    total: int = 0

    @property
    def id(self) -> str:
        """The state's id, without the progress text after it."""
        return self.state.partition(" ")[0]


@dataclass(frozen=True)
class Moment:
    """A moment of a bake: the launcher's phase and the machine's step, with the seconds since each began."""

    phase: str
    seconds: float
    step: MachineStep | None = None
    step_seconds: float = 0.0
    state_seconds: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """What the last bake took: its phases, the machine's own inside each of them, and the states of its first apply."""

    phases: Durations = ()
    inside: Mapping[str, Durations] = field(default_factory=dict)
    states: Durations = ()

    def left(self, now: Moment) -> float | None:
        """Seconds to the end; None where the last bake had no such phase."""
        after = _after(self.phases, now.phase)
        if after is None:
            return None
        inner = self.inside.get(now.phase, ())
        later = _after(inner, now.step.phase) if now.step else None
        if now.step is None or later is None:
            return after + max(dict(self.phases)[now.phase] - now.seconds, 0.0)
        return after + later + self._of_step(now.step, dict(inner)[now.step.phase], now)

    def _of_step(self, step: MachineStep, whole: float, now: Moment) -> float:
        """Seconds to the end of the machine's step, all of which took `whole`."""
        later = _after(self.states, step.id) if step.phase == FIRST_APPLY else None
        if later is None:
            return max(whole - now.step_seconds, 0.0)
        return later + max(dict(self.states)[step.id] - now.state_seconds, 0.0)


def of(report: Mapping[str, Any] | None) -> Estimate:
    """The durations in a bake's report; empty if it cannot be read."""
    try:
        return _of(report) if report else Estimate()
    except (KeyError, TypeError, ValueError):
        return Estimate()


def _of(report: Mapping[str, Any]) -> Estimate:
    inside = {phase: _named(report[machine]["phases"], "name") for phase, machine in INSIDE.items()}
    states = _named(report["baked"]["salt"]["first"]["results"], "id")
    return Estimate(_named(report["phases"], "name"), inside, states)


def _named(durations: Sequence[Mapping[str, Any]], name: str) -> Durations:
    return [(str(item[name]), float(item["seconds"])) for item in durations]


def _after(durations: Durations, name: str) -> float | None:
    """Seconds of all that comes after `name`; None if that is not there."""
    names = [known for known, _ in durations]
    return sum(seconds for _, seconds in durations[names.index(name) + 1 :]) if name in names else None
