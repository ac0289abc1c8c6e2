"""Random Whispers, small enough to compare with transformers' own `generate` hundreds of times."""

from dataclasses import dataclass

import torch
import transformers
from torch import Tensor
from transcribe.engine.decode.batch import Batch
from transcribe.engine.decode.state import DecodeSequence
from transcribe.engine.model import builder
from transcribe.engine.model.checkpoint import fuse
from transcribe.engine.model.config import SpecialTokens, dimensions_of, special_tokens_of
from transcribe.engine.model.network import Decoder, Encoder, attend_fused

END, START, PREVIOUS, NO_TIMESTAMPS = 60, 61, 67, 69
TIMES = 25
VOCABULARY = NO_TIMESTAMPS + 1 + TIMES
CONTEXT = 40
FRAMES = 32
GENERATION = {
    "eos_token_id": END,
    "bos_token_id": END,
    "pad_token_id": END,
    "decoder_start_token_id": START,
    "prev_sot_token_id": PREVIOUS,
    "no_timestamps_token_id": NO_TIMESTAMPS,
    "lang_to_id": {"<|en|>": 62, "<|sv|>": 63},
    "task_to_id": {"translate": 64, "transcribe": 65},
    "is_multilingual": True,
    "max_length": CONTEXT,
    "alignment_heads": [[0, 1], [1, 0]],
}


@dataclass(frozen=True)
class Tiny:
    """A model twice: as transformers has it, and as our networks. Both in float64, so that rounding decides nothing."""

    model: "transformers.WhisperForConditionalGeneration"  # in quotes: loading it takes seconds
    encoder: Encoder
    decoder: Decoder
    special: SpecialTokens

    def theirs(self, mel: Tensor, language: str, task: str, prompt: list[int]) -> tuple[list[int], list[float]]:
        """Tokens and their log-probabilities by `generate`."""
        output = self.model.generate(
            mel[None],
            language=language,
            task=task,
            prompt_ids=torch.tensor(prompt) if prompt else None,
            return_timestamps=True,
            force_unique_generate_call=True,
            return_dict_in_generate=True,
            output_scores=True,
            do_sample=False,
            num_beams=1,
        )
        scores = torch.stack(output.scores, 1)[0].float().log_softmax(-1)
        tokens = output.sequences[0, -len(scores) :]
        return tokens.tolist(), scores.gather(1, tokens[:, None])[:, 0].tolist()

    def prefix(self, language: str, task: str, prompt: list[int]) -> list[int]:
        return [*prompt, *self.special.opening(language, task)]

    def decode(self, batch: Batch, rows: list[tuple[Tensor, DecodeSequence]]) -> None:
        """Runs all rows through the batch, each joining as soon as there is room."""
        waiting = list(rows)
        while waiting or batch.rows:
            finished = []
            if waiting and batch.room:
                mel, row = waiting.pop(0)
                batch.store(self.encoder(mel[None]))
                finished = batch.join([row])
            else:
                finished = batch.step()
            for row in finished:
                batch.leave(row)


def make(seed: int, *, heads: int = 2, layers: int = 2, generation: dict[str, object] | None = None) -> Tiny:
    """A random model with `generation` added to its generation configuration."""
    torch.manual_seed(seed)
    config = transformers.WhisperConfig(
        vocab_size=VOCABULARY,
        num_mel_bins=8,
        encoder_layers=1,
        decoder_layers=layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        d_model=16,
        max_source_positions=FRAMES // 2,
        max_target_positions=CONTEXT,
        pad_token_id=END,
        bos_token_id=END,
        eos_token_id=END,
        decoder_start_token_id=START,
        begin_suppress_tokens=None,
    )
    model = transformers.WhisperForConditionalGeneration(config).eval().double()
    with torch.no_grad():  # far from uniform, or every model would say the same
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.5 if parameter.ndim > 1 else 0.2)
        model.proj_out.weight.mul_(2.0)
    settings = {**GENERATION, **(generation or {})}
    for key, value in settings.items():
        setattr(model.generation_config, key, value)
    dims = dimensions_of(config.to_dict())
    weights = dict(fuse(model.state_dict(), dims))
    special = special_tokens_of(config.to_dict(), settings, {})
    return Tiny(model, builder.encoder(weights, dims, attend_fused), builder.decoder(weights, dims), special)
