"""The commands, each a few lines over the parts that do the work."""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from baker import target
from baker.aws import dry_run, iam_policy, pricing
from baker.bake import pipeline, report, run, timeline
from baker.bake.attempt import Recording
from baker.bake.plan import make_plan, permitted
from baker.bake.report import BakeOutcome
from baker.bake.steps import BakeOptions
from baker.commands import recover, tables
from baker.context import BakeContext, open_context
from baker.display.progress import Display, events_to, open_console
from baker.doctor import examination, finding
from baker.errors import AwsError, KeptError, UsageError

LANGUAGE = re.compile(r"[a-z]{2,3}")


def plan(root: Path, options: argparse.Namespace) -> int:
    """Print what a bake would do, or what it must be allowed to do."""
    console = open_console()
    with target.planning_config(root, options.cloud, options.config) as config:
        if options.policy:
            if options.policy != iam_policy.LAUNCHER and not config.fleet.queue:
                raise UsageError("there is no fleet: name its queue in [fleet] queue")
            print(json.dumps(iam_policy.document(config, iam_policy.calls_of(options.policy)), indent=1))
            return 0
        context = open_context(root, config, Display(console))
        made = make_plan(context)
        results = permitted(context, made)
        findings = list(examination.free(context))
        cost = pricing.bound(config, context.prices.hourly(config), run.ATTEMPTS)
    rows = {
        "cloud": target.describe(config),
        "machine": ", ".join(map(str, made.places)),
        "deadline": f"{config.bake.deadline_minutes} minutes after its launch no machine is left",
        "costs at most": cost,
    }
    if config.instance.initialization_rate:
        rows["disk of an image"] = f"fetched at {config.instance.initialization_rate} MiB/s, for which EBS charges"
    tables.print_plan(console, made, rows)
    tables.print_permissions(console, results)
    tables.print_findings(console, findings)
    dry_run.require(results)
    finding.require(findings)
    return 0


def bake(root: Path, options: argparse.Namespace) -> int:
    """Make an image where the configuration says."""
    return _bake(root, options, _bake_options(options))


def rehearse(root: Path, options: argparse.Namespace) -> int:
    """Make an image on this computer, by the very same flow."""
    _need_root("rehearse boots real machines")
    return _bake(root, options, _bake_options(options))


def shell(root: Path, options: argparse.Namespace) -> int:
    """Run a command in a machine started from an image of the local cloud; its exit code is the command's."""
    _need_root("shell boots a real machine")
    return target.shell(root, options.image, options.argv or ["/bin/bash", "-l"], disk=options.disk)


def _bake(root: Path, options: argparse.Namespace, chosen: BakeOptions) -> int:
    display = _display(options)
    config = target.bake_config(root, options, display)
    context = open_context(root, config, display)
    return _run_and_report(context, options, lambda: pipeline.bake(context, chosen))


def resume(root: Path, options: argparse.Namespace) -> int:
    """Continue a bake whose launcher died."""
    display = _display(options)
    context = open_context(root, target.bake_config(root, options, display), display)
    name = recover.chosen(context, options.bake)
    return _run_and_report(context, options, lambda: pipeline.resume(context, name))


def _display(options: argparse.Namespace) -> Display:
    """For a person; or events on standard output for a program, and what a person reads on standard error."""
    if options.events:
        return Display(open_console(errors=True), emit=events_to(sys.stdout))
    return Display()


def _run_and_report(context: BakeContext, options: argparse.Namespace, work: Callable[[], BakeOutcome]) -> int:
    """Run a bake and report on it; if a machine is kept, say how to get into it."""
    try:
        return _report(context, work())
    except KeptError as error:
        context.display.note(target.access_hint(options.cloud, context.config, error.machine))
        raise


def _report(context: BakeContext, outcome: BakeOutcome) -> int:
    """Save the report of a bake, and print it."""
    root, config, display = context.root, context.config, context.display
    made = report.document(outcome, display.phases)
    key = report.key_of(config.s3.prefix, outcome.bake)
    if outcome.baked is None:
        made = report.completed(made, report.load(context.bucket, key) or report.read(root / report.FILE))
    try:
        report.save(root / report.FILE, context.bucket, key, made)
        if outcome.baked is not None:
            report.save_timeline(root, context.bucket, config.s3.prefix, made)
    except AwsError as error:  # the image is what it is
        display.note(f"the report is only in {report.FILE}: {error}", "yellow")
    tables.print_report(display.console, made)
    drawn = f", {timeline.FILE}; logs: {run.logs_of(context, outcome.bake)}" if outcome.baked is not None else ""
    display.note(f"  report: {report.FILE}{drawn}", "dim")
    return 0


def _bake_options(options: argparse.Namespace) -> BakeOptions:
    """The options of a bake, checked before anything is started."""
    if options.audio is None:
        if options.language:
            raise UsageError("--language says what language --audio is in; name a file with --audio")
        return BakeOptions(force=options.force, keep=options.keep)
    if not options.audio.is_file():
        raise UsageError(f"--audio {options.audio}: there is no such file")
    if options.language and not LANGUAGE.fullmatch(options.language):
        raise UsageError(f"--language {options.language!r}: must be a code such as sv or en")
    recording = Recording(options.audio, options.language or "")
    return BakeOptions(force=options.force, recording=recording, keep=options.keep)


def _need_root(why: str) -> None:
    if os.geteuid() != 0:
        raise UsageError(f"{why}, which needs root: run it with sudo")
