"""A serving machine's launch template, and its user-data, which holds only keys and overrides."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baker.aws import requests
from baker.config import LauncherConfig
from baker.errors import UsageError
from baker.inputs import pillar
from baker.inputs.user_data import LIMIT

KEYS = "/etc/transcribe/keys"
PILLAR = "/srv/transcribe/salt/pillar/launch.sls"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - only with keys; security groups say who gets as far
# Keys of the pillar that are part of an image: a launched machine with other values would fetch or rebuild things.
BAKED = ("root", "user", "group", "dtype", "install", "verify", "model.id", "model.revision", "model.endpoint")


@dataclass(frozen=True)
class ServiceSetup:
    """How the service of a launched machine is set up, beyond what its image says."""

    overrides: Mapping[str, Any]
    keys: str  # lines of a keys file, which hold digests of keys
    open: bool  # it listens to others than its own machine
    port: int
    minutes: int = 0  # after which the machine ends itself; 0: never


def service_setup(root: Path, config: LauncherConfig) -> ServiceSetup:
    """What [launch] asks for; raises UsageError if the service would refuse it, or the image does not fit it."""
    declared, wanted = pillar.load(root), config.launch
    pillar.check_overrides(declared, wanted.pillar, "launch.pillar")
    for path in BAKED:
        if _has(wanted.pillar, path.split(".")):
            raise UsageError(f"[launch.pillar] {path} is part of the image: set it in [pillar], and bake")
    keys = _keys(root, wanted.keys_file)
    own = {"auth": {"keys_file": KEYS}, "host": EVERYWHERE} if keys else {}
    overrides = pillar.merge({**own, **_fleet(config)}, wanted.pillar)
    whole = pillar.merge(pillar.merge(declared, config.pillar), overrides)
    is_open = whole["host"] not in ("127.0.0.1", "::1", "localhost")
    if is_open and not whole["auth"]["keys_file"]:
        raise UsageError(f"[launch.pillar] host {whole['host']} is open to others: name [launch] keys_file")
    return ServiceSetup(overrides, keys, is_open, int(whole["port"]))


def _fleet(config: LauncherConfig) -> dict[str, Any]:
    """How the machines join the fleet, if there is one. Raises UsageError if they would have no role."""
    fleet = config.fleet
    if not fleet.queue:
        return {}
    if not fleet.profile:
        raise UsageError("[fleet] profile is needed: an instance profile whose role may use the queue and the bucket")
    asked = {"encryption": config.s3.encryption, "kms_key": config.s3.kms_key}
    price = config.prices.get(config.launch.instance_type or config.instance.types[0], 0.0)
    return {
        "fleet": {
            "queue": fleet.queue,
            "bucket": fleet.bucket or config.s3.bucket,
            "prefix": fleet.prefix,
            "region": config.aws.region,
            **{name: value for name, value in asked.items() if value},  # images of before do not know these
            "owner": fleet.owner,
            "wait_minutes": fleet.wait_minutes,
            "idle_minutes": fleet.idle_minutes,
            "price": float(price),
        }
    }


def on_trial(setup: ServiceSetup, key: str, minutes: int) -> ServiceSetup:
    """The same for a machine that also takes the key of this line of a keys file, and ends after so many minutes."""
    overrides = pillar.merge({"host": EVERYWHERE, **setup.overrides}, {"auth": {"keys_file": KEYS}})
    return ServiceSetup(overrides, f"{setup.keys}{key}\n", True, setup.port, minutes)


def user_data(setup: ServiceSetup) -> str:
    """cloud-config that writes keys and overrides and applies them; empty when the image is right as it is."""
    if not setup.overrides:
        return ""
    overrides = b"#!yaml\n" + json.dumps({pillar.ROOT_KEY: setup.overrides}, sort_keys=True).encode() + b"\n"
    files = [_file(PILLAR, overrides, "0644")]
    if setup.keys:
        files.append(_file(KEYS, setup.keys.encode(), "0640"))
    document: dict[str, Any] = {"write_files": files, "runcmd": [["salt-call", "--retcode-passthrough", "state.apply"]]}
    if setup.minutes:
        timer = [
            "systemd-run",
            "--no-block",
            f"--on-active={setup.minutes}m",
            "--timer-property=DefaultDependencies=no",
        ]
        document["bootcmd"] = [[*timer, "--property=DefaultDependencies=no", "systemctl", "--force", "poweroff"]]
    text = f"#cloud-config\n{json.dumps(document, indent=1)}\n"
    if len(text.encode()) > LIMIT:
        raise UsageError(f"the user-data would be {len(text.encode()):,} bytes; EC2 takes {LIMIT:,}: use fewer keys")
    return text


def template_data(
    config: LauncherConfig, setup: ServiceSetup, security_groups: list[str], root_device: str
) -> requests.Request:
    """A launch template's data. Its image is named by the parameter: publishing and rolling back move it as well."""
    tags = instance_tags(config)
    data: requests.Request = {
        "ImageId": f"resolve:ssm:{config.publish.ssm_parameter}",
        "InstanceType": config.launch.instance_type or config.instance.types[0],
        "SecurityGroupIds": security_groups,
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        "TagSpecifications": requests.tag_specifications(("instance", "volume"), tags),
    }
    if len(config.launch.markets) == 1:  # else whoever starts a machine tries them in order
        data |= requests.market_options(config.launch.markets[0])
    if config.fleet.queue:
        data["IamInstanceProfile"] = {"Name": config.fleet.profile}
    rate = config.instance.initialization_rate
    if rate:
        data["BlockDeviceMappings"] = [{"DeviceName": root_device, "Ebs": {"VolumeInitializationRate": rate}}]
    text = user_data(setup)
    return {**data, "UserData": base64.b64encode(text.encode()).decode()} if text else data


def instance_tags(config: LauncherConfig) -> dict[str, str]:
    """How what was launched is found again."""
    return {**config.tags, "Name": config.launch.name, requests.TAG_LAUNCH: config.launch.name}


def digest(data: requests.Request) -> str:
    """Identifies a template's content: an equal digest needs no new version."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _file(path: str, content: bytes, mode: str) -> dict[str, str]:
    encoded = base64.b64encode(content).decode()
    return {"path": path, "permissions": mode, "encoding": "b64", "content": encoded}


def _keys(root: Path, name: str) -> str:
    if not name:
        return ""
    try:
        text = (root / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"[launch] keys_file {name}: cannot be read: {error}") from None
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for line in lines:
        parts = line.split()
        if len(parts) != 2 or len(parts[1]) != 64:
            raise UsageError(f"[launch] keys_file {name}: lines are NAME SHA256, as tools/bake.py new-key prints")
    if not lines:
        raise UsageError(f"[launch] keys_file {name} holds no key: make one with tools/bake.py new-key NAME")
    return "".join(f"{line}\n" for line in lines)


def _has(tree: Mapping[str, Any], path: list[str]) -> bool:
    inner = tree.get(path[0])
    return path[0] in tree and (len(path) == 1 or (isinstance(inner, Mapping) and _has(inner, path[1:])))
