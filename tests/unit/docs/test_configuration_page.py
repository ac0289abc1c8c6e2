"""docs/configuration.md is what tools/describe.py writes, and every setting is described in it."""

import shutil
from pathlib import Path

import describe
import pytest


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """What the page is made from, to be changed."""
    for path in (describe.SENTENCES, describe.ROOT / "salt/pillar/transcribe.sls"):
        target = tmp_path / path.relative_to(describe.ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return tmp_path


def replace(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_the_page_is_not_stale() -> None:
    assert describe.PAGE.read_text() == describe.page(), "run: python3 tools/describe.py"


def test_a_new_key_of_the_pillar_must_be_described(project: Path) -> None:
    replace(project / "salt/pillar/transcribe.sls", "  port: 8000", "  port: 8000\n  sparkle: true")
    with pytest.raises(describe.DocsError, match=r"pillar\] sparkle: is not described"):
        describe.page(project)


def test_a_key_of_bake_toml_must_be_described(project: Path) -> None:
    replace(project / "docs/configuration.toml", '"name_prefix"', '"nameprefix"')
    with pytest.raises(describe.DocsError, match=r"image\] name_prefix: is not described"):
        describe.page(project)


def test_a_key_that_is_gone_must_not_be_described(project: Path) -> None:
    replace(project / "docs/configuration.toml", "[aws]\n", '[aws]\n"zone" = "Gone."\n')
    with pytest.raises(describe.DocsError, match=r"aws\] zone: does not exist"):
        describe.page(project)


def test_a_changed_default_shows(project: Path) -> None:
    replace(project / "salt/pillar/transcribe.sls", "port: 8000", "port: 8001")
    assert describe.page(project) != describe.PAGE.read_text()
