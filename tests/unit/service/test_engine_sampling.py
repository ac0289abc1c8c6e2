"""Which token follows, by the processor's kernels and by torch."""

import pytest
import torch
from transcribe.engine.cpu import ops
from transcribe.engine.cpu.library import Library
from transcribe.engine.decode.sampling import Sampler, SamplerState
from transcribe.engine.model.config import SpecialTokens

ROWS, END, FIRST = 64, 900, 960


def special(limit: int | None) -> SpecialTokens:
    suppressed = tuple(range(5, 300, 7))
    return SpecialTokens(END + 1, END, None, FIRST - 2, FIRST - 1, FIRST, {}, {}, suppressed, (), limit, ())


def state(seed: int) -> SamplerState:
    """Rows in the middle of a text, after one timestamp and after two, and rows that begin."""
    made = SamplerState.of(ROWS, "cpu")
    torch.manual_seed(seed)
    made.fresh.copy_(torch.rand(ROWS) < 0.2)
    made.last.copy_((torch.rand(ROWS) < 0.5) | made.fresh)
    made.before_last.copy_((torch.rand(ROWS) < 0.5) | made.fresh)
    made.latest.copy_(torch.where(made.fresh, -1, torch.randint(0, 40, (ROWS,))))
    return made


@pytest.mark.parametrize("limit", [None, 3])
@pytest.mark.parametrize("vocabulary", [FIRST + 50, FIRST + 1501])
@pytest.mark.parametrize("stamped", [-6.0, 0.0, 6.0], ids=["words", "either", "timestamps"])
def test_kernels_choose_what_torch_chooses(
    kernels: Library, vocabulary: int, limit: int | None, stamped: float
) -> None:
    logits = torch.randn(ROWS, vocabulary) * 4
    logits[:, FIRST:] += stamped
    ours, theirs = state(1), state(1)
    with torch.inference_mode():
        for _ in range(4):
            exact = Sampler(special(limit), vocabulary, "cpu").choose(logits.clone(), theirs, None)
            found = Sampler(special(limit), vocabulary, "cpu", kernels).choose(logits.clone(), ours, None)
            assert torch.equal(found[0], exact[0])
            torch.testing.assert_close(found[1], exact[1], rtol=1e-5, atol=1e-5)
            for one, other in zip(ours.tensors, theirs.tensors, strict=True):
                assert torch.equal(one, other)
            logits = logits.roll(17, 0)
    assert len(set(found[0].tolist())) > 10


def test_warm_rows_draw_and_cold_ones_beside_them_do_not(kernels: Library) -> None:
    logits = torch.randn(ROWS, FIRST + 50)
    drawn, greedy = state(2), state(2)
    drawn.temperature[::2] = 1.0
    rules = Sampler(special(None), FIRST + 50, "cpu", kernels)
    with torch.inference_mode():
        generator = torch.Generator().manual_seed(0)
        warm, _ = rules.choose(logits.clone(), drawn, generator)
        cold, _ = rules.choose(logits.clone(), greedy, generator)
    assert torch.equal(warm[1::2], cold[1::2])
    assert (warm[::2] != cold[::2]).sum() > ROWS / 4


def test_a_range_may_be_empty_or_one_token(kernels: Library) -> None:
    logits, bias = torch.randn(3, 700), torch.zeros(700)
    ranges = torch.tensor([[[0, 0], [699, 700]], [[5, 4], [3, 4]], [[600, 700], [0, 513]]])
    best, sums, tokens = ops.best_tokens(kernels, logits, bias, ranges)
    assert best[0, 0] == best[1, 0] < -1e38
    assert sums[0, 0] == sums[1, 0] == -torch.inf
    assert tokens[:2, 1].tolist() == [699, 3]
    torch.testing.assert_close(sums[:2, 1], logits[[0, 1], [699, 3]])
    for part, (begin, end) in enumerate([(600, 700), (0, 513)]):
        values = logits[2, begin:end]
        assert tokens[2, part] == begin + values.argmax()
        assert best[2, part] == values.max()
        torch.testing.assert_close(sums[2, part], values.logsumexp(0))
