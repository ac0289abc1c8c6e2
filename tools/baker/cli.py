"""The command line. Exit codes: 0 ok, 1 failed, 2 wrong usage or configuration."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from localcloud import BASES, DEFAULT_BASE
from rich.console import Console

from baker import interrupts, target
from baker.aws import iam_policy
from baker.commands import bake, doctor, fleet, images, keys, recover
from baker.display.literal import literal
from baker.display.progress import Event, events_to
from baker.errors import BakeError, Interrupted, UsageError
from baker.images import catalog

ROOT = Path(__file__).resolve().parent.parent.parent
OK, FAILED, USAGE = 0, 1, 2
# What became of what an interrupted command was at.
NOTHING, AGAIN = "nothing was made", "running the same command again continues it"


def main(arguments: Sequence[str]) -> int:
    """Run one command; every way it can end is one line and an exit code."""
    options = parse(arguments)
    try:
        code, reason = _run(options)
        if reason:
            errors = Console(stderr=True, highlight=False, soft_wrap=True)
            errors.print(literal("bake:", "bold red"), literal(reason))
        if options.events:
            events_to(sys.stdout)(Event.END, exit_code=code, reason=reason)
    except BrokenPipeError:
        sys.stderr.close()
        return FAILED
    return code


def _run(options: argparse.Namespace) -> tuple[int, str]:
    """Run a command; returns its exit code, and why it failed."""
    try:
        with interrupts.raised():
            return options.run(ROOT, options), ""
    except UsageError as error:
        return USAGE, str(error)
    except BakeError as error:
        return FAILED, str(error)
    except Interrupted as error:
        return FAILED, f"interrupted by {error}; {options.after}"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line; what follows `--` is a command for `shell`, untouched."""
    own = list(arguments)
    command = own[own.index("--") + 1 :] if "--" in own else []
    if "--" in own:
        own = own[: own.index("--")]
    options = parser().parse_args(own)
    if command and options.command != "shell":
        parser().error("only shell takes a command after --")
    options.argv = command
    return options


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(prog="bake.py", description="Bake a verified speech-to-text machine image.")
    top.set_defaults(run=None, base=DEFAULT_BASE, events=False, after="what the bake had made is gone")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    _plan(commands)
    _doctor(commands)
    bake_ = commands.add_parser("bake", help="make an image, boot it, and mark it as verified")
    _where(bake_)
    _bake_options(bake_)
    bake_.set_defaults(run=bake.bake, model="", listen_for="en")

    _image_commands(commands)

    rehearse = commands.add_parser("rehearse", help="the same on this computer, with real machines (root)")
    rehearse.add_argument("--model", metavar="ID", default="", help="a model of the real hub instead of the small one")
    rehearse.add_argument("--listen-for", choices=("en", "sv"), default="en", help="default: en; the pillar says sv")
    rehearse.add_argument(
        "--base", choices=tuple(BASES), default=DEFAULT_BASE, help=f"the system; default: {DEFAULT_BASE}"
    )
    rehearse.add_argument("--config", metavar="FILE", type=Path, help="sections of bake.toml, over the local cloud's")
    _bake_options(rehearse)
    rehearse.set_defaults(run=bake.rehearse, cloud=target.LOCAL)

    _recovery_commands(commands)
    _fleet_commands(commands)

    shell = commands.add_parser(
        "shell",
        help="run a command in a machine started from an image, or in one that runs (local cloud)",
        usage="bake.py shell [-h] [--disk] IMAGE [-- CMD ...]",
    )
    shell.add_argument("image", metavar="IMAGE", help="an image's id, \"latest\", or a machine's id")
    shell.add_argument("--disk", action="store_true", help="only enter the image's disk; boot nothing")
    shell.set_defaults(run=bake.shell, cloud=target.LOCAL)
    return top


