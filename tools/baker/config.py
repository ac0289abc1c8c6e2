"""bake.toml: what the launcher must know about AWS. Strict: an unknown key is an error that names it."""

import dataclasses
import re
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from baker.errors import UsageError

Section = TypeVar("Section")

ON_DEMAND, SPOT = "on-demand", "spot"
MARKETS = (ON_DEMAND, SPOT)
PARAMETER = re.compile(r"/(?!aws|ssm)[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*", re.IGNORECASE)
LAUNCH_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{1,30}[A-Za-z0-9]")
ADDRESS = re.compile(r"https?://[^\s/?#]+(/[^\s?#]*)?")
ACCOUNT = re.compile(r"[0-9]{12}")
ORGANIZATION = re.compile(r"arn:[a-z-]+:organizations::[0-9]{12}:(organization/o-|ou/o-)[a-z0-9/-]+")


@dataclass(frozen=True)
class Credentials:
    """Keys that the launcher is handed in memory; those of AWS proper come from boto3's own chain instead."""

    access_key_id: str
    secret_access_key: str


@dataclass(frozen=True)
class AwsSection:
    """Where AWS is. `endpoint_url` stands in for every service's own address."""

    region: str
    profile: str = ""
    endpoint_url: str = ""


@dataclass(frozen=True)
class S3Section:
    """The bucket that payloads and signals pass through; `presign_endpoint_url` is its address as machines see it."""

    bucket: str
    prefix: str = "transcribe-bake"
    presign_endpoint_url: str = ""


@dataclass(frozen=True)
class SourceSection:
    """The image to start from: its id, an SSM parameter that holds it, or the newest of an owner by name."""

    ami: str = ""
    ssm_parameter: str = ""
    owner: str = ""
    name: str = ""


@dataclass(frozen=True)
class InstanceSection:
    """The machine that bakes. Types, markets and subnets are tried in order when AWS has no capacity."""

    types: tuple[str, ...] = ("g4dn.xlarge",)
    markets: tuple[str, ...] = (ON_DEMAND,)
    subnets: tuple[str, ...] = ()
    volume_gb: int = 0  # 0: as large as the source image's
    security_group: str = ""


@dataclass(frozen=True)
class ImageSection:
    """The image that results. `kms_key` encrypts its disk; an alias such as alias/images names one in each region."""

    name_prefix: str = "transcribe"
    kms_key: str = ""  # empty: AWS' own, which no other account can use


@dataclass(frozen=True)
class PublishSection:
    """What makes a verified image the one that is launched, and for whom."""

    ssm_parameter: str = "/transcribe/image"  # holds its id, in each region
    regions: tuple[str, ...] = ()  # where it is copied to
    accounts: tuple[str, ...] = ()  # whom it is shared with, by number
    organizations: tuple[str, ...] = ()  # likewise, by the ARN of an organization or of a unit in one
    deprecate_days: int = 365  # after its creation; 0: never
    keep: int = 5  # images that prune leaves, the newest ones


@dataclass(frozen=True)
class LaunchSection:
    """Serving machines, launched from the published image. `pillar` overrides the image's for them alone."""

    name: str = "transcribe"  # of the launch template, the group and the target group
    instance_type: str = ""  # empty: the first of [instance] types
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()  # none: the closed one
    keys_file: str = ""  # lines of tools/bake.py new-key, relative to the tree
    min_size: int = 1  # of a group
    max_size: int = 2
    pillar: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BakeSection:
    """How long a machine may exist at all."""

    deadline_minutes: int = 90


@dataclass(frozen=True)
class HubSection:
    """The model hub as this computer reaches it; empty: where the pillar's model.endpoint says."""

    endpoint_url: str = ""


@dataclass(frozen=True)
class LauncherConfig:
    """Everything in bake.toml, checked."""

    aws: AwsSection
    s3: S3Section
    source: SourceSection
    instance: InstanceSection = InstanceSection()
    image: ImageSection = ImageSection()
    publish: PublishSection = PublishSection()
    launch: LaunchSection = LaunchSection()
    bake: BakeSection = BakeSection()
    hub: HubSection = HubSection()
    tags: Mapping[str, str] = field(default_factory=dict)
    prices: Mapping[str, float] = field(default_factory=dict)  # US dollars an hour by instance type
    pillar: Mapping[str, Any] = field(default_factory=dict)
    credentials: Credentials | None = None  # never from the file


SECTIONS: dict[str, type] = {
    "aws": AwsSection, "s3": S3Section, "source": SourceSection, "instance": InstanceSection, "image": ImageSection,
    "publish": PublishSection, "launch": LaunchSection, "bake": BakeSection, "hub": HubSection,
}  # fmt: skip
OPEN_SECTIONS = ("tags", "prices", "pillar")
TYPE_NAMES = {str: "a string", int: "a whole number", tuple[str, ...]: "a list of strings"}


