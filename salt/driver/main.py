#!/usr/bin/env python3
"""Runs a machine's errand and reports it. Success leaves the machine up for the launcher; failure powers it
off, unless it is to be kept.

main.py --parameters FILE
"""

import argparse
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from driver import parameters, phases, salt_call, upload
from driver.parameters import DriverError, Parameters
from driver.report import FAILURE, SUCCESS, Report, marker

UNITS = ("transcribe-bake", "transcribe-api", "transcribe-worker", "cloud-final")
LOG_LINES = 3000  # of the journal


def main(arguments: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=Path, required=True)
    path = parser.parse_args(arguments).parameters
    signal.signal(signal.SIGTERM, _deadline)
    try:
        told = parameters.load(path, phases.SOURCE / "payload.sha256")
    except DriverError as error:
        upload.console(f"transcribe-bake: {error}")
        _power_off()
        return 1
    report = Report()
    reason = _run(told, report)
    verdict = FAILURE if reason else SUCCESS
    _deliver(told, report, verdict, reason)
    if reason and told.keep:
        upload.console("transcribe-bake: kept to be looked at, until the deadline")
    elif reason:
        _power_off()
    return int(bool(reason))


def _run(told: Parameters, report: Report) -> str:
    """Do the errand; returns why it failed, nothing if it did not."""
    errand = phases.Errand(told, report, upload.Progress(told))
    try:
        if told.mode == parameters.BAKE:
            errand.bake()
        else:
            errand.verify()
    except DriverError as error:
        return f"{errand.phase}: {error}"
    except Exception as error:  # a defect of the driver must be heard of as well
        return f"{errand.phase}: {type(error).__name__}: {error}"
    return ""


def _deliver(told: Parameters, report: Report, verdict: str, reason: str) -> None:
    """Log, report and console line, in this order: the launcher acts on the report."""
    print(f"verdict: {verdict} {reason}", flush=True)
    document = report.document(told, verdict, reason)
    for what, url, data in (("log", told.log_url, _log(told)), ("report", told.report_url, document)):
        try:
            upload.put(url, data)
        except DriverError as error:
            print(f"{what}: {error}", flush=True)
    upload.console(marker(told, verdict, document))


def _log(told: Parameters) -> bytes:
    """What happened here, without the launcher's secrets."""
    command = ["journalctl", "--no-pager", "--boot", f"--lines={LOG_LINES}", *(f"--unit={unit}" for unit in UNITS)]
    journal = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace").stdout
    salt = salt_call.LOG.read_text(errors="replace") if salt_call.LOG.exists() else ""
    text = f"===== journal =====\n{journal}\n===== salt =====\n{salt}"
    for secret in parameters.secrets(told):
        text = text.replace(secret, "***")
    return text.encode()[-upload.LOG_BYTES :]


def _deadline(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise DriverError("the machine's deadline has passed")


def _power_off() -> None:
    subprocess.run(["sync"], check=False)
    subprocess.run(["systemctl", "--no-block", "poweroff"], check=False)


if __name__ == "__main__":
    sys.exit(main())
