"""A model's weights as flat tensors under names of our own, with what belongs together fused.

Names: `encoder.<layer>.<part>.<weight|bias>` and `decoder.<layer>.<part>...`, where a part is one of
`norm1 qkv out norm_ffn fc1 fc2`, in the decoder also `norm_cross query cross cross_out` (`cross` makes keys and
values of the encoded audio); `conv1`, `conv2`, `positions`, `norm` and `head`, which also embeds the tokens, stand
beside the layers. The queries' weights carry the factor 1/sqrt(head size), so that attention needs none.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from transcribe.engine.chunks import EngineError
from transcribe.engine.model.config import Shape

if TYPE_CHECKING:
    from collections.abc import Mapping

Weights = dict[str, Tensor]
Linear = Callable[[Tensor], Tensor]


def load_state(model_dir: Path, dtype: torch.dtype) -> "Mapping[str, Tensor]":
    """The published weights through transformers, in `dtype`, without a second copy in memory."""
    from transformers import WhisperForConditionalGeneration
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model = WhisperForConditionalGeneration.from_pretrained(
            model_dir, dtype=dtype, local_files_only=True, low_cpu_mem_usage=True, use_safetensors=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EngineError(f"cannot load the model in {model_dir}: {reason}; run advanced_cache.py") from error
    state: Mapping[str, Tensor] = model.state_dict()
    return state


def _attention(state: "Mapping[str, Tensor]", prefix: str, scale: float) -> Iterator[tuple[str, Tensor]]:
    query = state[f"{prefix}.q_proj.weight"] * scale
    query_bias = state[f"{prefix}.q_proj.bias"] * scale
    key, value = state[f"{prefix}.k_proj.weight"], state[f"{prefix}.v_proj.weight"]
    value_bias = state[f"{prefix}.v_proj.bias"]
    yield "qkv.weight", torch.cat([query, key, value])
    yield "qkv.bias", torch.cat([query_bias, torch.zeros_like(value_bias), value_bias])
    yield "out.weight", state[f"{prefix}.out_proj.weight"]
    yield "out.bias", state[f"{prefix}.out_proj.bias"]


def _cross_attention(state: "Mapping[str, Tensor]", prefix: str, scale: float) -> Iterator[tuple[str, Tensor]]:
    yield "query.weight", state[f"{prefix}.q_proj.weight"] * scale
    yield "query.bias", state[f"{prefix}.q_proj.bias"] * scale
    value_bias = state[f"{prefix}.v_proj.bias"]
    yield "cross.weight", torch.cat([state[f"{prefix}.k_proj.weight"], state[f"{prefix}.v_proj.weight"]])
    yield "cross.bias", torch.cat([torch.zeros_like(value_bias), value_bias])
    yield "cross_out.weight", state[f"{prefix}.out_proj.weight"]
    yield "cross_out.bias", state[f"{prefix}.out_proj.bias"]


def _copies(state: "Mapping[str, Tensor]", source: str, target: str) -> Iterator[tuple[str, Tensor]]:
    for part in ("weight", "bias"):
        yield f"{target}.{part}", state[f"{source}.{part}"]


def fuse(state: "Mapping[str, Tensor]", shape: Shape) -> Weights:
    """Our names from transformers' state, queries scaled, q, k and v in one matrix."""
    fused: Weights = {}
    for side, layers, heads in (
        ("encoder", shape.encoder_layers, shape.encoder_heads),
        ("decoder", shape.decoder_layers, shape.decoder_heads),
    ):
        scale = (shape.width // heads) ** -0.5
        for layer in range(layers):
            source, target = f"model.{side}.layers.{layer}", f"{side}.{layer}"
            for name, tensor in _attention(state, f"{source}.self_attn", scale):
                fused[f"{target}.{name}"] = tensor
            fused.update(_copies(state, f"{source}.self_attn_layer_norm", f"{target}.norm1"))
            fused.update(_copies(state, f"{source}.final_layer_norm", f"{target}.norm_ffn"))
            fused.update(_copies(state, f"{source}.fc1", f"{target}.fc1"))
            fused.update(_copies(state, f"{source}.fc2", f"{target}.fc2"))
            if side == "decoder":
                fused.update(_copies(state, f"{source}.encoder_attn_layer_norm", f"{target}.norm_cross"))
                for name, tensor in _cross_attention(state, f"{source}.encoder_attn", scale):
                    fused[f"{target}.{name}"] = tensor
        fused.update(_copies(state, f"model.{side}.layer_norm", f"{side}.norm"))
        fused[f"{side}.positions"] = state[f"model.{side}.embed_positions.weight"]
    for convolution in ("conv1", "conv2"):
        fused.update(_copies(state, f"model.encoder.{convolution}", f"encoder.{convolution}"))
    fused["decoder.head.weight"] = state["model.decoder.embed_tokens.weight"]
    return fused