def load(path: Path) -> LauncherConfig:
    """Read and check `path`; raises UsageError with one line that names the file, the place and the fix."""
    document = read_toml(path)
    try:
        return from_mapping(document)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def read_toml(path: Path) -> dict[str, Any]:
    """The document in a file; raises UsageError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}; name another file with --config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from None


def from_mapping(document: Mapping[str, Any]) -> LauncherConfig:
    """Check a parsed file; raises UsageError that names the section and the key."""
    known = [*SECTIONS, *OPEN_SECTIONS]
    for name, table in document.items():
        if name not in known:
            raise UsageError(f"unknown section [{name}]; known: {', '.join(known)}")
        if not isinstance(table, Mapping):
            raise UsageError(f"[{name}] must be a section, not a value")
    sections: dict[str, Any] = {name: _section(kind, name, document.get(name, {})) for name, kind in SECTIONS.items()}
    opened = {name: document.get(name, {}) for name in OPEN_SECTIONS}
    for key, value in opened["tags"].items():
        if not isinstance(value, str):
            raise UsageError(f"[tags] {key} must be a string")
    for key, value in opened["prices"].items():
        if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
            raise UsageError(f"[prices] {key} must be US dollars an hour, not {value!r}")
    config = LauncherConfig(**sections, **opened)
    check(config)
    return config


def _section(kind: type[Section], name: str, table: Mapping[str, Any]) -> Section:
    """One section's dataclass; its fields are the keys it may have, those without a default the ones it must."""
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    types = typing.get_type_hints(kind)
    for key, value in table.items():
        if key not in fields:
            raise UsageError(f"[{name}] has an unknown key {key!r}; known: {', '.join(fields)}")
        if not _fits(value, types[key]):
            raise UsageError(f"[{name}] {key} must be {TYPE_NAMES.get(types[key], 'a section')}, not {value!r}")
    for key, f in fields.items():
        if f.default is f.default_factory is dataclasses.MISSING and not table.get(key):
            raise UsageError(f"[{name}] {key} is missing or empty")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()})


def _fits(value: object, kind: object) -> bool:
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is str:
        return isinstance(value, str)
    if kind == tuple[str, ...]:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    return isinstance(value, Mapping)


def check(config: LauncherConfig) -> None:
    """Raise UsageError that names the section and the key."""
    source = config.source
    ways = [bool(source.ami), bool(source.ssm_parameter), bool(source.owner or source.name)]
    if ways.count(True) != 1:
        raise UsageError("[source] needs exactly one of: ami; ssm_parameter; owner with name")
    if bool(source.owner) != bool(source.name):
        raise UsageError("[source] needs owner and name together: a name alone would trust any account")
    if not config.instance.types:
        raise UsageError("[instance] types names no instance type")
    if not config.instance.markets or set(config.instance.markets) - set(MARKETS):
        raise UsageError(f"[instance] markets must name some of: {', '.join(MARKETS)}")
    if config.instance.volume_gb < 0:
        raise UsageError("[instance] volume_gb must not be negative")
    _check_addresses(config)
    if not 1 <= config.bake.deadline_minutes <= 720:
        raise UsageError("[bake] deadline_minutes must be from 1 to 720")
    _check_publish(config)
    if not LAUNCH_NAME.fullmatch(config.launch.name):
        raise UsageError("[launch] name must be 3 to 32 letters, digits and hyphens")
    if not 0 <= config.launch.min_size <= config.launch.max_size:
        raise UsageError("[launch] min_size must be from 0 to max_size")


def _check_publish(config: LauncherConfig) -> None:
    wanted = config.publish
    if not PARAMETER.fullmatch(wanted.ssm_parameter):
        raise UsageError("[publish] ssm_parameter must be a path such as /transcribe/image")
    if config.aws.region in wanted.regions:
        raise UsageError(f"[publish] regions names {config.aws.region}, where the image is made; name only others")
    for account in wanted.accounts:
        if not ACCOUNT.fullmatch(account):
            raise UsageError(f"[publish] accounts: {account!r} is not the 12 digits of an account")
    for arn in wanted.organizations:
        if not ORGANIZATION.fullmatch(arn):
            raise UsageError(f"[publish] organizations: {arn!r} is not the ARN of an organization or of a unit in one")
    if (wanted.accounts or wanted.organizations) and not config.image.kms_key:
        raise UsageError("[publish] shares the image, but no other account can use AWS' own key: set [image] kms_key")
    if wanted.deprecate_days < 0:
        raise UsageError("[publish] deprecate_days must not be negative")
    if wanted.keep < 1:
        raise UsageError("[publish] keep must be at least 1")


def _check_addresses(config: LauncherConfig) -> None:
    addresses = {
        "[aws] endpoint_url": config.aws.endpoint_url,
        "[s3] presign_endpoint_url": config.s3.presign_endpoint_url,
        "[hub] endpoint_url": config.hub.endpoint_url,
    }
    for name, address in addresses.items():
        if address and not ADDRESS.fullmatch(address):
            raise UsageError(f"{name} must be such as https://example.org, not {address!r}")
