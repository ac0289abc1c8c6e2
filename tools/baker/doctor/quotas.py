"""Whether the account's quotas leave room for a machine, its disk and its image. Dry runs do not count quotas."""

from collections.abc import Iterator

from baker.aws.account import Account
from baker.config import SPOT
from baker.context import BakeContext
from baker.doctor.finding import FAILS, NOTE, Finding, found

# Quota codes of vCPUs by the letters that an instance type begins with: on-demand and spot.
FAMILIES = {
    "g": ("L-DB2E81BA", "L-3819A6DF"), "vt": ("L-DB2E81BA", "L-3819A6DF"),
    "p": ("L-417A185B", "L-7212CCBC"), "inf": ("L-1945791B", "L-B5D1601B"), "trn": ("L-2C3B7624", "L-6B0D517C"),
    "x": ("L-7295265B", "L-E3A00192"), "f": ("L-74FC7D96", "L-88CF9481"), "dl": ("L-6E869C2A", "L-85EED4F7"),
}  # fmt: skip
STANDARD = ("L-1216C47A", "L-34B43A08")  # A, C, D, H, I, M, R, T, Z
GP3_TIB = "L-7A658B76"
IMAGES = "L-B665C33B"
CONSOLE = "aws service-quotas request-service-quota-increase --service-code {} --quota-code {} --desired-value {:.0f}"


def codes(instance_type: str) -> tuple[str, str]:
    """The quota codes of an instance type's vCPUs, on-demand and spot."""
    letters = ""
    for letter in instance_type.partition(".")[0]:
        if not letter.isalpha():
            break
        letters += letter
    return FAMILIES.get(letters, STANDARD)


def vcpus(context: BakeContext) -> Iterator[Finding]:
    """For each quota that the configured types and markets are counted for: that one machine fits.

    Where none fits there is no machine; one that does not fit is passed over.
    """
    account, instance = Account(context.clients), context.config.instance
    cores = account.vcpus(instance.types)
    needed: dict[tuple[str, str], int] = {}
    for kind in instance.types:
        for market in instance.markets:
            code = codes(kind)[market == SPOT]
            least = min(needed.get((market, code), 10_000), cores.get(kind, 1))
            needed[market, code] = least
    quotas = {place: account.quota("ec2", place[1]) for place in needed}
    fits = any(quotas[place] >= least for place, least in needed.items())
    for (market, code), least in needed.items():
        allowed = quotas[market, code]
        bad = f"{allowed:.0f} vCPUs are allowed, and a machine has {least}" if allowed < least else ""
        bad += "; a bake takes another type or market" if bad and fits else ""
        good = f"{allowed:.0f} vCPUs, of which a machine takes {least}"
        mend = CONSOLE.format("ec2", code, 2 * least)
        yield found(f"quota, {market}", bad, good, mend, verdict=NOTE if fits else FAILS)


def storage(context: BakeContext, volume_gb: int) -> Iterator[Finding]:
    """That the volumes of a bake fit: the machine's, and beside it that of the image's snapshot."""
    allowed = Account(context.clients).quota("ebs", GP3_TIB) * 1024
    bad = f"{allowed:.0f} GiB of gp3 are allowed, and a disk has {volume_gb}" if allowed < volume_gb else ""
    yield found("quota, volumes", bad, f"{allowed:,.0f} GiB of gp3", CONSOLE.format("ebs", GP3_TIB, 50))


def images(context: BakeContext) -> Iterator[Finding]:
    """That there is room for one more image."""
    allowed, have = Account(context.clients).quota("ec2", IMAGES), context.images.count()
    bad = f"{have} images exist, and {allowed:.0f} are allowed" if have >= allowed else ""
    yield found("quota, images", bad, f"{have} of {allowed:,.0f}", "remove some; `bake.py prune --yes`")
