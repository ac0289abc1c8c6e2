"""The files of a transformers Whisper directory beside its weights, made from a tokenizer and the weights' shapes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localcloud.hub.ctranslate2 import Weights

# What the model hears and says, as OpenAI published it (https://github.com/openai/whisper).
FEATURES = {
    "chunk_length": 30,  # seconds
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": 80,
    "hop_length": 160,
    "n_fft": 400,
    "n_samples": 480_000,
    "nb_max_frames": 3000,
    "padding_side": "right",
    "padding_value": 0.0,
    "processor_class": "WhisperProcessor",
    "return_attention_mask": False,
    "sampling_rate": 16_000,
}
HEAD_SIZE = 64  # of every Whisper
MAX_LENGTH = 448  # tokens
MAX_INITIAL_TIMESTAMP_INDEX = 50  # one second


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _add_timestamps(tokenizer: dict[str, Any], vocabulary: int) -> None:
    """English-only tokenizers are often published without their 1,501 times; the model does say them."""
    last = tokenizer["added_tokens"][-1]
    if last["content"] != "<|notimestamps|>":
        return
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    first = last["id"] + 1
    times = [{"id": id_, "content": f"<|{(id_ - first) * 0.02:.2f}|>", **flags} for id_ in range(first, vocabulary)]
    tokenizer["added_tokens"] += times


def _model_config(weights: Weights, ids: Mapping[str, int]) -> dict[str, Any]:
    vocabulary, width = weights["model.decoder.embed_tokens.weight"].shape
    layers = max(int(name.split(".")[3]) for name in weights if name.startswith("model.encoder.layers.")) + 1
    width_of_ffn = int(weights["model.encoder.layers.0.fc1.weight"].shape[0])
    sides = {
        f"{side}_{key}": value
        for side in ("encoder", "decoder")
        for key, value in {"layers": layers, "attention_heads": width // HEAD_SIZE, "ffn_dim": width_of_ffn}.items()
    }
    return {
        "activation_function": "gelu",
        "architectures": ["WhisperForConditionalGeneration"],
        "d_model": int(width),
        "dtype": "float16",
        "is_encoder_decoder": True,
        "max_source_positions": int(weights["model.encoder.embed_positions.weight"].shape[0]),
        "max_target_positions": int(weights["model.decoder.embed_positions.weight"].shape[0]),
        "model_type": "whisper",
        "num_hidden_layers": layers,
        "num_mel_bins": FEATURES["feature_size"],
        "scale_embedding": False,
        "vocab_size": int(vocabulary),
        **sides,
        **_token_ids(ids),
    }


def _token_ids(ids: Mapping[str, int]) -> dict[str, int]:
    end = ids["<|endoftext|>"]
    start = ids["<|startoftranscript|>"]
    return {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "decoder_start_token_id": start}


def _generation(facts: Mapping[str, Any], ids: Mapping[str, int], *, multilingual: bool) -> dict[str, Any]:
    generation: dict[str, Any] = {
        **_token_ids(ids),
        "alignment_heads": facts["alignment_heads"],
        "begin_suppress_tokens": facts["suppress_ids_begin"],
        "is_multilingual": multilingual,
        "max_initial_timestamp_index": MAX_INITIAL_TIMESTAMP_INDEX,
        "max_length": MAX_LENGTH,
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "prev_sot_token_id": ids["<|startofprev|>"],
        "return_timestamps": False,
        "suppress_tokens": facts["suppress_ids"],
    }
    if multilingual:
        languages = {t: i for t, i in ids.items() if ids["<|startoftranscript|>"] < i < ids["<|translate|>"]}
        generation["lang_to_id"] = languages
        generation["task_to_id"] = {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")}
    return generation


def write(folder: Path, *, facts: Mapping[str, Any], tokenizer: dict[str, Any], weights: Weights) -> None:
    """Write config, generation_config, preprocessor_config and the tokenizer's files into `folder`.

    `facts` is CTranslate2's config.json: OpenAI's alignment heads and the suppressed tokens.
    """
    vocabulary = int(weights["model.decoder.embed_tokens.weight"].shape[0])
    _add_timestamps(tokenizer, vocabulary)
    ids = {token["content"]: int(token["id"]) for token in tokenizer["added_tokens"]}
    multilingual = vocabulary >= 51_865  # how OpenAI's own code tells the two kinds apart
    _write(folder / "config.json", _model_config(weights, ids))
    _write(folder / "generation_config.json", _generation(facts, ids, multilingual=multilingual))
    _write(folder / "preprocessor_config.json", FEATURES)
    _write(folder / "tokenizer.json", tokenizer)
    end = "<|endoftext|>"
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "WhisperTokenizer",
            "processor_class": "WhisperProcessor",
            "bos_token": end,
            "eos_token": end,
            "pad_token": end,
            "unk_token": end,
            "model_max_length": 1024,
            "clean_up_tokenization_spaces": False,
        },
    )
