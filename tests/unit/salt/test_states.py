"""The states as rendered: order, requisites, owners and modes, and what depends on the machine."""

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from baker.deploy import serve
from driver import systemd
from support import salt_states
from support.salt_states import PILLAR, ROOT, STATES, arguments, machine, states

ROLES = ("layout", "packages", "gpu", "venv", "code", "config", "model", "service", "tuning", "verify")
IT = PILLAR["transcribe"]
GPU = machine(lock="cuda.lock", drivers=("linux-image-6.1", "nvidia-driver-535"))


def test_top_holds_the_roles_in_order_and_never_the_seal() -> None:
    top = yaml.safe_load((STATES / "top.sls").read_text())
    assert top == {"base": {"*": [f"transcribe.{role}" for role in ROLES]}}
    assert [role for role in ROLES if "seal" in (STATES / f"transcribe/{role}.sls").read_text()] == []


@pytest.mark.parametrize("role", [*ROLES, "seal"])
@pytest.mark.parametrize("salt", [machine(), machine(uid=1000), GPU], ids=["plain", "person", "gpu"])
def test_ids_begin_with_their_role_and_requisites_exist(role: str, salt: salt_states.Salt) -> None:
    known = {
        (next(iter(state)).split(".")[0], name)
        for each in (*ROLES, "seal")
        for name, state in states(each, salt=salt).items()
    }
    for name, state in states(role, salt=salt).items():
        assert name.startswith(f"{role}-")
        for key, value in arguments(state)[1].items():
            if key in ("require", "watch", "onchanges", "require_in", "watch_in"):
                for ((module, target),) in (item.items() for item in value):
                    assert module == "sls" or (module, target) in known, f"{name} {key} {target}"


@pytest.mark.parametrize("role", ROLES)
def test_a_role_includes_what_it_requires(role: str) -> None:
    document = yaml.safe_load(salt_states.render(STATES / f"transcribe/{role}.sls"))
    required = set(re.findall(r"'sls': '(transcribe\.\w+)'", str(document)))
    assert required <= set(document.get("include", []))


@pytest.mark.parametrize("salt", [machine(), GPU], ids=["plain", "gpu"])
def test_files_are_for_everyone_to_read_and_programs_to_run_but_for_those_named_here(salt: salt_states.Salt) -> None:
    modes = {}
    for role in (*ROLES, "seal"):
        for name, state in states(role, salt=salt).items():
            function, given = arguments(state)
            if function in ("file.managed", "file.serialize", "file.recurse") and "name" in given:
                modes[name] = given.get("mode") or given.get("file_mode")
    names = ("api-server", "fleet-feeder", "transcribe-optimized", "advanced-cache")
    programs = dict.fromkeys((*(f"code-{name}" for name in names), "gpu-program"), "0755")
    assert {name: mode for name, mode in modes.items() if mode != "0644"} == {**programs, "config-written": "0640"}


def test_service_may_write_to_three_folders() -> None:
    owners = {}
    for state in states("layout").values():
        function, given = arguments(state)
        if function == "file.directory":
            owners[Path(given["name"]).name] = (given["user"], given["group"], given["mode"])
    writable = {name for name, (user, _, _) in owners.items() if user == IT["user"]}
    assert writable == {"temp", "logs", "results"}  # not the cache: what lies there is run
    assert set(owners) == {*writable, "transcribe", "venv", "models", "scripts", "config", "cache"}
    assert owners["config"] == owners["cache"] == ("root", IT["group"], "0750")
    assert {owners[name][2] for name in ("venv", "models", "scripts", "transcribe")} == {"0755"}


def test_account_of_a_person_keeps_its_shell() -> None:
    _, given = arguments(states("layout", salt=machine(uid=1000))["layout-user"])
    assert "shell" not in given
    assert "home" not in given
    _, given = arguments(states("layout")["layout-user"])
    assert given["shell"] == "/usr/sbin/nologin"
    assert given["system"] is True


