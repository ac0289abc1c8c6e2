"""bake.toml: what the launcher must know about AWS. Strict: an unknown key is an error that names it."""

import dataclasses
import re
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from baker.errors import UsageError

ON_DEMAND, SPOT = "on-demand", "spot"
MARKETS = (ON_DEMAND, SPOT)
LEAST_RATE = 100  # MiB/s that EBS initializes a volume with, if it is asked to


def _such(pattern: str, description: str) -> Meta:
    """A string that must match; the description completes "must be"."""
    return Meta(pattern=rf"^({pattern})\Z", description=description)


# Types of values; the description completes the error "[section] key must be ...".
Text = Annotated[str, Meta(min_length=1, description="a string")]
Address = Annotated[str, _such(r"|https?://[^\s/?#]+(/[^\s?#]*)?", "such as https://example.org")]
BucketName = Annotated[
    str, _such("[A-Za-z0-9._-]+", "the name of a bucket such as my-bucket, without s3:// and without a path")
]
Parameter = Annotated[
    str, _such(r"(?i:/(?!aws|ssm)[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*)", "a path such as /transcribe/image")
]
LaunchName = Annotated[str, _such("[A-Za-z0-9][A-Za-z0-9-]{1,30}[A-Za-z0-9]", "3 to 32 letters, digits and hyphens")]
FleetName = Annotated[str, _such("|[A-Za-z0-9_-]{1,70}", "up to 70 letters, digits, hyphens and underscores")]
Account = Annotated[str, _such("[0-9]{12}", "")]
Accounts = Annotated[tuple[Account, ...], Meta(description="a list of account numbers, of 12 digits each")]
Organization = Annotated[str, _such("arn:[a-z-]+:organizations::[0-9]{12}:(organization/o-|ou/o-)[a-z0-9/-]+", "")]
Organizations = Annotated[
    tuple[Organization, ...], Meta(description="a list of ARNs of organizations, or of units in one")
]
Types = Annotated[
    tuple[str, ...], Meta(min_length=1, description="a list of strings that names at least one instance type")
]
Market = Annotated[str, _such("|".join(MARKETS), "")]
Markets = Annotated[tuple[Market, ...], Meta(min_length=1, description=f"a list of some of: {', '.join(MARKETS)}")]
Encryption = Annotated[str, _such("|AES256|aws:kms|aws:kms:dsse", "AES256, aws:kms or aws:kms:dsse")]
Count = Annotated[int, Meta(ge=0, description="a whole number that is not negative")]
Minutes = Annotated[int, Meta(ge=1, le=720, description="a whole number from 1 to 720")]
Rate = Annotated[int, Meta(ge=0, le=300, description="0, or MiB/s from 100 to 300")]
AtLeastOne = Annotated[int, Meta(ge=1, description="a whole number of at least 1")]
Dollars = Annotated[float, Meta(ge=0, description="US dollars an hour")]


@dataclass(frozen=True)
class Credentials:
    """Keys that the launcher is handed in memory; those of AWS proper come from boto3's own chain instead."""

    access_key_id: str
    secret_access_key: str


@dataclass(frozen=True)
class AwsSection:
    """Where AWS is. `endpoint_url` stands in for every service's own address."""

    region: Text
    profile: str = ""
    endpoint_url: Address = ""


@dataclass(frozen=True)
class S3Section:
    """The bucket that payloads and signals pass through; `presign_endpoint_url` is its address as machines see it.

    `encryption` and `kms_key` are what every write asks for; empty: the bucket's own default.
    """

    bucket: BucketName
    prefix: str = "transcribe-bake"
    presign_endpoint_url: Address = ""
    encryption: Encryption = ""
    kms_key: str = ""


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

    types: Types = ("g4dn.xlarge",)
    markets: Markets = (ON_DEMAND,)
    subnets: tuple[str, ...] = ()
    volume_gb: Count = 0  # 0: as large as the source image's
    security_group: str = ""
    profile: str = ""  # an instance profile, for machines that are kept to be looked at
    initialization_rate: Rate = 0  # MiB/s, of disks made from an image; 0: as they are read


@dataclass(frozen=True)
class ImageSection:
    """The image that results. `kms_key` encrypts its disk; an alias such as alias/images names one in each region."""

    name_prefix: str = "transcribe"
    kms_key: str = ""  # empty: AWS' own, which no other account can use


@dataclass(frozen=True)
class PublishSection:
    """What makes a verified image the one that is launched, and for whom."""

    ssm_parameter: Parameter = "/transcribe/image"  # holds its id, in each region
    regions: tuple[str, ...] = ()  # where it is copied to
    accounts: Accounts = ()  # whom it is shared with, by number
    organizations: Organizations = ()  # likewise, by the ARN of an organization or of a unit in one
    deprecate_days: Count = 365  # after its creation; 0: never
    keep: AtLeastOne = 5  # images that prune leaves, the newest ones


