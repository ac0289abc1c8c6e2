"""What separates two images, from their manifests."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from baker.inputs import content_hash

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """One thing that differs; nothing before: it was added, nothing after: it was removed."""

    what: str
    before: str
    after: str


@dataclass(frozen=True)
class ImageDifference:
    """Changes by group, in the order in which a person reads them; `bytes` holds sizes before and after."""

    groups: Mapping[str, list[Change]]
    bytes: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """In JSON's own types."""
        groups = {name: [asdict(change) for change in changes] for name, changes in self.groups.items()}
        return {**groups, "bytes": {name: list(sizes) for name, sizes in self.bytes.items()}}


def difference(a: Document, b: Document) -> ImageDifference:
    """What changes from the image with the manifest `a` to the one with `b`."""
    groups = {
        "system": _changes(_system(a), _system(b)),
        "model": _changes(_model(a), _model(b)),
        **{
            f"python ({name})": _changes(_packages(a["python"][name]), _packages(b["python"][name]))
            for name in a["python"]
        },
        "debian": _changes(_packages(a["debian"]), _packages(b["debian"])),
        **{name: _changes(_sources(a, name), _sources(b, name)) for name in ("states", "pillar", "locks", "service")},
    }
    sizes = {name: (a["bytes"][name], b["bytes"][name]) for name in a["bytes"] if name in b["bytes"]}
    return ImageDifference({name: changes for name, changes in groups.items() if changes}, sizes)


def changed_sources(before: Document, now: Mapping[str, str]) -> list[str]:
    """Files of the declaration and the programs that differ from those of an image; `now` has their SHA-256."""
    known = before["sources"]
    return sorted(name for name in {*known, *now} if known.get(name) != now.get(name))


def _system(manifest: Document) -> dict[str, str]:
    origin = manifest.get("origin", {})
    return {
        "system": manifest["os"]["name"],
        "kernel": manifest["kernel"],
        "driver": manifest["driver"] or "",
        "source image": origin.get("source_image", ""),
        "git commit": origin.get("git_commit", "")[:12] + ("+" if origin.get("git_changed") else ""),
        "payload": origin.get("payload_sha256", "")[:12],
    }


def _model(manifest: Document) -> dict[str, str]:
    model = manifest["model"]
    files = {name: f"{file['bytes']:,} bytes, sha256 {file['sha256'][:12]}" for name, file in model["files"].items()}
    return {"id": model["id"], "commit": model["revision"], **files}


def _packages(packages: Iterable[Document]) -> dict[str, str]:
    """Version by name; beside another build of the same version, its digest tells them apart."""
    return {p["name"]: f"{p['version']} {(p['files_sha256'] or '')[:8]}".strip() for p in packages}


def _sources(manifest: Document, group: str) -> dict[str, str]:
    mine = {name: digest for name, digest in manifest["sources"].items() if content_hash.group_of(name) == group}
    return {name: digest[:12] for name, digest in mine.items()}


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[Change]:
    names = sorted(name for name in {*before, *after} if before.get(name, "") != after.get(name, ""))
    return [Change(name, before.get(name, ""), after.get(name, "")) for name in names]
