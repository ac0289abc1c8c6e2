"""The bill of materials of an image, in CycloneDX 1.6: every package, the model with its files, kernel and driver."""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

Document = Mapping[str, Any]
NAMESPACE = uuid.UUID("6f6e7a52-4f5b-5c8e-9d0a-7f3c2b1e4d60")  # of the serial numbers that are made here


def cyclonedx(manifest: Document, digest: str) -> str:
    """The bill of a manifest as JSON; the same manifest, whose `digest` this is, makes the same bill."""
    origin = manifest.get("origin", {})
    whole = Component(
        name="transcribe-image",
        type=ComponentType.PLATFORM,
        version=str(origin.get("bake", "")),
        bom_ref="image",
        properties=_properties(origin),
    )
    bom = Bom(serial_number=uuid.uuid5(NAMESPACE, digest), components=components(manifest))
    bom.metadata.component = whole
    bom.metadata.timestamp = _time(origin.get("time"))
    bom.register_dependency(whole, bom.components)
    return str(JsonV1Dot6(bom).output_as_string(indent=1))


def components(manifest: Document) -> Iterator[Component]:
    """Everything that the manifest names."""
    system, model = manifest["os"], manifest["model"]
    for kind, packages in manifest["python"].items():
        for package in packages:
            yield _python(package, kind)
    for package in manifest["debian"]:
        yield _debian(package, system)
    yield Component(name="linux", type=ComponentType.OPERATING_SYSTEM, version=manifest["kernel"], bom_ref="kernel")
    if manifest["driver"]:
        yield Component(name="nvidia", type=ComponentType.DEVICE_DRIVER, version=manifest["driver"], bom_ref="driver")
    group, _, name = model["id"].rpartition("/")
    yield Component(
        name=model["id"],
        type=ComponentType.MACHINE_LEARNING_MODEL,
        version=model["revision"],
        purl=PackageURL("huggingface", group or None, name, model["revision"]),
        bom_ref="model",
        components=_files(model["files"]),
    )


def _python(package: Document, environment: str) -> Component:
    license_ = package.get("license")
    url = PackageURL("pypi", None, package["name"].lower().replace("_", "-"), package["version"])
    return Component(
        name=package["name"],
        type=ComponentType.LIBRARY,
        version=package["version"],
        purl=url,
        bom_ref=f"{environment} {url}",
        licenses=[LicenseFactory().make_from_string(license_)] if license_ else None,
        properties=_properties({"environment": environment, "files_sha256": package["files_sha256"]}),
    )


def _debian(package: Document, system: Document) -> Component:
    qualifiers = {"arch": package["architecture"], "distro": f"{system['id']}-{system['version']}"}
    url = PackageURL("deb", system["id"], package["name"], package["version"], qualifiers)
    return Component(
        name=package["name"],
        type=ComponentType.LIBRARY,
        version=package["version"],
        purl=url,
        bom_ref=str(url),
        properties=_properties({"files_sha256": package["files_sha256"]}),
    )


def _files(files: Mapping[str, Document]) -> Iterable[Component]:
    for name, file in files.items():
        yield Component(
            name=name,
            type=ComponentType.FILE,
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=file["sha256"])],
            bom_ref=f"model {name}",
        )


def _properties(values: Document) -> list[Property]:
    present = ((name, value) for name, value in sorted(values.items()) if value not in (None, ""))
    return [Property(name=f"transcribe:{name}", value=str(value)) for name, value in present]


def _time(text: object) -> datetime:
    """When the bake was planned; a manifest that does not say has a time all the same, always the same."""
    return datetime.fromisoformat(text) if isinstance(text, str) else datetime(1970, 1, 1, tzinfo=UTC)
