"""Checks SubRip files against the rules of readable subtitles, and prints what breaks them.

    python tests/bench/subtitles.py FILE… [--max_line_width 42] [--max_line_count 2] [--max_cps 17]

Exit code 1 if any subtitle breaks a rule.
"""

import argparse
import re
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "service"))
from transcribe.subtitles import SubtitleOptions
from transcribe.subtitles.rules import broken

TIMES = re.compile(r"(\d+):(\d\d):(\d\d),(\d{3}) --> (\d+):(\d\d):(\d\d),(\d{3})")


def read(file: Path) -> list[tuple[int, int, list[str]]]:
    """The file's subtitles: start and end in ms, and the lines. Raises ValueError."""
    found = []
    for block in file.read_text(encoding="utf-8-sig").strip().split("\n\n"):
        _, times, *lines = block.splitlines()
        match = TIMES.match(times)
        if not match:
            raise ValueError(f"{file}: {times!r} is no time")
        hours, minutes, seconds, thousandths = (tuple(map(int, match.groups()[n::4])) for n in range(4))
        start, end = (
            ((h * 60 + m) * 60 + s) * 1000 + ms
            for h, m, s, ms in zip(hours, minutes, seconds, thousandths, strict=True)
        )
        found.append((start, end, lines))
    return found


def main() -> int:
    """Prints a line for each file and each broken rule."""
    parser = argparse.ArgumentParser(description="Check subtitles.")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--max_line_width", type=int, default=42)
    parser.add_argument("--max_line_count", type=int, default=2)
    parser.add_argument("--max_cps", type=float, default=17.0)
    asked = parser.parse_args()
    options = SubtitleOptions(asked.max_line_width, asked.max_line_count, asked.max_cps)
    total = 0
    for file in asked.files:
        entries = read(file)
        bad = broken(entries, options)
        total += len(bad)
        seconds = entries[-1][1] / 1000 if entries else 0.0
        rules = ", ".join(f"{count} {rule}" for rule, count in Counter(one.rule for one in bad).items())
        print(f"{file.name}: {len(entries)} subtitles, {seconds:.0f} s, {rules or 'no rule broken'}")
        for one in bad[:10]:
            print(f"  {one.number}: {one.rule} ({one.found})")
    return 1 if total else 0


if __name__ == "__main__":
    raise SystemExit(main())
