"""Segments, words, prompts, quality and int8 matrices, each by itself."""

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from support.tiny_whisper import make
from transcribe.engine.chunks import EngineError
from transcribe.engine.cpu import int8, library
from transcribe.engine.cpu.library import Library
from transcribe.engine.cuda import compile_cache
from transcribe.engine.decode.alignment import attach, begins, cost, median, timings, warp
from transcribe.engine.decode.quality import Quality, compression_ratio, is_repeating
from transcribe.engine.decode.segments import split_window
from transcribe.engine.model import network, precision
from transcribe.engine.model.checkpoint import Checkpoint
from transcribe.engine.model.config import dimensions_of, special_tokens_of
from transcribe.types import Segment

T = 100  # the first timestamp


def at(seconds: float) -> int:
    return T + round(seconds * 50)


@pytest.mark.parametrize(
    ("tokens", "complete", "pieces", "resume"),
    [
        ([at(0), 1, 2, at(4)], True, [(0, 4)], None),
        ([at(0), 1, at(4), at(4), 2, at(6)], True, [(0, 4), (4, 6)], None),
        ([at(0), 1, at(4), at(4.2), 2], True, [(0, 4), (4.2, 10)], None),  # the model ended without a time
        ([at(0), 1, at(4), at(4)], True, [(0, 4)], 4.0),  # opened a segment: the rest is heard again
        ([at(0), 1, at(9.5), at(9.5)], True, [(0, 9.5)], None),  # too little is left
        ([at(0), 1, at(4), at(4), 2, 3], False, [(0, 4)], 4.0),  # cut off by the limit
        ([at(0), 1, 2], False, [(0, 10)], None),
        ([at(0), at(0)], True, [], None),
        ([], True, [], None),
        ([at(0), 1, at(29)], True, [(0, 10)], None),  # no later than the audio
    ],
)
def test_cut(tokens: list[int], complete: bool, pieces: list[tuple[float, float]], resume: float | None) -> None:
    result = split_window(tokens, T, 10.0, complete=complete)
    times = [time for piece in result.pieces for time in (piece.start, piece.end)]
    assert times == pytest.approx([time for piece in pieces for time in piece])
    assert result.resume == pytest.approx(resume)


@given(st.lists(st.integers(0, T + 500), max_size=40), st.booleans())
def test_no_text_is_lost_unless_it_is_heard_again(tokens: list[int], complete: bool) -> None:
    result = split_window(tokens, T, 10.0, complete=complete)
    compile_cache = [token for piece in result.pieces for token in piece.tokens if token < T]
    if result.resume is None:
        assert compile_cache == [token for token in tokens if token < T]
    assert all(0 <= piece.start <= piece.end <= 10.0 for piece in result.pieces)


def cheapest(matrix: "np.ndarray[tuple[int, int], np.dtype[np.float64]]") -> float:
    total = np.full((matrix.shape[0] + 1, matrix.shape[1] + 1), np.inf)
    total[0, 0] = 0.0
    for i, j in itertools.product(range(matrix.shape[0]), range(matrix.shape[1])):
        total[i + 1, j + 1] = matrix[i, j] + min(total[i, j], total[i, j + 1], total[i + 1, j])
    return float(total[-1, -1])


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(1, 12), st.integers(0, 999))
def test_warp_finds_the_cheapest_path(rows: int, columns: int, seed: int) -> None:
    matrix = np.random.default_rng(seed).random((rows, columns))
    begins = warp(matrix)
    assert begins[0] == 0
    assert (np.diff(begins) >= 0).all()
    best = min(  # of all paths whose rows begin there: each cell of a row until the next begins, or one more
        sum(
            matrix[i, begins[i] : (begins[i + 1] + extra[i] if i + 1 < rows else columns)].sum()
            + (matrix[i, begins[i]] if i + 1 < rows and begins[i + 1] + extra[i] <= begins[i] else 0.0)
            for i in range(rows)
        )
        for extra in itertools.product((0, 1), repeat=max(rows - 1, 0))
    )
    assert best == pytest.approx(cheapest(matrix))


