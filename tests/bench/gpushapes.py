"""Models of Whisper's published sizes with random weights, and what their windows cost: for speed, not for text."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transcribe.engine.model import builder, precision, quantize
from transcribe.engine.model.checkpoint import fuse
from transcribe.engine.model.config import ModelDimensions
from transcribe.engine.model.network import attend_fused
from transcribe.engine.model.whisper import Model

SHAPES = {  # width, layers of the encoder and of the decoder, heads, mel bands
    "tiny": (384, 4, 4, 6, 80),
    "base": (512, 6, 6, 8, 80),
    "small": (768, 12, 12, 12, 80),
    "large-v3": (1280, 32, 32, 20, 128),
}
SCALE = 0.02
# NVIDIA's data sheet of the T4, and the shares that matrix products and memory usually reach.
T4_FLOPS, T4_BYTES = 65e12 * 0.5, 320e9 * 0.7


class RandomState(Mapping[str, Tensor]):
    """transformers' names of a model's weights, each made when it is asked for."""

    def __init__(self, dims: ModelDimensions) -> None:
        wide, tall = dims.width, dims.feed_forward
        self._shapes: dict[str, tuple[int, ...]] = {
            r"(q|k|v|out)_proj\.weight": (wide, wide),
            r"fc1\.weight": (tall, wide),
            r"fc2\.weight": (wide, tall),
            r"fc1\.bias": (tall,),
            r"encoder\.embed_positions\.weight": (dims.positions, wide),
            r"decoder\.embed_positions\.weight": (dims.context, wide),
            r"embed_tokens\.weight": (dims.vocabulary, wide),
            r"conv1\.weight": (wide, dims.bands, 3),
            r"conv2\.weight": (wide, wide, 3),
            r"(bias|layer_norm\.weight)": (wide,),
        }

    def __getitem__(self, name: str) -> Tensor:
        shape = next(shape for pattern, shape in self._shapes.items() if re.search(f"{pattern}$", name))
        if name.endswith("layer_norm.weight"):
            return torch.ones(shape)
        return torch.randn(shape) * SCALE

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def model(like: Model, shape: str) -> Model:
    """A model of `shape` with the tokens, the device and the precision of `like`."""
    width, encoder_layers, decoder_layers, heads, bands = SHAPES[shape]
    dims = replace(
        like.dims,
        width=width,
        feed_forward=4 * width,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        encoder_heads=heads,
        decoder_heads=heads,
        bands=bands,
    )
    kind = "float16" if like.device == "cuda" else "float32"
    chosen = precision.Precision(kind, kind, kind, kind)
    weights = quantize.convert(fuse(RandomState(dims), dims), chosen.kinds, quantize.DTYPES[kind])
    weights = {name: tensor.to(like.device) for name, tensor in weights.items()}
    last = decoder_layers - 1
    return replace(
        like,
        dims=dims,
        special=replace(like.special, alignment_heads=tuple((last, head) for head in range(min(heads, 10)))),
        encoder=builder.encoder(weights, dims, attend_fused),
        decoder=builder.decoder(weights, dims),
        precision=chosen,
    )


@dataclass(frozen=True)
class Cost:
    """Of a window of 30 s: operations of its encoder and of a token, bytes that a step reads once and for each row."""

    encoder_flop: float
    token_flop: float
    step_bytes: float
    row_bytes: float

    def seconds(self, rows: int, tokens: int, flops: float = T4_FLOPS, memory: float = T4_BYTES) -> float:
        """Of a window among `rows`, at so many operations and bytes a second: what takes longer of the two decides."""
        step = max(self.step_bytes + rows * self.row_bytes, rows * self.token_flop / flops * memory) / memory
        return self.encoder_flop / flops + tokens * step / rows


def cost(dims: ModelDimensions, size: int = 2) -> Cost:
    """Counted from the network; `size` are the bytes of a number."""
    wide, tall, long = dims.width, dims.feed_forward, dims.positions
    layer = 4 * wide * wide + 2 * wide * tall  # weights of the encoder's, and of the decoder's but for its audio
    decoder = dims.decoder_layers * (layer + 2 * wide * wide) + dims.vocabulary * wide
    cross = 2 * dims.decoder_layers * long * wide  # numbers
    convolutions = 3 * dims.bands * wide * 2 * long + 3 * wide * wide * long
    encoder = dims.encoder_layers * (layer * long + 2 * long * long * wide) + cross * wide + convolutions
    return Cost(2.0 * encoder, 2.0 * (decoder + cross), float(decoder * size), float(cross))  # which is kept in bytes
