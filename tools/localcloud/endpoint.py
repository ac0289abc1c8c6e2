"""The addresses and identifiers of a running local cloud."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

from botocore.credentials import Credentials

from localcloud.machines.supervisor import DOOR

REGION = "eu-north-1"
BUCKET = "local-cloud"
SEEN_BY_MACHINES = DOOR
MODEL = "whisper-base"


@dataclass(frozen=True)
class Secret:
    """256 random bits in hexadecimal, which only the owner of the state folder can read; all keys are made of them."""

    value: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)

    @property
    def credentials(self) -> Credentials:
        """What requests to the AWS APIs are signed with."""
        access_key_id = f"LOCAL{self._derived('access key id')[:15].upper()}"  # 20 characters, as AWS' own
        return Credentials(access_key_id, self._derived("secret access key"))

    @property
    def control_token(self) -> str:
        """What requests to the control API carry."""
        return self._derived("control token")

    def _derived(self, purpose: str) -> str:
        return hmac.new(self.value.encode(), purpose.encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class Endpoint:
    """The addresses of a running local cloud, for this host and for machines, and what a launcher needs to use it."""

    api_url: str
    machine_url: str
    hub_url: str
    machine_hub_url: str
    region: str
    bucket: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    source_ami: str
    model_id: str

    @classmethod
    def on(cls, secret: Secret, *, api_port: int, hub_port: int) -> "Endpoint":
        from localcloud.hub import models
        from localcloud.machines import base_image

        keys = secret.credentials
        return cls(
            api_url=f"http://127.0.0.1:{api_port}",
            machine_url=f"http://{SEEN_BY_MACHINES}:{api_port}",
            hub_url=f"http://127.0.0.1:{hub_port}",
            machine_hub_url=f"http://{SEEN_BY_MACHINES}:{hub_port}",
            region=REGION,
            bucket=BUCKET,
            access_key_id=keys.access_key,
            secret_access_key=keys.secret_key,
            source_ami=base_image.source_ami(),
            model_id=models.SOURCES[MODEL].id,
        )
