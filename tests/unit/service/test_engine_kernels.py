"""The processor's kernels beside torch's operations on the same, and how their machine code is kept."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import llvmlite.binding as llvm
import pytest
import torch
import torch.nn.functional as F
from llvmlite import ir
from torch import Tensor
from transcribe.engine.chunks import EngineError
from transcribe.engine.cpu import int8, library, ops, threads
from transcribe.engine.cpu.library import Library
from transcribe.engine.cpu.ops import Product, QuantizedRows

Make = Callable[[Library, Tensor, Tensor, Tensor | None], int8.Matrix]
SIZES = [(1, 64), (7, 64), (8, 96), (50, 200), (131, 512)]  # rows, columns


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


def floats(levels: QuantizedRows) -> Tensor:
    return (levels.levels.float() - 128) * levels.absmax[:, None] / 127


def close(found: QuantizedRows, expected: Tensor) -> None:
    """Each value is at most half a level, and what rounding moved by, from what it should be."""
    absmax = expected.abs().amax(1, keepdim=True)
    torch.testing.assert_close(found.absmax[:, None], absmax.clamp(min=1e-9), rtol=1e-5, atol=1e-9)
    assert ((floats(found) - expected).abs() <= absmax / 254 * 1.001 + 1e-6).all()


def product(rows: int, columns: int) -> tuple[Product, Tensor]:
    """A product, and what it stands for."""
    one = Product(torch.randn(rows, columns), torch.rand(rows) * 3, torch.randn(columns))
    return one, one.value * one.scale[:, None] + one.bias


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_rows_are_rounded_each_by_its_loudest(kernels: Library, rows: int, columns: int) -> None:
    x = torch.randn(rows, columns) * torch.logspace(-6, 6, rows)[:, None]
    close(ops.quantize_rows(kernels, x), x)
    assert (ops.quantize_rows(kernels, torch.zeros(rows, columns)).levels == 128).all()


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_what_is_added_is_normalized(kernels: Library, rows: int, columns: int) -> None:
    x = torch.randn(rows, columns)
    norm = torch.randn(columns), torch.randn(columns)
    close(ops.add_layernorm_quantize(kernels, x.clone(), None, norm), F.layer_norm(x, (columns,), *norm, 1e-5))
    more, told = product(rows, columns)
    added = x.clone()
    found = ops.add_layernorm_quantize(kernels, added, more, norm)
    torch.testing.assert_close(added, x + told)
    close(found, F.layer_norm(added, (columns,), *norm, 1e-5))


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_activation_is_gelu(kernels: Library, rows: int, columns: int) -> None:
    more, told = product(rows, columns)
    close(ops.gelu_quantize(kernels, more), F.gelu(told))
    torch.testing.assert_close(more.value, F.gelu(told), rtol=1e-5, atol=2e-6)


def test_gelu_far_from_zero(kernels: Library) -> None:
    x = torch.tensor([[-1e4, -90.0, -13.0, -6.0, -0.0, 6.0, 90.0, 1e4]])
    more = Product(x.clone(), torch.ones(1), torch.zeros(8))
    ops.gelu_quantize(kernels, more)
    torch.testing.assert_close(more.value, F.gelu(x), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("spread", [0.1, 3.0, 300.0])
@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_exponentials_make_a_softmax(kernels: Library, rows: int, columns: int, spread: float) -> None:
    scores = (torch.randn(rows, columns) * spread).to(torch.bfloat16)
    expected = torch.softmax(scores.float() * 0.6931471805599453, -1)
    sums = torch.empty(rows)
    ops.exp2_rows(kernels, scores, sums)
    torch.testing.assert_close(scores.float() / sums[:, None], expected, rtol=0.005, atol=1e-7)


@pytest.mark.parametrize("outputs", [4, 5, 31, 96, 130])
@pytest.mark.parametrize("rows", [1, 3, 4, 11])
def test_a_matrix_for_few_rows_multiplies_exactly(kernels: Library, rows: int, outputs: int) -> None:
    weight = torch.randint(-127, 128, (outputs, 96), dtype=torch.int8)
    scale, bias = torch.rand(outputs), torch.randn(outputs)
    levels = torch.randint(1, 256, (rows, 96), dtype=torch.uint8)
    found = int8.gemv(kernels, weight, scale, bias).multiply(levels)
    exact = (levels.double() - 128) @ weight.double().T * scale.double() / 127
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)
    many = int8.gemm(kernels, weight, scale, bias)
    torch.testing.assert_close(many.multiply(levels), found, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 2, 67])
@pytest.mark.parametrize(("level", "weight"), [(255, 127), (255, -127), (0, 127), (0, -127), (1, 127)])
@pytest.mark.parametrize("make", [int8.gemv, int8.gemm])
def test_no_sum_saturates(kernels: Library, make: Make, level: int, weight: int, rows: int) -> None:
    """Where all products have the same sign and are as large as they can be."""
    inputs = 2048
    matrix = make(kernels, torch.full((36, inputs), weight, dtype=torch.int8), torch.full((36,), 127.0), None)
    found = matrix.multiply(torch.full((rows, inputs), level, dtype=torch.uint8))
    assert found.eq((level - 128) * weight * inputs).all()


@pytest.mark.slow  # compiles
@pytest.mark.parametrize(
    ("instructions", "processor", "expected"),
    [
        ("vnni", "icelake-server", "vpdpbusd"),
        ("vnni", "znver4", "vpdpbusd"),
        ("vnni", "alderlake", "{vex}\tvpdpbusd"),
        ("avx2", "haswell", "vpmaddubsw"),
    ],
)
def test_every_processors_own_instructions_are_used(instructions: str, processor: str, expected: str) -> None:
    """Those that this processor lacks are compiled, not run. numba takes its target from the environment."""
    program = f"""
