"""advanced_cache.py and a hub that the real client talks to: what it downloads, checks, repairs and refuses."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import advanced_cache
import pytest
from localcloud.hub.models import SOURCES, commit_of, model_dir
from localcloud.hub.server import Repository, create_app
from localcloud.server import LoopbackServer
from msgspec.structs import replace
from support.api_server_fixture import settings
from transcribe.config import ServiceConfig
from transcribe.model_cache import cache_info, fetch

pytestmark = pytest.mark.attack

REPO = "openai/whisper-test"
PROGRAM = Path(advanced_cache.__file__)
WARM = {"device": "cpu", "torch_dtype": "torch.float32", "kernels_compiled": False}


@dataclass
class Site:
    """A hub with one model, and a machine's root that wants it."""

    model: Path
    config: ServiceConfig
    served: LoopbackServer

    def ensure(self, **facts: Any) -> fetch.CacheUpdate:
        """Runs with a warm-up that says `facts`."""
        return fetch.ensure(self.config, warm=lambda *_: {**WARM, **facts})

    def file(self, name: str) -> Path:
        """In the snapshot."""
        return fetch.snapshot_dir(self.config) / name

    def state(self) -> dict[str, tuple[int, int]]:
        """Every file below the root with its size and the moment it was written."""
        files = (path for path in self.config.root.rglob("*") if path.is_file())
        return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    model = tmp_path / "hub"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "whisper"}')
    (model / "preprocessor_config.json").write_text("{}")
    (model / "tokenizer.json").write_text('{"version": "1.0"}')
    (model / "model.safetensors").write_bytes(bytes(range(256)) * 8_000)
    (model / "pytorch_model.bin").write_bytes(b"a pickle")
    (model / "modeling_evil.py").write_text("raise SystemExit")
    (model / "flax_model.msgpack").write_bytes(b"x")
    served = LoopbackServer(create_app({REPO: Repository(REPO, model)}))
    wanted = {"model.id": REPO, "model.revision": commit_of(model)}
    endpoint = {"model.endpoint": f"http://127.0.0.1:{served.port}"}
    config = ServiceConfig.from_mapping(settings(tmp_path / "root", {**wanted, **endpoint}))
    yield Site(model, config, served)
    served.close()


def test_it_downloads_safetensors_and_nothing_that_could_be_run(site: Site) -> None:
    outcome = site.ensure()
    assert outcome.changed
    names = {"config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors"}
    assert set(outcome.info.files) == names
    assert {path.name for path in fetch.snapshot_dir(site.config).iterdir()} == names
    weights = (site.model / "model.safetensors").read_bytes()
    assert outcome.info.files["model.safetensors"].sha256 == hashlib.sha256(weights).hexdigest()
    assert outcome.info == cache_info.read(site.config.cache_info)
    assert outcome.info.source == f"{site.config.model.endpoint}/{REPO}"
    assert fetch.find_problem(site.config, hashes=True) == ""


def test_nothing_is_written_when_all_is_right(site: Site) -> None:
    site.ensure()
    before = site.state()
    site.served.close()  # and nobody is asked
    assert not site.ensure().changed
    assert site.state() == before


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("damage", ["altered", "truncated", "missing"])
def test_a_damaged_model_is_named_and_repaired(site: Site, name: str, damage: str) -> None:
    site.ensure()
    content = site.file(name).read_bytes()
    if damage == "missing":
        site.file(name).resolve().unlink()
    else:
        site.file(name).resolve().write_bytes(content[:-1] + (b"" if damage == "truncated" else b"\x01"))
    assert name in fetch.find_problem(site.config, hashes=True)
    assert site.ensure().changed
    assert site.file(name).read_bytes() == content
    assert not site.ensure().changed


def warm(config: ServiceConfig, _: Path) -> dict[str, Any]:
    """A warm-up that prepares weights and a kernel."""
    (config.prepared / "prepared").mkdir(parents=True)
    (config.prepared / "prepared/engine-weights.safetensors").write_bytes(bytes(range(256)))
    (config.prepared / "kernels-1.o").write_bytes(b"code")
    return WARM


