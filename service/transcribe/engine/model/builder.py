"""Puts a network together from fused weights, each matrix in the precision chosen for its side."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from transcribe.engine.cpu import ops
from transcribe.engine.cpu.library import Library
from transcribe.engine.model.attention import Attention
from transcribe.engine.model.checkpoint import Linear, Weights
from transcribe.engine.model.config import Shape
from transcribe.engine.model.network import (
    ACTIVATIONS,
    Decoder,
    DecoderLayer,
    Encoder,
    EncoderLayer,
    EncoderLayers,
    Norm,
)
from transcribe.engine.model.network_int8 import NarrowDecoder, NarrowDecoderLayer, NarrowLayer, NarrowLayers
from transcribe.engine.model.quantize import bfloat16_products, embedding, few_rows, many_rows
from transcribe.engine.model.quantize import linear as _linear


def _norm(weights: Weights, name: str) -> Norm:
    return Norm(weights[f"{name}.weight"], weights[f"{name}.bias"])


def _activated(linear: Linear, activation: Callable[[Tensor], Tensor]) -> Linear:
    return lambda x: activation(linear(x))


def _convolution(weights: Weights, name: str, stride: int) -> Linear:
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    bias = bias.to(weight.dtype)
    return lambda x: F.gelu(F.conv1d(x.to(weight.dtype), weight, bias, stride=stride, padding=1))


def encoder(weights: Weights, shape: Shape, attend: Attention, library: Library | None = None) -> Encoder:
    """`library` is for matrices in int8."""
    narrow = library if "encoder.0.qkv.scale" in weights else None
    return Encoder(
        convolutions=(_convolution(weights, "encoder.conv1", 1), _convolution(weights, "encoder.conv2", 2)),
        positions=weights["encoder.positions"],
        layers=_narrow(weights, shape, narrow) if narrow else _layers(weights, shape, attend),
    )


def _layers(weights: Weights, shape: Shape, attend: Attention) -> EncoderLayers:
    activation = ACTIVATIONS[shape.activation]
    layers = tuple(
        EncoderLayer(
            norm1=_norm(weights, f"encoder.{index}.norm1"),
            qkv=_linear(weights, f"encoder.{index}.qkv"),
            out=_linear(weights, f"encoder.{index}.out"),
            norm_ffn=_norm(weights, f"encoder.{index}.norm_ffn"),
            fc1=_activated(_linear(weights, f"encoder.{index}.fc1"), activation),
            fc2=_linear(weights, f"encoder.{index}.fc2"),
        )
        for index in range(shape.encoder_layers)
    )
    return EncoderLayers(layers, _norm(weights, "encoder.norm"), shape.encoder_heads, attend)


def _narrow(weights: Weights, shape: Shape, library: Library) -> NarrowLayers:
    layers = tuple(
        NarrowLayer(
            norm1=_norm(weights, f"encoder.{index}.norm1"),
            qkv=many_rows(library, weights, f"encoder.{index}.qkv"),
            out=many_rows(library, weights, f"encoder.{index}.out"),
            norm_ffn=_norm(weights, f"encoder.{index}.norm_ffn"),
            fc1=many_rows(library, weights, f"encoder.{index}.fc1"),
            fc2=many_rows(library, weights, f"encoder.{index}.fc2"),
        )
        for index in range(shape.encoder_layers)
    )
    norm = _norm(weights, "encoder.norm")
    return NarrowLayers(library, layers, norm, shape.encoder_heads, bfloat16_products())


def decoder(weights: Weights, shape: Shape, library: Library | None = None) -> Decoder:
    """`library` is for matrices in int8."""
    common: dict[str, Any] = {
        "shape": shape,
        "embed": embedding(weights, "decoder.head"),
        "positions": weights["decoder.positions"],
        "norm": _norm(weights, "decoder.norm"),
    }
    names = [f"decoder.{index}" for index in range(shape.decoder_layers)]
    if library is not None and "decoder.0.qkv.scale" in weights:
        narrow = tuple(_narrow_decoder_layer(library, weights, name) for name in names)
        return NarrowDecoder(**common, head=_narrow_head(library, weights), layers=(), library=library, narrow=narrow)
    head, activation = _linear(weights, "decoder.head"), ACTIVATIONS[shape.activation]
    layers = tuple(_decoder_layer(weights, name, activation, library) for name in names)
    return Decoder(**common, head=lambda x: head(x).float(), layers=layers)


def _decoder_layer(
    weights: Weights, name: str, activation: Callable[[Tensor], Tensor], library: Library | None
) -> DecoderLayer:
    return DecoderLayer(
        norm1=_norm(weights, f"{name}.norm1"),
        qkv=_linear(weights, f"{name}.qkv"),
        out=_linear(weights, f"{name}.out"),
        norm_cross=_norm(weights, f"{name}.norm_cross"),
        query=_linear(weights, f"{name}.query"),
        cross=_linear(weights, f"{name}.cross", library),
        cross_out=_linear(weights, f"{name}.cross_out"),
        norm_ffn=_norm(weights, f"{name}.norm_ffn"),
        fc1=_activated(_linear(weights, f"{name}.fc1"), activation),
        fc2=_linear(weights, f"{name}.fc2"),
    )


def _narrow_head(library: Library, weights: Weights) -> Linear:
    matrix = few_rows(library, weights, "decoder.head")

    def head(x: Tensor) -> Tensor:
        product = matrix.times(ops.rounded(library, x))
        return product.value.mul_(product.scale[:, None])  # it has no bias, and is long

    return head


def _narrow_decoder_layer(library: Library, weights: Weights, name: str) -> NarrowDecoderLayer:
    return NarrowDecoderLayer(
        norm1=_norm(weights, f"{name}.norm1"),
        qkv=few_rows(library, weights, f"{name}.qkv"),
        out=few_rows(library, weights, f"{name}.out"),
        norm_cross=_norm(weights, f"{name}.norm_cross"),
        query=few_rows(library, weights, f"{name}.query"),
        cross=many_rows(library, weights, f"{name}.cross"),
        cross_out=few_rows(library, weights, f"{name}.cross_out"),
        norm_ffn=_norm(weights, f"{name}.norm_ffn"),
        fc1=few_rows(library, weights, f"{name}.fc1"),
        fc2=few_rows(library, weights, f"{name}.fc2"),
    )
