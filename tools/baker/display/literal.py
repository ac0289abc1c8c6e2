"""Shows text that others wrote - machines, AWS, recordings - as it is: it is no markup and moves no cursor."""

import re

from rich.text import Text

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and line feed


def plain(text: object) -> str:
    """`text` for a terminal: control characters, which could retitle a window or write over lines, are shown as �."""
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text))


def literal(text: object, style: str = "") -> Text:
    """`text` for rich, which does not look for markup in it; `style` is rich's."""
    return Text(plain(text), style=style)
