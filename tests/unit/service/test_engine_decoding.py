"""Our decode loop says what transformers' `generate` says, whatever else is in the batch."""

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, repeat
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.tiny_whisper import CONTEXT, END, FRAMES, NO_TIMESTAMPS, PREVIOUS, Tiny, make
from support.torch_kernels import TorchKernels
from torch import Tensor
from transcribe.engine.chunks import Chunk
from transcribe.engine.cuda.graphs import Replay, record
from transcribe.engine.decode.batch import Batch
from transcribe.engine.decode.state import DecodeRequest, DecodeSequence
from transcribe.types import DecodeOptions


class Request(NamedTuple):
    mel_seed: int
    language: str
    task: str
    prompt: list[int]


requests = st.builds(
    Request,
    mel_seed=st.integers(0, 10_000),
    language=st.sampled_from(["en", "sv"]),
    task=st.sampled_from(["transcribe", "translate"]),
    prompt=st.lists(st.integers(0, END - 1), max_size=12).map(lambda ids: [PREVIOUS, *ids] if ids else []),
)
generations = st.fixed_dictionaries(
    {
        "suppress_tokens": st.one_of(
            st.none(), st.lists(st.integers(0, NO_TIMESTAMPS - 1).filter(lambda t: t != END), max_size=30, min_size=1)
        ),
        "begin_suppress_tokens": st.sampled_from([None, [5, END]]),
        "max_initial_timestamp_index": st.sampled_from([None, 0, 3, 50]),
    }
)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """No warnings of `generate`, and one thread: matrices this small only lose by sharing."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def by_repeating(step: Callable[[], None], _: Sequence[Tensor]) -> Callable[[], None]:
    """Records a step where there is no GPU: it is done again."""
    return step


def failing(step: Callable[[], None], changed: Sequence[Tensor]) -> Callable[[], None]:
    """As the recording of a graph fails: after the step was tried, whose changes are taken back."""
    before = [tensor.clone() for tensor in changed]
    step()
    for tensor, value in zip(changed, before, strict=True):
        tensor.copy_(value)
    raise RuntimeError("operation not permitted when stream is capturing")


def mel_of(seed: int) -> Tensor:
    return torch.randn(8, FRAMES, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def row_of(tiny: Tiny, request: Request, temperature: float = 0.0, *, words: bool = False) -> DecodeSequence:
    options = DecodeOptions(language=request.language, words=words)
    task = DecodeRequest(Chunk(None, np.zeros(0, np.float32), options))
    return DecodeSequence(task, tiny.prefix(request.language, request.task, request.prompt), temperature)


@pytest.mark.slow
@settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    seed=st.integers(0, 1_000_000),
    generation=generations,
    wanted=st.lists(requests, min_size=1, max_size=5),
    capacity=st.integers(1, 4),
    recorded=st.sampled_from(["", "torch", "kernels"]),
)
@torch.inference_mode()
def test_equals_generate(
    seed: int, generation: dict[str, object], wanted: list[Request], capacity: int, recorded: str
) -> None:
    tiny = make(seed, generation=generation)
    batch = Batch(tiny.decoder, tiny.special, capacity)
    kernels = TorchKernels() if recorded == "kernels" else None
    replay = record(batch, Replay(batch, by_repeating, kernels)) if recorded else None
    rows = [row_of(tiny, request) for request in wanted]
    tiny.decode(batch, [(mel_of(request.mel_seed), row) for request, row in zip(wanted, rows, strict=True)])
    for request, row in zip(wanted, rows, strict=True):
        tokens, logprobs = tiny.theirs(mel_of(request.mel_seed), request.language, request.task, request.prompt)
        assert [*row.tokens, *([END] if row.complete else [])] == tokens
        assert row.logprobs == pytest.approx(logprobs, abs=1e-4)
    assert replay is None or not replay.failure


def test_what_cannot_be_recorded_is_decoded_as_ever() -> None:
    """Also when only some sizes fail, and when that has left its traces in the buffers that it must restore."""
    captures = chain([by_repeating], repeat(failing))

    def capture(step: Callable[[], None], changed: Sequence[Tensor]) -> Callable[[], None]:
        return next(captures)(step, changed)

    tiny = make(21)
    expected, found = (
        [row_of(tiny, Request(seed, "en", "transcribe", [PREVIOUS, *range(seed)])) for seed in range(12)] for _ in "ab"
    )
    with torch.inference_mode():
        tiny.decode(Batch(tiny.decoder, tiny.special, 10), [(mel_of(seed), row) for seed, row in enumerate(expected)])
        batch = Batch(tiny.decoder, tiny.special, 10)
        replay = record(batch, Replay(batch, capture))
        tiny.decode(batch, [(mel_of(seed), row) for seed, row in enumerate(found)])
    assert replay.failure == "RuntimeError: operation not permitted when stream is capturing"
    assert min(batch.steps["recorded"], batch.steps["plain"]) > 0
    assert [row.tokens for row in found] == [row.tokens for row in expected]


@pytest.mark.parametrize("seed", range(8))
@torch.inference_mode()
def test_language_is_the_one_that_transformers_detects(seed: int) -> None:
    tiny = make(seed)
    batch = Batch(tiny.decoder, tiny.special, 1)
    mel = mel_of(seed)
    expected = tiny.model.detect_language(mel[None]).item()
    [chances] = batch.languages(batch.store(tiny.encoder(mel[None])), [()])
    assert tiny.special.languages[max(chances, key=chances.__getitem__)] == expected
    assert np.exp(list(chances.values())).sum() == pytest.approx(1.0, abs=1e-4)


@torch.inference_mode()
def test_no_speech_probability_is_that_after_the_start_token() -> None:
    tiny = make(3)
    mel, prompt = mel_of(3), [PREVIOUS, 4, 5, 6]
    ids = torch.tensor([[*prompt, *tiny.special.opening("sv", "transcribe")]])
    logits = tiny.model(mel[None], decoder_input_ids=ids).logits[0, len(prompt)]
    row = row_of(tiny, Request(3, "sv", "transcribe", prompt))
    tiny.decode(Batch(tiny.decoder, tiny.special, 1), [(mel, row)])
    assert row.no_speech_prob == pytest.approx(logits.softmax(-1)[NO_TIMESTAMPS - 1].item(), rel=1e-5)


@torch.inference_mode()
def test_warm_rows_do_not_change_cold_ones_and_obey_the_rules() -> None:
    tiny = make(11)
    cold = row_of(tiny, Request(1, "en", "transcribe", []))
    alone = row_of(tiny, Request(1, "en", "transcribe", []))
    warm = [row_of(tiny, Request(2, "en", "transcribe", []), 1.0) for _ in range(6)]
    tiny.decode(Batch(tiny.decoder, tiny.special, 1), [(mel_of(1), alone)])
    tiny.decode(Batch(tiny.decoder, tiny.special, 7), [(mel_of(1), cold), *((mel_of(2), row) for row in warm)])
    assert cold.tokens == alone.tokens
    assert len({tuple(row.tokens) for row in warm}) > 1
    for row in warm:
        stamps = [token for token in row.tokens if token > NO_TIMESTAMPS]
        assert row.tokens[0] > NO_TIMESTAMPS
        assert stamps == sorted(stamps)
        assert NO_TIMESTAMPS not in row.tokens


@torch.inference_mode()
def test_a_row_ends_at_the_decoders_context() -> None:
    tiny = make(5, generation={"suppress_tokens": [END]})
    row = row_of(tiny, Request(1, "en", "transcribe", []))
    tiny.decode(Batch(tiny.decoder, tiny.special, 1), [(mel_of(1), row)])
    assert not row.complete
    assert row.length == CONTEXT


@pytest.mark.parametrize("recorded", ["", "torch", "kernels"])
@torch.inference_mode()
def test_attention_is_that_of_the_alignment_heads_when_each_token_was_chosen(recorded: str) -> None:
    """Also of rows that share the batch, join later and are moved."""
    tiny = make(7)
    tiny.model.config._attn_implementation = "eager"
    batch = Batch(tiny.decoder, tiny.special, 3)
    if recorded:
        record(batch, Replay(batch, by_repeating, TorchKernels() if recorded == "kernels" else None))
    rows = [
        row_of(tiny, Request(seed, "en", "transcribe", [PREVIOUS, *range(seed)] if seed else []), words=True)
        for seed in range(5)
    ]
    waiting, left = list(rows), 0
    while waiting or batch.rows:
        finished = []
        if waiting and batch.room:
            batch.store(tiny.encoder(mel_of(len(rows) - len(waiting))[None]))
            finished = batch.join([waiting.pop(0)])
        else:
            finished = batch.step()
        for row in finished:
            found = batch.attention(row)
            seen = [*row.prefix, *row.tokens]
            ids = torch.tensor([seen])
            output = tiny.model(mel_of(rows.index(row))[None], decoder_input_ids=ids, output_attentions=True)
            places = range(len(row.prefix), len(row.prefix) + len(row.logprobs) - 1)
            for weights, (layer, head) in zip(found, tiny.special.alignment_heads, strict=True):
                expected = output.cross_attentions[layer][0, head, places]
                torch.testing.assert_close(weights[list(places)].double(), expected, atol=1e-3, rtol=1e-3)
            left += 1
            batch.leave(row)
    assert left == len(rows)


@torch.inference_mode()
def test_rows_that_join_together_say_what_each_says_alone() -> None:
    tiny = make(13)
    wanted = [
        Request(seed, language, "transcribe", [PREVIOUS, *range(seed)] if seed % 2 else [])
        for seed, language in enumerate(["en", "sv", "en", "sv"])
    ]
    alone, together = ([row_of(tiny, request) for request in wanted] for _ in "ab")
    for request, row in zip(wanted, alone, strict=True):
        tiny.decode(Batch(tiny.decoder, tiny.special, 1), [(mel_of(request.mel_seed), row)])
    batch = Batch(tiny.decoder, tiny.special, 4)
    first = batch.store(tiny.encoder(torch.stack([mel_of(request.mel_seed) for request in wanted])))
    heard = batch.languages(first, [("sv",), ("en",), (), ()])
    assert heard[:2] == [{"sv": 0.0}, {"en": 0.0}]
    finished = batch.join(together)
    while batch.rows:
        for row in finished:
            batch.leave(row)
        finished = batch.step() if batch.rows else []
    assert [row.tokens for row in together] == [row.tokens for row in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs)
        assert one.no_speech_prob == pytest.approx(other.no_speech_prob)


def tensor_bytes() -> int:
    """Of all tensors that there are."""
    gc.collect()
    return sum({t.untyped_storage().data_ptr(): t.nbytes for t in gc.get_objects() if type(t) is Tensor}.values())


@pytest.mark.slow
@torch.inference_mode()
def test_at_rest_nothing_is_kept_of_the_texts_before() -> None:
    tiny = make(11)
    batch = Batch(tiny.decoder, tiny.special, 3)
    before, said = tensor_bytes(), []
    for _ in "ab":
        rows = [row_of(tiny, Request(seed, "en", "transcribe", []), words=True) for seed in range(5)]
        tiny.decode(batch, [(mel_of(seed), row) for seed, row in enumerate(rows)])
        said.append([row.tokens for row in rows])
        del rows
        assert tensor_bytes() > before
        batch.rest()
        assert tensor_bytes() == before
    assert said[0] == said[1]


@torch.inference_mode()
def test_rest_leaves_rows_alone_that_are_being_decoded() -> None:
    tiny = make(11)
    batch = Batch(tiny.decoder, tiny.special, 1)
    alone, disturbed = (row_of(tiny, Request(1, "en", "transcribe", [])) for _ in "ab")
    tiny.decode(batch, [(mel_of(1), alone)])
    batch.store(tiny.encoder(mel_of(1)[None]))
    finished = batch.join([disturbed])
    while not finished:
        batch.rest()
        finished = batch.step()
    assert disturbed.tokens == alone.tokens


def test_of_attempts_that_are_all_bad_the_best_stays() -> None:
    row = row_of(make(1), Request(1, "en", "transcribe", []))
    for token, trust in enumerate([(False, -0.1), (True, -1.4), (True, -1.2), (True, -3.0)]):
        row.tokens, row.logprobs = [token], [trust[1]]
        row.keep_best(trust)
        assert row.next_temperature()
    row.restore_best()
    assert (row.tokens, row.logprobs, row.temperature) == ([2], [-1.2], 0.4)
