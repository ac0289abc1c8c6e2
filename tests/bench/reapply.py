#!/usr/bin/env python3
"""A right machine is applied again: salt-call state.apply, and the same tasks in ansible-playbook, in turns.

Run it as root after `tools/bake.py rehearse`: both run on a machine that is booted from the image it made. Ansible runs
on the machine itself, without facts, with pipelining and a named interpreter; reapply.yaml has its tasks.
"""

import argparse
import io
import json
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[depth] / name) for depth, name in ((1, ""), (2, "tools"))]

from localcloud import LocalCloud  # noqa: E402
from support.baked_machine import BakedMachine  # noqa: E402 - found by the line above

from bench import common  # noqa: E402

PEER = Path(__file__).with_name("ansible.lock")
PLAYBOOK = Path(__file__).with_name("reapply.yaml")
FOLDER = "/root/bench"
CONFIG = "/opt/transcribe/config/transcribe.json"  # the pillar as it is
SETTINGS = {
    "ANSIBLE_PIPELINING": "true",
    "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3",
    "ANSIBLE_LOCALHOST_WARNING": "false",
    "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
    "ANSIBLE_NOCOLOR": "true",
}
PLAY = ["env", *(f"{name}={value}" for name, value in SETTINGS.items()), f"{FOLDER}/venv/bin/ansible-playbook"]
PLAY += ["--inventory", "localhost,", "--extra-vars", f"@{FOLDER}/pillar.json", f"{FOLDER}/{PLAYBOOK.name}"]
RECAP = re.compile(r"ok=(\d+) +changed=(\d+) +unreachable=(\d+) +failed=(\d+)")
INSTALL = f"""
set -e
apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-apt  # for Ansible's apt
python3 -m venv {FOLDER}/venv
cd {FOLDER}
venv/bin/pip install --quiet --no-index --find-links wheels --require-hashes --requirement {PEER.name}
printf '{{"pillar": {{"transcribe": %s}}}}' "$(cat {CONFIG})" >{FOLDER}/pillar.json
"""


def install(machine: BakedMachine) -> None:
    """Ansible, its playbook and Salt's pillar on the machine."""
    with tempfile.TemporaryDirectory() as scratch:
        wheels = Path(scratch, "wheels")
        wanted = ["--python-version", "3.11", "--only-binary", ":all:", "--require-hashes", "--requirement", str(PEER)]
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(wheels)]
        subprocess.run([*download, *wanted], check=True)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for path, name in ((wheels, "wheels"), (PEER, PEER.name), (PLAYBOOK, PLAYBOOK.name)):
                tar.add(path, name)
    machine.run("mkdir", "--parents", FOLDER)
    unpack = machine.command("tar", "--extract", "--directory", FOLDER)
    subprocess.run(unpack, input=packed.getvalue(), check=True)
    machine.sh(INSTALL)


def salt(machine: BakedMachine) -> tuple[float, int]:
    """Seconds of a bare apply, and how many states it looked at. Exits when it found anything to do."""
    applied = machine.apply()
    if applied.changed or applied.failed:
        sys.exit(f"the machine was not right: {applied.changed or applied.failed}")
    return applied.seconds, len(applied.states)


def ansible(machine: BakedMachine) -> tuple[float, int]:
    """The same of the playbook."""
    began = time.perf_counter()
    done = machine.run(*PLAY, check=False)
    seconds = time.perf_counter() - began
    recap = RECAP.search(done.stdout)
    if done.returncode or recap is None or recap.group(2) != "0":
        sys.exit(f"the playbook found something to do or failed:\n{done.stdout[-2000:]}{done.stderr[-1000:]}")
    return seconds, int(recap.group(1))


def measure(machine: BakedMachine, repeats: int) -> dict[str, object]:
    """Both, once for the caches of files and then in turns."""
    (_, states), (_, tasks) = salt(machine), ansible(machine)
    ours, theirs = [], []
    for repeat in range(repeats):
        ours.append(round(salt(machine)[0], 3))
        theirs.append(round(ansible(machine)[0], 3))
        print(f"{repeat + 1}/{repeats} salt {ours[-1]:.2f} s, ansible {theirs[-1]:.2f} s", file=sys.stderr)
    medians = statistics.median(ours), statistics.median(theirs)
    return {
        "states": states,
        "tasks": tasks,
        "salt_seconds": ours,
        "ansible_seconds": theirs,
        "salt_median": medians[0],
        "ansible_median": medians[1],
        "ratio": round(medians[0] / medians[1], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--image", help="of the local cloud (default: what the last rehearsal made)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    report = common.ROOT / "bake-report.json"
    if options.image is None and not report.exists():
        sys.exit("there is no image yet: run sudo python3 tools/bake.py rehearse")
    image = options.image or json.loads(report.read_text())["image"]["id"]
    described = common.machine()
    LocalCloud.ensure(common.ROOT)
    with LocalCloud.machine(common.ROOT, image) as machine_id:
        machine = BakedMachine(machine_id)
        machine.wait_serving()
        install(machine)
        figures = measure(machine, options.repeats)
    print(
        f"nothing to do: salt-call state.apply {figures['salt_median']:.2f} s for {figures['states']} states, "
        f"ansible-playbook {figures['ansible_median']:.2f} s for {figures['tasks']} tasks, ratio {figures['ratio']:.2f}"
    )
    common.write(options.json, {"machine": described, **figures})


if __name__ == "__main__":
    main()
