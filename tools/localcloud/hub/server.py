"""A model hub on loopback: the part of the Hugging Face hub's HTTP API that downloads a snapshot needs."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from flask import Flask, Response, jsonify, send_file

from localcloud.hub.models import commit_of

LARGE = 1_000_000  # bytes; from here on the hub would keep a file in LFS


@dataclass(frozen=True)
class Repository:
    """One model: a folder of plain files, all at one commit, called `main`."""

    id: str
    folder: Path

    @cached_property
    def commit(self) -> str:
        return commit_of(self.folder)

    @cached_property
    def sha256(self) -> Mapping[str, str]:
        def digest(path: Path) -> str:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()

        return {path.name: digest(path) for path in sorted(self.folder.iterdir())}

    def has(self, revision: str) -> bool:
        return revision in ("main", self.commit)

    def files(self) -> Iterator[tuple[str, int, str]]:
        """Each file's name, bytes and sha256."""
        for name, sha256 in self.sha256.items():
            yield name, (self.folder / name).stat().st_size, sha256


def _refuse(code: str, message: str) -> Response:
    response = jsonify(error=message)
    response.status_code = 404
    response.headers["X-Error-Code"] = code
    response.headers["X-Error-Message"] = message
    return response


def _model(repository: Repository) -> dict[str, Any]:
    return {
        "_id": repository.commit[:24],
        "id": repository.id,
        "modelId": repository.id,
        "sha": repository.commit,
        "private": False,
        "disabled": False,
        "gated": False,
        "downloads": 0,
        "likes": 0,
        "tags": ["transformers", "whisper", "automatic-speech-recognition"],
        "pipeline_tag": "automatic-speech-recognition",
        "library_name": "transformers",
        "siblings": [
            {
                "rfilename": name,
                "size": size,
                "blobId": sha256[:40],
                **({"lfs": {"sha256": sha256, "size": size, "pointerSize": 134}} if size >= LARGE else {}),
            }
            for name, size, sha256 in repository.files()
        ],
    }


def _tree(repository: Repository) -> list[dict[str, Any]]:
    return [
        {
            "type": "file",
            "path": name,
            "size": size,
            "oid": sha256[:40],
            **({"lfs": {"oid": sha256, "size": size, "pointerSize": 134}} if size >= LARGE else {}),
        }
        for name, size, sha256 in repository.files()
    ]


class HubViews:
    """The hub's views."""

    def __init__(self, repositories: Mapping[str, Repository]) -> None:
        self.repositories = repositories

    def _find(self, repo_id: str, revision: str) -> Repository | Response:
        repository = self.repositories.get(repo_id)
        if repository is None:
            return _refuse("RepoNotFound", f"Repository not found: {repo_id}")
        if not repository.has(revision):
            return _refuse("RevisionNotFound", f"Invalid rev id: {revision}")
        return repository

    def info(self, org: str, name: str, revision: str = "main") -> Response:
        repository = self._find(f"{org}/{name}", revision)
        return repository if isinstance(repository, Response) else jsonify(_model(repository))

    def tree(self, org: str, name: str, revision: str) -> Response:
        repository = self._find(f"{org}/{name}", revision)
        return repository if isinstance(repository, Response) else jsonify(_tree(repository))

    def resolve(self, org: str, name: str, revision: str, filename: str) -> Response:
        repository = self._find(f"{org}/{name}", revision)
        if isinstance(repository, Response):
            return repository
        if filename in repository.sha256:
            return _file(repository, filename)
        response = _refuse("EntryNotFound", f"Entry not found: {filename}")
        response.headers["X-Repo-Commit"] = repository.commit
        return response


def create_app(repositories: Mapping[str, Repository]) -> Flask:
    """The hub as a WSGI application."""
    app = Flask(__name__)
    hub = HubViews(repositories)
    app.add_url_rule("/api/models/<org>/<name>", view_func=hub.info)
    app.add_url_rule("/api/models/<org>/<name>/revision/<revision>", view_func=hub.info)
    app.add_url_rule("/api/models/<org>/<name>/tree/<revision>", view_func=hub.tree)
    app.add_url_rule("/<org>/<name>/resolve/<revision>/<path:filename>", view_func=hub.resolve)
    return app


def _file(repository: Repository, name: str) -> Response:
    response = send_file(
        repository.folder / name,
        mimetype="application/octet-stream",
        conditional=True,  # Range and If-None-Match
        etag=repository.sha256[name],
    )
    response.headers["X-Repo-Commit"] = repository.commit
    response.headers["Accept-Ranges"] = "bytes"
    return response