@pytest.mark.parametrize("width", [1, 3, 7, 9])
def test_median_is_the_middle_one(width: int) -> None:
    values = torch.randn(width, 4, 50, generator=torch.Generator().manual_seed(width))
    assert median(list(values)).equal(values.median(0).values)


@pytest.mark.parametrize(("tokens", "positions"), [(1, 7), (1, 40), (5, 7), (30, 203), (90, 1500)])
def test_the_kernels_find_the_beginnings_that_torch_finds(kernels: Library, tokens: int, positions: int) -> None:
    noise = torch.randn(6, tokens, positions, generator=torch.Generator().manual_seed(tokens))
    attention = torch.softmax(3 * noise, -1).half()
    expected = warp(cost(attention, 7).double().numpy())
    assert (begins(attention, 7, kernels) == expected).all()
    assert (begins(attention, 5, kernels) == begins(attention, 5)).all()  # another width than the kernels'


def test_words_keep_their_punctuation_and_lie_inside_their_segment() -> None:
    words = [(" ¿", [1]), ("Hej", [2]), (",", [3]), (" du", [4, 5]), (".", [6])]
    begins = np.array([0, 5, 20, 25, 30, 45, 50])
    timed = timings(words, begins, np.full(6, 0.5))
    assert [word.text for word in timed] == [" ¿Hej,", " du."]
    segment = Segment(0, 0, 10.2, 10.8, "", (), 0.0, 0.0, 1.0, 0.0)
    placed = attach(segment, timed, 10.0).words
    assert placed is not None
    times = [time for word in placed for time in (word.start, word.end)]
    assert times == sorted(times)
    assert times[0] >= 10.2
    assert times[-1] <= 10.8


def test_doubtful_is_repetition_or_a_guess_but_not_silence() -> None:
    assert compression_ratio("och så vidare " * 20) > 2.4
    assert Quality(-0.2, 2.5, 0.1).doubtful
    assert Quality(-1.2, 1.0, 0.1).doubtful
    assert not Quality(-0.2, 1.5, 0.9).doubtful
    assert not Quality(-1.2, 1.0, 0.9).doubtful
    assert Quality(-1.2, 1.0, 0.9).silent


@pytest.mark.parametrize(
    ("tokens", "repeats"),
    [
        ([*range(30), *[7, 8, 9] * 4], True),
        ([*range(30), *[7, 8, 9] * 4, 7], True),  # in the middle of a round
        ([*range(30), *[7, 8, 9] * 3, 7, 8], False),
        ([5] * 12, True),
        ([5] * 11, False),  # people do say no, no, no
        ([*range(16)] * 4, True),
        ([*range(17)] * 4, False),
        ([*[7, 8, 9] * 4, 5], False),  # it found out by itself
        ([], False),
    ],
)
def test_a_text_is_repeating_when_it_ends_in_the_same_tokens_over_and_over(tokens: list[int], repeats: bool) -> None:
    assert is_repeating(tokens) is repeats


@pytest.mark.parametrize("few", [True, False])
def test_a_loud_row_does_not_change_a_quiet_one(kernels: Library, few: bool) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(24, 64), torch.randn(24)
    narrow = int8.quantized(weight)
    linear = (int8.gemv if few else int8.gemm)(kernels, *narrow, bias)
    quiet = torch.randn(1, 64).clamp(-2, 2) / 100
    together = linear(torch.cat([quiet, torch.randn(1, 64) * 1000]))[0]
    exact = torch.nn.functional.linear(quiet, weight, bias)[0]
    assert (together - exact).norm() / (exact - bias).norm() < 0.02


def test_attention_by_head_is_attention(kernels: Library) -> None:
    torch.manual_seed(0)
    qkv = torch.randn(50, 3 * 32)
    expected = network.attend_fused(4, qkv)
    assert (network.attend_by_head(kernels, 4, qkv) - expected).norm() / expected.norm() < 0.02


