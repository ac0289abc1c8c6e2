"""What seal takes from a disk: patterns, mounts that are not of the disk, and the look for the bake's secrets."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.salt_states import STATES, arguments, load, states

pytestmark = pytest.mark.attack

SEAL: dict[str, Any] = yaml.safe_load((STATES / "transcribe/files/seal.yaml").read_text())
# What the design names: each must be matched by some pattern of the list.
MUST_GO = (
    *("/etc/ssh/ssh_host_rsa_key", "/root/.ssh/authorized_keys", "/home/ubuntu/.ssh/authorized_keys"),
    *("/var/lib/cloud/instance", "/var/lib/cloud/seed", "/var/log/cloud-init.log", "/var/log/cloud-init-output.log"),
    *("/var/log/journal/0", "/var/lib/apt/lists/x", "/root/.bash_history", "/home/ubuntu/.python_history"),
    *("/etc/pip.conf", "/root/.config/pip/pip.conf", "/root/.cache/pip", "/root/.cache/huggingface/token"),
    *("/tmp/x", "/var/tmp/x", "/opt/transcribe/results/jobs.sqlite3", "/opt/transcribe/temp/x"),
    *("/opt/transcribe/logs/x", "/etc/systemd/system/transcribe-bake.service", "/var/lib/dbus/machine-id"),
)
MUST_STAY = (
    *("/opt/transcribe/cache/cache_info.json", "/opt/transcribe/config/transcribe.json", "/etc/salt/minion"),
    *("/etc/systemd/system/transcribe-api.service", "/opt/transcribe/models/models--o--n", "/etc/machine-id"),
    *("/etc/ssh/sshd_config", "/etc/cloud/cloud.cfg", "/srv/transcribe/payload.sha256", "/opt/transcribe/venv/bin"),
)


def matched(path: str) -> bool:
    patterns = [
        each.format(root="/opt/transcribe", home=home) for home in ("/root", "/home/ubuntu") for each in every()
    ]
    return any(Path(part).match(pattern) for part in (path, *map(str, Path(path).parents)) for pattern in patterns)


def every() -> list[str]:
    return [pattern for patterns in SEAL["gone"].values() for pattern in patterns]


@pytest.mark.parametrize("path", MUST_GO)
def test_list_covers(path: str) -> None:
    assert matched(path)


@pytest.mark.parametrize("path", MUST_STAY)
def test_list_spares(path: str) -> None:
    assert not matched(path)


def test_all_of_the_list_is_removed_and_then_asserted() -> None:
    rendered = states("seal")
    asserted = arguments(rendered["seal-asserted"])[1]
    assert asserted["paths"] == every()
    assert asserted["empty"] == SEAL["emptied"]
    assert "/etc/machine-id" in asserted["empty"]
    for what, paths in SEAL["gone"].items():
        function, given = arguments(rendered[f"seal-{what}"])
        assert (function, given["paths"]) == ("transcribe_seal.gone", paths)
        assert {"transcribe_seal": "seal-asserted"} in given["require_in"]
    assert list(rendered)[-1] == "seal-asserted"


@pytest.mark.parametrize("unit", ["cron", "rsyslog", "syslog.socket", "transcribe-worker"])
def test_what_writes_is_stopped_before_anything_is_removed(unit: str) -> None:
    function, given = arguments(states("seal")[f"seal-stop-{unit}"])
    assert (function, given["name"], given["require_in"]) == ("service.dead", unit, [{"cmd": "seal-journal-volatile"}])


def seal(tmp_path: Path, *, test: bool = False, mounts: tuple[Path, ...] = ()) -> Any:
    table = tmp_path / "mountinfo"
    table.write_text("".join(f"1 0 8:1 / {path} rw - ext4 x rw\n" for path in (Path("/"), *mounts)))
    module = load("_states/transcribe_seal.py", test=test)
    module.__dict__.update(MOUNTS=table, PARAMETERS=tmp_path / "parameters.json", SCANNED=(str(tmp_path / "disk"),))
    return module


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk with a file, a hidden file and a folder to go, and one to stay."""
    path = tmp_path / "disk"
    (path / "logs/deep/er").mkdir(parents=True)
    for name in ("logs/a", "logs/.hidden", "logs/deep/er/b", "stays"):
        (path / name).write_text("x")
    return path


def test_dry_run_removes_nothing(tmp_path: Path, disk: Path) -> None:
    answer = seal(tmp_path, test=True).gone("logs", [f"{disk}/logs/*"])
    assert answer["result"] is None
    assert len(answer["changes"]) == 3
    assert (disk / "logs/.hidden").exists()


