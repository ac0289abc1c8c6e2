"""The life of an image by the commands that an operator types, on real machines: from plan to prune, and a launch.

In a copy of the tree with a local cloud of its own, which begins with the image that the other tests share: its
second bake is of one state that was changed.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from localcloud import LocalCloud
from localcloud.client import folders_of
from support.baked_machine import ROOT
from support.own_cloud import share

CLIP = ROOT / "service/clips/verify.flac"
STATE = "salt/states/transcribe/tuning.sls"
COMMAND_SECONDS = 1200


@dataclass(frozen=True)
class Operator:
    """Who types commands in a tree."""

    root: Path

    def bake(self, command: str, *arguments: str, code: int = 0) -> str:
        """What `bake.py COMMAND` prints; it must end with `code`."""
        argv = [sys.executable, str(self.root / "tools/bake.py"), command, "--cloud=local", *arguments]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        done = subprocess.run(
            argv, cwd=self.root, check=False, capture_output=True, text=True, timeout=COMMAND_SECONDS, env=environment
        )
        assert done.returncode == code, f"{command}: {done.stdout[-3000:]}\n{done.stderr[-2000:]}"
        return done.stdout

    def json(self, command: str, *arguments: str) -> Any:
        """The same, for a command that prints JSON."""
        return json.loads(self.bake(command, "--json", *arguments))

    def baked(self) -> str:
        """The image that the last bake made or took."""
        return str(json.loads((self.root / "bake-report.json").read_text())["image"]["id"])

    def on(self, machine_id: str, *argv: str) -> str:
        """What a command prints on a machine."""
        command = LocalCloud.command(self.root, machine_id, argv)
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stdout[-3000:]}\n{done.stderr[-2000:]}"
        return done.stdout


@pytest.fixture(scope="module", name="operator")
def in_a_tree_of_their_own(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """The tracked files as they are, without git."""
    root = tmp_path_factory.mktemp("cycle")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listing.split("\0")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, root / name)
    mine, project = share(root), folders_of(ROOT)
    [entry] = [each for each in json.loads(project.images.read_text()) if each["id"] == image]
    mine.layers.mkdir()
    for name in entry["layers"]:
        (mine.layers / name).symlink_to(project.layers / name)
    mine.images.write_text(json.dumps([entry]))
    shutil.copytree(project.bucket, mine.bucket)
    yield Operator(root)
    LocalCloud.stop(root)


def test_an_image_lives_from_plan_to_prune(operator: Operator, image: str) -> None:
    first = image
    assert f"would reuse {first}" in operator.bake("plan")
    operator.bake("bake")
    assert operator.baked() == first
    assert f"published  {first}" in operator.bake("publish")

    state = operator.root / STATE
    state.write_text(state.read_text().replace("- - - 14d", "- - - 13d"))
    planned = operator.bake("plan")
    assert re.search(rf"changed +{re.escape(STATE)}\s", planned), planned
    assert re.search(r"these\s+changed:\s+states\s", planned), planned
    operator.bake("bake")
    second = operator.baked()
    assert second != first

    differences = operator.json("diff", first, second)
    assert [change["what"] for change in differences["states"]] == [STATE]
    # Debian's archive may have moved on meanwhile; overrides hold the hub's address, and each local cloud has its own.
    assert set(differences) <= {"system", "states", "bytes", "debian", "pillar"}
    assert [change["what"] for change in differences.get("pillar", [])] in ([], ["salt/pillar/overrides.sls"])
    assert {change["what"] for change in differences["system"]} <= {"git commit", "payload"}

    assert f"published  {second}" in operator.bake("publish")
    assert f"published  {first}" in operator.bake("rollback")
    assert f"would remove {second}" in operator.bake("prune", "--keep=0")
    assert [entry["id"] for entry in operator.json("list")] == [second, first]
    assert f"removed {second}" in operator.bake("prune", "--keep=0", "--yes")
    [left] = operator.json("list")
    assert left["id"] == first
    assert left["verified"]


def new_key(folder: Path) -> tuple[Path, str]:
    """A file with one key, and the key."""
    made = [sys.executable, str(ROOT / "tools/bake.py"), "new-key", "newsroom"]
    printed = subprocess.run(made, check=True, capture_output=True, text=True).stdout
    shown = dict(line.split(":", 1) for line in printed.splitlines())
    (folder / "keys").write_text(shown["line"].strip() + "\n")
    return folder / "keys", shown["key"].strip()


def assert_serves(url: str, secret: str) -> None:
    """It transcribes for who has the key, and for nobody else."""
    form = {"model": "whisper-1", "language": "en", "response_format": "text"}
    allowed = {"Authorization": f"Bearer {secret}"}
    for headers, status, words in ((allowed, 200, "Dashwood"), ({}, 401, "")):
        files = {"file": (CLIP.name, CLIP.read_bytes())}
        answer = requests.post(f"{url}/v1/audio/transcriptions", data=form, files=files, headers=headers, timeout=300)
        assert (answer.status_code, words in answer.text) == (status, True)


def test_a_group_serves_from_the_same_template(operator: Operator, image: str, tmp_path: Path) -> None:
    """Of the balancer nothing runs locally but its records: each machine is met by itself."""
    operator.bake("publish", image)
    keys, secret = new_key(tmp_path)
    cloud = LocalCloud.ensure(operator.root)
    session = boto3.Session(cloud.access_key_id, cloud.secret_access_key, region_name=cloud.region)
    ec2 = session.client("ec2", endpoint_url=cloud.api_url)
    group = ec2.create_security_group(GroupName="serve", Description="the balancer's")["GroupId"]
    config = tmp_path / "group.toml"
    config.write_text(f'[launch]\nsecurity_groups = ["{group}"]\nmin_size = 2\n')
    launched = operator.bake("launch", "--group", "--wait", f"--keys={keys}", f"--config={config}")
    served = re.findall(r"(i-\w+) serves at (http://\S+)", launched)
    assert len(served) == 2
    for _, url in served:
        assert_serves(url, secret)
    assert "balancer" in launched
    ended = operator.bake("launch", "--end", f"--config={config}")
    assert all(machine in ended for machine, _ in served)
    assert operator.json("list")[0]["regions"]["eu-north-1"]["instances"] == []


def test_what_is_launched_has_its_keys_and_nothing_to_repair(operator: Operator, image: str, tmp_path: Path) -> None:
    operator.bake("publish", image)
    keys, secret = new_key(tmp_path)
    launched = operator.bake("launch", f"--keys={keys}", "--wait")
    served = re.search(r"(i-\w+) serves at (http://\S+)", launched)
    assert served, launched
    machine, url = served[1], served[2]
    assert_serves(url, secret)

    # It serves before its first apply has come to its last state, and Salt refuses a second one meanwhile.
    operator.on(machine, "cloud-init", "status", "--wait")
    applied = json.loads(operator.on(machine, "salt-call", "state.apply", "--out=json"))["local"].values()
    assert [state["__id__"] for state in applied if state["changes"] or not state["result"]] == []
    manifest = json.loads(operator.on(machine, "cat", "/opt/transcribe/manifest.json"))
    assert manifest["python"]["service"]
    assert manifest["debian"]
    assert secret not in operator.on(machine, "cat", "/etc/transcribe/keys", "/srv/transcribe/salt/pillar/launch.sls")
    assert "nothing to remove" in operator.bake("prune", "--keep=0")
    assert operator.json("list")[0]["regions"]["eu-north-1"]["instances"] == [machine]
    assert f"ended {machine}" in operator.bake("launch", "--end")
    assert operator.json("list")[0]["regions"]["eu-north-1"]["instances"] == []
