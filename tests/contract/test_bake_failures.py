"""What must never make an image, and what must never be left behind: a bake that goes wrong, in every way."""

import os
import signal as signals
import time
from dataclasses import replace
from typing import Any

import pytest
from baker.aws import requests
from baker.bake import pipeline, steps
from baker.display.progress import Display
from baker.errors import BakeError, Interrupted
from rich.console import Console
from support.fake_cloud import Cloud
from support.fake_machine import FakeMachine, manifest_of, succeed

pytestmark = pytest.mark.slow


def wrong(**changes: Any) -> Any:
    return lambda machine: machine.put("report", machine.report(**changes))


def garbage(machine: FakeMachine) -> None:
    machine.put("report", b"{ not json")


def replay(machine: FakeMachine) -> None:
    machine.put("report", machine.report(build_id="20200101-000000-abcdef-bake", nonce="0" * 32))


def die(machine: FakeMachine) -> None:
    machine.power_off()


def fail_with_log(machine: FakeMachine) -> None:
    machine.put("log", b"the whole story")
    machine.put("report", machine.report(verdict="failure", reason="apply: venv-sync: no room"))
    machine.power_off()


SALT_CHANGED = {
    "first": {"states": 3, "changed": 3, "failed": []},
    "second": {"states": 3, "changed": 1, "failed": []},
}


@pytest.mark.parametrize("mode", ["bake", "verify"])
@pytest.mark.parametrize(
    ("script", "words"),
    [
        (wrong(nonce="f" * 32), "does not carry this build's nonce"),
        (wrong(payload_sha256="0" * 64), "built from another payload"),
        (wrong(verdict="failure", reason="no room"), "reports a failure: no room"),
        (wrong(salt=SALT_CHANGED), "second apply changed 1 states"),
        (wrong(checks=[{"name": "cache", "verdict": "fail", "detail": "gone"}]), "1 of 1 checks failed: cache: gone"),
        (wrong(clip={"text": "Nothing of the kind"}), "word error rate"),
        (wrong(manifest=None), "has no manifest of schema 1"),
        (garbage, "not valid JSON"),
        (replay, "another build's"),
        (die, "ended without a signal"),
        (fail_with_log, "venv-sync: no room; log: .cache/logs/"),
    ],
)
def test_no_good_signal_no_image(cloud: Cloud, mode: str, script: Any, words: str) -> None:
    cloud.fleet.scripts[mode] = script
    with pytest.raises(BakeError) as caught:
        cloud.bake()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    cloud.assert_nothing_left()


def test_an_image_that_boots_with_another_manifest_is_removed(cloud: Cloud) -> None:
    cloud.fleet.scripts["verify"] = wrong(manifest=manifest_of("", kernel="5.0"))
    with pytest.raises(BakeError, match="is not the one that was written when it was baked"):
        cloud.bake()
    cloud.assert_nothing_left()


def test_the_log_of_a_failed_machine_is_kept(cloud: Cloud) -> None:
    cloud.fleet.scripts["bake"] = fail_with_log
    with pytest.raises(BakeError):
        cloud.bake()
    [log] = cloud.context.logs.iterdir()
    assert "the whole story" in log.read_text()


def test_a_silent_machine_is_ended_after_its_deadline(cloud: Cloud) -> None:
    cloud.fleet.scripts["bake"] = lambda machine: None
    began = time.monotonic()
    hurried = replace(cloud.context, clock=lambda: (time.monotonic() - began) * 200)
    with pytest.raises(BakeError, match=r"no signal from i-.* by its deadline"):
        pipeline.bake(hurried, steps.BakeOptions())
    cloud.assert_nothing_left()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a socket that the signal left open
@pytest.mark.parametrize("number", [signals.SIGINT, signals.SIGTERM])
@pytest.mark.parametrize("mode", ["bake", "verify"])
def test_an_interrupted_bake_cleans_up(cloud: Cloud, number: signals.Signals, mode: str) -> None:
    cloud.fleet.scripts[mode] = lambda machine: os.kill(os.getpid(), number)
    with pytest.raises(Interrupted):
        cloud.bake()
    cloud.assert_nothing_left()


@pytest.mark.parametrize("after", ["bake on the machine", "verify on the image"])
def test_when_nobody_reads_the_events_any_more_nothing_is_left(cloud: Cloud, after: str) -> None:
    def tell(event: str, **fields: object) -> None:
        if fields.get("phase") == after:
            raise BrokenPipeError

    deaf = replace(cloud.context, display=Display(Console(quiet=True), emit=tell))
    with pytest.raises(BrokenPipeError):
        pipeline.bake(deaf, steps.BakeOptions())
    cloud.assert_nothing_left()


def test_an_interrupt_while_an_instance_starts_still_finds_it(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    run = cloud.context.machines.run

    def lost(request: requests.Request) -> str:
        run(request)
        raise Interrupted("SIGINT")

    monkeypatch.setattr(cloud.context.machines, "run", lost)
    with pytest.raises(Interrupted):
        cloud.bake()
    assert len(cloud.instances()) == 1
    cloud.assert_nothing_left()


def test_a_late_success_after_the_machine_ended_still_counts_only_by_content(cloud: Cloud) -> None:
    def last_word(machine: FakeMachine) -> None:
        machine.put("report", machine.report(verdict="failure", reason="out of disk"))
        machine.power_off()

    cloud.fleet.scripts["bake"] = last_word
    with pytest.raises(BakeError, match="out of disk"):
        cloud.bake()
    cloud.fleet.scripts["bake"] = succeed
    cloud.bake()
    assert len(cloud.images()) == 1
