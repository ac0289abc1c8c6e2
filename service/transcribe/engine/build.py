"""Puts a network together from fused weights, each matrix in the precision chosen for its side."""

from collections.abc import Callable

import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from .attention import Attention
from .network import ACTIVATIONS, Decoder, DecoderLayer, Encoder, EncoderLayer, Norm
from .quantize import embedding
from .quantize import linear as _linear
from .spec import Shape
from .weights import Linear, Weights


def _norm(weights: Weights, name: str) -> Norm:
    return Norm(weights[f"{name}.weight"], weights[f"{name}.bias"])


def _activated(linear: Linear, activation: Callable[[Tensor], Tensor]) -> Linear:
    return lambda x: activation(linear(x))


def _convolution(weights: Weights, name: str, stride: int) -> Linear:
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    bias = bias.to(weight.dtype)
    return lambda x: F.gelu(F.conv1d(x.to(weight.dtype), weight, bias, stride=stride, padding=1))


def encoder(weights: Weights, shape: Shape, attend: Attention) -> Encoder:
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
    return Encoder(
        shape=shape,
        convolutions=(_convolution(weights, "encoder.conv1", 1), _convolution(weights, "encoder.conv2", 2)),
        positions=weights["encoder.positions"],
        layers=layers,
        norm=_norm(weights, "encoder.norm"),
        attend=attend,
    )


def decoder(weights: Weights, shape: Shape) -> Decoder:
    activation = ACTIVATIONS[shape.activation]
    layers = tuple(
        DecoderLayer(
            norm1=_norm(weights, f"decoder.{index}.norm1"),
            qkv=_linear(weights, f"decoder.{index}.qkv"),
            out=_linear(weights, f"decoder.{index}.out"),
            norm_cross=_norm(weights, f"decoder.{index}.norm_cross"),
            query=_linear(weights, f"decoder.{index}.query"),
            cross=_linear(weights, f"decoder.{index}.cross"),
            cross_out=_linear(weights, f"decoder.{index}.cross_out"),
            norm_ffn=_norm(weights, f"decoder.{index}.norm_ffn"),
            fc1=_activated(_linear(weights, f"decoder.{index}.fc1"), activation),
            fc2=_linear(weights, f"decoder.{index}.fc2"),
        )
        for index in range(shape.decoder_layers)
    )
    head = _linear(weights, "decoder.head")
    return Decoder(
        shape=shape,
        embed=embedding(weights, "decoder.head"),
        positions=weights["decoder.positions"],
        layers=layers,
        norm=_norm(weights, "decoder.norm"),
        head=lambda x: head(x).float(),
    )
