"""The page of a bake: every phase and every long state is a bar where it belongs, and nothing is fetched."""

import re
from typing import Any
from xml.etree import ElementTree

from baker.bake import timeline

RESULTS = [
    {"id": "layout-root", "result": True, "changed": True, "seconds": 0.1, "began": 0.0},
    {"id": "venv-synced", "result": True, "changed": True, "seconds": 60.0, "began": 1.0},
    {"id": "packages-media", "result": True, "changed": True, "seconds": 20.0, "began": 2.0},
]
MACHINE = {
    "phases": [{"name": "install Salt", "seconds": 10.0}, {"name": "first apply", "seconds": 65.0}],
    "salt": {"first": {"results": RESULTS}, "second": {"changed": 0}},
    "checks": [{"name": "health", "verdict": "pass", "detail": "<script>"}],
    "clip": {"text": " Heard & written "},
    "word_error_rate": 0.05,
    "bytes": {"disk": 1000, "venv": 500, "models": 300, "salt": 100},
    "facts": {"torch": "2.13"},
    "boot_to_ready_seconds": 4.25,
}
REPORT: dict[str, Any] = {
    "finished": "2026-01-01T00:00:00+00:00",
    "image": {"id": "ami-1", "name": "transcribe-1"},
    "seconds": 130.0,
    "phases": [
        {"name": "plan", "seconds": 5.0},
        {"name": "bake on the machine", "seconds": 100.0},
        {"name": "verify on the image", "seconds": 25.0},
    ],
    "baked": MACHINE,
    "verified": {**MACHINE, "phases": [{"name": "boot to ready", "seconds": 20.0}]},
    "reference": "Read & written",
    "model": {"id": "a/m", "commit": "c" * 40},
    "source_image": {"id": "ami-0", "name": "debian"},
    "payload": {"sha256": "a" * 64},
    "content_hash": "b" * 64,
}


def test_each_span_begins_where_it_did() -> None:
    bars = list(timeline.bars(REPORT))
    assert [(bar.began, bar.seconds) for bar in bars if bar.label == "boot, cloud-init"] == [(5.0, 25.0), (105.0, 5.0)]
    told = {bar.label: (bar.kind, bar.began, bar.seconds) for bar in bars if bar.label != "boot, cloud-init"}
    assert told == {
        "plan": ("launcher", 0.0, 5.0),
        "bake on the machine": ("launcher", 5.0, 100.0),
        "install Salt": ("machine", 30.0, 10.0),
        "first apply": ("machine", 40.0, 65.0),
        "venv-synced": ("state", 45.0, 60.0),
        "packages-media": ("state", 46.0, 20.0),
        "1 more states": ("state", 44.0, 0.1),
        "verify on the image": ("launcher", 105.0, 25.0),
        "boot to ready": ("machine", 110.0, 20.0),
    }


def test_the_page_is_one_file_with_the_verdict_first() -> None:
    page = timeline.html(REPORT)
    assert not re.search(r"[{}]{2}|{%", page)
    assert not re.search(r"https?://|<script|src=|@import", page)
    for words in ("2 of 2", "5.0%", "4.2 s", "Heard &amp; written", "&lt;script&gt;", "packages of the service"):
        assert words in page
    for svg in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        bars = ElementTree.fromstring(svg).findall(".//rect")
        assert all(0 <= float(bar.attrib["x"]) <= timeline.WIDTH for bar in bars)


def test_a_machine_that_reported_little_still_makes_a_page() -> None:
    assert "the machine did not report its sizes" in timeline.html(
        {**REPORT, "baked": None, "verified": None, "phases": []}
    )
