"""The images that exist and who needs each, for `list`; and which of them may go, for `prune`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from baker.aws import requests, ssm
from baker.aws.client import read_only
from baker.aws.images import Ami, newest_first
from baker.context import BakeContext
from baker.errors import UsageError
from baker.images import publish
from baker.images.publish import Region

LATEST, PUBLISHED = "latest", "published"  # names that the command line takes for an image


@dataclass(frozen=True)
class Replica:
    """An image, or the copy of one, in one region, and who needs it there."""

    image: Ami
    instances: tuple[str, ...]
    shared: tuple[str, ...]
    published: bool
    rollback_target: bool  # a rollback would publish it


@dataclass
class CatalogImage:
    """One image wherever it is, by region; home may be missing, if only copies are left."""

    id: str
    home: str
    replicas: dict[str, Replica] = field(default_factory=dict)

    @property
    def image(self) -> Ami:
        """The image itself, or the first copy."""
        return (
            self.replicas[self.home].image if self.home in self.replicas else next(iter(self.replicas.values())).image
        )

    @property
    def needs(self) -> list[str]:
        """Who needs it, each in a few words; empty if nobody does."""
        found = []
        for region, replica in self.replicas.items():
            where = "" if region == self.home else f" in {region}"
            found += [f"published{where}"] if replica.published else []
            found += [f"rollback's next{where}"] if replica.rollback_target else []
            found += [f"{', '.join(replica.instances)} runs it{where}"] if replica.instances else []
            found += [f"shared with {', '.join(replica.shared)}{where}"] if replica.shared else []
        return found


@read_only()
def read(context: BakeContext) -> list[CatalogImage]:
    """Every image of this configuration's name, newest first, with its copies."""
    home = context.config.aws.region
    entries: dict[str, CatalogImage] = {}
    for region in publish.regions(context):
        for replica in _replicas(region, context.config.image.name_prefix):
            origin = replica.image.tags.get(requests.TAG_COPY, replica.image.id)
            entries.setdefault(origin, CatalogImage(origin, home)).replicas[region.name] = replica
    return sorted(entries.values(), key=lambda entry: newest_first(entry.image), reverse=True)


def _replicas(region: Region, prefix: str) -> Iterable[Replica]:
    images = region.images.named(prefix)
    running = region.machines.started_from(image.id for image in images)
    current = region.parameter.current()
    standing = ssm.published(region.parameter.history())
    for image in images:
        yield Replica(
            image=image,
            instances=tuple(running.get(image.id, ())),
            shared=tuple(sorted(region.sharing.shared_with(image.id))),
            published=image.id == current,
            rollback_target=image.id in standing[-2:-1],
        )


@read_only()
def choose(context: BakeContext, word: str) -> Ami:
    """The image of the home region that `word` means: an id, a name, LATEST (verified) or PUBLISHED.

    Raises UsageError when there is none.
    """
    images = context.images.named(context.config.image.name_prefix)
    if word == LATEST:
        found = next((image for image in images if image.verified and image.state == "available"), None)
        if found is None:
            raise UsageError("there is no verified image yet: bake one")
        return found
    wanted = word
    if word == PUBLISHED:
        wanted = publish.home(context).parameter.current()
        if not wanted:
            raise UsageError("nothing is published yet: publish an image")
    found = next((image for image in images if wanted in (image.id, image.name)), None)
    if found is None:
        raise UsageError(f"there is no image {wanted} named {context.config.image.name_prefix}-… in this region")
    return found


def document(entries: Iterable[CatalogImage]) -> list[Mapping[str, Any]]:
    """The catalogue in JSON's own types."""
    return [
        {
            "id": entry.id,
            "name": entry.image.name,
            "created": entry.image.created,
            "state": entry.image.state,
            "verified": entry.image.verified,
            "deprecated": entry.image.deprecated,
            "content_hash": entry.image.tags.get(requests.TAG_CONTENT, ""),
            "regions": {
                region: {
                    "id": replica.image.id,
                    "state": replica.image.state,
                    "published": replica.published,
                    "instances": list(replica.instances),
                    "shared": list(replica.shared),
                }
                for region, replica in entry.replicas.items()
            },
        }
        for entry in entries
    ]


@dataclass(frozen=True)
class Retention:
    """An image, and why it stays; without a reason it may go."""

    image: CatalogImage
    reasons: tuple[str, ...]


def judge(entries: Sequence[CatalogImage], keep: int) -> list[Retention]:
    """What prune would do with each verified image, newest first: the `keep` newest stay, and whatever is needed.

    An image that is not verified is being made, or left over: that is for `reap`. A copy whose image is gone counts
    for none of the newest.
    """
    verified = [entry for entry in entries if entry.image.verified]
    whole = [entry.id for entry in verified if entry.home in entry.replicas]
    newest = {id_: number for number, id_ in enumerate(whole[:keep], 1)}
    return [
        Retention(entry, (*([f"number {newest[entry.id]} of {keep}"] if entry.id in newest else []), *entry.needs))
        for entry in verified
    ]


def remove(context: BakeContext, decisions: Sequence[Retention]) -> list[CatalogImage]:
    """Remove every image without a reason to stay, its copies first: while it is there, they can be found by it."""
    places = {region.name: region for region in publish.regions(context)}
    gone = [decision.image for decision in decisions if not decision.reasons]
    for entry in gone:
        for name in sorted(entry.replicas, key=lambda name: name == entry.home):
            places[name].images.remove(entry.replicas[name].image)
    return gone
