"""The pages say what is so: links lead somewhere, files exist, commands and options are there."""

import argparse
import re
import shlex
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import botocore.session
import describe
import pytest
from baker import cli, config
from baker.inputs import pillar
from botocore import xform_name
from serving import run as serving
from support.pages import ROOT, Page, pages

PAGES = list(pages())
README = Page(ROOT / "README.md")
OPERATIONS = Page(ROOT / "docs/operations.md")
PAST = ("CHANGELOG.md",)  # tells of what was
IN_PROJECT = re.compile(r"(?<![\w./-])(?:\./)?(?:tools|service|salt|tests|docs|cloud-init)/[\w./*-]*[\w*]")
NAMED_FILE = re.compile(r"[\w-]+\.(?:py|sls|toml|md|sh|lock|in|yaml)\b")
SETTINGS = {setting.name for setting in describe.pillar_settings(pillar.load(ROOT))}  # install.lock is no file
BAKE = re.compile(r"(?:tools/)?bake\.py ([a-z].*)")
AWS = re.compile(r"(\$ )?aws ")
AWS_OPTIONS = {"authorize-security-group-ingress": {"protocol", "port", "cidr"}}  # the command line's own short forms
SMALLEST_CONFIG = {"aws": {"region": "eu-north-1"}, "s3": {"bucket": "MY-BUCKET"}, "source": {"ami": "ami-1"}}
LONGEST_README, LONGEST_DECISION = 150, 40

by_name = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
present = pytest.mark.parametrize("page", [page for page in PAGES if page.name not in PAST], ids=lambda page: page.name)


@cache
def project_files() -> frozenset[str]:
    """Every file that git knows or would take."""
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return frozenset(line for line in listing.splitlines() if (ROOT / line).is_file())


@cache
def file_names() -> frozenset[str]:
    """The same without their folders."""
    return frozenset(Path(name).name for name in project_files())


def subcommands() -> dict[str, argparse.ArgumentParser]:
    """The launcher's commands and the parser of each."""
    (found,) = (action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(found.choices)


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings}


def mentioned(page: Page) -> list[str]:
    """Every piece of code of a page: inline, and the lines of fenced blocks that are commands."""
    fenced = [line for kind, content in page.blocks if kind in ("console", "") for line in content.splitlines()]
    return [*page.inline_code, *fenced]


@by_name
def test_links_lead_somewhere(page: Page) -> None:
    for link in page.links:
        name, _, anchor = link.partition("#")
        target = (page.path.parent / name).resolve() if name else page.path
        assert target.exists(), f"{page.name} links to {link}, which does not exist"
        if anchor and target.suffix == ".md":
            assert anchor in Page(target).anchors, f"{page.name} links to {link}, and there is no such heading"


@present
def test_files_that_are_named_exist(page: Page) -> None:
    for code in mentioned(page):
        for name in IN_PROJECT.findall(code):
            assert list(ROOT.glob(name)), f"{page.name} names {name}, which does not exist"
        if "/" not in code and code not in SETTINGS:
            for name in NAMED_FILE.findall(code):
                assert name in file_names() or name in ("Caddyfile",), (
                    f"{page.name} names {name}: no file has that name"
                )


@present
def test_commands_of_the_launcher_exist_with_their_options(page: Page) -> None:
    known = subcommands()
    for code in mentioned(page):
        match = BAKE.search(code.partition("#")[0])
        words = match[1].replace("[", " ").replace("]", " ").split() if match else []
        if not words:
            continue
        assert words[0] in known, f"{page.name}: there is no tools/bake.py {words[0]}"
        own = words[: words.index("--")] if "--" in words else words
        missing = {word.partition("=")[0] for word in own if word.startswith("--")} - options_of(known[words[0]])
        assert not missing, f"{page.name}: tools/bake.py {words[0]} has no {', '.join(missing)}"


@present
def test_commands_in_console_blocks_can_be_given(page: Page) -> None:
    for command in page.commands:
        words = shlex.split(command, comments=True)
        programs = {"tools/bake.py": cli.parse, "tools/serve.py": serving.parse}
        for name, parse in programs.items():
            if name in words:
                parse(words[words.index(name) + 1 :])  # ends the test's process if it is wrong


def aws_commands(page: Page) -> list[list[str]]:
    """What is given to AWS's own command line."""
    lines = [line for _, content in page.blocks for line in content.replace("\\\n", " ").splitlines()]
    return [shlex.split(line.removeprefix("$ "), comments=True)[1:] for line in lines if AWS.match(line)]


