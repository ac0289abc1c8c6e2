"""A signal is a success only by its content: each way in which it can be something else is refused, and said."""

import json
from copy import deepcopy
from typing import Any

import pytest
from baker.bake import acceptance
from baker.errors import RejectedError

REFERENCE = "And Mr. John Dashwood had then leisure to consider how much there might be"
EXPECTED = acceptance.ExpectedSignal("b1-bake", "n" * 32, acceptance.BAKE, "d" * 64, REFERENCE, 0.3)
APPLY = {"states": 30, "changed": 28, "failed": [], "seconds": 60.0, "results": []}
GOOD: dict[str, Any] = {
    "schema": 1,
    "build_id": "b1-bake",
    "nonce": "n" * 32,
    "mode": "bake",
    "payload_sha256": "d" * 64,
    "verdict": "success",
    "reason": "",
    "phases": [],
    "salt": {"first": APPLY, "second": {**APPLY, "changed": 0}},
    "checks": [{"name": "api-unit", "verdict": "pass", "detail": "active"}],
    "clip": {"text": REFERENCE, "audio_seconds": 7.0, "seconds": 3.0},
    "audio": None,
    "boot_to_ready_seconds": None,
    "facts": {},
}


def altered(path: str, value: Any) -> bytes:
    """The good report with one value replaced; `path` as in `salt.first.states`."""
    report = deepcopy(GOOD)
    inner = report
    *parents, last = path.split(".")
    for key in parents:
        inner = inner[key]
    inner[last] = value
    return json.dumps(report).encode()


def test_a_good_signal_is_accepted_and_its_hearing_measured() -> None:
    accepted = acceptance.accept(json.dumps(GOOD).encode(), EXPECTED)
    assert accepted.word_error_rate == 0
    assert accepted.report["checks"][0]["name"] == "api-unit"


FAILED_STATE = [{"id": "venv-sync", "comment": "no\nroom"}]
FAILED_CHECK = [
    {"name": "api-unit", "verdict": "pass"},
    {"name": "cache", "verdict": "fail", "detail": "no cache_info"},
]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[]", "not a report of schema 1"),
        (altered("schema", 2), "not a report of schema 1"),
        (altered("build_id", "b0-bake"), "another build's: b0-bake, not b1-bake"),
        (altered("build_id", None), "another build's"),
        (altered("nonce", "m" * 32), "this build's nonce"),
        (altered("nonce", ""), "this build's nonce"),
        (altered("nonce", None), "this build's nonce"),
        (altered("nonce", ["n" * 32]), "this build's nonce"),
        (altered("mode", "verify"), "of mode verify, not bake"),
        (altered("payload_sha256", "e" * 64), "from another payload"),
        (altered("payload_sha256", None), "from another payload"),
        (altered("verdict", "failure"), "reports a failure: without a reason"),
        (altered("verdict", None), "reports a failure"),
        (altered("verdict", True), "reports a failure"),
        (altered("salt", None), "no Salt result"),
        (altered("salt.first", None), "the first apply ran no states"),
        (altered("salt.first.states", 0), "the first apply ran no states"),
        (altered("salt.first.states", True), "the first apply ran no states"),
        (altered("salt.first.failed", FAILED_STATE), "the first apply failed: venv-sync: no room"),
        (altered("salt.first.failed", None), "does not say what failed"),
        (altered("salt.second.states", 0), "the second apply ran no states"),
        (altered("salt.second.failed", FAILED_STATE), "the second apply failed: venv-sync: no room"),
        (altered("salt.second.changed", 1), "the second apply changed 1 states"),
        (altered("salt.second.changed", None), "does not say how much it changed"),
        (altered("salt.second.changed", False), "does not say how much it changed"),
        (altered("checks", []), "no checks"),
        (altered("checks", None), "no checks"),
        (altered("checks", FAILED_CHECK), "1 of 2 checks failed: cache: no cache_info"),
        (altered("checks", [{"name": "x"}]), "1 of 1 checks failed"),
        (altered("clip", None), "no transcript"),
        (altered("clip.text", None), "no transcript"),
        (altered("clip.text", ""), "word error rate is 100%, above 30%"),
        (altered("clip.text", "Something else entirely"), "above 30%: heard 'Something else entirely'"),
    ],
)
def test_everything_else_is_refused_in_one_line(raw: bytes, words: str) -> None:
    with pytest.raises(RejectedError) as caught:
        acceptance.accept(raw, EXPECTED)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_reason_of_a_failure_is_told_in_one_printable_line() -> None:
    report = {**GOOD, "verdict": "failure", "reason": "apply:\n  venv-sync \x1b[31mfailed"}
    with pytest.raises(RejectedError, match=r"failure: apply: venv-sync .31mfailed$"):
        acceptance.accept(json.dumps(report).encode(), EXPECTED)


def test_a_replayed_signal_of_an_earlier_bake_is_refused() -> None:
    earlier = acceptance.ExpectedSignal("b0-bake", "o" * 32, acceptance.BAKE, "d" * 64, REFERENCE, 0.3)
    report = json.dumps({**GOOD, "build_id": "b0-bake", "nonce": "o" * 32}).encode()
    acceptance.accept(report, earlier)
    with pytest.raises(RejectedError, match="another build's"):
        acceptance.accept(report, EXPECTED)
    renamed = json.dumps({**GOOD, "nonce": "o" * 32}).encode()
    with pytest.raises(RejectedError, match="nonce"):
        acceptance.accept(renamed, EXPECTED)


def test_a_booted_image_needs_only_the_apply_that_changes_nothing() -> None:
    verify = acceptance.ExpectedSignal("b1-verify", "n" * 32, acceptance.VERIFY, "d" * 64, REFERENCE, 0.3)
    report = {
        **GOOD,
        "build_id": "b1-verify",
        "mode": "verify",
        "salt": {"first": None, "second": GOOD["salt"]["second"]},
    }
    acceptance.accept(json.dumps(report).encode(), verify)
    report["salt"]["second"] = {**GOOD["salt"]["second"], "changed": 2}
    with pytest.raises(RejectedError, match="changed 2 states"):
        acceptance.accept(json.dumps(report).encode(), verify)


@pytest.mark.parametrize(
    ("heard", "rate"),
    [
        ("and mr john dashwood had then leisure to consider how much there might be.", 0.0),
        ("And Mr. John Dashwood had then leisure, to consider how MUCH there might be", 0.0),
        ("And Mr. John Dashwood had then leisure to consider how much there might", 1 / 14),
        ("", 1.0),
        ("...", 1.0),
    ],
)
def test_word_error_rate_ignores_case_and_punctuation(heard: str, rate: float) -> None:
    assert acceptance.word_error_rate(REFERENCE, heard) == pytest.approx(rate)
