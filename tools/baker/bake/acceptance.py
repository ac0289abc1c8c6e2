"""Decides from a machine's signal alone whether it is a success, in one pure function."""

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jiwer

from baker.errors import RejectedError

SCHEMA = 1
BAKE, VERIFY, LOOK = "bake", "verify", "look"


@dataclass(frozen=True)
class ExpectedSignal:
    """What the signal of one machine must match, and what it must have achieved."""

    build_id: str  # MachineAttempt.id
    nonce: str
    mode: str
    payload_sha256: str
    reference: str  # the words of the clip
    max_word_error_rate: float


@dataclass(frozen=True)
class AcceptedSignal:
    """A signal that passed, and the word error rate of its transcript of the clip."""

    report: Mapping[str, Any]
    word_error_rate: float


def accept(raw: bytes, expected: ExpectedSignal) -> AcceptedSignal:
    """The parsed report, if it is this build's and says that everything is right; raises RejectedError otherwise.

    Identity is checked first: of another machine's report nothing else matters.
    """
    report = _parse(raw)
    _check_identity(report, expected)
    if report.get("verdict") != "success":
        raise RejectedError(f"the machine reports a failure: {_line(report.get('reason')) or 'without a reason'}")
    _check_salt(report.get("salt"), expected.mode)
    _check_checks(report.get("checks"))
    return AcceptedSignal(report, _check_clip(report.get("clip"), expected))


def word_error_rate(reference: str, transcript: str) -> float:
    """Word error rate without regard to case and punctuation; 1.0 for an empty transcript."""
    if not normal(transcript):
        return 1.0
    return float(jiwer.wer(normal(reference), normal(transcript)))


def normal(text: str) -> str:
    """Lower case, words only, single spaces; apostrophes inside words stay."""
    kept = "".join(c if c.isalnum() or c in "'’" else " " for c in text.lower())
    return " ".join(kept.replace("’", "'").split())


def _parse(raw: bytes) -> Mapping[str, Any]:
    try:
        report = json.loads(raw)
    except ValueError:
        raise RejectedError("the signal is not valid JSON") from None
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise RejectedError(f"the signal is not a report of schema {SCHEMA}")
    return report


def _check_identity(report: Mapping[str, Any], expected: ExpectedSignal) -> None:
    if report.get("build_id") != expected.build_id:
        raise RejectedError(f"the signal is another build's: {_line(report.get('build_id'))}, not {expected.build_id}")
    nonce = report.get("nonce")
    if not isinstance(nonce, str) or not hmac.compare_digest(nonce.encode(), expected.nonce.encode()):
        raise RejectedError("the signal does not carry this build's nonce")
    if report.get("mode") != expected.mode:
        raise RejectedError(f"the signal is of mode {_line(report.get('mode'))}, not {expected.mode}")
    if report.get("payload_sha256") != expected.payload_sha256:
        raise RejectedError("the machine was built from another payload: its digest differs")


def _check_salt(salt: object, mode: str) -> None:
    """A bake applies twice; a machine that booted from the image only needs the apply that changes nothing."""
    if not isinstance(salt, Mapping):
        raise RejectedError("the signal has no Salt result")
    for name in ("first", "second") if mode == BAKE else ("second",):
        result = salt.get(name)
        if not isinstance(result, Mapping) or not _count(result.get("states")):
            raise RejectedError(f"the {name} apply ran no states")
        failed = result.get("failed")
        if not isinstance(failed, list):
            raise RejectedError(f"the {name} apply does not say what failed")
        if failed:
            raise RejectedError(f"the {name} apply failed: {'; '.join(_failure(item) for item in failed)}")
    changed = salt["second"].get("changed")
    if not isinstance(changed, int) or isinstance(changed, bool):
        raise RejectedError("the second apply does not say how much it changed")
    if changed:
        raise RejectedError(f"the second apply changed {changed} states; it must change none")


def _check_checks(checks: object) -> None:
    if not isinstance(checks, list) or not checks or not all(isinstance(check, Mapping) for check in checks):
        raise RejectedError("the signal has no checks")
    failed = [check for check in checks if check.get("verdict") != "pass"]
    if failed:
        named = "; ".join(f"{_line(check.get('name'))}: {_line(check.get('detail'))}" for check in failed)
        raise RejectedError(f"{len(failed)} of {len(checks)} checks failed: {named}")


def _check_clip(clip: object, expected: ExpectedSignal) -> float:
    if not isinstance(clip, Mapping) or not isinstance(clip.get("text"), str):
        raise RejectedError("the signal has no transcript of the clip")
    rate = word_error_rate(expected.reference, clip["text"])
    if rate > expected.max_word_error_rate:
        raise RejectedError(
            f"the clip's word error rate is {rate:.0%}, above {expected.max_word_error_rate:.0%}: "
            f"heard {_line(clip['text'])!r}"
        )
    return rate


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _failure(item: object) -> str:
    if not isinstance(item, Mapping):
        return _line(item)
    return f"{_line(item.get('id'))}: {_line(item.get('comment'))}"


def _line(value: object) -> str:
    """Anything as one printable line of bounded length: a report's words come from a machine."""
    text = " ".join(str("" if value is None else value).split())
    return "".join(c for c in text if c.isprintable())[:300]