@pytest.mark.parametrize(
    "words",
    [words for page in PAGES for words in aws_commands(page) if words[0] != "configure"],
    ids=lambda words: " ".join(words[:2]),
)
def test_commands_of_aws_exist_with_their_options(words: list[str]) -> None:
    """By botocore's description of AWS, which is what AWS's command line is made from."""
    service = botocore.session.get_session().get_service_model({"s3api": "s3"}.get(words[0], words[0]))
    operations = {xform_name(name, "-"): name for name in service.operation_names}
    assert words[1] in operations
    shape = service.operation_model(operations[words[1]]).input_shape
    known = {xform_name(name, "-") for name in (shape.members if shape else ())} | AWS_OPTIONS.get(words[1], set())
    given = {word[2:] for word in words if word.startswith("--")}
    assert given - known <= {"query", "output", "region", "profile"}


@present
def test_examples_of_bake_toml_are_valid(page: Page) -> None:
    for example in [content for kind, content in page.blocks if kind == "toml"]:
        document = pillar.merge(SMALLEST_CONFIG, tomllib.loads(example))
        made = config.from_mapping(document)
        pillar.check_overrides(pillar.load(ROOT), made.pillar)


@present
def test_modes_of_the_test_command_exist(page: Page) -> None:
    script = (ROOT / "tests/run").read_text()
    for mode in re.findall(r"\./tests/run ([a-z]+)", "\n".join(mentioned(page))):
        assert re.search(rf"\b{mode}\b", script.partition("esac")[0]), f"{page.name}: ./tests/run has no {mode}"


def test_options_of_serve_are_described() -> None:
    page = Page(ROOT / "docs/local-cloud.md")
    described = {code.split()[0] for code in page.inline_code if code.startswith("--")}
    parser_options = set(re.findall(r'"(--[a-z-]+)"', (ROOT / "tools/serving/run.py").read_text()))
    assert parser_options - {"--worker"} <= described


def test_operations_describe_every_command() -> None:
    described = {code.split()[1] for code in OPERATIONS.inline_code if code.startswith("tools/bake.py ")}
    assert set(subcommands()) <= described


def test_the_readme_is_short_and_has_what_a_newcomer_needs() -> None:
    assert len(README.text.splitlines()) <= LONGEST_README
    for wanted in ("sudo python3 tools/bake.py rehearse", "./tests/run", "python3 tools/serve.py", "PyPI"):
        assert wanted in README.text


def test_the_way_to_aws_has_twelve_lines() -> None:
    section = README.text.partition("on AWS in twelve lines\n")[2].partition("\n## ")[0]
    assert len(re.findall(r"^\$ ", section, re.M)) == 12


@pytest.mark.parametrize("path", sorted((ROOT / "docs/decisions").glob("0*.md")), ids=lambda path: path.name)
def test_a_decision_is_short_and_has_its_three_parts(path: Path) -> None:
    page = Page(path)
    assert len(page.text.splitlines()) <= LONGEST_DECISION
    assert {"situation", "decision", "consequences"} <= page.anchors
    assert path.name in Page(path.parent / "README.md").links


def test_names_in_the_guide_stand_where_it_says() -> None:
    """`NAME` in `path`: whoever follows the guide finds it."""
    text = Page(ROOT / "docs/architecture.md").text
    found = re.findall(r"`(\w+)`\s+in\s+`(\w[\w/.-]+\.py)`", text)
    assert len(found) >= 4
    for name, path in found:
        assert re.search(rf"\b{name}\b", (ROOT / path).read_text()), f"{name} is not in {path}"


def test_the_engine_drawing_names_modules_that_exist() -> None:
    text = Page(ROOT / "docs/architecture.md").text
    drawing = text.partition("## The engine\n")[2].partition("\n## ")[0]
    names = re.findall(r"\b(?:audio|worker|engine)/[\w/]+\.py", drawing)
    assert len(names) > 10
    for name in names:
        assert (ROOT / "service/transcribe" / name).is_file(), name


def test_every_route_is_in_the_api_page() -> None:
    from transcribe.api.routes import openapi

    page = Page(ROOT / "docs/api.md")
    described = {code.split()[1] for code in page.inline_code if re.match(r"(GET|POST|DELETE) /", code)}
    assert set(openapi.document()["paths"]) - {"/"} <= described


def test_the_newest_version_of_the_changelog_is_the_project_s() -> None:
    versions = re.findall(r"^## (\S+)", Page(ROOT / "CHANGELOG.md").text, re.M)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert versions[:2] == ["Unreleased", project["version"]]
