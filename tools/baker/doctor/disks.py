"""The image that a bake starts from, and the keys that encrypt disks."""

from collections.abc import Iterator

from baker.aws.account import Account
from baker.aws.images import Ami
from baker.aws.ssm import PublishedParameter
from baker.context import BakeContext
from baker.doctor.finding import FAILS, NOTE, OK, Finding, found
from baker.inputs import source_system

AWS_OWN = "alias/aws/ebs"
ENABLED = "Enabled"
POLICY_KEY = "set [image] kms_key to it, so that `plan --policy` covers it and its grant"


def source(context: BakeContext, image: Ami) -> Iterator[Finding]:
    """The source image: that it can be used, and what it holds."""
    system = source_system.known(image.name)
    detail = f"{image.id} {image.name}: {system or 'of a system that its name does not tell'}, {image.architecture}"
    detail += f", {image.volume_gb} GiB"
    bad = source_system.obstacle(image.name, image.architecture)
    bad = bad or ("" if image.state == "available" else f"{image.id} is {image.state}")
    verdict = found("source image", bad, detail, "name another in [source]")
    if system or bad:
        yield verdict
    else:
        yield Finding("source image", NOTE, detail, "`bake.py doctor --machine` looks inside")


def default_key(context: BakeContext) -> Iterator[Finding]:
    """The account's default key for disks, which a bake uses unless [image] kms_key names another."""
    account, name = Account(context.clients), "default disk key"
    key = account.default_disk_key()
    if key.endswith(AWS_OWN) or context.config.image.kms_key:
        yield Finding(name, OK, key)
        return
    state = account.key_state(key)
    if state != ENABLED:
        yield Finding(
            name, FAILS, f"{key} is {state or 'not there'}: no disk can be made", "enable it, or set [image] kms_key"
        )
        return
    yield Finding(name, NOTE, f"{key} is the account's own: you need its grant (kms:CreateGrant)", POLICY_KEY)


def image_key(context: BakeContext) -> Iterator[Finding]:
    """The key that the configuration names."""
    key = context.config.image.kms_key
    if not key:
        yield Finding("image key", OK, "AWS' own")
        return
    state = Account(context.clients).key_state(key)
    bad = "" if state == ENABLED else f"{key} is {state or 'not there'} in {context.config.aws.region}"
    yield found("image key", bad, key, "enable it, or name another in [image] kms_key")


def parameter(context: BakeContext) -> Iterator[Finding]:
    """The SSM parameter that publishing moves can be read."""
    from_here = PublishedParameter(context.clients, context.config.publish.ssm_parameter).current()
    yield Finding("published parameter", OK, from_here or "names no image yet")
