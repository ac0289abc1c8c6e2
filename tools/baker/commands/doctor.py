"""The command that proves an account before the first bake."""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from baker import target
from baker.bake import look
from baker.commands import tables
from baker.config import LauncherConfig
from baker.context import open_context
from baker.display.progress import Display, open_console
from baker.doctor import examination
from baker.doctor.finding import FAILS, Finding
from baker.errors import BakeError


def doctor(root: Path, options: argparse.Namespace) -> int:
    """Examine the account; with --machine also one small machine in it. Fails if a row fails."""
    display = Display(open_console(errors=options.json))
    with _config(root, options, display) as config:
        context = open_context(root, config, display)
        with display.phase("examine the account"):
            findings = list(examination.whole(context))
        if options.machine:
            display.note(look.cost(context))
            findings += look.at_a_machine(context)
    if options.json:
        print(json.dumps(document(target.describe(config), findings), indent=1))
    else:
        tables.print_findings(display.console, findings)
    failing = [finding.name for finding in findings if finding.verdict == FAILS]
    if failing:
        raise BakeError(f"{len(failing)} of {len(findings)} rows fail: {', '.join(failing)}")
    return 0


@contextmanager
def _config(root: Path, options: argparse.Namespace, display: Display) -> Iterator[LauncherConfig]:
    """Where to look: only a machine needs the local cloud to run, and root."""
    if options.machine:
        yield target.bake_config(root, options, display)
        return
    with target.planning_config(root, options.cloud, options.config) as config:
        yield config


def document(where: str, findings: list[Finding]) -> dict[str, object]:
    """What a bug report needs, as JSON's own types."""
    return {"schema": 1, "where": where, "findings": [asdict(finding) for finding in findings]}
