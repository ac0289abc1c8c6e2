"""The driver's bake and verification: what each must see before it calls a machine good."""

import hashlib
import json
import queue
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driver import apt, install_salt, main, parameters, salt_call, salt_output, systemd, upload
from driver.parameters import DriverError
from driver.report import Report, marker
from support.upload_server import UploadServer

PARAMETERS = {
    "build_id": "b-1",
    "nonce": "nonce-nonce",
    "mode": "bake",
    "deadline_seconds": 60,
    "payload": {"sha256": "ab" * 32, "bytes": 1},
    "addresses_url": "http://x/addresses?X=1",
    "origin": {"git_commit": "1e10"},
}
ADDRESSES = {f"{name}_url": f"http://x/{name}?X=1" for name in ("report", "progress", "log", "addresses", "payload")}
VERIFIED = {
    "checks": [{"name": "health", "verdict": "pass", "detail": ""}],
    "clip": {"text": "hello"},
    "facts": {"device": "cpu"},
}


def written(tmp_path: Path, **more: Any) -> Path:
    path = tmp_path / "parameters.json"
    path.write_text(json.dumps({**PARAMETERS, **more}))
    path.with_name("addresses.json").write_text(json.dumps(ADDRESSES))
    return path


def result(*, changed: tuple[str, ...] = (), failed: tuple[str, ...] = (), states: int = 3) -> dict[str, Any]:
    results = [{"id": name, "result": True, "changed": True, "seconds": 0.1} for name in changed]
    failures = [{"id": name, "comment": "broken"} for name in failed]
    return {"states": states, "changed": len(changed), "failed": failures, "seconds": 1.0, "results": results}


