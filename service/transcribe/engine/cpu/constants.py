"""Sizes and names that the kernels and their callers share."""

ROWS = 8  # of a task of the kernels that work row by row
OUTPUTS, ROW_BLOCK = 32, 64  # of a task that multiplies a matrix: what is multiplied stays in the processor's cache
BLOCK = 32  # bytes in the registers of AVX2, which the products of int8 work in
DOT_OUTPUTS = 4  # of a matrix that are summed together
CHANNELS = 4  # of a head that are read together
VECTOR = 16  # float32 in the longest register there is: audio is padded to a multiple
GATES = 64  # outputs of an LSTM's gates that are summed together
SMALLEST = 1e-9  # stands for the largest magnitude of a row of zeros, so that none is divided by zero
MEDIAN = 7  # positions whose median stands for the middle one: that of all published models
LOG2E = 1.4426950408889634


def padded(positions: int) -> int:
    """The number of positions rounded up to whole registers."""
    return (positions + VECTOR - 1) // VECTOR * VECTOR


# Every kernel that is compiled, by the module in source/ that defines it; source/products.py makes MULTIPLY.
KERNELS = {
    "alignment": ("normalize_attention", "alignment_cost", "warp"),
    "argmax": ("best_tokens",),
    "attention": ("quantize_cross_kv", "self_attention", "cross_attention"),
    "layers": ("quantize_rows", "add_layernorm_quantize", "gelu_quantize", "split_heads", "exp2_rows", "merge_heads"),
    "recurrence": ("recurrence",),
}
MULTIPLY = "multiply"
