#!/usr/bin/env python3
"""The driver: bakes or verifies the machine it runs on, as its parameters say, and reports to the launcher.

A success leaves the machine running for the launcher; a failure powers it off, unless it is to be kept.

main.py --parameters FILE
"""

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from driver import phases, salt_call, upload
from driver.parameters import BAKE, LOOK, VERIFY, DriverError, Parameters, load, secrets
from driver.report import FAILURE, SUCCESS, Report, marker

UNITS = ("transcribe-bake", "transcribe-api", "transcribe-worker", "cloud-final")
LOG_LINES = 3000  # of the journal
DEADLINE = Path("/run/transcribe-bake/deadline")  # is there once the deadline has passed
HOLD_SECONDS = 30.0  # between tries to deliver the report of a success


def main(arguments: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=Path, required=True)
    path = parser.parse_args(arguments).parameters
    signal.signal(signal.SIGTERM, _terminated)
    try:
        parameters = load(path, phases.SOURCE / "payload.sha256")
    except DriverError as error:
        print(error, file=sys.stderr, flush=True)  # the bootstrap reports it
        return 1
    report = Report()
    reason = _run(parameters, report)
    verdict = FAILURE if reason else SUCCESS
    _deliver(parameters, report, verdict, reason)
    if reason and parameters.keep:
        upload.console("transcribe-bake: kept to be looked at, until the deadline")
    elif reason:
        _power_off()
    return int(bool(reason))


def _run(parameters: Parameters, report: Report) -> str:
    """Run all phases; returns why one failed, '' if none did."""
    with upload.Progress(parameters) as progress:
        runner = phases.PhaseRunner(parameters, report, progress)
        try:
            {BAKE: runner.bake, VERIFY: runner.verify, LOOK: runner.look}[parameters.mode]()
        except DriverError as error:
            return f"{runner.phase}: {error}"
        except Exception as error:  # a bug in the driver must be reported as well
            return f"{runner.phase}: {type(error).__name__}: {error}"
    return ""


def _deliver(parameters: Parameters, report: Report, verdict: str, reason: str) -> None:
    """Upload the log, then the report, on which the launcher acts; then print the console line."""
    print(f"verdict: {verdict} {reason}", flush=True)
    document = report.document(parameters, verdict, reason)
    _put(parameters, "log", _log(parameters))
    delivered = _put(parameters, "report", document)
    parameters.addresses.with_name("told").touch()  # so the bootstrap need not tell that this program died
    if reason:
        upload.console(f"transcribe-bake: {reason}")
    upload.console(marker(parameters, verdict, document))
    while verdict == SUCCESS and not delivered:  # until the deadline: the launcher may renew the addresses
        time.sleep(HOLD_SECONDS)
        upload.renew(parameters)
        delivered = _put(parameters, "report", document)


def _put(parameters: Parameters, what: str, data: bytes) -> bool:
    """Upload to one of the addresses; returns whether that succeeded."""
    try:
        upload.put(parameters, what, data)
    except DriverError as error:
        print(f"{what}: {error}", flush=True)
        return False
    return True


def _log(parameters: Parameters) -> bytes:
    """The journal and Salt's log, with the launcher's secrets masked."""
    command = ["journalctl", "--no-pager", "--boot", f"--lines={LOG_LINES}", *(f"--unit={unit}" for unit in UNITS)]
    journal = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace").stdout
    salt = salt_call.LOG.read_text(errors="replace") if salt_call.LOG.exists() else ""
    text = f"===== journal =====\n{journal}\n===== salt =====\n{salt}"
    for secret in secrets(parameters):
        text = text.replace(secret, "***")
    return text.encode()[-upload.LOG_BYTES :]


def _terminated(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if DEADLINE.exists():
        raise DriverError("the machine's deadline has passed")
    raise DriverError("somebody on the machine stopped the bake (SIGTERM)")


def _power_off() -> None:
    subprocess.run(["sync"], check=False)
    subprocess.run(["systemctl", "--no-block", "poweroff"], check=False)


if __name__ == "__main__":
    sys.exit(main())
