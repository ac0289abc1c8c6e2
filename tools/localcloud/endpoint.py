"""The addresses and identifiers of a running local cloud."""

from dataclasses import dataclass

REGION = "eu-north-1"
BUCKET = "local-cloud"
SEEN_BY_MACHINES = "10.0.2.2"  # this host's loopback, as slirp4netns maps it
MODEL = "whisper-base"


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
    secret_access_key: str
    source_ami: str
    model_id: str

    @classmethod
    def on(cls, *, api_port: int, hub_port: int) -> "Endpoint":
        from localcloud.hub import models
        from localcloud.machines import base_image

        return cls(
            api_url=f"http://127.0.0.1:{api_port}",
            machine_url=f"http://{SEEN_BY_MACHINES}:{api_port}",
            hub_url=f"http://127.0.0.1:{hub_port}",
            machine_hub_url=f"http://{SEEN_BY_MACHINES}:{hub_port}",
            region=REGION,
            bucket=BUCKET,
            access_key_id="local",
            secret_access_key="local",  # noqa: S106 - signs nothing: the local cloud checks no signature
            source_ami=base_image.source_ami(),
            model_id=models.SOURCES[MODEL].id,
        )