def test_programs_are_where_their_users_look_for_them() -> None:
    placed = {arguments(state)[1]["name"]: arguments(state)[1].get("source") for state in states("code").values()}
    for program in ("scripts/transcribe_optimized.py", "scripts/api_server.py", "advanced_cache.py"):
        assert placed[f"/opt/transcribe/{program}"] == f"salt://service/{Path(program).name}"
    assert placed["/opt/transcribe/scripts/transcribe"] == "salt://service/transcribe"
    units = {arguments(state)[1].get("name") for state in states("service").values()}
    assert "/etc/systemd/system/transcribe-api.service" in units


def test_config_is_the_pillar_and_not_for_everyone() -> None:
    function, given = arguments(states("config")["config-written"])
    assert function == "file.serialize"
    assert (given["dataset_pillar"], given["serializer"], given["mode"]) == ("transcribe", "json", "0640")
    assert (given["user"], given["group"]) == ("root", IT["group"])


def test_units_restart_when_what_they_run_on_changes() -> None:
    for unit, wanted in (("api", ("venv", "code", "config")), ("worker", ("venv", "code", "config", "model"))):
        _, given = arguments(states("service")[f"service-{unit}-running"])
        assert given["enable"] is True
        assert [item["sls"] for item in given["watch"] if "sls" in item] == [f"transcribe.{role}" for role in wanted]


def test_toolkits_that_are_not_wanted_go_and_nothing_else() -> None:
    wanted = {**IT["install"], "remove_toolkits": ["cuda-12.8", "cuda-/../../etc", "../../etc"]}
    plain, without = states("packages"), states("packages", pillar={"transcribe": {**IT, "install": wanted}})
    assert set(without) - set(plain) == {"packages-no-cuda-12.8"}
    function, given = arguments(without["packages-no-cuda-12.8"])
    assert (function, given) == ("file.absent", {"name": "/usr/local/cuda-12.8", "order": "first"})


def test_the_states_are_the_same_whether_or_not_the_gpu_is_there_yet() -> None:
    plain, gpu = states("gpu"), states("gpu", salt=GPU)
    assert set(gpu) - set(plain) == {"gpu-linux-image-6.1-held", "gpu-nvidia-driver-535-held"}
    assert set(plain) == {"gpu-program", "gpu-unit", "gpu-enabled", "gpu-prepared"}


def test_the_gpu_is_prepared_before_anything_runs_on_it() -> None:
    assert {"sls": "transcribe.gpu"} in arguments(states("venv")["venv-synced"])[1]["require"]
    assert "transcribe-gpu.service" in unit("transcribe-worker.service")["After"][0]
    text = salt_states.render(STATES / "transcribe/files/transcribe-gpu.service")
    assert "\nBefore=transcribe-worker.service\n" in text
    assert "\nExecStart=/opt/transcribe/scripts/prepare-gpu.sh auto /sys/bus/pci/devices /dev\n" in text


def unit(name: str, **pillar: Any) -> dict[str, list[str]]:
    """A unit's settings as systemd reads them."""
    values = deepcopy(PILLAR)
    values["transcribe"].update(pillar)
    found: dict[str, list[str]] = {}
    for line in salt_states.render(ROOT / "service" / name, pillar=values).splitlines():
        if "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            found.setdefault(key, []).append(value)
    return found


def test_a_worker_may_start_as_long_as_a_launch_waits_for_it() -> None:
    [limit] = unit("transcribe-worker.service")["TimeoutStartSec"]
    assert int(limit.removesuffix("s")) >= max(serve.READY_SECONDS, systemd.READY_SECONDS)


def test_units_run_these_programs() -> None:
    assert unit("transcribe-api.service")["ExecStart"] == [
        "/opt/transcribe/venv/bin/python /opt/transcribe/scripts/api_server.py"
    ]
    assert unit("transcribe-worker.service")["ExecStart"] == [
        "/opt/transcribe/venv/bin/python /opt/transcribe/scripts/transcribe_optimized.py --worker"
    ]
    assert unit("transcribe-api.service")["Wants"] == ["transcribe-worker.service"]


