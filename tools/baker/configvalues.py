"""What the types of bake.toml's values alone cannot say."""

import re
from typing import TYPE_CHECKING

from baker.aws import requests
from baker.errors import UsageError

if TYPE_CHECKING:
    from baker.config import Config

PARAMETER = re.compile(r"/(?!aws|ssm)[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*", re.IGNORECASE)
LAUNCH_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{1,30}[A-Za-z0-9]")
ADDRESS = re.compile(r"https?://[^\s/?#]+(/[^\s?#]*)?")
ACCOUNT = re.compile(r"[0-9]{12}")
ORGANIZATION = re.compile(r"arn:[a-z-]+:organizations::[0-9]{12}:(organization/o-|ou/o-)[a-z0-9/-]+")


def check(config: "Config") -> None:
    """Raise UsageError that names the section and the key."""
    source = config.source
    ways = [bool(source.ami), bool(source.ssm_parameter), bool(source.owner or source.name)]
    if ways.count(True) != 1:
        raise UsageError("[source] needs exactly one of: ami; ssm_parameter; owner with name")
    if bool(source.owner) != bool(source.name):
        raise UsageError("[source] needs owner and name together: a name alone would trust any account")
    if not config.instance.types:
        raise UsageError("[instance] types names no instance type")
    if not config.instance.markets or set(config.instance.markets) - set(requests.MARKETS):
        raise UsageError(f"[instance] markets must name some of: {', '.join(requests.MARKETS)}")
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


def _check_publish(config: "Config") -> None:
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
        raise UsageError("[publish] shares the image, but AWS' own key opens it to nobody else: set [image] kms_key")
    if wanted.deprecate_days < 0:
        raise UsageError("[publish] deprecate_days must not be negative")
    if wanted.keep < 1:
        raise UsageError("[publish] keep must be at least 1")


def _check_addresses(config: "Config") -> None:
    addresses = {
        "[aws] endpoint_url": config.aws.endpoint_url,
        "[s3] presign_endpoint_url": config.s3.presign_endpoint_url,
        "[hub] endpoint_url": config.hub.endpoint_url,
    }
    for name, address in addresses.items():
        if address and not ADDRESS.fullmatch(address):
            raise UsageError(f"{name} must be such as https://example.org, not {address!r}")
