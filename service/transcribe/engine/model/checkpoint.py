"""A model's weights as flat tensors under names of our own, with what belongs together fused.

Names: `encoder.<layer>.<part>.<weight|bias>` and `decoder.<layer>.<part>...`, where a part is one of
`norm1 qkv out norm_ffn fc1 fc2`, in the decoder also `norm_cross query cross cross_out` (`cross` makes keys and
values of the encoded audio); `conv1`, `conv2`, `positions`, `norm` and `head`, which also embeds the tokens, stand
beside the layers. The queries' weights carry the factor 1/sqrt(head size), so that attention needs none.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from transcribe.engine.chunks import EngineError
from transcribe.engine.model.config import ModelDimensions

Weights = dict[str, Tensor]
Linear = Callable[[Tensor], Tensor]
INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"  # of several shards, or of one


class Checkpoint(Mapping[str, Tensor]):
    """A model's published weights in float32, each read from its shard when it is asked for.

    So that a model that is converted is never in memory as a whole but in the form it is converted to.
    """

    def __init__(self, model_dir: Path) -> None:
        """Raises EngineError when the files are missing or damaged."""
        self._model_dir = model_dir
        try:
            index = model_dir / INDEX
            names = set(json.loads(index.read_text())["weight_map"].values()) if index.exists() else {WHOLE}
            shards: list[Any] = [safe_open(model_dir / name, "pt") for name in sorted(names)]
        except (OSError, ValueError, LookupError, SafetensorError) as error:
            raise self._unusable(error) from error
        self._shards: dict[str, Any] = {name: shard for shard in shards for name in shard.keys()}  # noqa: SIM118

    def _unusable(self, error: Exception) -> EngineError:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return EngineError(f"cannot load the model in {self._model_dir}: {reason}; run advanced_cache.py")

    def __getitem__(self, name: str) -> Tensor:
        try:
            tensor: Tensor = self._shards[name].get_tensor(name)
        except (KeyError, SafetensorError) as error:
            raise self._unusable(error) from error
        return tensor.to(torch.float32)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shards)

    def __len__(self) -> int:
        return len(self._shards)


def _attention(state: Mapping[str, Tensor], prefix: str, scale: float) -> Iterator[tuple[str, Tensor]]:
    query = state[f"{prefix}.q_proj.weight"] * scale
    query_bias = state[f"{prefix}.q_proj.bias"] * scale
    key, value = state[f"{prefix}.k_proj.weight"], state[f"{prefix}.v_proj.weight"]
    value_bias = state[f"{prefix}.v_proj.bias"]
    yield "qkv.weight", torch.cat([query, key, value])
    yield "qkv.bias", torch.cat([query_bias, torch.zeros_like(value_bias), value_bias])
    yield "out.weight", state[f"{prefix}.out_proj.weight"]
    yield "out.bias", state[f"{prefix}.out_proj.bias"]


def _cross_attention(state: Mapping[str, Tensor], prefix: str, scale: float) -> Iterator[tuple[str, Tensor]]:
    yield "query.weight", state[f"{prefix}.q_proj.weight"] * scale
    yield "query.bias", state[f"{prefix}.q_proj.bias"] * scale
    value_bias = state[f"{prefix}.v_proj.bias"]
    yield "cross.weight", torch.cat([state[f"{prefix}.k_proj.weight"], state[f"{prefix}.v_proj.weight"]])
    yield "cross.bias", torch.cat([torch.zeros_like(value_bias), value_bias])
    yield "cross_out.weight", state[f"{prefix}.out_proj.weight"]
    yield "cross_out.bias", state[f"{prefix}.out_proj.bias"]


def _copies(state: Mapping[str, Tensor], source: str, target: str) -> Iterator[tuple[str, Tensor]]:
    for part in ("weight", "bias"):
        yield f"{target}.{part}", state[f"{source}.{part}"]


def fuse(state: Mapping[str, Tensor], dims: ModelDimensions) -> Iterator[tuple[str, Tensor]]:
    """Our names from transformers' state, queries scaled, q, k and v in one matrix; one tensor after the other."""
    for side, layers, heads in (
        ("encoder", dims.encoder_layers, dims.encoder_heads),
        ("decoder", dims.decoder_layers, dims.decoder_heads),
    ):
        scale = (dims.width // heads) ** -0.5
        for layer in range(layers):
            source, target = f"model.{side}.layers.{layer}", f"{side}.{layer}"
            for name, tensor in _attention(state, f"{source}.self_attn", scale):
                yield f"{target}.{name}", tensor
            yield from _copies(state, f"{source}.self_attn_layer_norm", f"{target}.norm1")
            yield from _copies(state, f"{source}.final_layer_norm", f"{target}.norm_ffn")
            yield from _copies(state, f"{source}.fc1", f"{target}.fc1")
            yield from _copies(state, f"{source}.fc2", f"{target}.fc2")
            if side == "decoder":
                yield from _copies(state, f"{source}.encoder_attn_layer_norm", f"{target}.norm_cross")
                for name, tensor in _cross_attention(state, f"{source}.encoder_attn", scale):
                    yield f"{target}.{name}", tensor
        yield from _copies(state, f"model.{side}.layer_norm", f"{side}.norm")
        yield f"{side}.positions", state[f"model.{side}.embed_positions.weight"]
    for convolution in ("conv1", "conv2"):
        yield from _copies(state, f"model.encoder.{convolution}", f"encoder.{convolution}")
    yield "decoder.head.weight", state["model.decoder.embed_tokens.weight"]