@pytest.mark.parametrize("name", ["transcribe-api.service", "transcribe-worker.service"])
def test_units_follow_the_pillar_and_are_hardened(name: str) -> None:
    settings = unit(name, root="/srv/x", user="ubuntu", group="users")
    assert "/opt/transcribe" not in json.dumps(settings)
    assert settings["User"] == ["ubuntu"]
    assert settings["Group"] == ["users"]
    assert settings["ReadWritePaths"] == ["/srv/x/temp /srv/x/logs /srv/x/results"]
    assert settings["Type"] == ["notify"]
    assert settings["Restart"] == ["on-failure"]
    assert "WatchdogSec" in settings
    assert settings["ProtectSystem"] == ["strict"]
    assert settings["DevicePolicy"] == ["closed"]


def test_worker_has_the_gpu_and_no_network() -> None:
    worker = unit("transcribe-worker.service")
    assert worker["PrivateNetwork"] == ["true"]
    assert "char-nvidia* rw" in worker["DeviceAllow"]
    assert "MemoryDenyWriteExecute" not in worker  # torch writes machine code and runs it
    assert "PrivateDevices" not in worker
    assert "DeviceAllow" not in unit("transcribe-api.service")


def test_api_reaches_beyond_loopback_only_if_it_must() -> None:
    assert unit("transcribe-api.service")["IPAddressDeny"] == ["any"]
    assert "IPAddressDeny" not in unit("transcribe-api.service", host="0.0.0.0")
    assert "IPAddressDeny" not in unit("transcribe-api.service", callbacks={"enabled": True, "secret_file": ""})


def test_a_machine_of_a_fleet_has_a_feeder_and_keeps_its_fences() -> None:
    fleet = {**IT["fleet"], "queue": "speech", "bucket": "b", "region": "eu-north-1"}
    pillar = {"transcribe": {**IT, "host": "0.0.0.0", "fleet": fleet}}
    alone, with_queue = states("service"), states("service", pillar=pillar)
    assert {"service-feeder-unit", "service-feeder-running", "service-feeder-folder"} <= set(with_queue) - set(alone)
    left = {name: arguments(state) for name, state in alone.items() if name not in with_queue}
    assert {
        (function, name) for function, given in left.values() for name in given.get("names", [given.get("name")])
    } == {
        ("service.dead", "transcribe-feeder"),
        ("file.absent", "/etc/systemd/system/transcribe-feeder.service"),
        ("file.absent", "/etc/tmpfiles.d/transcribe-feeder.conf"),
        ("cmd.run", "systemctl daemon-reload"),
    }
    assert left["service-feeder-forgotten"][1]["onchanges"] == [{"file": "service-feeder-absent"}]
    layout = {name: arguments(state)[1] for name, state in states("layout", pillar=pillar).items()}
    assert arguments(with_queue["service-feeder-user"])[1]["gid"] == IT["group"]
    assert {name: layout[f"layout-{name}"]["mode"] for name in ("temp", "results", "logs")} == {
        "temp": "0770", "results": "0770", "logs": "0750",
    }  # fmt: skip
    feeder = unit("transcribe-feeder.service", fleet=fleet)
    assert (feeder["User"], feeder["Group"]) == ([fleet["user"]], [IT["group"]])
    assert "IPAddressDeny" not in feeder
    assert "PrivateNetwork" not in feeder
    assert unit("transcribe-api.service", host="0.0.0.0", fleet=fleet)["IPAddressDeny"] == [
        "169.254.169.254 fd00:ec2::254"  # where a machine's role is
    ]
    worker = unit("transcribe-worker.service", fleet=fleet)
    for name in ("transcribe-api.service", "transcribe-worker.service"):
        assert (unit(name)["UMask"], unit(name, fleet=fleet)["UMask"]) == (["0027"], ["0007"])
    assert (worker["PrivateNetwork"], worker["InaccessiblePaths"]) == (["true"], ["/run/transcribe-feeder"])
