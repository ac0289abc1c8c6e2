"""The regions where an image is to be had: the one it is made in, and those that it is copied to."""

from dataclasses import dataclass

from baker.aws.images import Images
from baker.aws.instances import Machines
from baker.aws.sharing import Distribution
from baker.aws.ssm import Pointer
from baker.context import Context


@dataclass(frozen=True)
class Region:
    """One region's images and instances, and the parameter that names its published image."""

    name: str
    images: Images
    machines: Machines
    distribution: Distribution
    pointer: Pointer


def every(context: Context) -> list[Region]:
    """Home first, then those of [publish] regions."""
    return [at(context, name) for name in (context.config.aws.region, *context.config.publish.regions)]


def home(context: Context) -> Region:
    """Where images are made."""
    return at(context, context.config.aws.region)


def at(context: Context, name: str) -> Region:
    """One region by its name; makes no request."""
    clients = context.clients_in(name)
    pointer = Pointer(clients, context.config.publish.ssm_parameter)
    return Region(name, Images(clients), Machines(clients), Distribution(clients), pointer)
