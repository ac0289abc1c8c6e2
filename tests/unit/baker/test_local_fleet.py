"""What machines of the local cloud are told of the fleet."""

from pathlib import Path

from baker.deploy.template import service_setup
from baker.target import local_config
from localcloud.endpoint import Endpoint, Secret

ROOT = Path(__file__).resolve().parents[3]


def test_machines_of_a_fleet_are_told_where_they_reach_the_local_cloud(tmp_path: Path) -> None:
    endpoint = Endpoint.on(Secret(), api_port=8001, hub_port=8002)
    file = tmp_path / "fleet.toml"
    file.write_text('[fleet]\nqueue = "speech"\nprofile = "transcribe-fleet"\n')
    told = service_setup(ROOT, local_config(endpoint, file)).overrides["fleet"]
    assert (told["endpoint_url"], told["bucket"]) == (endpoint.machine_url, endpoint.bucket)
    assert endpoint.machine_url != endpoint.api_url
    assert service_setup(ROOT, local_config(endpoint, None)).overrides == {}