@dataclass(frozen=True)
class LaunchSection:
    """Serving machines, launched from the published image. `pillar` overrides the image's for them alone."""

    name: LaunchName = "transcribe"  # of the launch template, the group and the target group
    instance_type: str = ""  # empty: the first of [instance] types
    markets: Markets = (ON_DEMAND,)
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()  # none: the closed one
    keys_file: str = ""  # lines of tools/bake.py new-key, relative to the tree
    min_size: Count = 1  # of a group
    max_size: Count = 2
    pillar: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FleetSection:
    """The fleet that launched machines belong to, and that submit and jobs ask; none without `queue`."""

    queue: FleetName = ""
    bucket: str = ""  # empty: that of [s3]
    prefix: Text = "transcribe-fleet"
    profile: str = ""  # the instance profile of its machines
    owner: str = ""  # of what is submitted; empty: the name of the user
    wait_minutes: Count = 30  # that work may wait, and a group grows; 0: it does not grow
    idle_minutes: Count = 15  # without work, and a machine of a group ends itself; 0: never


@dataclass(frozen=True)
class BakeSection:
    """How long a machine may exist at all."""

    deadline_minutes: Minutes = 90


@dataclass(frozen=True)
class HubSection:
    """The model hub as this computer reaches it; empty: where the pillar's model.endpoint says."""

    endpoint_url: Address = ""


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
    fleet: FleetSection = FleetSection()
    bake: BakeSection = BakeSection()
    hub: HubSection = HubSection()
    tags: Mapping[str, str] = field(default_factory=dict)
    prices: Mapping[str, Dollars] = field(default_factory=dict)  # US dollars an hour by instance type
    pillar: Mapping[str, Any] = field(default_factory=dict)
    credentials: Credentials | None = None  # never from the file


KINDS = {name: kind for name, kind in typing.get_type_hints(LauncherConfig).items() if name != "credentials"}
NAMES = {str: "a string", tuple[str, ...]: "a list of strings", Mapping[str, Any]: "a section"}


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
    for section, table in document.items():
        if section not in KINDS:
            raise UsageError(f"unknown section [{section}]; known: {', '.join(KINDS)}")
        if not isinstance(table, Mapping):
            raise UsageError(f"[{section}] must be a section, not a value")
        known = (
            [f.name for f in dataclasses.fields(KINDS[section])] if dataclasses.is_dataclass(KINDS[section]) else table
        )
        for key in table:
            if key not in known:
                raise UsageError(f"[{section}] has an unknown key {key!r}; known: {', '.join(known)}")
    try:
        config = msgspec.convert({"aws": {}, "s3": {}, "source": {}, **document}, LauncherConfig)
    except msgspec.ValidationError as error:
        raise UsageError(_in_words(str(error), document)) from None
    _check_together(config)
    return config


def _in_words(error: str, document: Mapping[str, Any]) -> str:
    """An error of msgspec such as "Expected `str`, got `int` - at `$.aws.region`", for a person."""
    found = re.search(r"(?:field `(?P<missing>\w+)` - at )?`\$\.(?P<section>\w+)(?:\.(?P<key>\w+))?", error)
    assert found is not None, error
    section, key = found["section"], found["key"] or found["missing"]
    table = document.get(section, {})
    hint: Any
    if key is None:  # msgspec does not name the keys of a mapping
        hint = Dollars if section == "prices" else str
        key = next(name for name, value in table.items() if not _fits(value, hint))
    else:
        hint = typing.get_type_hints(KINDS[section], include_extras=True)[key]
    if table.get(key) in (None, ""):
        return f"[{section}] {key} is missing or empty"
    wanted = hint.__metadata__[0].description if typing.get_origin(hint) is Annotated else NAMES[hint]
    return f"[{section}] {key} must be {wanted}, not {table[key]!r}"


def _fits(value: object, hint: Any) -> bool:
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError:
        return False
    return True


def _check_together(config: LauncherConfig) -> None:
    """What several keys must be together."""
    source, publish = config.source, config.publish
    if [bool(source.ami), bool(source.ssm_parameter), bool(source.owner or source.name)].count(True) != 1:
        raise UsageError("[source] needs exactly one of: ami; ssm_parameter; owner with name")
    if bool(source.owner) != bool(source.name):
        raise UsageError("[source] needs owner and name together: a name alone would trust any account")
    if config.aws.region in publish.regions:
        raise UsageError(f"[publish] regions names {config.aws.region}, where the image is made; name only others")
    if (publish.accounts or publish.organizations) and not config.image.kms_key:
        raise UsageError("[publish] shares the image, but no other account can use AWS' own key: set [image] kms_key")
    if 0 < config.instance.initialization_rate < LEAST_RATE:
        raise UsageError("[instance] initialization_rate must be 0, or MiB/s from 100 to 300")
    if config.s3.kms_key and not config.s3.encryption.startswith("aws:kms"):
        raise UsageError('[s3] kms_key needs [s3] encryption = "aws:kms" (or "aws:kms:dsse")')
    if config.launch.min_size > config.launch.max_size:
        raise UsageError("[launch] min_size must not be above max_size")
