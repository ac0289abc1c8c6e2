"""The SSM parameter that names the published image: read, moved, and moved back."""

from collections.abc import Iterable
from dataclasses import dataclass

from baker.aws.client import Clients, aws_errors, unless_missing, wait_for
from baker.errors import BakeError

PUBLISHED, ROLLED_BACK = "published", "rolled back"  # why a version was written
SETTLE_SECONDS = 60.0  # SSM checks the image first, and needs a moment


@dataclass(frozen=True)
class ParameterVersion:
    """One version of the parameter."""

    version: int
    image: str
    why: str


class PublishedParameter:
    """The parameter `name` of one region. Its history is the only memory of what was published before."""

    def __init__(self, clients: Clients, name: str) -> None:
        self._clients = clients
        self.name = name

    def current(self) -> str:
        """The image it names; empty when nothing was published yet."""
        found = unless_missing(
            f"GetParameter {self.name}", lambda: self._clients.ssm.get_parameter(Name=self.name)["Parameter"]
        )
        return found.get("Value", "") if found else ""

    def history(self) -> list[ParameterVersion]:
        """Its versions, oldest first; SSM keeps the last hundred."""
        pages = self._clients.ssm.get_paginator("get_parameter_history").paginate(Name=self.name)
        found = unless_missing(
            f"GetParameterHistory {self.name}", lambda: [v for page in pages for v in page["Parameters"]]
        )
        versions = [
            ParameterVersion(v.get("Version", 0), v.get("Value", ""), v.get("Description", "")) for v in found or ()
        ]
        return sorted(versions, key=lambda version: version.version)

    def set(self, image_id: str, why: str) -> None:
        """Make it name `image_id`, and return once it does; nothing is written if it does already.

        The data type makes SSM refuse an id that is no image, but only after PutParameter has succeeded: so the
        parameter is read until it names the image. Raises BakeError if it never does.
        """
        if self.current() == image_id:
            return
        with aws_errors(f"PutParameter {self.name}"):
            self._clients.ssm.put_parameter(
                Name=self.name, Value=image_id, Description=why, Type="String", DataType="aws:ec2:image", Overwrite=True
            )
        if not wait_for(lambda: self.current() == image_id or None, SETTLE_SECONDS, self._clients.sleep):
            raise BakeError(f"SSM took {image_id} for {self.name} but does not name it after {SETTLE_SECONDS:.0f} s")


def published(history: Iterable[ParameterVersion]) -> list[str]:
    """The published images in order, the present one last, without those that were rolled back.

    A publication adds an image; a rollback removes all that came after the image it went back to. So two
    rollbacks in a row go back by two, and a publication after them continues from there.
    """
    standing: list[str] = []
    for entry in history:
        if entry.why == ROLLED_BACK and entry.image in standing:
            del standing[len(standing) - standing[::-1].index(entry.image) :]
        elif standing[-1:] != [entry.image]:
            standing.append(entry.image)
    return standing
