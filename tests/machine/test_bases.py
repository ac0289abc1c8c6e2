"""A bake on each of the other systems that a source image may hold; minutes for each: `./tests/run bases`."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from localcloud import BASES, DEFAULT_BASE, LocalCloud
from support.baked_machine import DISK, ROOT
from support.recordings import FORMS

pytestmark = pytest.mark.bases
SECONDS = 3000
# Run on an image's disk: its ffmpeg makes the clip in each form, and the service decodes that.
DECODED = """
import subprocess, sys, tempfile
from pathlib import Path
from types import SimpleNamespace
sys.path.insert(0, "/opt/transcribe/scripts")
from transcribe.audio.decoder import Decoder
limits = SimpleNamespace(audio_seconds=60, decode_seconds=60, decode_bytes=512 << 20)
clip = "/srv/transcribe/service/clips/verify.flac"
for name, options in FORMS.items():
    path = Path(tempfile.mkdtemp(), f"clip.{name}")
    subprocess.run(["ffmpeg", "-loglevel", "error", "-i", clip, *options, path], check=True)
    with Decoder(path, limits) as decoder:
        print(name, round(sum(map(len, decoder)) / 16_000, 1), *decoder.warnings)
"""
CLIP_SECONDS = 7.1


def rehearse(base: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Bake on a base, whatever there is already; the report, and the events."""
    command = [sys.executable, str(ROOT / "tools/bake.py"), "rehearse", f"--base={base}", "--force", "--json"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode == 2 and "pip cannot look for" in done.stderr and os.environ.get("CI") != "true":
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, f"the rehearsal failed:\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}"
    LocalCloud.ensure(ROOT)
    report = json.loads((ROOT / "bake-report.json").read_text())
    return report, [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("base", [name for name in BASES if name != DEFAULT_BASE])
def test_a_bake_on_it_verifies_and_changes_nothing_twice(
    able: None, base: str, capfd: pytest.CaptureFixture[str]
) -> None:
    report, events = rehearse(base)
    assert report["source_image"]["name"].startswith(BASES[base].image_name)
    for machine in ("baked", "verified"):
        assert {check["verdict"] for check in report[machine]["checks"]} == {"pass"}
        assert report[machine]["salt"]["second"]["changed"] == 0
    if base == "ubuntu-like":
        steps = {event["state"] for event in events if event["event"] == "step"}
        assert any("waiting for boot-updates" in state for state in steps), "the bake met no locks"
    capfd.readouterr()
    program = f"FORMS = {FORMS!r}\n{DECODED}"
    LocalCloud.shell(ROOT, report["image"]["id"], ["/opt/transcribe/venv/bin/python", "-c", program], boot=False)
    lengths = dict(line.split(maxsplit=1) for line in capfd.readouterr().out.splitlines())
    assert lengths.keys() == FORMS.keys()
    assert {name: told for name, told in lengths.items() if abs(float(told) - CLIP_SECONDS) > 0.2} == {}
    LocalCloud.shell(ROOT, report["image"]["id"], ["bash", "-c", DISK], boot=False)
    assert capfd.readouterr().out.splitlines() == ["machine-id 0", f"payload {report['payload']['sha256']}"]