def test_hidden_files_and_folders_go(tmp_path: Path, disk: Path) -> None:
    module = seal(tmp_path)
    answer = module.gone("logs", ["{root}/logs/*"], root=str(disk))
    assert answer["result"] is True
    assert list((disk / "logs").iterdir()) == []
    assert (disk / "stays").exists()
    again = module.gone("logs", ["{root}/logs/*"], root=str(disk))
    assert (again["result"], again["changes"]) == (True, {})


def test_what_is_mounted_is_not_of_the_disk(tmp_path: Path, disk: Path) -> None:
    """A package cache lent by the host must be neither emptied nor complained of."""
    module = seal(tmp_path, mounts=(disk / "logs/deep/er",))
    assert module.gone("logs", [f"{disk}/logs"])["result"] is True
    assert (disk / "logs/deep/er/b").exists()
    assert not (disk / "logs/a").exists()
    assert module.traces([f"{disk}/logs"], "") == []


def test_a_link_in_place_of_a_folder_leads_root_nowhere(tmp_path: Path, disk: Path) -> None:
    """The folder is another user's: between the look and the removal it becomes a link to what must stay."""
    module = seal(tmp_path)
    (disk / "system").mkdir()
    (disk / "system/a").write_text("x")
    (disk / "logs").rename(disk / "before")
    (disk / "logs").symlink_to(disk / "system")
    disk.chmod(0o777)
    module._remove(disk / "logs/a")
    assert (disk / "system/a").exists()
    (disk / "before/a").unlink()
    (disk / "before/a").symlink_to(disk / "stays")
    with pytest.raises(OSError, match="a"):
        module.emptied("x", [str(disk / "before/a")])
    assert (disk / "stays").read_text() == "x"


def test_links_of_roots_own_are_followed(tmp_path: Path, disk: Path) -> None:
    disk.chmod(0o755)
    (disk / "usual").symlink_to(disk / "logs")
    assert seal(tmp_path).gone("logs", [f"{disk}/usual/*"])["result"] is True
    assert list((disk / "logs").iterdir()) == []


def test_what_withstands_is_a_failure(tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = seal(tmp_path)
    monkeypatch.setattr(module, "_remove", lambda path: None)
    answer = module.gone("logs", [f"{disk}/logs/a"])
    assert answer["result"] is False
    assert str(disk / "logs/a") in answer["comment"]


def test_emptied_files_stay(tmp_path: Path, disk: Path) -> None:
    answer = seal(tmp_path).emptied("x", [str(disk / "stays"), str(disk / "none")])
    assert list(answer["changes"]) == [str(disk / "stays")]
    assert (disk / "stays").read_text() == ""


def test_assertion_names_what_is_left(tmp_path: Path, disk: Path) -> None:
    module = seal(tmp_path)
    answer = module.asserted("x", [f"{disk}/logs/a"], [str(disk / "stays")])
    assert answer["result"] is False
    assert answer["changes"] == {}
    assert str(disk / "logs/a") in answer["comment"]
    assert str(disk / "stays") in answer["comment"]
    assert module.asserted("x", [f"{disk}/none"], [])["result"] is True


@pytest.mark.parametrize(
    "secret", ["the-nonce", "http://b/r?X-Amz-" + "Signature=1", "http://b/l?S=2", "http://b/a?S=3"]
)
def test_secret_of_the_bake_is_found_wherever_it_is(tmp_path: Path, disk: Path, secret: str) -> None:
    (tmp_path / "parameters.json").write_text(json.dumps({"nonce": "the-nonce", "addresses_url": "http://b/a?S=3"}))
    (tmp_path / "addresses.json").write_text(json.dumps({"report_url": "http://b/r", "log_url": "http://b/l?S=2"}))
    (disk / "logs/deep/er/b").write_bytes(b"\0" * 5000 + secret.encode() + b"\0")
    answer = seal(tmp_path).asserted("x", [], [])
    assert answer["result"] is False
    assert str(disk / "logs/deep/er/b") in answer["comment"]


def test_this_project_does_not_find_itself() -> None:
    """The sources lie on the image's disk, and the scan reads them."""
    mark = load("_states/transcribe_seal.py").SIGNED
    root = STATES.parents[1]
    assert [
        path
        for top in ("salt", "service")
        for path in (root / top).rglob("*.[psy]*")
        if path.is_file() and "__pycache__" not in path.parts and mark in path.read_bytes()
    ] == []
