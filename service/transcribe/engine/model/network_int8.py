"""What the networks need for int8 matrices: between two products, memory is passed over once."""

from torch import Tensor

from transcribe.engine.cpu import ops
from transcribe.engine.cpu.library import Library
from transcribe.engine.cpu.ops import Product, QuantizedRows
from transcribe.engine.model.network import Attend, Norm, Step, Stream, attend_fused, mix_heads


class Int8Stream(Stream[QuantizedRows, Product]):
    """Float32 states, to which a product is added only when they are normalized next. Changes `x`."""

    def __init__(self, library: Library, x: Tensor) -> None:
        self._library = library
        self._shape = x.shape
        self._x = x.contiguous().view(-1, x.shape[-1])
        self._due: Product | None = None

    def add(self, output: Product) -> None:
        self._due = output

    def normalized(self, norm: Norm) -> QuantizedRows:
        due, self._due = self._due, None
        return ops.add_layernorm_quantize(self._library, self._x, due, (norm.weight, norm.bias))

    def activated(self, output: Product) -> QuantizedRows:
        return ops.gelu_quantize(self._library, output)

    def result(self) -> Tensor:
        if self._due is not None:
            self._x.add_(self._due.dequantize())
        return self._x.view(self._shape)


def attend_window(library: Library, heads: int, qkv: Product, *, bfloat16: bool) -> QuantizedRows:
    """The encoder's attention, [length, 3 · width] → [length, width]; in bfloat16 where the processor multiplies
    that."""
    if not bfloat16:
        return ops.quantize_rows(library, attend_fused(heads, qkv.dequantize()))
    mixed, sums = mix_heads(library, *ops.split_heads(library, qkv, heads).unbind(0))
    return ops.merge_heads(library, mixed, sums)


def int8_attention(library: Library, heads: int, step: Step) -> tuple[Attend, Attend]:
    """The decoder's attentions by few calls for a token: they cost more than what they compute."""
    cache, rows, starts = step.cache, step.rows, step.places[:, 0].contiguous()

    def attend(layer: int, qkv: Product) -> QuantizedRows:
        return ops.self_attention(library, qkv, heads, starts, cache.keys[layer, rows], cache.values[layer, rows])

    def attend_audio(layer: int, query: Product) -> QuantizedRows:
        mixed = step.attend_audio(layer, query.dequantize().view(*step.places.shape, -1))
        return ops.quantize_rows(library, mixed.view(-1, mixed.shape[-1]))

    return attend, attend_audio
