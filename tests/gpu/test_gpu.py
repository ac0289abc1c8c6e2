"""What only a real GPU can show, on any machine with one: `./tests/run gpu`. No root, no network; minutes.

GPU_MODEL names the folder of a Whisper in transformers' form (default: Whisper-base, which is fetched once). Recordings
are the WAVs in GPU_AUDIO (default: those of tests/audio). GPU_DEVICE=cpu runs the same, with few clips and the captures
emulated, where there is no GPU: that shows that these tests work, and nothing else.
"""

import os
import subprocess
import sys
import wave
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support import graph_memory, worker_fixture
from support.torch_kernels import TorchKernels
from transcribe.engine import Chunk, ChunkResult, Engine
from transcribe.engine.cuda import graphs
from transcribe.engine.decode.batch import Batch
from transcribe.engine.decode.scheduler import Scheduler
from transcribe.engine.model import whisper
from transcribe.types import SAMPLE_RATE, DecodeOptions

pytestmark = pytest.mark.gpu

DEVICE = os.environ.get("GPU_DEVICE", "cuda")
TINY = DEVICE == "cpu"
AUDIO = Path(__file__).resolve().parents[1] / "audio"
CLIPS = 12 if TINY else 2000
ROWS, WINDOWS = (4, 2) if TINY else (32, 16)
SAME_TOKENS = 0.98  # share: float16 decides otherwise where two are nearly as likely
MIB = 1 << 20
ENGLISH = DecodeOptions(language="en")
WORDS = DecodeOptions(language="en", words=True)

# Runs the worker; at its first step with a job the GPU's context is destroyed, once.
POISONED = """
import sys, pathlib, torch
device, mark = sys.argv.pop(1), pathlib.Path(sys.argv.pop(1))
from transcribe.worker.loop import Worker
step = Worker._step
def poisoned(self):
    if not mark.exists():
        mark.touch()
        if device == "cpu":
            raise RuntimeError("CUDA error: device-side assert triggered")
        torch.zeros(1, device=device)[torch.full((1,), 9, device=device)].sum()
    return step(self)
Worker._step = poisoned
import transcribe_optimized
sys.exit(transcribe_optimized.main(["--worker"]))
"""


@pytest.fixture(autouse=True)
def _card(monkeypatch: pytest.MonkeyPatch) -> None:
    if TINY:
        graph_memory.emulate(monkeypatch)
    elif not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU here that torch can use: nothing of this was shown")


def model_folder() -> Path:
    if os.environ.get("GPU_MODEL"):
        return Path(os.environ["GPU_MODEL"])
    from localcloud.hub.models import model_dir

    return model_dir("whisper-tiny.en" if TINY else "whisper-base")


def sounds() -> list[NDArray[np.float32]]:
    folder = os.environ.get("GPU_AUDIO")
    if not folder:
        import soundfile

        found = [soundfile.read(path, dtype="float32")[0] for path in sorted(AUDIO.glob("*.flac"))]
        return found[:2] if TINY else [*found, np.concatenate(found)[: 29 * SAMPLE_RATE]]
    return [_wav(path) for path in sorted(Path(folder).glob("*.wav"))]


def _wav(path: Path) -> NDArray[np.float32]:
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (SAMPLE_RATE, 1, 2), path
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return (samples / 32768).astype(np.float32)[: 30 * SAMPLE_RATE]


def _recorded(batch: Batch) -> None:
    graphs.record(batch, graphs.recorder(TorchKernels())(batch))


