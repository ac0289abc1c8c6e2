"""What images there are, and who needs each: what `list` shows, and what `prune` goes by."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from baker.aws import requests, ssm
from baker.aws.client import only_looking
from baker.aws.images import Image, newest_first
from baker.context import Context
from baker.errors import UsageError
from baker.images import regions
from baker.images.regions import Region

LATEST, PUBLISHED = "latest", "published"  # words that stand for an image


@dataclass(frozen=True)
class Held:
    """An image, or the copy of one, in one region, and who needs it there."""

    image: Image
    instances: tuple[str, ...]
    shared: tuple[str, ...]
    published: bool
    next_back: bool  # what a rollback would publish


@dataclass
class Entry:
    """One image wherever it is, by region; home may be missing, if only copies are left."""

    id: str
    home: str
    held: dict[str, Held] = field(default_factory=dict)

    @property
    def image(self) -> Image:
        """The image itself, or the first copy."""
        return self.held[self.home].image if self.home in self.held else next(iter(self.held.values())).image

    @property
    def needs(self) -> list[str]:
        """Who needs it, each in a few words; empty if nobody does."""
        found = []
        for region, held in self.held.items():
            where = "" if region == self.home else f" in {region}"
            found += [f"published{where}"] if held.published else []
            found += [f"rollback's next{where}"] if held.next_back else []
            found += [f"{', '.join(held.instances)} runs it{where}"] if held.instances else []
            found += [f"shared with {', '.join(held.shared)}{where}"] if held.shared else []
        return found


@only_looking()
def read(context: Context) -> list[Entry]:
    """Every image of this configuration's name, newest first, with its copies."""
    home = context.config.aws.region
    entries: dict[str, Entry] = {}
    for region in regions.every(context):
        for held in _held(region, context.config.image.name_prefix):
            origin = held.image.tags.get(requests.TAG_COPY, held.image.id)
            entries.setdefault(origin, Entry(origin, home)).held[region.name] = held
    return sorted(entries.values(), key=lambda entry: newest_first(entry.image), reverse=True)


def _held(region: Region, prefix: str) -> Iterable[Held]:
    images = region.images.named(prefix)
    running = region.machines.started_from(image.id for image in images)
    current = region.pointer.current()
    standing = ssm.published(region.pointer.history())
    for image in images:
        yield Held(
            image=image,
            instances=tuple(running.get(image.id, ())),
            shared=tuple(sorted(region.distribution.shared_with(image.id))),
            published=image.id == current,
            next_back=image.id in standing[-2:-1],
        )


@only_looking()
def choose(context: Context, word: str) -> Image:
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
        wanted = regions.home(context).pointer.current()
        if not wanted:
            raise UsageError("nothing is published yet: publish an image")
    found = next((image for image in images if wanted in (image.id, image.name)), None)
    if found is None:
        raise UsageError(f"there is no image {wanted} named {context.config.image.name_prefix}-… in this region")
    return found


def document(entries: Iterable[Entry]) -> list[Mapping[str, Any]]:
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
                    "id": held.image.id,
                    "state": held.image.state,
                    "published": held.published,
                    "instances": list(held.instances),
                    "shared": list(held.shared),
                }
                for region, held in entry.held.items()
            },
        }
        for entry in entries
    ]
