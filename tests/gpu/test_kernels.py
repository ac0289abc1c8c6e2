"""The kernels of kernels.cu, each against torch's operations in double precision, with data of every length."""

import os
from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from support.torch_kernels import TorchKernels
from torch import Tensor
from transcribe.engine.cpu.constants import MEDIAN
from transcribe.engine.cuda.compiler import CompilerError, compile_source
from transcribe.engine.cuda.kernels import HEAD, LOADED, SOURCE, GpuKernels
from transcribe.engine.decode.alignment import cost
from transcribe.engine.decode.sampling import Sampler
from transcribe.engine.decode.state import Cursor
from transcribe.engine.model.config import SpecialTokens
from transcribe.engine.model.network import Decoder, Norm

pytestmark = pytest.mark.gpu

DEVICE = "cuda"
ROWS, CONTEXT, POSITIONS = 13, 448, 1500
TEXTS = [0, 1, 2, 7, 31, 32, 33, 127, 128, 129, 300, 446, 447]  # tokens before the one that is decoded
AUDIO = [0, 1, 3, 31, 32, 33, 127, 129, 500, 999, 1000, 1499, 1500]
SPECIAL = SpecialTokens(
    start=50258,
    end=50257,
    previous=50361,
    no_speech=50362,
    no_timestamps=50363,
    first_timestamp=50364,
    languages={},
    tasks={},
    suppressed=(1, 2, 7, 50360),
    suppressed_first=(),
    max_initial_timestamp=50,
    alignment_heads=(),
)
VOCABULARY = 51865


@pytest.fixture(scope="module")
def kernels() -> GpuKernels:
    if os.environ.get("GPU_DEVICE", DEVICE) == "cpu":
        pytest.skip("these need a GPU: nothing of this was shown")
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU here that torch can use: nothing of this was shown")
    return GpuKernels(None, store=False)


def noise(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    found = torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape))) * scale
    return found.to(DEVICE, torch.float16)


def near(found: Sequence[Tensor], expected: Sequence[Tensor], *, within: float = 4e-3) -> None:
    for one, other in zip(found, expected, strict=True):
        assert torch.isfinite(one.float()).all()
        torch.testing.assert_close(one.float(), other.float(), atol=within, rtol=within)


@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90"])
def test_they_are_compiled_for_every_gpu(kernels: GpuKernels, architecture: str) -> None:
    assert compile_source(SOURCE.read_text(), architecture)[:4] == b"\x7fELF"


def test_what_cannot_be_compiled_is_told(kernels: GpuKernels) -> None:
    with pytest.raises(CompilerError, match="undefined"):
        compile_source("__global__ void broken() { undefined(); }", "sm_75")


@pytest.mark.parametrize("width", [384, 512, 768, 1024, 1280])
def test_adding_and_normalizing(kernels: GpuKernels, width: int) -> None:
    norm = Norm(noise(width, seed=1), noise(width, seed=2))
    more, sums = noise(ROWS, width, seed=3), [noise(ROWS, width, scale=5.0) for _ in "ab"]
    found, expected = (way.add_norm(x, more, norm) for way, x in zip((kernels, TorchKernels()), sums, strict=True))
    near([found], [expected], within=1e-2)
    assert torch.equal(*sums)


@pytest.fixture(params=[0, 5])
def first(request: pytest.FixtureRequest) -> Tensor:
    """The row that what is handed in begins with: those beyond the last are left out."""
    return torch.tensor([request.param], dtype=torch.int32, device=DEVICE)


def of_batch(found: Tensor, first: Tensor) -> Tensor:
    """What belongs to rows that there are."""
    return found[: ROWS - int(first)]


@pytest.mark.parametrize("heads", [6, 8, 20])
def test_embedding(kernels: GpuKernels, heads: int, first: Tensor) -> None:
    cursor = Cursor.of(ROWS, DEVICE)
    cursor.lengths.copy_(torch.tensor(TEXTS))
    cursor.tokens.copy_(torch.arange(ROWS) * 7)
    dims = SimpleNamespace(width=heads * HEAD, context=CONTEXT)
    tables = noise(100, heads * HEAD, seed=1), noise(CONTEXT, heads * HEAD, seed=2)
    decoder = cast(Decoder, SimpleNamespace(dims=dims, head_weight=tables[0], positions=tables[1]))
    found = [of_batch(way.embed(cursor, decoder, first, ROWS), first) for way in (kernels, TorchKernels())]
    assert torch.equal(*found)


@pytest.mark.parametrize("heads", [6, 8, 20])
def test_attention_to_the_text(kernels: GpuKernels, heads: int, first: Tensor) -> None:
    qkv = noise(ROWS, 3 * heads * HEAD)
    places = torch.tensor(TEXTS, device=DEVICE)
    caches = [(noise(ROWS, heads, CONTEXT, HEAD, seed=1), noise(ROWS, heads, CONTEXT, HEAD, seed=2)) for _ in "ab"]
    ways = zip((kernels, TorchKernels()), caches, strict=True)
    found, expected = (of_batch(way.attend_text(qkv, cache, places, first), first) for way, cache in ways)
    near([found], [expected])
    assert all(torch.equal(one, other) for one, other in zip(*caches, strict=True))