def _plan(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    plan = commands.add_parser("plan", help="say what a bake would do; creates nothing")
    _where(plan)
    plan.add_argument(
        "--policy",
        nargs="?",
        const=iam_policy.LAUNCHER,
        choices=iam_policy.ROLES,
        help="only print an IAM policy; default: the launcher's; it needs `roll` for a roll-out, `queues` for a fleet",
    )
    plan.set_defaults(run=bake.plan, after=NOTHING)


def _publishing(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Which image is launched."""
    publish = commands.add_parser("publish", help="copy and share an image, and make it the one that is launched")
    publish.add_argument(
        "image", metavar="IMAGE", nargs="?", default=catalog.LATEST, help="an image's id or name; default: latest"
    )
    publish.add_argument(
        "--roll", metavar="GROUP", nargs="?", const="", help="let it replace a group's machines, after one canary"
    )
    publish.set_defaults(run=images.publish)

    rollback = commands.add_parser("rollback", help="publish again what was published before")
    rollback.add_argument("group", metavar="GROUP", nargs="?", help="let it replace this group's machines as well")
    rollback.set_defaults(run=images.rollback)
    for command in (publish, rollback):
        _where(command)
        command.set_defaults(model="", listen_for="en", after=AGAIN)


def _image_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """What is done with images that exist."""
    list_ = commands.add_parser("list", help="every image, and who needs it")
    list_.add_argument("--json", action="store_true", help="for programs")
    list_.set_defaults(run=images.list_images)
    _publishing(commands)

    prune = commands.add_parser("prune", help="remove old images that are not needed; without --yes only list them")
    prune.add_argument("--keep", metavar="N", type=int, help="how many of the newest stay; default: [publish] keep")
    prune.add_argument("--yes", action="store_true", help="remove them")
    prune.set_defaults(run=images.prune)

    diff = commands.add_parser("diff", help="what separates two images")
    diff.add_argument("a", metavar="A", help="an image's id or name, latest, or published")
    diff.add_argument("b", metavar="B", nargs="?", default=catalog.LATEST, help="likewise; default: latest")
    diff.add_argument("--json", action="store_true", help="for programs")
    diff.set_defaults(run=images.diff)

    launch = commands.add_parser("launch", help="start what serves from the published image")
    launch.add_argument("--group", action="store_true", help="an Auto Scaling group behind a target group")
    launch.add_argument("--keys", metavar="FILE", type=Path, help="lines of bake.py new-key")
    launch.add_argument("--wait", action="store_true", help="until every machine is ready and accepts its keys")
    launch.add_argument("--end", action="store_true", help="end and remove all that was launched under the name")
    launch.set_defaults(run=images.launch)

    new_key = commands.add_parser("new-key", help="print a new API key, and its line for the keys file")
    new_key.add_argument("name", metavar="NAME", help="whose key it is")
    new_key.set_defaults(run=keys.new_key)

    for command in (list_, prune, diff, launch):
        _where(command)
        command.set_defaults(model="", listen_for="en", after=AGAIN)
    launch.set_defaults(after="`bake.py launch --end` removes what it had begun")


def _doctor(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("doctor", help="prove an account before its first bake, and say what to mend")
    _where(command)
    command.add_argument("--machine", action="store_true", help="also start one small machine that looks and ends")
    command.add_argument("--json", action="store_true", help="for a bug report")
    command.set_defaults(run=doctor.doctor, model="", listen_for="en", after="what it had made is gone")


def _recovery_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Commands for bakes whose launcher is gone."""
    status = commands.add_parser("status", help="show the newest bakes and what exists of them")
    status.add_argument("--json", action="store_true", help="as JSON")
    status.set_defaults(run=recover.status)

    resume = commands.add_parser("resume", help="continue a bake whose launcher died")
    resume.add_argument("bake", metavar="BAKE", nargs="?", default="", help="default: the one that is not finished")
    _events(resume)
    resume.set_defaults(run=bake.resume)

    reap = commands.add_parser("reap", help="show what is left of bakes past their deadline; --yes removes it")
    reap.add_argument("--bake", metavar="BAKE", default="", help="of this bake, whatever its deadline")
    reap.add_argument("--yes", action="store_true", help="remove it")
    reap.set_defaults(run=recover.reap)
    for command in (status, resume, reap):
        _where(command)
        command.set_defaults(model="", listen_for="en")
    status.set_defaults(after=NOTHING)
    reap.set_defaults(after=AGAIN)


def _fleet_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """What is done with jobs of the fleet."""
    submit = commands.add_parser("submit", help="send recordings to the fleet; nothing is sent twice")
    submit.add_argument("what", metavar="WHAT", nargs="+", help="files, folders, or s3://BUCKET/PREFIX")
    submit.add_argument("--language", metavar="CODE", help="of the recordings; default: the machines'")
    submit.add_argument("--languages", metavar="L[,L]", default="", help="those that they may be in")
    submit.add_argument("--multilingual", action="store_true", help="each part in its own language (of --languages)")
    submit.add_argument("--speakers", action="store_true", help="tell speakers apart, as --format diarized_json does")
    submit.add_argument("--min-speakers", metavar="N", type=int, help="at least so many speak")
    submit.add_argument("--max-speakers", metavar="N", type=int, help="at most so many speak")
    submit.add_argument(
        "--channels",
        default="mix",
        choices=("mix", "separate", "auto"),
        help="hear them as one, each by itself, or so where each has its own voice",
    )
    submit.add_argument(
        "--format", metavar="FORMAT", default="json", help="what GET …/result gives by itself; default: json"
    )
    submit.add_argument("--priority", action="store_true", help="before everything that is not")
    submit.add_argument("--again", action="store_true", help="also what has failed, was cancelled or given up before")
    submit.add_argument("--yes", action="store_true", help="however much it is")
    submit.set_defaults(run=fleet.submit)

    jobs = commands.add_parser("jobs", help="show the fleet's jobs, and what they cost")
    jobs.add_argument("--watch", action="store_true", help="until all are over")
    jobs.add_argument("--dead", action="store_true", help="only those that were given up, and why")
    jobs.add_argument("--redrive", metavar="JOB", help="try one of those again; `all`: each of them")
    jobs.add_argument("--cancel", metavar="JOB", help="end one that is not over")
    jobs.add_argument("--json", action="store_true", help="for programs")
    jobs.add_argument("--ledger", metavar="FILE", type=Path, help="write a page: machines, queue, speed and cost")
    jobs.add_argument("--last-hours", metavar="N", type=float, help="of the ledger: jobs sent in the last N hours")
    jobs.set_defaults(run=fleet.jobs)
    for command in (submit, jobs):
        _where(command)
        command.set_defaults(model="", listen_for="en", after=AGAIN)


def _where(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", metavar="FILE", type=Path, help="instead of bake.toml")
    command.add_argument("--cloud", choices=(target.AWS, target.LOCAL), default=target.AWS, help="default: aws")


def _bake_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--force", action="store_true", help="bake even if nothing has changed")
    command.add_argument("--keep", action="store_true", help="leave a machine that fails until its deadline")
    command.add_argument("--audio", metavar="FILE", type=Path, help="a recording to transcribe on the finished image")
    command.add_argument("--language", metavar="CODE", help="the recording's; default: the model's")
    _events(command)


def _events(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--json", dest="events", action="store_true", help="events for programs, one JSON object a line"
    )
