"""A bake as one page: phases and states as bars, sizes and verdicts. One file, with nothing to fetch."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from baker.display.estimates import INSIDE

FILE = "bake-timeline.html"
PAGE = Path(__file__).with_name("timeline.html")
LAUNCHER, MACHINE, STATE = "launcher", "machine", "state"  # whose time it is: the classes of bars
APPLIES = {"first apply": "first"}  # phases of a machine whose states are shown
SHOWN_SECONDS = 0.5  # a state that took less is counted, not drawn
WIDTH, LEFT, RIGHT, ROW, BAR = 1080, 250, 70, 20, 12  # pixels of the chart
Document = Mapping[str, Any]


@dataclass(frozen=True)
class Bar:
    """A span of time, in seconds from the beginning of the bake."""

    label: str
    kind: str
    began: float
    seconds: float

    @property
    def depth(self) -> int:
        return (LAUNCHER, MACHINE, STATE).index(self.kind)


def html(report: Document) -> str:
    """The page of a report."""
    image = report["image"]
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        title=f"{escape(image['id'])} · {escape(image['name'])}",
        subtitle=f"baked and verified {escape(report['finished'])}",
        cards="".join(cards(report)),
        chart=chart(list(bars(report))),
        sizes=sizes((report["baked"] or {}).get("bytes") or {}),
        heard=_rows([("read", report["reference"]), *heard(report)]),
        checks="".join(_checks(report)),
        origin=_rows(origin(report)),
    )


def bars(report: Document) -> Iterator[Bar]:
    """Every phase in order, each followed by what happened inside it."""
    began = 0.0
    for phase in report["phases"]:
        yield Bar(phase["name"], LAUNCHER, began, phase["seconds"])
        told = report.get(INSIDE.get(phase["name"], ""))
        if told:
            yield from _inside(told, began, began + phase["seconds"])
        began += phase["seconds"]


def _inside(machine: Document, launched: float, ended: float) -> Iterator[Bar]:
    """What a machine told of itself; it was heard as soon as it had ended."""
    phases = machine["phases"]
    began = max(launched, ended - sum(phase["seconds"] for phase in phases))
    yield Bar("boot, cloud-init", MACHINE, launched, began - launched)
    for phase in phases:
        yield Bar(phase["name"], MACHINE, began, phase["seconds"])
        applied = (machine.get("salt") or {}).get(APPLIES.get(phase["name"], "")) or {}
        yield from _states(applied.get("results", []), began, phase["seconds"])
        began += phase["seconds"]


def _states(results: Sequence[Document], began: float, seconds: float) -> Iterator[Bar]:
    """The states that took long; salt-call itself needs a moment before the first one."""
    span = max((told.get("began", 0) + told["seconds"] for told in results), default=0.0)
    start = began + max(0.0, seconds - span)
    long = [told for told in results if told["seconds"] >= SHOWN_SECONDS]
    for told in long:
        yield Bar(told["id"], STATE, start + told.get("began", 0), told["seconds"])
    if results:
        short = [told["seconds"] for told in results if told not in long]
        yield Bar(f"{len(short)} more states", STATE, start, sum(short))


def chart(drawn: Sequence[Bar]) -> str:
    """The bars as SVG, under an axis of time."""
    total = max((bar.began + bar.seconds for bar in drawn), default=1.0) or 1.0
    scale = (WIDTH - LEFT - RIGHT) / total
    height = ROW * (len(drawn) + 2)
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="phases and states of the bake">']
    for tick in _ticks(total):
        x = LEFT + tick * scale
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{ROW}" y2="{height - ROW / 2:.0f}"/>')
        parts.append(f'<text class="soft" x="{x + 3:.1f}" y="14">{clock(tick)}</text>')
    for number, bar in enumerate(drawn, 1):
        y, x = number * ROW, LEFT + bar.began * scale
        told = escape(f"{bar.label}: {bar.seconds:.1f} s, from {clock(bar.began)}")
        weight = ' font-weight="600"' if bar.kind == LAUNCHER else ""
        label = escape(_short(bar.label, 34 - 2 * bar.depth))
        parts.append(f'<g><title>{told}</title><text x="{16 * bar.depth}" y="{y + 14}"{weight}>{label}</text>')
        size = f'width="{max(bar.seconds * scale, 1.5):.1f}" height="{BAR}" rx="3"'
        parts.append(f'<rect class="{bar.kind}" x="{x:.1f}" y="{y + 4}" {size}/>')
        parts.append(f'<text class="num soft" x="{WIDTH}" y="{y + 14}">{bar.seconds:.1f} s</text></g>')
    return "".join([*parts, "</svg>"])


def _ticks(total: float) -> Iterable[int]:
    """Round times, five to twelve of them."""
    step = next(step for step in (1, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600) if total / step <= 12)
    return range(0, int(total) + 1, step)


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def sizes(told: Mapping[str, int]) -> str:
    """What lies on the disk, as one bar and its legend."""
    if not told.get("disk"):
        return '<p class="soft">the machine did not tell</p>'
    named = [("packages of the service", told["venv"], MACHINE), ("model", told["models"], LAUNCHER)]
    named.append(("Salt", told["salt"], STATE))
    named.append(("system", max(0, told["disk"] - sum(size for _, size, _ in named)), "rest"))
    parts, x = [f'<svg viewBox="0 0 {WIDTH} 64" role="img" aria-label="sizes">'], 0.0
    for number, (name, size, kind) in enumerate(named):
        width = WIDTH * size / told["disk"]
        parts.append(f'<rect class="{kind}" x="{x:.1f}" y="4" width="{width:.1f}" height="20"/>')
        at = number * WIDTH / len(named)
        parts.append(f'<rect class="{kind}" x="{at:.0f}" y="40" width="11" height="11" rx="2"/>')
        parts.append(f'<text x="{at + 17:.0f}" y="50">{name}: {size / 1e6:,.0f} MB</text>')
        x += width
    return "".join([*parts, "</svg>"])


def cards(report: Document) -> Iterator[str]:
    """The figures that one looks for first."""
    baked, verified = report["baked"] or {}, report["verified"] or {}
    again = (verified.get("salt") or {}).get("second") or {}
    checks = [check for told in (baked, verified) for check in told.get("checks", [])]
    passed = sum(check["verdict"] == "pass" for check in checks)
    ready = verified.get("boot_to_ready_seconds")
    figures = [
        (clock(report["seconds"]), "minutes in all"),
        (f"{passed} of {len(checks)}", "checks passed"),
        (f"{again.get('changed', '–')}", "changes by another apply"),
        (f"{verified.get('word_error_rate', 1):.1%}", "word error rate"),
        (f"{ready:.1f} s" if ready is not None else "–", "from boot to ready"),
    ]
    return (
        f'<div class="card"><b>{escape(figure)}</b><span class="soft">{what}</span></div>' for figure, what in figures
    )


def heard(report: Document) -> Iterator[tuple[str, str]]:
    """What each machine made of the clip."""
    for title, name in (("on the machine", "baked"), ("on the image", "verified")):
        clip = (report[name] or {}).get("clip") or {}
        if "text" in clip:
            yield title, clip["text"].strip()


def origin(report: Document) -> Iterator[tuple[str, str]]:
    """Where it comes from."""
    yield "model", f"{report['model']['id']} at {report['model']['commit']}"
    yield "source image", f"{report['source_image']['id']} {report['source_image']['name']}"
    yield "payload", report["payload"]["sha256"]
    yield "content hash", report["content_hash"]
    facts = (report["verified"] or report["baked"] or {}).get("facts") or {}
    yield "versions", ", ".join(f"{name} {value}" for name, value in facts.items() if value and name != "root_bytes")


def _checks(report: Document) -> Iterator[str]:
    told = [(report[name] or {}).get("checks", []) for name in ("baked", "verified")]
    verdicts = [{check["name"]: check for check in checks} for checks in told]
    yield "<tr><th>check</th><th>baked</th><th>booted</th><th>detail</th></tr>"
    for name in dict.fromkeys(check["name"] for checks in told for check in checks):
        marks = "".join(_mark(checks.get(name)) for checks in verdicts)
        detail = next(str(checks[name].get("detail", "")) for checks in reversed(verdicts) if name in checks)
        yield f'<tr><td>{escape(name)}</td>{marks}<td class="soft">{escape(_short(detail, 90))}</td></tr>'


def _mark(check: Document | None) -> str:
    if check is None:
        return '<td class="soft">–</td>'
    word = "pass" if check["verdict"] == "pass" else "fail"
    return f'<td class="{word}">{word}</td>'


def _rows(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in pairs)


def _short(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 1] + "…"
