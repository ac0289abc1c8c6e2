"""lockedvenv.py against real virtual environments. The packages are made here, so no index is asked."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from lockedvenv import LockDifference, VenvError, check, create, sync

pytestmark = [pytest.mark.slow, pytest.mark.attack]


def make_wheel(folder: Path, name: str, version: str) -> str:
    """A wheel with one module, and its lock block."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"VERSION = '{version}'\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        record = ""
        for path, text in files.items():
            archive.writestr(path, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record += f"{path},sha256={digest},{len(text)}\n"
        archive.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


Made = tuple[Path, Path]  # an environment, and its lock


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the environment that most tests begin with: making one takes seconds, copying it does not."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "wheels").mkdir()
    create(folder / "venv", sys.executable)
    shutil.copytree(folder / "venv", folder / "empty", symlinks=True)
    never = 'three==9.9 ; sys_platform == "win32" \\\n    --hash=sha256:' + "0" * 64 + "\n"
    blocks = [make_wheel(folder / "wheels", name, "1.0") for name in ("one", "two")]
    (folder / "cpu.lock").write_text("".join([*blocks, never]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(folder / "wheels"))
        sync(folder / "venv", [folder / "cpu.lock"])
        yield folder


def copied(source: Path, target: Path) -> None:
    """A copy whose pip, which no test touches, is the same files."""
    link = lambda old, new: os.link(old, new) if "/pip/" in old else shutil.copy2(old, new)  # noqa: E731
    shutil.copytree(source, target, symlinks=True, copy_function=link)


@pytest.fixture
def wheels(tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where pip finds packages; the environment beside it holds pip alone."""
    shutil.copytree(made / "wheels", tmp_path / "wheels")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    copied(made / "empty", tmp_path / "venv")
    return tmp_path / "wheels"


@pytest.fixture
def venv(tmp_path: Path, made: Path, wheels: Path) -> Made:
    """An environment with the packages one 1.0 and two 1.0, and its lock."""
    shutil.rmtree(tmp_path / "venv")
    copied(made / "venv", tmp_path / "venv")
    shutil.copy(made / "cpu.lock", tmp_path / "cpu.lock")
    return tmp_path / "venv", tmp_path / "cpu.lock"


def test_sync_installs_what_the_lock_pins_and_nothing_for_other_systems(venv: Made) -> None:
    folder, lock = venv
    assert not check(folder, [lock])
    assert check(folder, [lock]).pinned == 2
    assert not sync(folder, [lock])


def test_missing_environment_misses_everything(tmp_path: Path, venv: Made) -> None:
    assert check(tmp_path / "elsewhere", [venv[1]]).missing == ["one", "three", "two"]


def test_only_what_differs_is_repaired(venv: Made, wheels: Path) -> None:
    folder, lock = venv
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "one.py").write_text("tampered")
    untouched = (site / "two.py").stat().st_mtime_ns
    assert check(folder, [lock]) == LockDifference(pinned=2, damaged=["one"])
    assert sync(folder, [lock]) == LockDifference(pinned=2, damaged=["one"])
    assert (site / "one.py").read_text() == "VERSION = '1.0'\n"
    assert (site / "two.py").stat().st_mtime_ns == untouched


@pytest.mark.parametrize("noted", [True, False])
def test_another_content_of_the_same_size_and_time_is_damage(venv: Made, noted: bool) -> None:
    folder, lock = venv
    if noted:  # the copy is as the lock says, and that was noted
        (folder / "locks.json").write_text('["cpu.lock"]')
    module = next(folder.glob("lib/python*/site-packages")) / "one.py"
    times = module.stat()
    module.write_text("VERSION = '6.6'\n")
    os.utime(module, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert check(folder, [lock]).damaged == ["one"]
    sync(folder, [lock])
    assert module.read_text() == "VERSION = '1.0'\n"
    assert not check(folder, [lock])


def test_version_and_extra_packages_follow_the_lock(venv: Made, wheels: Path) -> None:
    folder, lock = venv
    lock.write_text(make_wheel(wheels, "one", "2.0"))
    assert check(folder, [lock]) == LockDifference(pinned=1, wrong=["one"], extra=["two"])
    sync(folder, [lock])
    assert not check(folder, [lock])


def test_broken_interpreter_is_replaced(venv: Made) -> None:
    folder, lock = venv
    (folder / "bin/python").unlink()
    sync(folder, [lock], sys.executable)
    assert not check(folder, [lock])


def test_wrong_hash_is_refused_in_one_line(tmp_path: Path, wheels: Path) -> None:
    lock = tmp_path / "cpu.lock"
    lock.write_text("one==1.0 \\\n    --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(VenvError, match=r"^pip could not install into [^\n]*$"):
        sync(tmp_path / "venv", [lock])


@pytest.mark.parametrize("constraint", ["", "torch<=3"])
def test_cuda_build_serves_where_there_is_no_cpu_build(
    tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch, constraint: str
) -> None:
    (tmp_path / "constraints.txt").write_text(constraint)
    monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "constraints.txt"))
    cuda = tmp_path / "cuda.lock"
    cuda.write_text(make_wheel(wheels, "torch", "2.0"))
    lock = tmp_path / "cpu.lock"
    lock.write_text("torch==2.0+cpu \\\n    --hash=sha256:" + "0" * 64 + "\n")
    sync(tmp_path / "venv", [lock])
    assert not check(tmp_path / "venv", [lock])
    assert not sync(tmp_path / "venv", [lock])


def test_command_line(venv: Made) -> None:
    folder, lock = venv
    program = Path(sys.modules["lockedvenv"].__file__ or "")
    command = [sys.executable, str(program), "check", str(folder), str(lock)]
    same = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (same.returncode, json.loads(same.stdout)["missing"]) == (0, [])
    lock.write_text("")
    differs = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (differs.returncode, json.loads(differs.stdout)["extra"]) == (1, ["one", "two"])


ROOT = Path(__file__).resolve().parents[3]


def test_every_installation_asks_for_hashes() -> None:
    programs = [path for top in ("tools", "salt", "service", "tests/bench") for path in (ROOT / top).rglob("*.py")]
    for path in [*programs, *(ROOT / "cloud-init").iterdir(), ROOT / "tests/run"]:
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if re.search(r"pip[\"', ]+(install|download)\b", line) and not line.lstrip().startswith("#"):
                around = path.read_text().splitlines()[number - 4 : number + 3]
                assert "--require-hashes" in " ".join(around) or "`pip install" in line, f"{path}:{number}"
    for asked in ROOT.glob("*/**/requirements.in"):
        locks = list(asked.parent.glob("*.lock"))
        assert locks, asked
        for lock in locks:
            pins = re.findall(r"^\S+==.*(?:\n[ \t]+.*)*", lock.read_text(), flags=re.MULTILINE)
            assert pins, lock
            assert all("--hash=sha256:" in pin for pin in pins), lock
