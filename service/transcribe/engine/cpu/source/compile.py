"""Compiles the kernels with numba, to an object file that needs neither numba nor Python."""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

import llvmlite.binding as llvm
import numba
from numba import types
from numba.np.unsafe.ndarray import to_fixed_tuple

from transcribe.engine.cpu.constants import KERNELS, MULTIPLY
from transcribe.engine.cpu.source.products import multiply
from transcribe.engine.cpu.source.simd import FLAGS, Function, next_task

# C wrapper: kernels never raise, so that numba's status and exception pointers are ignored.
ENTRY = """
declare i32 @"{inner}"(ptr, ptr, ptr)
define void @"{name}"(ptr %block) {{
  %nothing = alloca ptr
  %status = call i32 @"{inner}"(ptr %nothing, ptr %nothing, ptr %block)
  ret void
}}
"""


def _loop(kernel: Function) -> Any:
    """A C function of a block of int64: the next task, the number of tasks, the kernel's arguments. Threads that are in
    it at the same time share the tasks."""
    count = len(inspect.signature(inspect.unwrap(kernel)).parameters) - 1

    def loop(block: Any) -> None:
        words = numba.carray(block, (count + 2,))
        arguments = to_fixed_tuple(words[2:], count)
        task = next_task(block)
        while task < words[1]:
            kernel(task, *arguments)
            task = next_task(block)

    return numba.cfunc(types.void(types.CPointer(types.int64)), **FLAGS)(loop)


def kernels(instructions: str) -> dict[str, Function]:
    """All kernels by their names, for a processor with `instructions`."""
    listed = {
        name: getattr(importlib.import_module(f"transcribe.engine.cpu.source.{module}"), name)
        for module, names in KERNELS.items()
        for name in names
    }
    return {**listed, MULTIPLY: multiply(instructions)}


def linked(kernels: Mapping[str, Function], target: llvm.TargetMachine) -> llvm.ModuleRef:
    """A module with each kernel as a C function of its name, optimised for `target`."""
    modules = []
    for name, kernel in kernels.items():
        loop = _loop(kernel)
        modules.append(llvm.parse_assembly(loop.inspect_llvm()))
        modules.append(llvm.parse_assembly(ENTRY.format(name=name, inner=loop.native_name.removeprefix("cfunc."))))
    whole, *rest = modules
    for module in rest:
        whole.link_in(module)
    for function in whole.functions:
        if not function.is_declaration and function.name not in kernels:
            function.linkage = "internal"  # and what nothing calls is dropped
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(whole, llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options()))
    return whole
