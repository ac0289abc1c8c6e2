"""The local cloud's hub, asked by the real client library."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from localcloud.hub.models import commit_of
from localcloud.hub.server import Repository, create_app
from localcloud.server import LoopbackServer

REPO = "openai/whisper-test"
LARGE = bytes(range(256)) * 8_000  # 2 MB: large enough for LFS


@pytest.fixture(name="folder")
def model_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "whisper"}')
    (folder / "model.safetensors").write_bytes(LARGE)
    return folder


@pytest.fixture(name="url")
def served_hub(folder: Path) -> Iterator[str]:
    served = LoopbackServer(create_app({REPO: Repository(REPO, folder)}))
    yield f"http://127.0.0.1:{served.port}"
    served.close()


def test_a_branch_resolves_to_the_commit(url: str, folder: Path) -> None:
    assert HfApi(endpoint=url).model_info(REPO, revision="main").sha == commit_of(folder)


def test_a_snapshot_at_a_pinned_commit_has_the_very_bytes(url: str, folder: Path, tmp_path: Path) -> None:
    commit = commit_of(folder)
    path = Path(snapshot_download(REPO, revision=commit, endpoint=url, cache_dir=tmp_path / "cache"))
    assert path == tmp_path / "cache" / "models--openai--whisper-test" / "snapshots" / commit
    assert sorted(file.name for file in path.iterdir()) == ["config.json", "model.safetensors"]
    assert (path / "model.safetensors").read_bytes() == LARGE


def test_a_download_that_was_cut_off_is_resumed(url: str, folder: Path) -> None:
    address = f"{url}/{REPO}/resolve/{commit_of(folder)}/model.safetensors"
    answer = requests.get(address, timeout=10, headers={"Range": "bytes=1000000-"})
    assert answer.status_code == 206
    assert answer.content == LARGE[1_000_000:]


def test_a_file_is_named_by_its_content(url: str, folder: Path) -> None:
    answer = requests.head(f"{url}/{REPO}/resolve/main/model.safetensors", timeout=10)
    assert answer.headers["etag"].strip('"') == hashlib.sha256(LARGE).hexdigest()
    assert answer.headers["x-repo-commit"] == commit_of(folder)
    assert int(answer.headers["content-length"]) == len(LARGE)


def test_what_does_not_exist_is_told_apart(url: str, tmp_path: Path) -> None:
    api = HfApi(endpoint=url)
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("openai/another")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(REPO, revision="0" * 40)
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(REPO, "missing.bin", endpoint=url, cache_dir=tmp_path / "cache")


def test_the_commit_follows_names_and_bytes(folder: Path) -> None:
    before = commit_of(folder)
    assert commit_of(folder) == before
    (folder / "config.json").write_text('{"model_type": "Whisper"}')
    changed = commit_of(folder)
    (folder / "config.json").rename(folder / "configs.json")
    assert len({before, changed, commit_of(folder)}) == 3
