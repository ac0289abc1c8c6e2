"""What the driver does: bake this machine, or verify a machine started from an image. Each is a list of phases."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from driver import apt, disk, install_salt, look, salt_call, salt_output, systemd, upload
from driver.parameters import DriverError, Parameters, SampleAudio
from driver.report import Report

SOURCE = Path("/srv/transcribe")
AUDIO = Path("/run/transcribe-bake/audio")
SEAL = "transcribe.seal"


class PhaseRunner:
    """Runs the phases, fills `report` and sends progress to the launcher."""

    def __init__(self, parameters: Parameters, report: Report, progress: upload.Progress) -> None:
        self.parameters = parameters
        self.report = report
        self.phase = ""
        self._progress = progress

    def bake(self) -> None:
        """From a plain machine to a sealed one; raises DriverError at the first failure."""
        with self._phase("look"):
            disk.require_room(self.parameters.origin.get("lock", ""))
            apt.wait_until_quiet(self._say)
        with self._phase("install Salt"):
            install_salt.install_salt(SOURCE, self._say)
        with self._phase("compile states"):
            plan = salt_call.plan()
        with self._phase("first apply"):
            self._apply("first", plan)
        with self._phase("second apply"):
            self._apply("second", plan)
            refuse_changes(self.report.salt["second"])
        with self._phase("verify"):
            self._verify()
        with self._phase("manifest"):
            self._write_manifest()
        with self._phase("seal"):
            check(salt_call.apply(salt_output.HighstatePlan({}), self._show, SEAL), "the seal")
        os.sync()  # a spot machine cannot be stopped: its image is made while it runs

    def look(self) -> None:
        """Only look whether a bake could succeed here."""
        with self._phase("look"):
            self.report.facts = look.facts(self.parameters.origin)

    def verify(self) -> None:
        """Prove that a machine started from an image is what was baked; raises DriverError."""
        with self._phase("boot to ready"):
            self.report.boot_to_ready_seconds = systemd.wait_ready()
        with self._phase("compile states"):
            plan = salt_call.plan()
        with self._phase("apply"):
            self._apply("second", plan)
            refuse_changes(self.report.salt["second"])
        with self._phase("verify"):
            self._verify()
            self.report.manifest = _manifest(salt_call.call("transcribe_manifest.read"))
        if self.parameters.audio:
            with self._phase("audio"):
                self._transcribe(self.parameters.audio)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        self.phase = name
        self._say("")
        print(f"phase: {name}", flush=True)
        with self.report.timed(name):
            yield

    def _say(self, text: str) -> None:
        self._show(text, 0, 0)

    def _show(self, state: str, done: int, total: int) -> None:
        self._progress.update(self.phase, state, done, total)

    def _apply(self, name: str, plan: salt_output.HighstatePlan) -> None:
        result = salt_call.apply(plan, self._show)
        self.report.salt[name] = result
        check(result, f"the {name} apply")

    def _verify(self) -> None:
        found = salt_call.call("transcribe.verify")
        if not isinstance(found, dict) or not found.get("checks"):
            raise DriverError(f"transcribe.verify returned no checks: {str(found)[:300]}")
        self.report.checks, self.report.clip, self.report.facts = found["checks"], found["clip"], found["facts"]
        failed = [f"{check['name']}: {check['detail']}" for check in found["checks"] if check["verdict"] != "pass"]
        if failed:
            raise DriverError(f"{len(failed)} of {len(found['checks'])} checks failed: {'; '.join(failed)}")

    def _write_manifest(self) -> None:
        origin = {**self.parameters.origin, "payload_sha256": self.parameters.payload_sha256}
        self.report.manifest = _manifest(salt_call.call("transcribe_manifest.write", f"origin={json.dumps(origin)}"))

    def _transcribe(self, audio: SampleAudio) -> None:
        path = AUDIO.with_suffix(audio.suffix)
        upload.get(self.parameters.address("audio"), path)
        arguments = (str(path), f"language={audio.language}")
        answer: dict[str, Any] = salt_call.call("transcribe_http.transcribe", *arguments)
        path.unlink()
        if "text" not in answer:
            raise DriverError(f"the audio file was not transcribed: {answer.get('error', answer)}")
        self.report.audio = answer


def _manifest(answer: Any) -> dict[str, Any]:
    if not isinstance(answer, dict) or "schema" not in answer:
        raise DriverError(f"no manifest: {str(answer)[:300]}")
    return answer


def check(result: dict[str, Any], what: str) -> None:
    """Raises DriverError unless every state of an apply succeeded, and there was one."""
    if not result["states"]:
        raise DriverError(f"{what} ran no states")
    if result["failed"]:
        raise DriverError(f"{what} failed: {salt_output.first_reason(result)}")


def refuse_changes(result: dict[str, Any]) -> None:
    """Raises DriverError if an apply changed anything on a machine that should already be converged."""
    changed = [state["id"] for state in result["results"] if state["changed"]]
    if changed:
        raise DriverError(f"an apply must change nothing here, but it changed {len(changed)}: {', '.join(changed)}")
