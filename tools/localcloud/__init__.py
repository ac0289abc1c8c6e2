"""An embedded cloud on loopback, for rehearsals: EC2 and S3 by moto, real machines by systemd-nspawn, a model hub."""

from .client import LocalCloud
from .common import LocalCloudError
from .endpoint import Endpoint
from .machines.base_image import BASES, DEFAULT_BASE

__all__ = ["BASES", "DEFAULT_BASE", "Endpoint", "LocalCloud", "LocalCloudError"]
