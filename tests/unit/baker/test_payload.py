"""The payload, the content hash and component validation: what goes to a machine, and what counts as a change."""

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from baker.errors import UsageError
from baker.inputs import content_hash, payload, source_tree
from support.project_tree import PROJECT, make_tree, write

OVERRIDES = {"transcribe": {"model": {"revision": "c" * 40}}}
SOURCES = {"source-image": "ami-1"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree")


def git(tree: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", str(tree), *identity, *arguments], check=True, capture_output=True)


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r") as tar:
        return {member.name: member for member in tar}


def test_same_tree_same_bytes_whatever_the_time_owner_umask_and_order(tmp_path: Path) -> None:
    one = make_tree(tmp_path / "one")
    old = os.umask(0o077)
    try:
        two = make_tree(tmp_path / "two")
    finally:
        os.umask(old)
    for path in sorted(two.rglob("*"), reverse=True):
        os.utime(path, (1, 1))
    assert payload.build(one, OVERRIDES).data == payload.build(two, OVERRIDES).data


def test_git_and_a_plain_copy_make_the_same_payload(tree: Path, tmp_path: Path) -> None:
    plain = payload.build(tree, OVERRIDES)
    git(tree, "init", "-q")
    git(tree, "add", ".")
    assert payload.build(tree, OVERRIDES).data == plain.data


def test_the_archive_is_a_plain_tar_that_others_can_read(tree: Path) -> None:
    packed = payload.build(tree, OVERRIDES)
    listed = subprocess.run(["tar", "-tf", "-"], input=packed.data, capture_output=True, check=True)
    assert listed.stdout.decode().split() == sorted(packed.digests)
    assert len(packed.sha256) == 64


def test_members_carry_nothing_of_this_machine(tree: Path) -> None:
    (tree / "service/api_server.py").chmod(0o770)
    found = members(payload.build(tree, OVERRIDES).data)
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in found.values()} == {(0, 0, "", "", 0)}
    assert found["service/api_server.py"].mode == 0o755
    assert found["service/advanced_cache.py"].mode == 0o644
    assert list(found) == sorted(found)


def test_untracked_and_compiled_files_stay_out(tree: Path) -> None:
    git(tree, "init", "-q")
    git(tree, "add", ".")
    write(tree / "service/notes.txt", "mine")
    write(tree / "service/__pycache__/x.pyc", "")
    assert "service/notes.txt" not in payload.build(tree, OVERRIDES).digests
    plain = make_tree(tree.parent / "plain")
    write(plain / "service/__pycache__/x.pyc", "")
    assert not [name for name in payload.build(plain, OVERRIDES).digests if "pyc" in name]


def test_overrides_are_json_that_no_template_engine_reads(tree: Path) -> None:
    data = payload.build(tree, {"transcribe": {"user": "{{ x }}"}}).data
    with tarfile.open(fileobj=io.BytesIO(data), mode="r") as tar:
        file = tar.extractfile(payload.OVERRIDES)
        assert file is not None
        first, rest = file.read().split(b"\n", 1)
    assert first == b"#!yaml"
    assert json.loads(rest) == {"transcribe": {"user": "{{ x }}"}}


def inputs(tree: Path, overrides: dict[str, object], sources: dict[str, str] | None = None) -> dict[str, str]:
    digests = payload.build(tree, {"transcribe": overrides}).digests
    return content_hash.inputs(tree, digests, overrides, sources or SOURCES)


@pytest.mark.parametrize(
    ("changed_file", "expected"),
    [
        ("salt/states/layout.sls", "states"),
        ("salt/driver/main.py", "states"),
        ("salt/pillar/transcribe.sls", "pillar"),
        ("service/api_server.py", "service"),
        ("service/clips/verify.txt", "service"),
        ("service/cpu.lock", "locks"),
        ("salt/requirements.lock", "locks"),
        ("cloud-init/bootstrap.sh", "launcher"),
        ("tools/baker/cli.py", "launcher"),
    ],
)
def test_a_changed_file_is_named_by_its_input(tree: Path, changed_file: str, expected: str) -> None:
    before = inputs(tree, {})
    with (tree / changed_file).open("a") as file:
        file.write("\n# changed\n")
    after = inputs(tree, {})
    assert content_hash.changed(before, after) == [expected]
    assert content_hash.combined(before) != content_hash.combined(after)


def test_a_changed_mode_is_a_change(tree: Path) -> None:
    before = inputs(tree, {})
    (tree / "service/api_server.py").chmod(0o755)
    assert content_hash.changed(before, inputs(tree, {})) == ["service"]


def test_model_commit_and_source_image_are_inputs_and_addresses_are_not(tree: Path) -> None:
    def with_model(endpoint: str, commit: str) -> dict[str, object]:
        return {"model": {"endpoint": endpoint, "revision": commit}}

    before = inputs(tree, with_model("http://10.0.2.2:1000", "a" * 40))
    assert content_hash.changed(before, inputs(tree, with_model("http://10.0.2.2:2000", "a" * 40))) == []
    assert content_hash.changed(before, inputs(tree, with_model("http://10.0.2.2:1000", "b" * 40))) == ["pillar"]
    other_source = inputs(tree, with_model("http://10.0.2.2:1000", "a" * 40), {"source-image": "ami-2"})
    assert content_hash.changed(before, other_source) == ["source-image"]


def test_inputs_survive_the_way_through_a_tag(tree: Path) -> None:
    found = inputs(tree, {})
    tag = content_hash.as_tag(found)
    assert content_hash.from_tag(tag) == found
    assert len(tag) <= 256


def test_every_missing_component_is_named_in_one_message(tree: Path) -> None:
    source_tree.validate(tree, ["verify.flac", "verify.txt"])
    for name in ("service/api_server.py", "service/advanced_cache.py", "service/clips/verify.flac"):
        (tree / name).unlink()
    with pytest.raises(UsageError) as caught:
        source_tree.validate(tree, ["verify.flac", "verify.txt"])
    for name in ("service/api_server.py", "service/advanced_cache.py", "service/clips/verify.flac"):
        assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tracked_file_that_is_gone_is_named_though_no_list_has_it(tree: Path) -> None:
    git(tree, "init", "-q")
    git(tree, "add", ".")
    (tree / "salt/states/layout.sls").unlink()
    with pytest.raises(UsageError, match=r"missing: salt/states/layout\.sls"):
        source_tree.validate(tree, [])


@pytest.mark.parametrize("name", ["cloud-init/bootstrap.sh", "salt/states/layout.sls"])
def test_windows_line_endings_are_refused_and_recordings_are_not_text(tree: Path, name: str) -> None:
    (tree / "service/clips/verify.flac").write_bytes(b"fLaC\0\r\n")
    source_tree.validate(tree, ["verify.flac"])
    text = (tree / name).read_text() or "x\n"
    (tree / name).write_bytes(text.replace("\n", "\r\n").encode())
    with pytest.raises(UsageError, match=rf"{name} and 0 more files have Windows line endings.*core\.autocrlf"):
        source_tree.validate(tree, ["verify.flac"])


def test_a_checkout_has_unix_line_endings_whatever_git_is_told(tree: Path, tmp_path: Path) -> None:
    (tree / ".gitattributes").write_bytes((PROJECT / ".gitattributes").read_bytes())
    git(tree, "init", "-q")
    git(tree, "add", ".")
    git(tree, "commit", "-qm", "all")
    clone = tmp_path / "clone"
    git(tree, "clone", "-q", "-c", "core.autocrlf=true", str(tree), str(clone))
    source_tree.validate(clone, [])
    assert payload.build(clone, OVERRIDES).data == payload.build(tree, OVERRIDES).data


def test_where_files_have_no_modes_git_says_which_are_programs(tree: Path) -> None:
    git(tree, "init", "-q")
    git(tree, "add", ".")
    before = payload.build(tree, OVERRIDES).data
    git(tree, "config", "core.fileMode", "false")  # as git does on a drive of Windows
    for path in (tree / "salt").rglob("*.sls"):
        path.chmod(0o777)
    assert payload.build(tree, OVERRIDES).data == before


def test_empty_components_and_links_are_refused(tree: Path) -> None:
    (tree / "service/cpu.lock").write_text("")
    (tree / "salt/states/link.sls").symlink_to("layout.sls")
    with pytest.raises(UsageError, match=r"symbolic links.*link\.sls; empty: service/cpu\.lock"):
        source_tree.validate(tree, [])
