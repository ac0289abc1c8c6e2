"""Rehearsals that must fail: none makes an image, none leaves a machine, and each says why in one line."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from localcloud import LocalCloud
from support import gpu_shape
from support.baked_machine import ROOT, ec2
from support.own_cloud import share
from support.waiting import until

HANGS = "#!/bin/bash\nsystemctl daemon-reload\nsleep infinity\n"  # as the installation of a package does
# A machine that claims success at once, with a nonce that is not its own.
FORGES = """#!/bin/bash
python3 - <<'PY'
import json, urllib.request
given = json.load(open("/run/transcribe-bake/parameters.json"))
addresses = json.load(urllib.request.urlopen(given["addresses_url"]))
report = {"schema": 1, "build_id": given["build_id"], "nonce": "0" * 32, "mode": given["mode"], "verdict": "success",
          "payload_sha256": given["payload"]["sha256"]}
request = urllib.request.Request(addresses["report_url"], json.dumps(report).encode(), method="PUT")
request.add_header("Content-Type", "")
urllib.request.urlopen(request)
PY
"""
BROKEN_STATE = (
    "\nlayout-broken:\n  cmd.run:\n    - name: echo no such thing >&2; false\n    - failhard: true\n    - order: 1\n"
)
CORRUPT = "  step='the size of the payload"


@pytest.fixture(scope="module")
def site(able: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a local cloud of its own."""
    root = tmp_path_factory.mktemp("site")
    share(root)
    LocalCloud.ensure(root)
    yield root
    LocalCloud.stop(root)


@pytest.fixture
def tree(site: Path, tmp_path: Path) -> Path:
    """A copy of this tree to break, with that local cloud."""
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    copy = tmp_path / "tree"
    for name in listing.stdout.splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    (copy / ".cache").symlink_to(site / ".cache")
    for command in (["git", "init", "--quiet"], ["git", "add", "."]):
        subprocess.run(command, cwd=copy, check=True)
    (copy / "short.toml").write_text("[bake]\ndeadline_minutes = 1\n")
    return copy


def images(site: Path) -> set[str]:
    return {image["ImageId"] for image in ec2(site).describe_images(Owners=["self"])["Images"]}


def instances(site: Path) -> set[str]:
    """Those that are not gone."""
    states = [{"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped", "shutting-down"]}]
    answer = ec2(site).describe_instances(Filters=states)
    return {instance["InstanceId"] for group in answer["Reservations"] for instance in group["Instances"]}


@pytest.fixture(autouse=True)
def nothing_left(site: Path) -> Iterator[None]:
    """No image and no instance after each test, as before."""
    yield
    assert images(site) == set()
    assert instances(site) == set()


def command(tree: Path, *more: str) -> list[str]:
    return [sys.executable, str(tree / "tools/bake.py"), "rehearse", "--force", *more]


def refused(tree: Path, *more: str) -> str:
    """Why the rehearsal failed."""
    done = subprocess.run(command(tree, *more), check=False, capture_output=True, text=True, cwd=tree)
    assert done.returncode == 1, done.stdout
    lines = [line for line in done.stderr.splitlines() if line.startswith("bake: ")]
    assert "Traceback" not in done.stderr + done.stdout
    return lines[-1]


def change(path: Path, how: Callable[[str], str]) -> None:
    text = path.read_text()
    assert how(text) != text
    path.write_text(how(text))


def test_state_that_fails(tree: Path) -> None:
    change(tree / "salt/states/transcribe/layout.sls", lambda text: text + BROKEN_STATE)
    reason = refused(tree)
    assert "layout-broken" in reason
    log = tree / reason.rsplit("log: ", 1)[1].strip()
    assert "no such thing" in log.read_text()


def test_states_that_do_not_compile(tree: Path) -> None:
    change(tree / "salt/states/transcribe/layout.sls", lambda text: text + "\nlayout-root: [\n")
    assert "compile" in refused(tree)


def test_corrupted_payload(tree: Path) -> None:
    spoil = "  printf x | dd of=$RUN/payload.tar bs=1 seek=99 conv=notrunc status=none\n" + CORRUPT
    change(tree / "cloud-init/bootstrap.sh", lambda text: text.replace(CORRUPT, spoil))
    assert "digest of the payload" in refused(tree)


def test_gpu_that_the_worker_does_not_use(tree: Path) -> None:
    """The machine has the shape of one with a T4, and packages that cannot use it."""
    change(tree / "cloud-init/bootstrap.sh", lambda text: text.replace("\n", f"\n{gpu_shape.WHOLE}", 1))
    (tree / "processor.toml").write_text('[pillar.install]\nlock = "cpu"\n')
    reason = refused(tree, "--config", str(tree / "processor.toml"))
    assert f"an NVIDIA device is present ({gpu_shape.ADDRESS}) but the worker runs on cpu" in reason


def test_signal_with_a_wrong_nonce(tree: Path) -> None:
    (tree / "cloud-init/bootstrap.sh").write_text(FORGES)
    assert "nonce" in refused(tree)


def test_machine_that_never_signals_ends_at_its_deadline(tree: Path) -> None:
    (tree / "cloud-init/bootstrap.sh").write_text(HANGS)
    began = time.monotonic()
    assert "without a signal" in refused(tree, "--config", str(tree / "short.toml"))
    assert time.monotonic() - began < 300


def test_launcher_killed_after_launch_leaves_no_machine(tree: Path, site: Path) -> None:
    (tree / "cloud-init/bootstrap.sh").write_text(HANGS)
    arguments = command(tree, "--config", str(tree / "short.toml"))
    with subprocess.Popen(arguments, cwd=tree, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as launcher:
        until(lambda: instances(site) or launcher.poll() is not None, 300)
        assert launcher.poll() is None
        launcher.send_signal(signal.SIGKILL)
    until(lambda: not instances(site), 300, lambda: "the machine outlived its deadline")