def load(folder: Path) -> Engine:
    """As the service has it, of ROWS rows."""
    if not TINY:
        return Engine.load(model_folder(), device=DEVICE, dtype="auto", max_chunks=ROWS, cache_dir=folder)
    with torch.inference_mode():
        model, _ = whisper.load(model_folder(), device="cpu", dtype="float32")
        scheduler = Scheduler(model, ROWS, windows=WINDOWS, prepare=_recorded)
    return Engine(scheduler, device="cpu", torch_dtype="", facts={"word_times": True, "steps": {"recorded": True}})


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    with pytest.MonkeyPatch.context() as patch:
        if TINY:
            graph_memory.emulate(patch)
        elif not torch.cuda.is_available():
            pytest.skip("no NVIDIA GPU here that torch can use: nothing of this was shown")
        return load(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def exact() -> list[ChunkResult]:
    """What float32 on the processor says."""
    plain = Engine.load(model_folder(), device="cpu", dtype="float32", max_chunks=4, cache_dir=None)
    return plain.transcribe([Chunk(None, sound, WORDS) for sound in sounds()])


def tokens(results: Sequence[ChunkResult]) -> list[int]:
    return [token for result in results for segment in result.segments for token in segment.tokens]


def same(one: Sequence[int], other: Sequence[int]) -> float:
    return SequenceMatcher(None, list(one), list(other), autojunk=False).ratio()


def test_the_tokens_are_those_of_float32_on_the_processor(engine: Engine, exact: list[ChunkResult]) -> None:
    found = engine.transcribe([Chunk(None, sound, WORDS) for sound in sounds()])
    share = same(tokens(found), tokens(exact))
    print(f"{share:.2%} of the tokens are those of float32")
    assert share >= SAME_TOKENS
    pairs = [
        (word, other)
        for result, expected in zip(found, exact, strict=True)
        for segment, twin in zip(result.segments, expected.segments, strict=False)
        for word, other in zip(segment.words or (), twin.words or (), strict=False)
        if word.word == other.word
    ]
    near = sum(abs(word.start - other.start) <= 0.1 for word, other in pairs)
    print(f"{near} of {len(pairs)} words begin within 0.1 s of where they do in float32")
    assert near >= 0.95 * len(pairs) > 0


def test_who_shares_the_batch_changes_nothing(engine: Engine) -> None:
    alone = [engine.transcribe([Chunk(None, sound, ENGLISH)])[0] for sound in sounds()]
    crowd = engine.transcribe([Chunk(None, sound, ENGLISH) for sound in sounds() * 3])
    assert same(tokens(crowd), tokens(alone * 3)) >= SAME_TOKENS


def test_languages_prompts_and_temperatures(engine: Engine) -> None:
    sound = sounds()[0]
    heard = engine.transcribe([Chunk(None, sound, DecodeOptions(language=None))])[0]
    assert heard.language == "en"
    options = [
        DecodeOptions(language="en", temperature=0.6),
        DecodeOptions(language="en", prompt="Sense and Sensibility"),
    ]
    assert all(tokens([result]) for result in engine.transcribe([Chunk(None, sound, each) for each in options]))
    assert engine.steps["sampled"] > 0


def test_recorded_steps_are_in_use_under_mixed_load(engine: Engine) -> None:
    before = engine.steps
    if not before["wanted"]:
        pytest.fail(f"the warm-up did not choose recorded steps: {engine.facts['steps']}")
    mixed = [
        Chunk(None, sound[: len(sound) // (1 + n % 3)], (ENGLISH, WORDS)[n % 2]) for n, sound in enumerate(sounds() * 4)
    ]
    engine.transcribe(mixed)
    recorded, plain = (engine.steps[name] - before[name] for name in ("recorded", "plain"))
    print(f"{recorded} steps recorded, {plain} plain; rows {engine.rows}, windows {engine.windows}")
    assert recorded >= 0.99 * (recorded + plain)
    assert engine.steps["failed_captures"] == 0


def test_memory_is_flat_over_many_clips(engine: Engine) -> None:
    def level() -> tuple[int, int]:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE"), torch.cuda.memory_allocated() if DEVICE == "cuda" else 0

    clips = [sound[: 2 * SAMPLE_RATE] for sound in sounds()]

    def some(count: int) -> None:
        engine.transcribe([Chunk(None, clips[number % len(clips)], WORDS) for number in range(count)])

    some(CLIPS // 4)
    before = level()
    some(CLIPS - CLIPS // 4)
    grown = [(after - first) / MIB for first, after in zip(before, level(), strict=True)]
    print(f"after {CLIPS} clips: {grown[0]:.0f} MiB of memory more, {grown[1]:.0f} MiB of the GPU's")
    assert max(grown) < 100


def test_out_of_memory_means_fewer_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program takes nearly all of the GPU's memory."""
    own = load(tmp_path)
    taken = []
    if TINY:
        encode, calls = own._scheduler._encoded, iter([True])

        def short(*arguments: object) -> object:
            if next(calls, False):
                raise torch.OutOfMemoryError("CUDA out of memory")
            return encode(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(own._scheduler, "_encoded", short)
    else:
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info()
        taken.append(torch.empty(max(0, free - 64 * MIB), dtype=torch.uint8, device=DEVICE))
    results = own.transcribe([Chunk(None, sound, ENGLISH) for sound in sounds() * 4])
    taken.clear()
    if not TINY:
        torch.cuda.empty_cache()  # the next test's worker is another program
    print(f"rows {ROWS} before, {own.rows} after; out of memory {own.steps['out_of_memory']} times")
    assert all(tokens([result]) for result in results)
    if TINY:
        assert own.rows == ROWS // 2


def test_a_worker_whose_context_is_lost_is_replaced_and_the_job_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_fixture, "model_dir", lambda _: model_folder())
    service = worker_fixture.service_fixture_with_model(tmp_path, device=DEVICE, dtype="float32" if TINY else "auto")
    recordings = (
        sorted(Path(os.environ["GPU_AUDIO"]).glob("*.wav")) if "GPU_AUDIO" in os.environ else worker_fixture.CLIPS
    )
    job = service.submit(recordings[0])
    environment = {
        **os.environ,
        "TRANSCRIBE_CONFIG": str(tmp_path / "transcribe.json"),
        "PYTHONPATH": str(worker_fixture.SERVICE),
    }
    command = [sys.executable, "-c", POISONED, DEVICE, str(tmp_path / "poisoned")]
    first = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert first.returncode == 70, first.stderr[-2000:]
    assert "worker_failed" in first.stdout
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as second:
        try:
            done = service.wait(job, seconds=300)
        finally:
            second.terminate()
    assert (done.status, done.attempts) == ("done", 2)
    assert service.text(job)
    service.store.close()
