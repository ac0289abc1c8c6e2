"""Persists the part of the bucket and of SSM that describes images, because the images survive a restart too.

Every change is on disk before the call that made it returns.
"""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from moto.s3.models import s3_backends
from moto.ssm.models import ssm_backends

from localcloud.aws.moto_images import ACCOUNT
from localcloud.common import Folders, write_json
from localcloud.endpoint import BUCKET

PERSISTED = re.compile(r"/(reports|manifests|copies)/")  # payloads are rebuilt, progress and logs are over
FIELDS = ("name", "value", "description", "data_type")  # of a version of a parameter


def persistent(inner: WSGIApplication, folders: Folders) -> WSGIApplication:
    """`inner`, moto's application, which also writes what must survive to disk."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        answer = b"".join(inner(environ, start_response))
        path = environ.get("PATH_INFO", "").encode("latin-1").decode()  # WSGI's strings are bytes in disguise
        if environ["REQUEST_METHOD"] == "PUT" and path.startswith(f"/{BUCKET}/") and PERSISTED.search(path):
            _save_object(folders, path.removeprefix(f"/{BUCKET}/"))
        if environ.get("HTTP_X_AMZ_TARGET", "").startswith(("AmazonSSM.Put", "AmazonSSM.Delete")):
            _save_parameters(folders)
        return [answer]

    return application


def restore(folders: Folders) -> None:
    """Load what an earlier run has saved; the bucket must exist."""
    backend = s3_backends[ACCOUNT]["aws"]
    for path in sorted(folders.bucket.iterdir()) if folders.bucket.is_dir() else ():
        backend.put_object(BUCKET, unquote(path.name), path.read_bytes())
    for region, versions in _read(folders.parameters).items():
        for version in versions:
            _put_parameter(ssm_backends[ACCOUNT][region].put_parameter, version)


def _save_object(folders: Folders, key: str) -> None:
    found = s3_backends[ACCOUNT]["aws"].get_object(BUCKET, key)
    if found is not None:
        folders.bucket.mkdir(parents=True, exist_ok=True)
        path = folders.bucket / quote(key, safe="")
        path.with_suffix(".making").write_bytes(found.value)
        path.with_suffix(".making").replace(path)


def _save_parameters(folders: Folders) -> None:
    kept = {
        region: [{field: getattr(version, field) for field in FIELDS} for version in _own(backend)]
        for region, backend in list(ssm_backends[ACCOUNT].items())
    }
    write_json(folders.parameters, {region: versions for region, versions in kept.items() if versions})


def _own(backend: Any) -> list[Any]:
    """Versions of the parameters that were put here, oldest first; without AWS' public ones, which moto provides."""
    versions = [version for name in list(backend._parameters) for version in backend._parameters[name]]
    return sorted(
        (version for version in versions if not version.name.startswith("/aws/")), key=lambda version: version.version
    )


def _put_parameter(put: Callable[..., object], version: dict[str, str]) -> None:
    put(
        **{field: version[field] for field in FIELDS},
        parameter_type="String",
        allowed_pattern=None,
        keyid=None,
        overwrite=True,
        tags=[],
        tier=None,
        policies=None,
    )


def _read(path: Path) -> dict[str, list[dict[str, str]]]:
    try:
        found: dict[str, list[dict[str, str]]] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return found
