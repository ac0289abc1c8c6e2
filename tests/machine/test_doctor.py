"""The doctor with its machine, on the local cloud: a real one boots with a bake's user-data, looks, and is gone."""

import json
import subprocess
import sys
import time
from collections.abc import Callable

from baker.doctor.finding import FAILS, OK
from localcloud import LocalCloud
from support.baked_machine import ROOT

COMMAND = [sys.executable, str(ROOT / "tools/bake.py"), "doctor", "--machine", "--cloud", "local", "--json"]


def test_a_real_machine_looks_and_is_gone(able: None, record_property: Callable[[str, object], None]) -> None:
    LocalCloud.ensure(ROOT)
    began = time.monotonic()
    done = subprocess.run(COMMAND, cwd=ROOT, check=False, capture_output=True, text=True, timeout=600)
    record_property("seconds", round(time.monotonic() - began))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    told = {row["name"]: row["verdict"] for row in json.loads(done.stdout)["findings"]}
    assert FAILS not in told.values()
    looked = [name for name in told if name.startswith("machine, ")]
    assert {"machine, Python", "machine, disk", "machine, reaches hub", "machine, console"} <= set(looked)
    assert {told["machine, system"], told["machine, console"], told["machine, console after the end"]} == {OK}