def swap(path: Path) -> None:
    """Another content, of the same size and time."""
    times = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


TAMPERED: dict[str, tuple[str, Callable[[Path], object]]] = {
    "swapped weights": ("prepared/engine-weights.safetensors", swap),
    "swapped kernels": ("kernels-1.o", swap),
    "truncated": ("kernels-1.o", lambda path: os.truncate(path, 1)),
    "missing": ("kernels-1.o", lambda path: path.unlink()),
    "added": ("kernels-2.o", lambda path: path.write_bytes(b"code of someone else")),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_what_was_prepared_is_what_runs(site: Site, what: str) -> None:
    name, tamper = TAMPERED[what]
    fetch.ensure(site.config, warm=warm)
    assert fetch.find_problem(site.config, hashes=True) == ""
    tamper(site.config.prepared / name)
    assert name in fetch.find_problem(site.config, hashes=True)
    assert fetch.ensure(site.config, warm=warm).changed
    assert {path.name for path in site.config.prepared.rglob("*.*")} == {"engine-weights.safetensors", "kernels-1.o"}
    assert fetch.find_problem(site.config, hashes=True) == ""
    assert not fetch.ensure(site.config, warm=warm).changed


def test_it_is_prepared_anew_for_another_processor_when_asked(site: Site) -> None:
    fetch.ensure(site.config, warm=warm)
    before = (site.config.prepared / "kernels-1.o").stat()
    assert fetch.ensure(site.config, anew=True, warm=warm).info.prepared.keys() == {
        "prepared/engine-weights.safetensors",
        "kernels-1.o",
    }
    assert (site.config.prepared / "kernels-1.o").stat().st_mtime_ns > before.st_mtime_ns


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_root_keeps_nothing_that_another_user_wrote_and_follows_no_link(site: Site, tmp_path: Path) -> None:
    """Until 0.4 the cache was the service's. Its files go by their names; what they point at stays."""
    fetch.ensure(site.config, warm=warm)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("x")
    (site.config.cache / "link").symlink_to(outside)
    (site.config.prepared / "link").symlink_to(outside)
    for path in site.config.cache.rglob("*"):
        os.chown(path, 65534, 65533, follow_symlinks=False)
    assert fetch.ensure(site.config, warm=warm).changed
    assert (outside / "file").read_text() == "x"
    assert outside.stat().st_uid == (outside / "file").stat().st_uid == 0
    assert {path.lstat().st_uid for path in site.config.cache.rglob("*")} == {0}
    assert not (site.config.cache / "link").is_symlink()
    os.chown(site.config.cache, 65534, 65533)
    with pytest.raises(fetch.DownloadError, match="belongs to another user"):
        fetch.ensure(site.config, warm=warm)


def test_the_hubs_client_has_its_home_where_only_the_bake_writes(site: Site) -> None:
    (site.config.temp / "hub").symlink_to(site.config.root / "elsewhere")
    site.ensure()
    assert not (site.config.root / "elsewhere").exists()
    assert not (site.config.models / ".hub").exists()
    source = Path(fetch.__file__).read_text()
    assert "config.temp" not in source


def test_a_lost_description_is_made_again_without_the_hub(site: Site) -> None:
    site.ensure()
    site.config.cache_info.write_text("{")
    site.served.close()
    assert site.ensure().changed
    assert fetch.find_problem(site.config, hashes=True) == ""


def test_a_failed_warm_up_is_recorded_and_not_repeated_into_a_change(site: Site) -> None:
    outcome = site.ensure(warmup_error="EngineError: out of memory")
    assert outcome.changed
    written = json.loads(site.config.cache_info.read_text())
    assert written["kernels_compiled"] is False
    assert written["warmup_error"] == "EngineError: out of memory"
    assert "$(" not in site.config.cache_info.read_text()
    assert not site.ensure(warmup_error="EngineError: out of memory").changed
    assert site.ensure().changed  # now it works
    assert "warmup_error" not in json.loads(site.config.cache_info.read_text())


def test_another_commit_replaces_the_one_before(site: Site) -> None:
    site.ensure()
    old = fetch.snapshot_dir(site.config)
    (site.model / "tokenizer.json").write_text('{"version": "2.0"}')
    site.served.close()
    served = LoopbackServer(create_app({REPO: Repository(REPO, site.model)}))
    endpoint = f"http://127.0.0.1:{served.port}"
    model = replace(site.config.model, revision=commit_of(site.model), endpoint=endpoint)
    site.config = replace(site.config, model=model)
    assert "model_revision" in fetch.find_problem(site.config, hashes=False)
    assert site.ensure().changed
    assert not old.exists()
    blobs = list(cache_info.repo_folder(site.config.models, REPO).glob("blobs/*"))
    assert len(blobs) == 4
    served.close()


def run(site: Site, *arguments: str) -> "subprocess.CompletedProcess[str]":
    path = site.config.root / "transcribe.json"
    config = settings(site.config.root, {})
    config["model"] |= {"id": site.config.model.id, "revision": site.config.model.revision}
    config["model"]["endpoint"] = site.config.model.endpoint
    path.write_text(json.dumps(config))
    environment = {**os.environ, "TRANSCRIBE_CONFIG": str(path)}
    command = [sys.executable, str(PROGRAM), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_program_refuses_a_hub_that_lacks_the_model_in_one_line(site: Site) -> None:
    site.config = replace(site.config, model=replace(site.config.model, id="openai/nothing"))
    done = run(site)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "openai/nothing" in done.stderr
    assert not site.config.cache_info.exists()


def test_the_program_refuses_a_branch(site: Site) -> None:
    site.config = replace(site.config, model=replace(site.config.model, revision="main"))
    done = run(site)
    assert done.returncode == 1
    assert "40 hex digits" in done.stderr


@pytest.mark.slow
def test_the_program_writes_the_fallback_when_the_model_cannot_run(site: Site) -> None:
    """The hub's files are no real model, so the warm-up in the child process fails; the download stands."""
    done = run(site)
    assert done.returncode == 0
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("advanced_cache: warning: the warm-up failed: ")
    info = cache_info.read(site.config.cache_info)
    assert info.warmup_error
    assert not info.kernels_compiled
    check = run(site, "--check", "--json")
    assert check.returncode == 0
    assert json.loads(check.stdout) == {"ok": True, "reason": ""}


def test_the_check_names_the_file_and_the_fix(site: Site) -> None:
    site.ensure()
    site.file("config.json").resolve().unlink()
    done = run(site, "--check")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "config.json: is missing; run advanced_cache.py" in done.stderr


def test_a_broken_configuration_is_refused_with_its_own_code(tmp_path: Path) -> None:
    path = tmp_path / "transcribe.json"
    path.write_text("{")
    environment = {**os.environ, "TRANSCRIBE_CONFIG": str(path)}
    done = subprocess.run([sys.executable, str(PROGRAM)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 78
    assert str(path) in done.stderr


@pytest.mark.model
def test_a_real_model_is_warmed_and_described(site: Site) -> None:
    folder = model_dir("whisper-tiny.en")
    name = SOURCES["whisper-tiny.en"].id
    served = LoopbackServer(create_app({name: Repository(name, folder)}))
    endpoint = f"http://127.0.0.1:{served.port}"
    model = replace(site.config.model, id=name, revision=commit_of(folder), endpoint=endpoint)
    site.config = replace(site.config, model=model)
    done = run(site, "--json")
    served.close()
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["changed"]
    assert answer["warmup_error"] == ""
    assert "repackaged by a third party" in answer["source"]
    assert answer["warmup_seconds"] > 0
    kernels = [path for path in (site.config.cache / "kernels").rglob("*") if path.suffix in {".o", ".cubin", ".bin"}]
    assert answer["kernels_compiled"] is bool(kernels)  # weights that the engine prepared are not kernels
    assert not json.loads(run(site, "--json").stdout)["changed"]
