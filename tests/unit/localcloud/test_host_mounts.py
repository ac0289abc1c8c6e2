"""What a machine of the local cloud is handed of this host's configuration."""

import os
from pathlib import Path

import pytest
from localcloud.common import Folders
from localcloud.machines import host_mounts
from localcloud.machines.host_mounts import Bind

LISTING = """\
:env:.find-links='/env/wheels'
:env:.default-timeout='9'
global.find-links='/srv/wheels'
global.index-url='https://mirror.example/packages'
global.extra-index-url='file:///srv/one/simple\\nfile:///srv/two'
install.no-index='true'
user.agent='nobody'
"""


@pytest.fixture(name="folders")
def made_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    monkeypatch.setattr(host_mounts, "host_pip", dict)
    monkeypatch.setattr(host_mounts, "apt_conf", str)
    return Folders.of(tmp_path / "cloud")


@pytest.fixture
def pci(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This host's PCI bus."""
    path = tmp_path / "pci"
    path.mkdir()
    monkeypatch.setattr(host_mounts, "PCI", str(path))
    return path


def test_the_environment_wins_over_pips_files() -> None:
    settings = host_mounts.pip_settings(LISTING)
    assert settings["find-links"] == "/env/wheels"
    assert settings["timeout"] == "9"
    assert settings["no-index"] == "true"


def test_pip_conf_keeps_the_indexes_and_puts_the_cache_where_no_image_keeps_it() -> None:
    lines = host_mounts.pip_conf({**host_mounts.pip_settings(LISTING), "cert": "/etc/own.crt"}).splitlines()
    assert lines[:2] == ["[global]", "cache-dir = /run/local-cloud/pip-cache"]
    assert "index-url = https://mirror.example/packages" in lines
    assert "extra-index-url = file:///srv/one/simple file:///srv/two" in lines
    assert "cert = /run/local-cloud/ca.crt" in lines
    assert not any("agent" in line for line in lines)


def test_local_indexes_are_seen_with_the_files_beside_them(tmp_path: Path) -> None:
    for name in ("index/simple", "wheels", "a b"):
        (tmp_path / name).mkdir(parents=True)
    settings = {
        "extra-index-url": f"file://{tmp_path}/index/simple https://mirror.example/packages",
        "find-links": f"{tmp_path}/wheels {tmp_path}/missing file://{tmp_path}/a%20b relative",
    }
    found = [path.relative_to(tmp_path).as_posix() for path in host_mounts.local_folders(settings)]
    assert found == ["index", "wheels", "a b"]


def test_a_folder_within_another_is_not_mounted_twice() -> None:
    paths = [Path("/srv/index/more"), Path("/srv/index"), Path("/srv/index-more"), Path("/srv/index")]
    assert host_mounts.outermost(paths) == [Path("/srv/index"), Path("/srv/index-more")]


def test_colons_in_a_path_do_not_end_it() -> None:
    assert Bind(Path("/a:b"), "/c").option() == "--bind-ro=/a\\:b:/c"
    assert Bind(Path("/a"), "/c", writable=True).option() == "--bind=/a:/c"


def test_what_is_handed_over_is_read_only_but_for_the_caches(folders: Folders, tmp_path: Path, pci: Path) -> None:
    (tmp_path / "machine").mkdir()
    binds = host_mounts.binds(tmp_path / "machine", folders)
    assert {bind.target for bind in binds if bind.writable} == {"/run/local-cloud/pip-cache", "/var/cache/apt/archives"}
    assert {bind.target for bind in binds if not bind.writable} == {"/etc/resolv.conf", "/etc/pip.conf", str(pci)}


def test_a_machine_has_no_gpu_of_this_host(folders: Folders, tmp_path: Path, pci: Path) -> None:
    (pci / "0000:01:00.0").mkdir()
    (tmp_path / "machine").mkdir()
    [shown] = [bind for bind in host_mounts.binds(tmp_path / "machine", folders) if bind.target == str(pci)]
    assert list(shown.source.iterdir()) == []


def test_a_machine_that_cleans_its_apt_archives_leaves_the_cache_full(folders: Folders, tmp_path: Path) -> None:
    machine = tmp_path / "machine"
    (machine / "apt").mkdir(parents=True)
    (machine / "apt" / "one.deb").write_text("1")
    host_mounts.lend_archives(machine, folders)
    host_mounts.keep_archives(machine, folders)
    (machine / "apt" / "one.deb").unlink()  # apt-get clean
    assert (folders.apt_archives / "one.deb").read_text() == "1"
    host_mounts.lend_archives(machine, folders)
    assert [path.name for path in (machine / "apt").iterdir()] == ["one.deb"]


def test_what_a_machine_has_downloaded_is_copied_and_nothing_else(folders: Folders, tmp_path: Path) -> None:
    """The machine's root writes there: links, pipes and what it changes later must not reach this host's cache."""
    machine, secret = tmp_path / "machine", tmp_path / "secret"
    (machine / "apt").mkdir(parents=True)
    secret.write_text("of this host")
    host_mounts.lend_archives(machine, folders)
    (machine / "apt" / "link.deb").symlink_to(secret)
    os.mkfifo(machine / "apt" / "pipe.deb")
    (machine / "apt" / "one.deb").write_text("1")
    host_mounts.keep_archives(machine, folders)
    (machine / "apt" / "one.deb").write_text("changed")
    (machine / "apt" / "one.deb").chmod(0o4755)
    [kept] = folders.apt_archives.iterdir()
    assert (kept.name, kept.read_text(), kept.stat().st_mode & 0o7111) == ("one.deb", "1", 0)
