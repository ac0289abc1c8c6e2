"""Puts a network together from fused weights, each matrix in the precision chosen for its side."""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from transcribe.engine.cpu import ops
from transcribe.engine.cpu.int8 import Matrix, gemm, gemv
from transcribe.engine.cpu.library import Library
from transcribe.engine.cpu.ops import Product, QuantizedRows
from transcribe.engine.model.checkpoint import Linear, Weights
from transcribe.engine.model.config import ModelDimensions
from transcribe.engine.model.network import (
    ACTIVATIONS,
    CrossAttention,
    Decoder,
    Encoder,
    FloatStream,
    Layer,
    Norm,
    Stack,
    Stream,
    attend_fused,
    float_attention,
)
from transcribe.engine.model.network_int8 import Int8Stream, attend_window, int8_attention
from transcribe.engine.model.quantize import bfloat16_products, embedding, int8_parts, linear

MakeMatrix = Callable[[str], Callable[[Any], Any]]  # from its name


def _norm(weights: Weights, name: str) -> Norm:
    return Norm(weights[f"{name}.weight"], weights[f"{name}.bias"])


def _convolution(weights: Weights, name: str, stride: int) -> Linear:
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    bias = bias.to(weight.dtype)
    return lambda x: F.gelu(F.conv1d(x.to(weight.dtype), weight, bias, stride=stride, padding=1))


def _layer(weights: Weights, name: str, matrix: MakeMatrix) -> Layer[Any, Any]:
    cross = None
    if f"{name}.norm_cross.weight" in weights:
        norm = _norm(weights, f"{name}.norm_cross")
        cross = CrossAttention(norm, matrix(f"{name}.query"), matrix(f"{name}.cross_out"))
    matrices: dict[str, Any] = {part: matrix(f"{name}.{part}") for part in ("qkv", "out", "fc1", "fc2")}
    norms = {part: _norm(weights, f"{name}.{part}") for part in ("norm1", "norm_ffn")}
    return Layer(**norms, **matrices, cross=cross)


def _stack(
    weights: Weights, side: str, dims: ModelDimensions, make: Callable[..., Matrix], library: Library | None
) -> Stack[Any, Any]:
    """The layers of "encoder" or "decoder": in int8 where there is a `library`, whose matrices are made by `make`."""
    matrix: MakeMatrix = functools.partial(linear, weights)
    stream: Callable[[Tensor], Stream[Any, Any]] = functools.partial(FloatStream, ACTIVATIONS[dims.activation])
    if library is not None:
        stream = functools.partial(Int8Stream, library)

        def matrix(name: str) -> Callable[[QuantizedRows], Product]:
            return make(library, *int8_parts(weights, name)).times

    count = dims.encoder_layers if side == "encoder" else dims.decoder_layers
    layers = tuple(_layer(weights, f"{side}.{index}", matrix) for index in range(count))
    return Stack(layers, _norm(weights, f"{side}.norm"), stream)


def encoder(
    weights: Weights,
    dims: ModelDimensions,
    attend: Callable[[int, Tensor], Tensor] = attend_fused,
    library: Library | None = None,
) -> Encoder:
    """`attend` is the attention in float, from the heads and [length, 3 · width] to [length, width]; `library` is for
    matrices in int8."""
    library = library if "encoder.0.qkv.scale" in weights else None
    attend_int8 = library and functools.partial(attend_window, library, bfloat16=bfloat16_products())
    return Encoder(
        convolutions=(_convolution(weights, "encoder.conv1", 1), _convolution(weights, "encoder.conv2", 2)),
        positions=weights["encoder.positions"],
        layers=_stack(weights, "encoder", dims, gemm, library),
        attend=functools.partial(attend_int8 or attend, dims.encoder_heads),
        at_once=library is None and attend is attend_fused,
    )


def decoder(weights: Weights, dims: ModelDimensions, library: Library | None = None) -> Decoder:
    """`library` is for matrices in int8."""
    int8 = library if "decoder.0.qkv.scale" in weights else None
    return Decoder(
        dims=dims,
        embed=embedding(weights, "decoder.head"),
        positions=weights["decoder.positions"],
        layers=_stack(weights, "decoder", dims, gemv, int8),
        head=_head(weights, int8),
        cross_kv=[linear(weights, f"decoder.{index}.cross", library) for index in range(dims.decoder_layers)],
        attention=functools.partial(int8_attention, int8) if int8 else float_attention,
        cache_dtype=torch.bfloat16 if int8 else weights["decoder.positions"].dtype,
        library=int8,
        head_weight=None if int8 else weights["decoder.head.weight"],
    )


def _head(weights: Weights, library: Library | None) -> Linear:
    """From hidden states to logits in float32. It has no bias, and so many outputs that none is added."""
    if library is None:
        head = linear(weights, "decoder.head")
        return lambda x: head(x).float()
    matrix = gemv(library, *int8_parts(weights, "decoder.head"))

    def head_int8(x: Tensor) -> Tensor:
        product = matrix.times(ops.quantize_rows(library, x))
        return product.value.mul_(product.scale[:, None])

    return head_int8
