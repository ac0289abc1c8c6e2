"""The examination of an account: every check in its order."""

from collections.abc import Iterator, Mapping
from functools import partial

from baker.aws.dry_run import ALLOWED, DENIED, REFUSED, DryRunResult, Subject
from baker.aws.mends import RIGHTS
from baker.context import BakeContext
from baker.doctor import bucket, credentials, disks, network, quotas, sources
from baker.doctor.finding import FAILS, OK, UNKNOWN, Check, Examination, Finding
from baker.inputs import pillar

LEAST_GB = 40  # of a disk, as a plan has it
NEEDS = {
    "bucket encryption": "bucket",
    "bucket write": "bucket",
    "signed addresses": "bucket",
    "permissions": "source image",
}
REQUIRED = frozenset({"bucket", "bucket write", "permissions", "security group", "source image", "way out"})
CONFIGURATION = "correct it in bake.toml"
MENDS = {  # of an error of the configuration, by row
    "bucket": "name a bucket of your account and of this region in [s3] bucket",
    "bucket write": "look at the bucket's policy, the state of its key, and its object lock",
    "source image": "name another in [source]",
    "way out": "name your subnets in [instance] subnets, or another type in [instance] types",
    "security group": "remove its ingress rules, or name another in [instance] security_group",
    "model hub": "name another model in [pillar.model], or another hub in [hub] endpoint_url",
}


def free(context: BakeContext, examination: Examination | None = None) -> Iterator[Finding]:
    """What changes nothing at all; a plan looks at it as well."""
    checks: dict[str, Check] = {
        "identity": partial(credentials.identity, context),
        "credentials": partial(credentials.life, context),
        "regions": partial(network.regions, context),
        "bucket": partial(bucket.there, context),
        "bucket encryption": partial(bucket.encryption, context),
        "source image": partial(_source, context),
        "default disk key": partial(disks.default_key, context),
        "image key": partial(disks.image_key, context),
        "quota, vCPUs": partial(quotas.vcpus, context),
        "quota, volumes": partial(_storage, context),
        "quota, images": partial(quotas.images, context),
        "way out": partial(_places, context),
        "security group": partial(network.group, context),
        "service-linked roles": partial(network.roles, context),
    }
    examination = examination or Examination()
    yield from _run(examination, checks)


def whole(context: BakeContext) -> Iterator[Finding]:
    """Everything that can be told without a machine; writes one small object into the bucket."""
    examination = Examination()
    yield from free(context, examination)
    checks: dict[str, Check] = {
        "bucket write": partial(bucket.writes, context),
        "signed addresses": partial(bucket.addresses, context),
        "published parameter": partial(disks.parameter, context),
        "permissions": partial(_permissions, context),
        "model hub": partial(_hub, context),
        "package index": sources.packages,
    }
    yield from _run(examination, checks)


def _run(examination: Examination, checks: Mapping[str, Check]) -> Iterator[Finding]:
    for name, check in checks.items():
        mend, required = MENDS.get(name, CONFIGURATION), name in REQUIRED
        yield from examination.run(name, check, NEEDS.get(name, ""), mend=mend, required=required)


def permissions(results: list[DryRunResult]) -> Iterator[Finding]:
    """What the dry runs of a bake's calls said, as one finding."""
    allowed = [result.operation for result in results if result.answer == ALLOWED]
    bad = [result for result in results if result.answer in (DENIED, REFUSED)]
    if bad:
        detail = f"{', '.join(result.operation for result in bad)}: {bad[0].words}"
        yield Finding("permissions", FAILS, detail, bad[0].mend or RIGHTS)
    elif not allowed:
        yield Finding("permissions", UNKNOWN, "no dry run said anything")
    else:
        yield Finding("permissions", OK, f"{', '.join(allowed)}; of {len(results)} calls asked about")


def _source(context: BakeContext) -> Iterator[Finding]:
    yield from disks.source(context, context.images.source(context.config.source))


def _storage(context: BakeContext) -> Iterator[Finding]:
    yield from quotas.storage(context, context.config.instance.volume_gb or LEAST_GB)


def _places(context: BakeContext) -> Iterator[Finding]:
    yield from network.places(context, context.zones.places(context.config.instance))


def _permissions(context: BakeContext) -> Iterator[Finding]:
    group, vpc = context.networks.present_group(context.config.instance)
    place = context.zones.places(context.config.instance)[0]
    subject = Subject(place, context.images.source(context.config.source), group, vpc, None)
    yield from permissions(context.dry_runs.ask(context.config, subject))


def _hub(context: BakeContext) -> Iterator[Finding]:
    wanted = pillar.merge(pillar.load(context.root), context.config.pillar)
    yield from sources.hub(context, wanted["model"])
