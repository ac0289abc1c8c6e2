"""A model's sizes and special tokens, read from its transformers configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transcribe.engine.chunks import EngineError

Names = Mapping[str, int]  # special tokens that the tokenizer knows, by their text


@dataclass(frozen=True)
class ModelDimensions:
    """Sizes of the network."""

    width: int
    feed_forward: int  # of the decoder
    encoder_layers: int
    encoder_heads: int
    decoder_layers: int
    decoder_heads: int
    vocabulary: int
    bands: int  # mel bands
    positions: int  # encoder positions of a full window, 20 ms each
    context: int  # tokens that the decoder can see
    activation: str
    median_width: int  # of the filter over attention, for word times


@dataclass(frozen=True)
class SpecialTokens:
    """SpecialTokens tokens and the rules that come with them."""

    start: int
    end: int
    previous: int | None  # <|startofprev|>, in front of a prompt
    no_speech: int
    no_timestamps: int
    first_timestamp: int
    languages: Mapping[str, int]  # by ISO 639 code; empty for English-only models
    tasks: Mapping[str, int]
    suppressed: tuple[int, ...]
    suppressed_first: tuple[int, ...]
    max_initial_timestamp: int | None  # in steps of 20 ms
    alignment_heads: tuple[tuple[int, int], ...]  # (layer, head)

    def word_times(self, dims: ModelDimensions) -> bool:
        """Whether the alignment heads are named and exist in the model: without them words have no times."""
        layers, heads = range(dims.decoder_layers), range(dims.decoder_heads)
        return bool(self.alignment_heads) and all(
            layer in layers and head in heads for layer, head in self.alignment_heads
        )

    @property
    def multilingual(self) -> bool:
        return bool(self.languages)

    def opening(self, language: str, task: str) -> list[int]:
        """The tokens that ask for text with timestamps."""
        if not self.multilingual:
            return [self.start]
        return [self.start, self.languages[language], self.tasks[task]]


def dimensions_of(config: Mapping[str, Any]) -> ModelDimensions:
    """Sizes from config.json's content. Raises EngineError when it is not a Whisper's."""
    if config.get("model_type") != "whisper":
        raise EngineError(f"the model is a {config.get('model_type')!r}, not a Whisper: name a Whisper in model.id")
    width = int(config["d_model"])
    return ModelDimensions(
        width=width,
        feed_forward=config["decoder_ffn_dim"],
        encoder_layers=config["encoder_layers"],
        encoder_heads=config["encoder_attention_heads"],
        decoder_layers=config["decoder_layers"],
        decoder_heads=config["decoder_attention_heads"],
        vocabulary=config["vocab_size"],
        bands=config["num_mel_bins"],
        positions=config["max_source_positions"],
        context=config["max_target_positions"],
        activation=config.get("activation_function", "gelu"),
        median_width=config.get("median_filter_width", 7),
    )


def special_tokens_of(config: Mapping[str, Any], generation: Mapping[str, Any], names: Names) -> SpecialTokens:
    """SpecialTokens tokens from generation_config.json's content; what it lacks is looked up in the tokenizer."""

    def token(key: str, *texts: str) -> int | None:
        found = generation.get(key, config.get(key))
        if isinstance(found, list):
            found = found[0]
        if isinstance(found, int):
            return found
        return next((names[text] for text in texts if text in names), None)

    def needed(key: str, *texts: str) -> int:
        found = token(key, *texts)
        if found is None:
            raise EngineError(f"the model's generation_config.json has no {key} and its tokenizer no {texts[0]}")
        return found

    languages = generation.get("lang_to_id") or {}
    tasks = generation.get("task_to_id") or {}
    no_timestamps = needed("no_timestamps_token_id", "<|notimestamps|>")
    if generation.get("is_multilingual", bool(languages)) and not (languages and tasks):
        tasks = {task: names[f"<|{task}|>"] for task in ("transcribe", "translate") if f"<|{task}|>" in names}
        end_of_languages = min(tasks.values(), default=0)
        start = needed("decoder_start_token_id", "<|startoftranscript|>")
        languages = {text: id_ for text, id_ in names.items() if start < id_ < end_of_languages}
    heads = tuple((int(layer), int(head)) for layer, head in generation.get("alignment_heads") or ())
    return SpecialTokens(
        start=needed("decoder_start_token_id", "<|startoftranscript|>"),
        end=needed("eos_token_id", "<|endoftext|>"),
        previous=token("prev_sot_token_id", "<|startofprev|>"),
        no_speech=no_timestamps - 1,
        no_timestamps=no_timestamps,
        first_timestamp=no_timestamps + 1,
        languages={text.strip("<|>"): id_ for text, id_ in languages.items()},
        tasks=tasks if languages else {},
        suppressed=tuple(generation.get("suppress_tokens") or ()),
        suppressed_first=tuple(generation.get("begin_suppress_tokens") or ()),
        max_initial_timestamp=generation.get("max_initial_timestamp_index"),
        alignment_heads=heads,
    )
