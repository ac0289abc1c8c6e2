"""`verify RECORD AUDIO`: whether a signed record is genuine, and of this recording. One line for each check."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from transcribe.records import RecordError, summary, verify

EXIT_BAD = 1
EXIT_USAGE = 2
PROGRAM = "transcribe_optimized.py verify"


def run(arguments: Sequence[str]) -> int:
    """The command; returns its exit code: 0 if every check is good."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Check the signed record of a result.")
    parser.add_argument(
        "record", type=Path, metavar="RECORD", help="as /v1/jobs/ID/record gives it, or an answer with it"
    )
    parser.add_argument("audio", type=Path, metavar="AUDIO", help="the recording, as it was sent")
    parser.add_argument(
        "--key", default="", help="the machine's public key, as /v1/machine-key gave it at another time"
    )
    parser.add_argument("--text", type=Path, metavar="FILE", help="the text, as plain text, to be checked as well")
    options = parser.parse_args(arguments)
    try:
        signed = json.loads(options.record.read_text(encoding="utf-8"))
        signed = signed.get("record", signed) if isinstance(signed, dict) else signed
        checks = verify(signed, options.audio, key=options.key, text=options.text)
    except RecordError as error:
        return _fail(f"{options.record}: {error}")
    except (ValueError, RecursionError):
        return _fail(f"{options.record}: this is no JSON")
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}")
    print(*checks, sep="\n")
    if not all(check.good for check in checks):
        return EXIT_BAD
    print(summary(signed))
    if not options.key:
        print("Which machine signed was not checked: name its key with --key.")
    return 0


def _fail(message: str) -> int:
    print(f"{PROGRAM}: {message}", file=sys.stderr)
    return EXIT_USAGE
