#!/usr/bin/env python3
"""Refresh every lock from its `requirements.in`: `python3 tools/lock.py [--upgrade]`; without it, pins stay.

Needs `uv` on the PATH. The service, the tools and the tests are resolved together, so that the versions the
tests see are the versions the machine gets. Two things need care:

* torch has two builds. `service/cuda.lock` holds what the public index serves; `service/cpu.lock` asks for
  PyTorch's CPU build by its local version, `+cpu`. Listing both builds' hashes under one version would not
  do: pip prefers a file whose index states an accepted hash, and so takes the CUDA build without its libraries.
* Salt's lock leaves out timelib, which has no wheel and would need a compiler on the machine; only
  Salt's parsing of free-form dates uses it, and no state here does.

`tests/requirements.lock` holds what the tests need on top of a service lock.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = "3.11"  # the oldest interpreter that the locks must serve

# PyTorch's CPU wheels for Linux on x86_64, which the public index does not carry.
TORCH_CPU_BUILD = """\
torch==2.13.0+cpu \\
    --hash=sha256:6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b \\
    --hash=sha256:4ca4a9394b0c771238a4f73590fdbbc4debad85ed0fa63d026ae1b085da7d6e2 \\
    --hash=sha256:3fbf9c9d1f3c10c2d59d04aca426dee9ccc6ceb32d255c61e93acc3b4f75fae6 \\
    --hash=sha256:d20fa53ee744502fa4c69818a720b05ca0d37abd055d4f6e66cae155114bc691"""  # cp311, cp312, cp313, cp314
CUDA_ONLY = re.compile(r"^(nvidia-|cuda-|triton==)")


def compile_lock(source: str, target: str, *options: str) -> None:
    """Resolve `source` into `target`, relative to the root, with the hashes of every wheel."""
    command = ["uv", "pip", "compile", "--quiet", "--generate-hashes", "--no-header", "--no-annotate"]
    command += ["--universal", "--python-version", PYTHON, *options, *sys.argv[1:]]
    subprocess.run([*command, source, "--output-file", target], cwd=ROOT, check=True)


def blocks(text: str) -> list[str]:
    """A lock's requirements, each with its continuation lines."""
    return re.findall(r"^\S.*(?:\n    .*)*", text, flags=re.MULTILINE)


def name(block: str) -> str:
    """The name of the package that a requirement's block pins."""
    return block.split("==", 1)[0]


def cpu_lock(cuda_lock: str) -> str:
    """The lock for a machine without a GPU: no CUDA libraries, and PyTorch's CPU build."""
    kept = [block for block in blocks(cuda_lock) if not CUDA_ONLY.match(block)]
    return "\n".join(TORCH_CPU_BUILD if name(b) == "torch" else b for b in kept) + "\n"


def only_extra(lock: str, base: str) -> str:
    """The requirements of `lock` that `base` does not pin already."""
    pinned = {name(block) for block in blocks(base)}
    return "\n".join(block for block in blocks(lock) if name(block) not in pinned) + "\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        everything = Path(folder, "everything.lock")
        known = ("service/cuda.lock", "tests/requirements.lock")
        everything.write_text("".join((ROOT / lock).read_text() for lock in known))  # uv keeps what is pinned there
        compile_lock("tests/requirements.in", str(everything))
        together = ("--constraint", str(everything))
        compile_lock("service/requirements.in", "service/cuda.lock", *together)
        compile_lock("tools/requirements.in", "tools/requirements.lock", *together)
        cuda = (ROOT / "service/cuda.lock").read_text()
        (ROOT / "service/cpu.lock").write_text(cpu_lock(cuda))
        (ROOT / "tests/requirements.lock").write_text(only_extra(everything.read_text(), cuda))
    compile_lock("tests/bench/peers/requirements.in", "tests/bench/peers/cuda.lock")
    peers = (ROOT / "tests/bench/peers/cuda.lock").read_text()
    (ROOT / "tests/bench/peers/cpu.lock").write_text(cpu_lock(peers))
    compile_lock("tests/bench/ansible.in", "tests/bench/ansible.lock")
    for client in sorted((ROOT / "tests/clients").glob("*.in")):
        source = str(client.relative_to(ROOT))
        compile_lock(source, source.removesuffix(".in") + ".lock")
    compile_lock("salt/requirements.in", "salt/requirements.lock", "--no-emit-package", "timelib")


if __name__ == "__main__":
    if shutil.which("uv") is None:
        sys.exit("lock.py: `uv` is not on the PATH; `pip install uv` brings it")
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"lock.py: uv could not resolve it (exit code {error.returncode}, see above)")
