"""What may be said of the speakers of a recording: how many there are, and the names of known ones."""

import unicodedata
from collections.abc import Sequence

MOST_SPEAKERS = 50
MOST_KNOWN = 10  # voices that are known by a recording; OpenAI takes 4
LONGEST_NAME = 100  # characters


def on_one_line(name: str) -> str:
    """The name without white space around it or in rows in it."""
    return " ".join(name.split())


def has_control(text: str) -> bool:
    """Whether there are control characters or half ones in it. Those that join others, as in an emoji, are none."""
    return any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def usable(names: Sequence[str]) -> bool:
    """Whether speakers can be called so: by different names, none of them too long or with control characters."""
    return len(set(names)) == len(names) and all(
        0 < len(name) <= LONGEST_NAME and not has_control(name) for name in names
    )
