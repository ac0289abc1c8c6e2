"""What a bake ends in."""

from dataclasses import dataclass

from baker.aws.images import Image
from baker.bake.acceptance import Accepted
from baker.bake.plan import Plan


@dataclass(frozen=True)
class Outcome:
    """A verified image, and what its machines said; `baked` is None where an image was reused."""

    plan: Plan
    image: Image
    bake: str
    baked: Accepted | None = None
    verified: Accepted | None = None
