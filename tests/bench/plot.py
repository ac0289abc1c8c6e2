"""A bar chart as SVG, without a plotting library."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, LABEL, BAR, GAP, TOP = 720, 210, 26, 12, 56
OURS, PEER = "#0a7d55", "#9aa5b1"


def bars(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """Times real time of each engine, longest bar first, its word error rate and memory beside it."""
    ranked = sorted(rows, key=lambda row: -row["times_realtime"])
    longest = max(row["times_realtime"] for row in ranked)
    height = TOP + len(ranked) * (BAR + GAP) + GAP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"',
        ' font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="30" font-size="16" fill="#1f2933">× real time: {escape(title)}</text>',
    ]
    for place, row in enumerate(ranked):
        top = TOP + place * (BAR + GAP)
        length = (WIDTH - LABEL - 230) * row["times_realtime"] / longest
        colour = OURS if row["engine"].startswith("ours") else PEER
        error = "" if row["word_error_rate"] is None else f", WER {row['word_error_rate']:.1f} %"
        facts = f"{row['times_realtime']:.0f} ×{error}, {row['peak_mb']:.0f} MB"
        middle = top + BAR * 0.7
        lines += [
            f'<text x="{LABEL - 10}" y="{middle:.0f}" text-anchor="end" fill="#1f2933">{escape(row["engine"])}</text>',
            f'<rect x="{LABEL}" y="{top}" width="{length:.0f}" height="{BAR}" rx="3" fill="{colour}"/>',
            f'<text x="{LABEL + length + 8:.0f}" y="{middle:.0f}" fill="#1f2933">{escape(facts)}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])
