"""The driver: the program on the machine that drives a bake, or proves that an image works. Standard library only.

It is not the NVIDIA driver. cloud-init's bootstrap starts it; it installs Salt, applies the states, verifies, seals,
and reports each step to the launcher, which waits on another computer.
"""
