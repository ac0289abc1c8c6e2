"""A fleet of real machines that die, are cut off and taken back: no job is lost, and none has two results.

`./tests/run fleet`; FLEET_JOBS says how many jobs, 1,000 without it, and what goes wrong is in proportion.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.baked_machine import ROOT
from support.fleet_drill import Drill, Ledger, numbered, plan, sound, write_key
from support.waiting import until

JOBS = int(os.environ.get("FLEET_JOBS", "1000"))
CLIPS = ("austen-0880", "austen-0930")  # 3 seconds each
SECONDS = {"austen-0880": 2.99, "austen-0930": 3.29}
CUT_SECONDS = 120.0 if JOBS >= 1000 else 20.0
WRONG = {  # of each kind for a thousand jobs, and at least one
    "kill worker": 9, "kill feeder": 8, "kill api": 5, "kill machine": 8, "spot notice": 10, "twice": 50, "cut": 1,
}  # fmt: skip
POISON = 5
COSTLY = ("kill worker", "kill machine", "spot notice", "cut")
BATCH = 30.0  # seconds of audio that are heard again after each of these at most: what the worker had under way
PACE = 2.0  # seconds between two looks
FROM_ZERO_SECONDS, READY_SECONDS, TO_ZERO_SECONDS = 300.0, 240.0, 420.0
STILL_SECONDS = 300.0  # in which no job ends: a machine starts anew in less, also on a computer that has other work


@pytest.fixture
def drill(image: str, tmp_path: Path) -> Iterator[Drill]:
    """A fleet of the image that this tree bakes; what is launched ends with the test."""
    made = Drill(tmp_path, write_key(tmp_path))
    made.forget()
    made.keep_versions(on=True)
    made.bake("publish", image)
    try:
        yield made
    finally:
        made.bake("launch", "--end")
        made.keep_versions(on=False)


def recordings(folder: Path) -> dict[str, str]:
    """Writes the jobs' files, and those that are no recordings; returns the clip of each by its file's name."""
    sounds = {clip: sound(clip, folder.parent) for clip in CLIPS}
    made = {}
    for number in range(JOBS):
        clip = CLIPS[number % len(CLIPS)]
        (folder / f"{number:05d}.wav").write_bytes(numbered(sounds[clip], number))
        made[f"{number:05d}.wav"] = clip
    for number in range(POISON):
        (folder / f"poison-{number}.wav").write_bytes(random.Random(number).randbytes(50_000))
    return made


@dataclass
class Disturbed:
    """The jobs' way through the fleet, while things go wrong in turn as it goes on."""

    drill: Drill
    ledger: Ledger
    jobs: list[str]
    over: int = 0
    ready: tuple[str, ...] = ()
    leaving: frozenset[str] = frozenset()  # machines that were told of their end

    def look(self) -> None:
        """See how far it is."""
        self.ready = tuple(one for one in self.drill.ready() if one not in self.leaving)
        self.over = self.drill.over()
        self.drill.count_begun(self.leaving & set(self.drill.members()))  # to ask one that is gone takes half a minute

    def note(self, what: str) -> None:
        self.ledger.note(len(self.ready), self.over, what)

    def run(self, disturbances: list[str]) -> Counter[str]:
        """Go on until all jobs are over; returns what was done, of each kind. AssertionError if they stand still."""
        done: Counter[str] = Counter()
        before, moved = self.over, time.monotonic()
        while self.over < len(self.jobs):
            if self.over != before:
                before, moved = self.over, time.monotonic()
            assert time.monotonic() - moved < STILL_SECONDS, self.ledger.table(
                {"jobs over": f"{self.over} of {len(self.jobs)}"}
            )
            time.sleep(PACE)
            self.look()
            due = sum(done.values()) < len(disturbances) * (self.over + 1) / (0.9 * len(self.jobs))
            if self.ready and due and sum(done.values()) < len(disturbances):
                kind = disturbances[sum(done.values())]
                self.disturb(kind, self.ready[sum(done.values()) % len(self.ready)])
                done[kind] += 1
        return done

    def disturb(self, kind: str, machine: str) -> None:
        """Let something go wrong on a machine, or with the messages of a job."""
        self.note(f"{kind}: {machine}" if kind != "twice" else "a message comes twice")
        if kind == "twice":
            self.drill.deliver_again(self.jobs[len(self.ledger.moments) * 7 % len(self.jobs)])
        elif kind == "cut":
            self.drill.cut(machine, CUT_SECONDS)
        elif kind == "spot notice":
            self.drill.notify_spot(machine)
            self.leaving |= {machine}
        elif kind == "kill machine":
            self.drill.kill_machine(machine)
        else:
            self.drill.kill_process(machine, kind.removeprefix("kill "))