@pytest.mark.parametrize("heads", [6, 8, 20])
def test_attention_to_the_audio(kernels: GpuKernels, heads: int, first: Tensor) -> None:
    query = noise(ROWS, heads * HEAD)
    lengths = torch.tensor(AUDIO, dtype=torch.int32, device=DEVICE)
    audio = noise(ROWS, heads, POSITIONS, HEAD, seed=1), noise(ROWS, heads, POSITIONS, HEAD, seed=2), lengths
    slots = torch.tensor([1, -1, 0, -1, -1, 2] + [-1] * (heads - 6), dtype=torch.int32, device=DEVICE)
    places = torch.tensor(TEXTS, device=DEVICE)
    kept = [torch.zeros(ROWS, 3, CONTEXT, POSITIONS, dtype=torch.float16, device=DEVICE) for _ in "ab"]
    ways = zip((kernels, TorchKernels()), kept, strict=True)
    found, expected = (
        of_batch(way.attend_audio(query, audio, (slots, places, weights), first), first) for way, weights in ways
    )
    near([found], [expected])
    near(kept[:1], kept[1:], within=1e-3)


@pytest.mark.parametrize("heads", [6, 8, 20])
def test_audio_in_bytes(kernels: GpuKernels, heads: int, first: Tensor) -> None:
    query, slots = noise(ROWS, heads * HEAD), torch.tensor([0] + [-1] * (heads - 1), dtype=torch.int32, device=DEVICE)
    lengths = torch.tensor(AUDIO, dtype=torch.int32, device=DEVICE)
    places = torch.tensor(TEXTS, device=DEVICE)
    product = noise(ROWS, POSITIONS - 1, 2, heads, HEAD)
    targets = []
    for way in (kernels, TorchKernels()):
        keys, values = (torch.zeros(ROWS, heads, POSITIONS, HEAD, dtype=torch.int8, device=DEVICE) for _ in "ab")
        scales = torch.zeros(2, ROWS, heads, POSITIONS, dtype=torch.float16, device=DEVICE)
        way.keep_audio(product, (keys, values, scales), first)
        targets.append((keys, values, scales))
    for one, other in zip(targets[0][:2], targets[1][:2], strict=True):
        assert int((one.int() - other.int()).abs().max()) <= 1  # a byte may be rounded to its neighbour
    near(targets[0][2:], targets[1][2:])
    mixed, weights = [], []
    for way in (kernels, TorchKernels()):  # of the same bytes
        keys, values, scales = targets[0]
        weights.append(torch.zeros(ROWS, 1, CONTEXT, POSITIONS, dtype=torch.float16, device=DEVICE))
        audio = keys, values, lengths, scales
        mixed.append(of_batch(way.attend_audio(query, audio, (slots, places, weights[-1]), first), first))
    near(mixed[:1], mixed[1:], within=1e-2)  # the reference rounds what it multiplies the bytes to
    near(weights[:1], weights[1:], within=1e-3)


@pytest.mark.parametrize("seed", range(8))
def test_choosing_tokens(kernels: GpuKernels, seed: int, first: Tensor) -> None:
    stride = VOCABULARY + -VOCABULARY % LOADED
    logits = noise(ROWS, stride, seed=seed, scale=3.0)
    logits[:, SPECIAL.first_timestamp :] += 2.0 * (seed % 3)
    sampler = Sampler(SPECIAL, VOCABULARY, DEVICE)
    logits[:, :VOCABULARY].masked_fill_(sampler.bias < 0, float("-inf"))
    logits[:, VOCABULARY:] = 100.0  # what fills the rows up is never looked at
    dice = torch.Generator().manual_seed(seed)
    flags = torch.rand(3, ROWS, generator=dice) < 0.5
    latest = torch.randint(-1, 1500, (ROWS,), generator=dice)
    cursors = []
    for _ in "ab":
        cursor = Cursor.of(ROWS, DEVICE)
        for tensor, value in zip((cursor.state.fresh, cursor.state.last, cursor.state.before_last), flags, strict=True):
            tensor.copy_(value)
        cursor.state.latest.copy_(torch.where(flags[0], -1, latest))
        cursor.lengths.copy_(torch.arange(ROWS) + 3)
        cursors.append(cursor)
    for way, cursor in zip((kernels, TorchKernels()), cursors, strict=True):
        way.choose(logits.clone(), sampler, cursor, first)
    one, other = cursors
    for name in ("tokens", "lengths"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    near([one.logprobs], [other.logprobs], within=1e-3)
    for mine, theirs in zip(one.state.tensors, other.state.tensors, strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(one.recent[:, 0], other.recent[:, 0])
    near([one.recent[:, 1].view(torch.float32)], [other.recent[:, 1].view(torch.float32)], within=1e-3)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_what_cannot_be_compared_chooses_a_token_that_there_is(kernels: GpuKernels, value: float) -> None:
    logits = noise(ROWS, VOCABULARY + -VOCABULARY % LOADED).fill_(value)
    cursor = Cursor.of(ROWS, DEVICE)
    cursor.state.fresh[::2] = False
    cursor.state.before_last[::3] = False
    kernels.choose(logits, Sampler(SPECIAL, VOCABULARY, DEVICE), cursor, torch.zeros(1, dtype=torch.int32).to(DEVICE))
    assert (cursor.tokens >= 0).all()
    assert (cursor.tokens < VOCABULARY).all()  # the next step reads its embedding


@pytest.mark.parametrize(("tokens", "positions"), [(1, 8), (2, 50), (75, 1400), (223, 1500)])
def test_what_words_are_aligned_by(kernels: GpuKernels, tokens: int, positions: int) -> None:
    attention = torch.softmax(noise(8, tokens, positions, scale=3.0).float(), -1).to(torch.float16)
    near([kernels.alignment_cost(attention, MEDIAN)], [cost(attention, MEDIAN)], within=2e-2)
