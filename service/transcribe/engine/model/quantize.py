"""Matrices in the precision that suits the processor."""

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from transcribe.engine.cpu import int8
from transcribe.engine.cpu.constants import SMALLEST
from transcribe.engine.cpu.library import Library, instructions
from transcribe.engine.model.checkpoint import Linear, Weights

INT8, BFLOAT16, FLOAT16, FLOAT32 = "int8", "bfloat16", "float16", "float32"
HEAD, NORM = "decoder.head", "decoder.norm"  # the norm is what the head multiplies
DEVIATIONS = 3.0  # standard deviations that a norm's output is taken to reach
DTYPES: Mapping[str, torch.dtype] = {BFLOAT16: torch.bfloat16, FLOAT16: torch.float16, FLOAT32: torch.float32}


def float_linear(weight: Tensor, bias: Tensor | None) -> Linear:
    """A linear layer in the matrix' own dtype; input and output are in the input's."""
    dtype = weight.dtype
    own_bias = None if bias is None else bias.to(dtype)

    def apply(x: Tensor) -> Tensor:
        return F.linear(x.to(dtype), weight, own_bias).to(x.dtype)

    return apply


def linear(weights: Weights, name: str, library: Library | None = None) -> Linear:
    """The linear layer `name`: int8 when its scales are among the weights, for inputs of many rows."""
    if library is not None and f"{name}.scale" in weights:
        return int8.gemm(library, *int8_parts(weights, name))
    return float_linear(weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def int8_parts(weights: Weights, name: str) -> tuple[Tensor, Tensor, Tensor | None]:
    """Weight, scale and bias of the int8 matrix `name`."""
    return weights[f"{name}.weight"], weights[f"{name}.scale"], weights.get(f"{name}.bias")


def embedding(weights: Weights, name: str) -> Linear:
    """From token ids to the rows of a matrix, in the dtype of what is no matrix."""
    weight, scale = weights[f"{name}.weight"], weights.get(f"{name}.scale")
    compute_dtype = weights["decoder.positions"].dtype
    if scale is None:
        return lambda ids: weight[ids].to(compute_dtype)
    factors = weights[f"{name}.factors"]
    return lambda ids: weight[ids] * scale[ids][..., None] / factors


def convert(weights: Iterable[tuple[str, Tensor]], kinds: Mapping[str, str], compute_dtype: torch.dtype) -> Weights:
    """`weights` with the matrices of "encoder" and "decoder" in their kinds, and all else in `compute_dtype`.

    "cross" is the kind of the decoder's matrices that make keys and values of the encoded audio. In `weights` the
    decoder's norm comes before its head.
    """
    result: Weights = {}
    for name, tensor in weights:
        kind = kinds["cross" if name.endswith(".cross.weight") else name.split(".", 1)[0]]
        if not name.endswith(".weight") or tensor.ndim == 1:
            result[name] = tensor.to(compute_dtype)
        elif kind == INT8 and tensor.ndim == 2:
            matrix = _balanced_head(result, tensor) if name == f"{HEAD}.weight" else tensor
            result[name], result[name.replace(".weight", ".scale")] = int8.quantized(matrix)
        elif kind == INT8:  # convolutions
            result[name] = tensor.to(torch.bfloat16 if bfloat16_products() else compute_dtype)
        else:
            result[name] = tensor.to(DTYPES[kind])
    return result


def _balanced_head(result: Weights, head: Tensor) -> Tensor:
    """The head [vocabulary, width] with its columns multiplied by the factors that the norm before it, in `result`, is
    divided by: the logits stay, but few loud channels no longer cost a row of int8 levels its precision. The factors
    are put into `result`, for the embedding.

    After Xiao et al., SmoothQuant, 2023 (eq. 4, alpha 1/2), with the norm's own weights in place of recordings: what it
    returns deviates by |weight| from its bias. Of Whisper-base's divergence from float32 the head in int8 makes four
    fifths, and a quarter of that is left (0.0020 -> 0.0005 nats a token); balancing the layers as well gains nothing.
    """
    weight, bias = result[f"{NORM}.weight"], result[f"{NORM}.bias"]
    loudness = (DEVIATIONS * weight.abs() + bias.abs()).clamp(min=SMALLEST)
    factors = (loudness / head.abs().amax(0).clamp(min=SMALLEST)).sqrt()
    result[f"{NORM}.weight"], result[f"{NORM}.bias"] = weight / factors, bias / factors
    result[f"{HEAD}.factors"] = factors
    return head * factors


def native_products() -> str:
    """What the processor multiplies itself, besides float32: prepared weights and measurements are for that."""
    return f"{INT8} by {instructions() or 'none'}" + (f", {BFLOAT16}" if bfloat16_products() else "")


def bfloat16_products() -> bool:
    """Whether the processor multiplies bfloat16 itself: elsewhere it is slower than float32."""
    return bool(torch.cpu._is_avx512_bf16_supported()) or bool(torch.cpu._is_amx_tile_supported())