class RecordedCalls:
    """Stands in for everything that the driver would run; records the order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.applies: list[dict[str, Any]] = [result(changed=("a",)), result()]
        self.seal = result(changed=("seal-apt",))
        self.verified: Any = VERIFIED
        self.manifest: Any = {"schema": 1}
        monkeypatch.setattr(apt, "wait_until_quiet", lambda say: None)
        monkeypatch.setattr(install_salt, "install_salt", lambda source, say: self.done.append("salt"))
        monkeypatch.setattr(salt_call, "plan", lambda: salt_output.HighstatePlan({("file", "/a"): "a"}))
        monkeypatch.setattr(salt_call, "apply", self._apply)
        monkeypatch.setattr(salt_call, "call", self._call)
        monkeypatch.setattr(systemd, "wait_ready", lambda: 4.5)
        monkeypatch.setattr(upload.Progress, "_run", lambda self: None)

    def _apply(
        self, plan: salt_output.HighstatePlan, on_state: Callable[[str, int, int], None], *states: str
    ) -> dict[str, Any]:
        self.done.append(f"apply {' '.join(states)}".strip())
        on_state("a", 0, 1)
        return self.seal if states else self.applies.pop(0)

    def _call(self, *arguments: str) -> Any:
        self.done.append(" ".join(arguments))
        return self.manifest if arguments[0].startswith("transcribe_manifest.") else self.verified


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> RecordedCalls:
    return RecordedCalls(monkeypatch)


def run(tmp_path: Path, report: Report, **more: Any) -> str:
    return main._run(parameters.load(written(tmp_path, **more), tmp_path / "payload.sha256"), report)


def test_bake_seals_last_and_only_when_all_is_right(machine: RecordedCalls, tmp_path: Path) -> None:
    report = Report()
    assert run(tmp_path, report) == ""
    write = f'transcribe_manifest.write origin={{"git_commit": "1e10", "payload_sha256": "{"ab" * 32}"}}'
    assert machine.done == ["salt", "apply", "apply", "transcribe.verify", write, "apply transcribe.seal"]
    assert report.manifest == {"schema": 1}
    assert [phase["name"] for phase in report.phases][-1] == "seal"
    assert report.salt["first"]["changed"] == 1
    assert report.salt["second"]["changed"] == 0


def test_second_apply_that_changes_something_is_a_failure(machine: RecordedCalls, tmp_path: Path) -> None:
    machine.applies[1] = result(changed=("config-written",))
    assert "changed 1: config-written" in run(tmp_path, Report())
    assert "apply transcribe.seal" not in machine.done


@pytest.mark.parametrize("which", [0, 1])
def test_failed_state_is_the_reason(machine: RecordedCalls, tmp_path: Path, which: int) -> None:
    machine.applies[which] = result(failed=("model-cached",))
    assert "model-cached: broken" in run(tmp_path, Report())
    assert "transcribe.verify" not in machine.done


def test_apply_without_states_is_a_failure(machine: RecordedCalls, tmp_path: Path) -> None:
    machine.applies[0] = result(states=0)
    assert "ran no states" in run(tmp_path, Report())


@pytest.mark.parametrize("answer", [{}, [], "oops", {"checks": []}])
def test_verification_that_checked_nothing_is_a_failure(machine: RecordedCalls, tmp_path: Path, answer: Any) -> None:
    machine.verified = answer
    assert "no checks" in run(tmp_path, Report())


def test_failed_check_is_named_and_reported(machine: RecordedCalls, tmp_path: Path) -> None:
    machine.verified = {**VERIFIED, "checks": [{"name": "ready", "verdict": "fail", "detail": "503"}]}
    report = Report()
    assert "ready: 503" in run(tmp_path, report)
    assert report.checks[0]["verdict"] == "fail"
    assert "apply transcribe.seal" not in machine.done


@pytest.mark.parametrize("mode", ["bake", "verify"])
def test_without_a_manifest_there_is_no_image(machine: RecordedCalls, tmp_path: Path, mode: str) -> None:
    machine.applies, machine.manifest = [result(), result()], "Passed invalid arguments"
    assert "no manifest: Passed invalid arguments" in run(tmp_path, Report(), mode=mode)
    assert "apply transcribe.seal" not in machine.done


def test_failed_seal_is_a_failure(machine: RecordedCalls, tmp_path: Path) -> None:
    machine.seal = result(failed=("seal-asserted",))
    assert "seal-asserted" in run(tmp_path, Report())


def test_defect_of_the_driver_is_reported_too(
    machine: RecordedCalls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(salt_call, "plan", lambda: 1 / 0)
    assert "ZeroDivisionError" in run(tmp_path, Report())


@pytest.mark.parametrize(("keep", "powered_off"), [(False, True), (True, False)])
def test_a_failure_powers_the_machine_off_unless_it_is_to_be_kept(
    machine: RecordedCalls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool, powered_off: bool
) -> None:
    commands: list[list[str]] = []
    console: list[str] = []
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("subprocess.run", lambda command, **_: commands.append(command))
    monkeypatch.setattr(main, "_log", lambda _: b"")
    monkeypatch.setattr(upload, "put", lambda *_: None)
    monkeypatch.setattr(upload, "console", console.append)
    machine.seal = result(failed=("seal-apt",))
    assert main.main(["--parameters", str(written(tmp_path, keep=keep))]) == 1
    assert (["systemctl", "--no-block", "poweroff"] in commands) == powered_off
    assert any("kept to be looked at" in line for line in console) == keep


def test_image_must_apply_without_a_change(machine: RecordedCalls, tmp_path: Path) -> None:
    (tmp_path / "payload.sha256").write_text("cd" * 32 + "\n")
    report = Report()
    machine.applies = [result()]
    assert run(tmp_path, report, mode="verify") == ""
    assert report.boot_to_ready_seconds == 4.5
    assert "salt" not in machine.done
    assert "apply transcribe.seal" not in machine.done
    machine.applies = [result(changed=("x",))]
    assert "changed 1: x" in run(tmp_path, Report(), mode="verify")


def test_digest_of_an_image_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "payload.sha256").write_text("cd" * 32 + "\n")
    given = parameters.load(written(tmp_path, mode="verify", payload=None), tmp_path / "payload.sha256")
    assert given.payload_sha256 == "cd" * 32
    assert parameters.load(written(tmp_path, mode="verify"), tmp_path / "none").payload_sha256 == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "not valid JSON"), ("{}", "lacks 'mode'"), ('{"mode": "x"}', "mode is 'x'"), ("[]", "lacks")],
)
def test_bad_parameters_are_one_line(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "parameters.json"
    path.write_text(text)
    with pytest.raises(DriverError, match=reason):
        parameters.load(path, tmp_path / "none")


def test_addresses_and_nonce_are_never_printed(tmp_path: Path) -> None:
    given = parameters.load(written(tmp_path), tmp_path / "none")
    assert not [secret for secret in parameters.secrets(given) if secret in repr(given)]


def test_console_line_vouches_for_the_report(tmp_path: Path) -> None:
    given = parameters.load(written(tmp_path), tmp_path / "none")
    document = Report().document(given, "failure", "why")
    assert json.loads(document)["reason"] == "why"
    digest = hashlib.sha256(document).hexdigest()
    assert marker(given, "failure", document) == f"TRANSCRIBE-BAKE b-1 nonce-nonce failure {digest}"


def test_progress_is_what_the_launcher_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: queue.Queue[dict[str, Any]] = queue.Queue()
    monkeypatch.setattr(upload, "put", lambda given, name, data, **_: sent.put(json.loads(data)))
    with upload.Progress(parameters.load(written(tmp_path), tmp_path / "none")) as progress:
        progress.update("first apply", "venv-synced", 3, 37)
        message = sent.get(timeout=5)
    assert message.pop("seconds") >= 0
    assert message == {"build_id": "b-1", "phase": "first apply", "state": "venv-synced", "done": 3, "total": 37}
    assert "progress" not in {thread.name for thread in threading.enumerate()}  # it would print over other tests


def test_no_progress_is_sent_after_the_end_however_long_renewing_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, begun, network = list[bytes](), threading.Event(), threading.Event()

    def renew(_: object) -> None:
        begun.set()
        network.wait(30)

    monkeypatch.setattr(upload, "put", lambda given, name, data, **_: sent.append(data))
    monkeypatch.setattr(upload, "renew", renew)
    monkeypatch.setattr(upload, "END_SECONDS", 0.1)
    with upload.Progress(parameters.load(written(tmp_path), tmp_path / "none")) as progress:
        monkeypatch.setattr(upload, "RENEW_SECONDS", 0.0)  # not before: with the message the time to renew has come
        progress.update("first apply")
        assert begun.wait(30)
    network.set()
    progress._thread.join(30)
    assert sent == []


def test_log_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = parameters.load(written(tmp_path), tmp_path / "none")
    log = tmp_path / "salt.log"
    log.write_text(f"PUT {given.address('report')} nonce {given.nonce}\n")
    monkeypatch.setattr(salt_call, "LOG", log)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "journalctl").write_text("#!/bin/sh\necho journal\n")
    (tmp_path / "journalctl").chmod(0o755)
    text = main._log(given).decode()
    assert "journal" in text
    assert re.search(r"PUT \*\*\* nonce \*\*\*", text)


def test_addresses_are_fetched_anew_so_that_they_outlive_the_credentials(tmp_path: Path, server: UploadServer) -> None:
    given = parameters.load(written(tmp_path), tmp_path / "none")
    renewed = {**ADDRESSES, "addresses_url": f"{server.url}/addresses", "report_url": f"{server.url}/second"}
    given.addresses.write_text(json.dumps({**ADDRESSES, "addresses_url": f"{server.url}/addresses"}))
    server.files["/addresses"] = json.dumps(renewed).encode()
    upload.renew(given)
    assert given.address("report") == f"{server.url}/second"
    server.files["/addresses"] = b"<Error><Code>ExpiredToken</Code></Error>"
    upload.renew(given)
    assert given.address("report") == f"{server.url}/second"


def test_a_success_is_held_on_to_until_it_can_be_delivered(
    tmp_path: Path, server: UploadServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = parameters.load(written(tmp_path), tmp_path / "none")
    given.addresses.write_text(
        json.dumps({"addresses_url": f"{server.url}/addresses", "report_url": "http://x.invalid/"})
    )
    renewed = {"addresses_url": f"{server.url}/addresses", "report_url": f"{server.url}/report"}
    monkeypatch.setattr(upload, "CONSOLE", tmp_path / "console")
    monkeypatch.setattr(main, "_log", lambda given: b"log")
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if seconds == main.HOLD_SECONDS:  # the launcher renews them meanwhile
            server.files["/addresses"] = json.dumps(renewed).encode()

    monkeypatch.setattr(time, "sleep", sleep)
    main._deliver(given, Report(), "success", "")
    assert json.loads(server.body("/report"))["verdict"] == "success"
    assert "TRANSCRIBE-BAKE b-1 nonce-nonce success" in (tmp_path / "console").read_text()
    assert (tmp_path / "told").exists()
