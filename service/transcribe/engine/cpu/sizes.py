"""Sizes that the kernels and their callers agree on."""

ROWS = 8  # of a task that works row by row
OUTPUTS = 32  # of a task that multiplies a matrix
VECTOR = 16  # float32 in the longest register there is: audio is padded to a multiple
