"""The manifest of an image: what its machine reports it is made of, kept in the bucket, and checked when it boots.

The image's tag holds the manifest's digest, so that a change of either is noticed.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from baker.aws import requests
from baker.aws.images import Ami
from baker.aws.s3 import Bucket
from baker.errors import RejectedError, UsageError
from baker.images import sbom

SCHEMA = 1
Document = Mapping[str, Any]


def reported(report: Document) -> Document:
    """The manifest in a machine's report; raises RejectedError when there is none."""
    found = report.get("manifest")
    if not isinstance(found, Mapping) or found.get("schema") != SCHEMA:
        raise RejectedError(f"the signal has no manifest of schema {SCHEMA}")
    return found


def digest(manifest: Document) -> str:
    """SHA-256 (hex) of a manifest's content, however it is written."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def check_booted(report: Document, image: Ami) -> None:
    """Refuse an image that has another manifest than the machine that it was made of; raises RejectedError."""
    if digest(reported(report)) != image.tags.get(requests.TAG_MANIFEST):
        raise RejectedError("the manifest on the booted image is not the one that was written when it was baked")


def keep(bucket: Bucket, prefix: str, bake: str, report: Document) -> Document:
    """Put the manifest of a report and its bill of materials into the bucket, under the name of the bake; return it."""
    manifest = reported(report)
    bucket.put(key(prefix, bake, "manifest.json"), json.dumps(manifest, indent=1, sort_keys=True).encode())
    bucket.put(key(prefix, bake, "sbom.cdx.json"), sbom.cyclonedx(manifest, digest(manifest)).encode())
    return manifest


def find(bucket: Bucket, prefix: str, image: Ami) -> Document | None:
    """The manifest of an image; None if there is none, or its digest is not the one in the image's tag."""
    raw = bucket.get(key(prefix, image.tags.get(requests.TAG_BAKE, ""), "manifest.json"))
    try:
        found = json.loads(raw) if raw else None
    except ValueError:
        return None
    genuine = isinstance(found, dict) and digest(found) == image.tags.get(requests.TAG_MANIFEST)
    return found if genuine else None


def need(bucket: Bucket, prefix: str, image: Ami) -> Document:
    """The same, but raises UsageError where there is none."""
    found = find(bucket, prefix, image)
    if found is None:
        where = key(prefix, image.tags.get(requests.TAG_BAKE, ""), "manifest.json")
        raise UsageError(f"{image.id} has no manifest, or one with another digest, at s3://{bucket.name}/{where}")
    return found


def key(prefix: str, bake: str, name: str) -> str:
    """Where in the bucket a document about an image is."""
    return f"{prefix}/manifests/{bake}/{name}"
