"""The project's pages for people, and what stands in them: links, code, commands, headings."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path

    @cached_property
    def text(self) -> str:
        """All of it."""
        return self.path.read_text(encoding="utf-8")

    @property
    def name(self) -> str:
        """Its path in the project."""
        return str(self.path.relative_to(ROOT))

    @property
    def prose(self) -> str:
        """The text without its fenced blocks."""
        return FENCE.sub("", self.text)

    @property
    def blocks(self) -> list[tuple[str, str]]:
        """Fenced blocks as (language, content)."""
        return FENCE.findall(self.text)

    @property
    def inline_code(self) -> list[str]:
        """What stands in single backticks."""
        return re.findall(r"`([^`\n]+)`", self.prose)

    @property
    def commands(self) -> list[str]:
        """Lines with a prompt in console blocks, without the prompt."""
        consoles = [content for kind, content in self.blocks if kind == "console"]
        return [line[2:] for content in consoles for line in content.splitlines() if line.startswith("$ ")]

    @property
    def anchors(self) -> set[str]:
        """The names under which GitHub links to the headings."""
        return {anchor(heading) for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", self.text), re.M)}

    @property
    def links(self) -> list[str]:
        """The targets of its links and pictures that lie in the project."""
        targets = re.findall(r"\]\(([^)\s]+)\)", self.prose)
        return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchor(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def pages() -> Iterator[Page]:
    """README, the other pages at the top, and docs/."""
    for path in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]:
        yield Page(path)
