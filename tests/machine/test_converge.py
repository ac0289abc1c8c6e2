"""A bare `salt-call state.apply` on a machine: nothing to do, offline; and honest about what it would do."""

from support.baked_machine import BakedMachine

CONFIG = "/opt/transcribe/config/transcribe.json"


def test_second_apply_changes_nothing(machine: BakedMachine) -> None:
    first, second = machine.apply(), machine.apply()
    assert len(first.states) >= 30
    assert first.failed == second.failed == {}
    assert first.changed == second.changed == set()


def test_apply_touches_no_file(machine: BakedMachine) -> None:
    before = machine.snapshot()
    machine.apply()
    assert machine.snapshot() == before


def test_apply_needs_no_network(machine: BakedMachine) -> None:
    machine.network("ip rule add pref 1 prohibit; ip -6 rule add pref 1 prohibit")  # loopback is looked up before
    try:
        assert machine.run("curl", "--silent", "--max-time", "3", "http://10.0.2.2/", check=False).returncode == 7
        applied = machine.apply()
    finally:
        machine.network("ip rule del pref 1; ip -6 rule del pref 1")
    assert applied.failed == {}
    assert applied.changed == set()


def test_dry_run_of_a_right_machine_says_nothing_would_change(machine: BakedMachine) -> None:
    applied = machine.apply("test=True")
    assert applied.undecided == applied.changed == set()
    assert applied.failed == {}


def test_dry_run_says_what_would_change_and_changes_nothing(machine: BakedMachine) -> None:
    machine.sh(f"echo '{{}}' >{CONFIG}; rm /opt/transcribe/scripts/api_server.py")
    machine.sh("truncate --size=9 /opt/transcribe/models/*/blobs/*")
    machine.sh("/opt/transcribe/venv/bin/python -m pip --quiet uninstall --yes werkzeug")
    before = machine.snapshot()
    applied = machine.apply("test=True")
    assert machine.snapshot() == before
    assert applied.failed == {}
    expected = {"config-written", "code-api-server", "model-cached", "venv-synced"}
    assert expected <= applied.undecided
    assert {name for name in applied.undecided if name.startswith(("layout", "packages", "tuning"))} == set()
    assert expected <= machine.apply().changed