def undisturbed(drill: Drill, folder: Path, clips: dict[str, str]) -> dict[str, str]:
    """What is heard in each clip when nothing goes wrong; brings the first machine up from zero."""
    alone = folder.parent / "alone"
    alone.mkdir()
    for clip in CLIPS:
        name = next(name for name, of in clips.items() if of == clip)
        (folder / name).rename(alone / f"{clip}.wav")
        del clips[name]
    drill.bake("submit", str(alone), "--language=en")
    until(lambda: all(state.over for state in drill.states()), FROM_ZERO_SECONDS + READY_SECONDS, drill.states)
    return {Path(state.name).stem: drill.text(state.job) for state in drill.states()}


def test_a_machine_that_is_launched_joins_the_fleet(drill: Drill) -> None:
    """By what the launcher gives it, and by the keys of its role; its results lie in the bucket."""
    drill.launch(group=False)
    drill.bake("submit", str(ROOT / f"tests/audio/{CLIPS[0]}.flac"), "--language=en")
    until(lambda: all(state.status == "done" for state in drill.states()), READY_SECONDS, drill.states)
    [state] = drill.states()
    assert "ill-disposed young man" in drill.text(state.job)


@dataclass
class Account:
    """What came of all jobs; `wanted` is the text of each clip, and `clips` the clip of each file, by its name."""

    drill: Drill
    wanted: dict[str, str]
    clips: dict[str, str]

    def __post_init__(self) -> None:
        self.states, self.results = self.drill.states(), self.drill.results()
        texts = {Path(state.name).name: self.drill.text(state.job) for state in self.states}
        self.other = [name for name, clip in self.clips.items() if texts.get(name) != self.wanted[clip]]
        self.audio = sum(SECONDS[clip] for clip in (*self.clips.values(), *CLIPS))
        again = self.drill.begun_again(state.job for state in self.states if state.status == "done")
        self.again = max(SECONDS.values()) * again.total()

    def totals(self, done: Counter[str]) -> dict[str, object]:
        """For the ledger."""
        return {
            "jobs": f"{JOBS} of 3 seconds of speech, {POISON} that are no recordings",
            **{f"went wrong: {kind}": count for kind, count in sorted(done.items())},
            "lost": JOBS + POISON - sum(state.over for state in self.states),
            "with two results": sum(count > 1 for count in self.results.values()),
            "with another text than undisturbed": len(self.other),
            "audio": f"{self.audio:.0f} s",
            "of it heard twice, at most": f"{self.again:.0f} s, {self.again / self.audio:.1%}",
        }


@pytest.mark.fleet
def test_a_fleet_loses_nothing(drill: Drill, tmp_path: Path) -> None:
    ledger, folder = Ledger(), tmp_path / "recordings"
    folder.mkdir()
    clips = recordings(folder)
    drill.launch(group=True)
    assert drill.members() == []
    wanted = undisturbed(drill, folder, clips)
    assert all(wanted.values())
    ledger.note(1, len(wanted), "from zero by itself; each clip alone")

    drill.want(3)
    until(lambda: len(drill.ready()) == 3, READY_SECONDS, drill.members)
    ledger.note(3, drill.over(), "three machines")
    drill.bake("submit", str(folder), "--language=en")
    run = Disturbed(drill, ledger, drill.jobs())
    assert len(run.jobs) == len(clips) + len(CLIPS) + POISON
    done = run.run(list(plan({kind: max(1, round(count * JOBS / 1000)) for kind, count in WRONG.items()})))
    run.note("all jobs are over")
    until(lambda: all(state.over for state in drill.states()), READY_SECONDS)
    drill.count_begun(drill.members())
    account = Account(drill, wanted, clips)
    print("\n" + ledger.table(account.totals(done)))
    assert Counter(state.status for state in account.states) == {"done": JOBS, "failed": POISON}
    assert set(account.results.values()) == {1}
    assert account.other == []
    assert account.again <= BATCH * sum(done[kind] for kind in COSTLY)
    until(lambda: not drill.members(), TO_ZERO_SECONDS, drill.members)
    print("to zero by itself")
