"""The page of a bake: its phases and states as bars, sizes and checks. One file that fetches nothing."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from baker.display.estimates import INSIDE

FILE = "bake-timeline.html"
LAUNCHER, MACHINE, STATE = "launcher", "machine", "state"  # whose time it is: CSS classes of the bars
APPLIES = {"first apply": "first"}  # phases of a machine whose states are shown
SHOWN_SECONDS = 0.5  # shorter states are counted, not drawn
WIDTH, LEFT, RIGHT, ROW = 1080, 250, 70, 20  # pixels of the chart
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


@dataclass(frozen=True)
class CheckRow:
    """One check on the baked and on the booted machine ("pass", "fail", or "" if it was not made), with its detail."""

    name: str
    verdicts: tuple[str, ...]
    detail: str


def html(report: Document) -> str:
    """The page of a report."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["clock"] = clock
    drawn = list(bars(report))
    total = max((bar.began + bar.seconds for bar in drawn), default=1.0) or 1.0
    return environment.get_template("timeline.html").render(
        report=report,
        cards=list(cards(report)),
        bars=drawn,
        ticks=_ticks(total),
        scale=(WIDTH - LEFT - RIGHT) / total,
        geometry={"width": WIDTH, "left": LEFT, "row": ROW},
        sizes=sizes((report["baked"] or {}).get("bytes") or {}),
        transcripts=[("read", report["reference"]), *transcripts(report)],
        checks=check_rows([report["baked"] or {}, report["verified"] or {}]),
        origin=list(origin(report)),
    )


def bars(report: Document) -> Iterator[Bar]:
    """Every phase in order, each followed by what happened inside it."""
    began = 0.0
    for phase in report["phases"]:
        yield Bar(phase["name"], LAUNCHER, began, phase["seconds"])
        machine = report.get(INSIDE.get(phase["name"], ""))
        if machine:
            yield from _inside(machine, began, began + phase["seconds"])
        began += phase["seconds"]


def _inside(machine: Document, launched: float, ended: float) -> Iterator[Bar]:
    """The phases in a machine's report, which was received as soon as the last of them had ended."""
    phases = machine["phases"]
    began = max(launched, ended - sum(phase["seconds"] for phase in phases))
    yield Bar("boot, cloud-init", MACHINE, launched, began - launched)
    for phase in phases:
        yield Bar(phase["name"], MACHINE, began, phase["seconds"])
        applied = (machine.get("salt") or {}).get(APPLIES.get(phase["name"], "")) or {}
        yield from _states(applied.get("results", []), began, phase["seconds"])
        began += phase["seconds"]


def _states(results: Sequence[Document], began: float, seconds: float) -> Iterator[Bar]:
    """The states that took long. salt-call itself needs a moment before the first one."""
    span = max((result.get("began", 0) + result["seconds"] for result in results), default=0.0)
    start = began + max(0.0, seconds - span)
    long = [result for result in results if result["seconds"] >= SHOWN_SECONDS]
    for result in long:
        yield Bar(result["id"], STATE, start + result.get("began", 0), result["seconds"])
    if results:
        short = [result["seconds"] for result in results if result not in long]
        yield Bar(f"{len(short)} more states", STATE, start, sum(short))


def _ticks(total: float) -> Iterable[int]:
    """Round times, at most twelve."""
    step = next(step for step in (1, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600) if total / step <= 12)
    return range(0, int(total) + 1, step)


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def sizes(found: Mapping[str, int]) -> list[tuple[str, int, str]]:
    """Name, bytes and CSS class of what is on the disk; empty if the machine did not report it."""
    if not found.get("disk"):
        return []
    named = [("packages of the service", found["venv"], MACHINE), ("model", found["models"], LAUNCHER)]
    named.append(("Salt", found["salt"], STATE))
    return [*named, ("system", max(0, found["disk"] - sum(size for _, size, _ in named)), "rest")]


def cards(report: Document) -> Iterator[tuple[str, str]]:
    """The figures that one looks for first, each with what it is."""
    baked, verified = report["baked"] or {}, report["verified"] or {}
    again = (verified.get("salt") or {}).get("second") or {}
    checks = [check for machine in (baked, verified) for check in machine.get("checks", [])]
    passed = sum(check["verdict"] == "pass" for check in checks)
    ready = verified.get("boot_to_ready_seconds")
    yield clock(report["seconds"]), "minutes in all"
    yield f"{passed} of {len(checks)}", "checks passed"
    yield f"{again.get('changed', '–')}", "changes by another apply"
    yield f"{verified.get('word_error_rate', 1):.1%}", "word error rate"
    yield f"{ready:.1f} s" if ready is not None else "–", "from boot to ready"


def transcripts(report: Document) -> Iterator[tuple[str, str]]:
    """Each machine's transcript of the clip."""
    for title, name in (("on the machine", "baked"), ("on the image", "verified")):
        clip = (report[name] or {}).get("clip") or {}
        if "text" in clip:
            yield title, clip["text"].strip()


def origin(report: Document) -> Iterator[tuple[str, str]]:
    """What the image was made from."""
    yield "model", f"{report['model']['id']} at {report['model']['commit']}"
    yield "source image", f"{report['source_image']['id']} {report['source_image']['name']}"
    yield "payload", report["payload"]["sha256"]
    yield "content hash", report["content_hash"]
    facts = (report["verified"] or report["baked"] or {}).get("facts") or {}
    yield "versions", ", ".join(f"{name} {value}" for name, value in facts.items() if value and name != "root_bytes")


def check_rows(machines: Sequence[Document]) -> list[CheckRow]:
    """Every check of these machines' reports, with the last machine's detail."""
    by_name = [{check["name"]: check for check in machine.get("checks", [])} for machine in machines]
    rows = []
    for name in dict.fromkeys(name for checks in by_name for name in checks):
        verdicts = tuple(_verdict(checks.get(name)) for checks in by_name)
        detail = next(str(checks[name].get("detail", "")) for checks in reversed(by_name) if name in checks)
        rows.append(CheckRow(name, verdicts, detail))
    return rows


def _verdict(check: Document | None) -> str:
    if check is None:
        return ""
    return "pass" if check["verdict"] == "pass" else "fail"