@pytest.mark.parametrize("largest", [71.0, 73.0, 95.0, 1000.0])
def test_attention_by_head_stands_any_scores(kernels: Library, largest: float) -> None:
    """Half of the positions score as high as they can, the other half as low, and the values are large."""
    torch.manual_seed(0)
    length, size = 1500, 64
    sign = torch.ones(length, 1)
    sign[1::2] = -1.0
    direction = torch.full((length, size), (largest / size) ** 0.5)
    values = torch.randn(length, size) * 1000
    found = network.attend_by_head(kernels, 1, torch.cat([direction * sign, direction * sign, values], 1))
    for part in (slice(0, None, 2), slice(1, None, 2)):
        assert (found[part] - values[part].mean(0)).abs().max() < 0.02 * 1000


@pytest.mark.parametrize(("dtype", "device"), [("int4", "cpu"), ("float16", "cpu"), ("int8", "cuda")])
def test_a_precision_that_the_device_lacks_is_refused_with_what_to_set(dtype: str, device: str) -> None:
    with pytest.raises(EngineError, match="set dtype to"):
        precision.of(dtype, device, {})


def test_what_is_no_whisper_is_refused() -> None:
    with pytest.raises(EngineError, match="not a Whisper"):
        dimensions_of({"model_type": "bert"})


def test_a_checkpoint_in_shards_is_read_as_one_and_a_damaged_one_refused(tmp_path: Path) -> None:
    state = {f"w{number}": torch.randn(3, 2).half() for number in range(4)}
    shards = {name: f"{number % 2}.safetensors" for number, name in enumerate(state)}
    for file in set(shards.values()):
        save_file({name: state[name] for name in state if shards[name] == file}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    checkpoint = Checkpoint(tmp_path)
    assert {name: tensor.tolist() for name, tensor in checkpoint.items()} == {
        name: tensor.float().tolist() for name, tensor in state.items()
    }
    with pytest.raises(EngineError, match=r"cannot load the model in .*: 'w9'; run"):
        checkpoint["w9"]
    for damage in (Path.unlink, lambda shard: shard.write_bytes(b"")):
        damage(tmp_path / "1.safetensors")
        with pytest.raises(EngineError, match="cannot load the model in"):
            Checkpoint(tmp_path)


def test_special_tokens_are_found_in_the_tokenizer_when_the_configuration_lacks_them() -> None:
    names = {
        "<|endoftext|>": 50,
        "<|startoftranscript|>": 51,
        "<|en|>": 52,
        "<|sv|>": 53,
        "<|translate|>": 54,
        "<|transcribe|>": 55,
        "<|startofprev|>": 56,
        "<|notimestamps|>": 58,
    }
    special = special_tokens_of({}, {"is_multilingual": True}, names)
    assert special.opening("sv", "transcribe") == [51, 53, 55]
    assert (special.previous, special.no_speech, special.first_timestamp) == (56, 57, 59)


@pytest.mark.parametrize(("heads", "good"), [([[0, 1]], True), ([], False), ([[2, 0]], False), ([[0, 2]], False)])
def test_words_have_times_where_the_alignment_heads_exist(heads: list[list[int]], good: bool) -> None:
    tiny = make(0, generation={"alignment_heads": heads})
    assert tiny.special.word_times(tiny.decoder.dims) is good


def test_compiled_kernels_are_kept_in_the_cache_and_only_they_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_CACHE_PATH", "")
    monkeypatch.delenv("CUDA_CACHE_PATH")
    monkeypatch.setenv("PYTORCH_KERNEL_CACHE_PATH", "/elsewhere")
    compile_cache.keep(tmp_path)
    assert os.environ["PYTORCH_KERNEL_CACHE_PATH"] == "/elsewhere"
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared/engine-weights.safetensors").touch()
    place = Path(os.environ["CUDA_CACHE_PATH"])
    (place / "a").mkdir(parents=True)  # as the driver makes them
    assert not compile_cache.stored(tmp_path)
    (place / "a/index").touch()
    assert compile_cache.stored(tmp_path)
    (place / "a/index").unlink()
    (tmp_path / "prepared" / library.PATTERN.replace("*", "processor")).touch()
    assert compile_cache.stored(tmp_path)
