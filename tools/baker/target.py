"""Where a bake runs: on AWS by bake.toml, or on the local cloud, which provides the same kind of configuration.

No module below this one knows which it is.
"""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from localcloud import BASES, DEFAULT_BASE, Endpoint, LocalCloud, LocalCloudError

from baker.aws import requests
from baker.config import Credentials, LauncherConfig, from_mapping, load, read_toml
from baker.context import BakeContext, open_context
from baker.display.progress import Display
from baker.errors import BakeError, UsageError
from baker.inputs import pillar, wheels

AWS, LOCAL = "aws", "local"
CONFIG_FILE = "bake.toml"
REAL_HUB = "https://huggingface.co"
REHEARSAL = {
    "instance": {"types": ["g4dn.xlarge"], "volume_gb": 40},
    "image": {"name_prefix": "transcribe-rehearsal"},
    "bake": {"deadline_minutes": 40},
    "prices": {"g4dn.xlarge": 0},
    "tags": {"project": "transcribe", "rehearsal": "true"},
}
ENGLISH_CLIP = {"clip": "verify.flac", "language": "en", "reference": "verify.txt", "max_word_error_rate": 0.3}


@contextmanager
def planning_config(root: Path, cloud: str, path: Path | None) -> Iterator[LauncherConfig]:
    """The configuration to plan with; a local cloud that is not running exists only while this is open."""
    if cloud == AWS:
        yield load(path or root / CONFIG_FILE)
        return
    with _local_errors(), LocalCloud.planning(root) as endpoint:
        yield local_config(endpoint, path)


def bake_config(root: Path, options: argparse.Namespace, display: Display) -> LauncherConfig:
    """The configuration to bake with; starts the local cloud where that is meant."""
    if options.cloud == AWS:
        return load(options.config or root / CONFIG_FILE)
    if options.base != DEFAULT_BASE:
        _tell_large_wheels(root, options.base, BASES[options.base].python, display)
    with _local_errors(), display.phase("local cloud"):
        endpoint = LocalCloud.ensure(root, base=options.base, say=lambda line: display.note(f"  {line}", "dim"))
        return local_config(endpoint, options.config, options.model, options.listen_for)


def _tell_large_wheels(root: Path, base: str, python: str, display: Display) -> None:
    if missing := wheels.lacking(root, base, python):
        display.note(
            f"  pip's sources here have no {', '.join(missing)} for Python {python}: machines take the CUDA build, "
            "several GB more; PyTorch's index of CPU builds in pip's extra-index-url saves that",
            "yellow",
        )


def local_config(endpoint: Endpoint, path: Path | None, model: str = "", language: str = "en") -> LauncherConfig:
    """The local cloud's configuration, overridden by the sections of the file at `path`, if any."""
    document: dict[str, Any] = {
        **REHEARSAL,
        "aws": {"region": endpoint.region, "endpoint_url": endpoint.api_url},
        "s3": {"bucket": endpoint.bucket, "presign_endpoint_url": endpoint.machine_url},
        "source": {"ami": endpoint.source_ami},
        "hub": {"endpoint_url": REAL_HUB if model else endpoint.hub_url},
        "pillar": rehearsed(endpoint, model, language),
    }
    overrides = read_toml(path) if path else {}
    if "fleet" in overrides:  # its machines reach the local cloud at another address than this computer
        document["launch"] = {"pillar": {"fleet": {"endpoint_url": endpoint.machine_url}}}
    config = from_mapping(pillar.merge(document, overrides))
    return replace(config, credentials=Credentials(endpoint.access_key_id, endpoint.secret_access_key))


def rehearsed(endpoint: Endpoint, model: str, language: str) -> dict[str, Any]:
    """The pillar's sections for a rehearsal: a small model in place of the one that the pillar names, and English
    unless the pillar's own language is asked for."""
    if model:
        return {"model": {"id": model, "endpoint": REAL_HUB}}
    found = {"model": {"id": endpoint.model_id, "endpoint": endpoint.machine_hub_url}}
    return found if language == "sv" else pillar.merge(found, {"model": {"language": "en"}, "verify": ENGLISH_CLIP})


def describe(config: LauncherConfig) -> str:
    """Where a bake would go, for a person."""
    where = config.aws.endpoint_url or f"AWS, profile {config.aws.profile or 'by default'}"
    return f"{where}, {config.aws.region}; bucket {config.s3.bucket}"


def addresses(root: Path, cloud: str, context: BakeContext, instance_id: str, port: int) -> tuple[str, str]:
    """Where a machine's service is reached from outside its network, and from inside; each may be empty.

    On the local cloud the former is by way of this host's loopback.
    """
    if cloud == AWS:
        public, private = (f"http://{ip}:{port}" if ip else "" for ip in context.machines.addresses(instance_id))
        return public, private
    with _local_errors():
        LocalCloud.leader(root, instance_id)
        return LocalCloud.url_of(root, instance_id, port), ""


def access_hint(cloud: str, config: LauncherConfig, instance_id: str) -> str:
    """How a person gets into a machine, which has neither a key pair nor an open port nor a role."""
    if cloud == LOCAL:
        return f"look at it with: sudo python3 tools/bake.py shell {instance_id}"
    where = f"--region {config.aws.region}"
    return (
        "look at it by Session Manager. If [instance] profile names none, it needs a role with "
        "AmazonSSMManagedInstanceCore, which its agent finds within the hour:\n"
        f"  aws ec2 associate-iam-instance-profile {where} --instance-id {instance_id} "
        "--iam-instance-profile Name=PROFILE\n"
        f"  aws ssm start-session {where} --target {instance_id}"
    )


def shell(root: Path, image: str, argv: Sequence[str], *, disk: bool) -> int:
    """Run `argv` on an image of the local cloud, booted or only its disk, or in a machine that runs.

    Returns the command's exit code.
    """
    with _local_errors():
        endpoint = LocalCloud.ensure(root)
        if image.startswith("i-"):
            return LocalCloud.run(root, image, argv)
        image_id = _newest_image(root, endpoint) if image == "latest" else image
        return LocalCloud.shell(root, image_id, argv, boot=not disk)


def _newest_image(root: Path, endpoint: Endpoint) -> str:
    context = open_context(root, local_config(endpoint, None), Display())
    images = context.images.tagged({requests.TAG_VERIFIED: "true"})
    if not images:
        raise UsageError("the local cloud has no verified image yet: sudo python3 tools/bake.py rehearse")
    return images[0].id


@contextmanager
def _local_errors() -> Iterator[None]:
    try:
        yield
    except LocalCloudError as error:
        raise BakeError(str(error)) from None
