"""lockedvenv.py against real virtual environments. The packages are made here, so no index is asked."""

import base64
import hashlib
import http.server
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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


def test_wrong_hash_is_refused_in_one_line(tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lockedvenv.PAUSES", ())
    lock = tmp_path / "cpu.lock"
    lock.write_text("one==1.0 \\\n    --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(VenvError, match=r"^pip could not install into [^\n]*$"):
        sync(tmp_path / "venv", [lock])


PAGE = b'{"meta": {"api-version": "1.0"}, "name": "one", "files": [%s]}'
FILE = b'{"filename": "one-1.0-py3-none-any.whl", "url": "/one-1.0-py3-none-any.whl", "hashes": {}}'


@dataclass
class Index:
    """A package index with the package one 1.0, whose first answers for a path that ends with `fails` are `fault`."""

    wheel: bytes
    fails: str
    fault: str
    times: int

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        page = request.path.endswith("/one/")
        body = PAGE % FILE if page else self.wheel
        faulty = self.times > 0 and request.path.endswith(self.fails)
        self.times -= faulty
        if faulty and self.fault == "gone":
            return
        if faulty and self.fault.isdigit():
            request.send_error(int(self.fault))
            return
        request.send_response(200)
        request.send_header("Content-Type", "application/vnd.pypi.simple.v1+json" if page else "application/zip")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if faulty:
            request.wfile.write(body[: len(body) // 2])
            request.wfile.write(b" " * (len(body) - len(body) // 2) * (self.fault == "garbage"))
            return
        request.wfile.write(body)


@contextmanager
def serving(index: Index) -> Iterator[str]:
    """The index's address, while this is open."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/packages"
        server.shutdown()


@pytest.fixture
def index(made: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """pip's only source."""
    found = Index((made / "wheels/one-1.0-py3-none-any.whl").read_bytes(), "/one/", "gone", 0)
    monkeypatch.setattr("lockedvenv.PAUSES", (0, 0))
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name)
    with serving(found) as url:
        given = {"CONFIG_FILE": os.devnull, "INDEX_URL": url, "RETRIES": "1", "NO_CACHE_DIR": "1", "TIMEOUT": "2"}
        for name, value in given.items():
            monkeypatch.setenv(f"PIP_{name}", value)
        yield found


@pytest.mark.parametrize(
    ("fails", "fault"),
    [
        ("/one/", "garbage"),
        ("/one/", "cut off"),
        ("/one/", "gone"),
        ("/one/", "503"),
        (".whl", "cut off"),
        (".whl", "503"),
    ],
)
def test_what_passes_is_tried_again(venv: Made, index: Index, fails: str, fault: str) -> None:
    folder, lock = venv
    shutil.rmtree(next(folder.glob("lib/python*/site-packages")) / "one-1.0.dist-info")
    lock.write_text("".join(lock.read_text().splitlines(keepends=True)[:2]))
    index.fails, index.fault, index.times = fails, fault, 4 if fault in ("gone", "503") else 2  # pip tries twice
    said: list[str] = []
    sync(folder, [lock], say=said.append)
    assert not check(folder, [lock])
    again = [line for line in said if "trying again" in line]
    assert len(again) == 2
    assert not any("\n" in line or line.endswith("Exception:; trying again in 0 s") for line in again), again


def test_an_index_out_of_reach_is_no_reason_to_take_gigabytes(tmp_path: Path, wheels: Path, index: Index) -> None:
    index.fails, index.fault, index.times = "/torch/", "gone", 99
    (tmp_path / "cuda.lock").write_text("torch==2.0 \\\n    --hash=sha256:" + "0" * 64 + "\n")
    (tmp_path / "cpu.lock").write_text("torch==2.0+cpu \\\n    --hash=sha256:" + "0" * 64 + "\n")
    said: list[str] = []
    with pytest.raises(VenvError):
        sync(tmp_path / "venv", [tmp_path / "cpu.lock"], say=said.append)
    assert not any("CUDA" in line for line in said), said


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


def test_an_arm_takes_the_build_that_is_pinned_for_it(
    tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    (tmp_path / "cuda.lock").write_text(make_wheel(wheels, "torch", "2.0"))
    lock = tmp_path / "cpu.lock"
    lock.write_text("torch==2.0+cpu \\\n    --hash=sha256:" + "0" * 64 + "\n")
    said: list[str] = []
    sync(tmp_path / "venv", [lock], say=said.append)
    assert not check(tmp_path / "venv", [lock])
    assert not any("no CPU build" in line for line in said)  # nothing was tried in vain


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