import llvmlite.binding as llvm
from transcribe.engine.cpu.source.compile import kernels, linked
llvm.initialize_native_target()
llvm.initialize_native_asmprinter()
target = llvm.Target.from_default_triple().create_target_machine(cpu="{processor}", opt=3)
print(target.emit_assembly(linked({{"multiply": kernels("{instructions}")["multiply"]}}, target)))
"""
    service = Path(library.__file__).parents[3]
    env = {**os.environ, "PYTHONPATH": str(service), "NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": ""}
    code = subprocess.run([sys.executable, "-c", program], env=env, check=True, capture_output=True, text=True).stdout
    assert code.count(expected) >= 4


def test_what_kernels_are_not_made_for_is_refused(kernels: Library) -> None:
    for outputs, inputs in ((64, 48), (3, 64)):
        with pytest.raises(ValueError, match=f"{outputs} × {inputs}"):
            int8.gemv(kernels, torch.zeros(outputs, inputs, dtype=torch.int8), torch.ones(outputs), None)
    with pytest.raises(ValueError, match="not contiguous"):
        ops.quantize_rows(kernels, torch.zeros(64, 8).T)


@pytest.mark.parametrize("count", [1, 4])
def test_tokens_hear_their_own_text_up_to_themselves(kernels: Library, count: int) -> None:
    rows, heads, size, room = 3, 2, 32, 20
    qkv, told = product(rows * count, 3 * heads * size)
    starts = torch.tensor([0, 7, room - count])
    keys, values = torch.randn(2, rows, heads, room, size).to(torch.bfloat16).unbind(0)
    mine = told.view(rows, count, 3, heads, size)
    full_keys, full_values = keys.float(), values.float()
    for row, start in enumerate(starts.tolist()):
        full_keys[row, :, start : start + count] = mine[row, :, 1].transpose(0, 1)
        full_values[row, :, start : start + count] = mine[row, :, 2].transpose(0, 1)
    ahead = torch.arange(room) > (starts[:, None] + torch.arange(count))[:, None, :, None]
    scores = mine[:, :, 0].transpose(1, 2) @ full_keys.transpose(2, 3)
    weights = torch.softmax(scores.masked_fill(ahead, float("-inf")), -1)
    expected = (weights @ full_values).transpose(1, 2).reshape(rows * count, -1)
    found = ops.self_attention(kernels, qkv, heads, starts, keys, values)
    assert (floats(found) - expected).norm() / expected.norm() < 0.02
    torch.testing.assert_close(keys.float(), full_keys, rtol=0.004, atol=1e-6)
    torch.testing.assert_close(values.float(), full_values, rtol=0.004, atol=1e-6)


def spent() -> dict[str, int]:
    """The processor time of each thread of this process, in nanoseconds."""
    return {task.name: int((task / "schedstat").read_text().split()[0]) for task in Path("/proc/self/task").iterdir()}


@pytest.mark.skipif(len(os.sched_getaffinity(0)) == 1, reason="one core")
def test_threads_share_the_tasks(kernels: Library) -> None:
    threads.limit(len(os.sched_getaffinity(0)))  # an engine may have lowered it
    x = torch.randn(20_000, 512)
    before = spent()
    for _ in range(20):
        together = ops.quantize_rows(kernels, x)
    after = spent()
    worked = [number for number, time in after.items() if time - before.get(number, 0) > 5e6]
    assert len(worked) > 1
    everyone = torch.get_num_threads()
    threads.limit(1)
    try:
        alone = ops.quantize_rows(kernels, x)
    finally:
        threads.limit(everyone)
    assert together.levels.equal(alone.levels)
    assert together.absmax.equal(alone.absmax)


def test_without_openmp_one_thread_does_it_all(kernels: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(100, 64)
    expected = ops.quantize_rows(kernels, x)
    monkeypatch.setattr(threads, "library", lambda: None)
    library._parallel.cache_clear()
    try:
        assert ops.quantize_rows(kernels, x).levels.equal(expected.levels)
    finally:
        library._parallel.cache_clear()


def test_torch_openmp_is_found_behind_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = threads.file()
    (tmp_path / "torch").symlink_to(Path(torch.__file__).parent)
    monkeypatch.setattr(torch, "__file__", str(tmp_path / "torch/__init__.py"))
    assert threads.file() == expected


def test_a_thread_limits_itself_alone() -> None:
    """Also one that is new, and whatever torch was told elsewhere."""
    everywhere = torch.get_num_threads()
    torch.set_num_threads(everywhere)

    def limited() -> tuple[int, int]:
        threads.limit(1)
        torch.randn(300, 300) @ torch.randn(300, 300)
        return torch.get_num_threads(), len(list(Path("/proc/self/task").iterdir()))

    torch.randn(300, 300) @ torch.randn(300, 300)
    with ThreadPoolExecutor(1) as pool:
        before = len(list(Path("/proc/self/task").iterdir()))
        limit, after = pool.submit(limited).result()
    assert limit == 1
    assert after <= before + 1  # the thread itself, and no helpers of its own
    assert torch.get_num_threads() == everywhere


def test_a_library_that_lacks_a_kernel_is_refused_by_its_name_each_time_it_is_loaded() -> None:
    void = ir.FunctionType(ir.VoidType(), [])
    module = ir.Module()
    ir.IRBuilder(ir.Function(module, void, "best_tokens").append_basic_block()).ret_void()
    code = library._target().emit_object(llvm.parse_assembly(str(module)))
    for _ in range(2):
        with pytest.raises(EngineError, match=r"lack multiply, .*quantize_cross_kv, self_attention") as refused:
            Library(code)
        assert "best_tokens" not in str(refused.value)


@pytest.mark.slow  # compiles
def test_code_is_kept_for_the_next_start_and_for_other_users(
    kernels: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kernels-of-another-processor.o").write_bytes(b"")
    (tmp_path / "kernels-of-a-writer-that-was-killed").write_bytes(b"")
    library.load(tmp_path)
    (kept,) = tmp_path.iterdir()
    assert kept.stat().st_mode & 0o004
    before = kept.stat()
    library.load.cache_clear()
    monkeypatch.setattr(library, "_write", None)  # nothing may be compiled or written
    code = library.load(tmp_path)
    assert kept.stat() == before
    close(ops.quantize_rows(code, torch.ones(1, 64)), torch.ones(1, 64))


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("whose", ["file", "folder", "folder around it"])
def test_root_neither_runs_nor_replaces_what_another_user_may_have_written(
    kernels: Library, tmp_path: Path, whose: str
) -> None:
    library.load(tmp_path / "kept")
    (kept,) = (tmp_path / "kept").iterdir()
    kept.write_bytes(b"what would be run")
    os.chown({"file": kept, "folder": kept.parent, "folder around it": tmp_path}[whose], 1234, 1234)
    library.load.cache_clear()
    code = library.load(tmp_path / "kept")
    close(ops.quantize_rows(code, torch.ones(1, 64)), torch.ones(1, 64))
    assert kept.read_bytes() == b"what would be run"


@pytest.mark.parametrize("damage", [lambda code: code[:1000], lambda code: code[:-1] + b"!", lambda _: b""])
def test_damaged_code_is_not_run(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    kept = tmp_path / "kernels.o"
    library._write(kept, b"code" * 1000)
    assert library._read(kept) == b"code" * 1000
    kept.write_bytes(damage(kept.read_bytes()))
    assert library._read(kept) is None


@pytest.mark.slow  # compiles
def test_where_nothing_can_be_kept_kernels_work_all_the_same(kernels: Library, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code = library.load(tmp_path / "file" / "below")
    assert code is not kernels
    close(ops.quantize_rows(code, torch.ones(1, 64)), torch.ones(1, 64))
