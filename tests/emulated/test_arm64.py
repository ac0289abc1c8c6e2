"""The engine on 64-bit ARMs, emulated: slow, but with the same instructions, so that what it says is what they say."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from localcloud.hub.models import model_dir
from support import arm64

pytestmark = pytest.mark.emulated

HERE = Path(__file__).resolve().parent
CLIPS = [str(path) for path in sorted((HERE.parent / "audio").glob("*.flac"))]
MODEL = "whisper-base"  # whisper-tiny.en wavers between "disposed" and "sposed" from one order of sums to another
LATE = 0.06  # seconds that a word's times may be apart: the sums of floats are not of one order


every_processor = pytest.mark.parametrize(
    "instructions", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in arm64.PROCESSORS]
)


@every_processor
def test_the_kernels_are_right(instructions: str) -> None:
    """By their own tests."""
    said = arm64.run(instructions, "-c", "from transcribe.engine.cpu import library; print(library.instructions())")
    assert said == f"{instructions}\n"
    tests = [f"tests/unit/service/test_engine_{part}.py" for part in ("kernels", "int8", "cross_attention")]
    said = arm64.run(instructions, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests)
    assert "passed" in said
    assert "skipped" not in said


def heard(said: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.splitlines()]


@every_processor
def test_the_tokens_are_those_of_this_processor(instructions: str, tmp_path: Path) -> None:
    program = [str(HERE / "hear.py"), str(model_dir(MODEL))]
    env = {**os.environ, "PYTHONPATH": str(arm64.ROOT / "service")}
    command = [sys.executable, *program, str(tmp_path), *CLIPS]
    here = heard(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)
    there = heard(arm64.run(instructions, *program, str(arm64.kernels(instructions).parent), *CLIPS))
    assert [one["tokens"] for one in there] == [one["tokens"] for one in here]
    for mine, theirs in zip(here, there, strict=True):
        for (word, begin, end), (other, started, ended) in zip(mine["words"], theirs["words"], strict=True):
            assert (word, begin, end) == (other, pytest.approx(started, abs=LATE), pytest.approx(ended, abs=LATE))
