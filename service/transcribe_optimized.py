#!/usr/bin/env python3
"""Transcribes a recording, or serves as the inference process behind the API.

    transcribe_optimized.py FILE [--language sv] [--format txt,srt]   text on standard output, files in results/
    transcribe_optimized.py FILE --known-speaker Anna=anna.wav        speakers told apart, known ones by their names
    transcribe_optimized.py FILE --record RECORD                      a signed record of the result as well
    transcribe_optimized.py --worker                                  take jobs from the store until stopped
    transcribe_optimized.py verify RECORD AUDIO [--key KEY]           check a result's signed record; needs no model

Exit codes: 0 done, 1 the recording cannot be used or a record is not good, 2 usage, 70 a failure, 75 another worker
runs, 78 a bad configuration or model.
"""

import argparse
import sys
from pathlib import Path

from transcribe.config import load_or_exit
from transcribe.worker import main as startup

FORMATS = ("txt", "json", "verbose_json", "diarized_json", "srt", "vtt", "tsv", "docx")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Transcribe a recording of any length and format.")
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE")
    parser.add_argument("--worker", action="store_true", help="take jobs from the API's store until stopped")
    parser.add_argument("--language", help="code, name or locale; 'auto' detects it (default: the configured one)")
    parser.add_argument("--languages", default="", metavar="L[,L]", help="those that it may be in")
    parser.add_argument("--multilingual", action="store_true", help="each part in its own language (of --languages)")
    parser.add_argument("--task", choices=("transcribe", "translate"), help="default: the configured one")
    parser.add_argument("--prompt", default="", help="text that the recording continues, or names as they are spelled")
    parser.add_argument("--hotwords", default="", metavar="W[,W]", help="names and terms, for their spelling")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="N", help="0 (default) to 1: how random")
    parser.add_argument("--format", default="txt", metavar="F[,F]", help=f"of {', '.join(FORMATS)} (default: txt)")
    parser.add_argument("--words", action="store_true", help="times and probabilities of words as well (verbose_json)")
    parser.add_argument("--logprobs", action="store_true", help="how sure the model was of each token (json)")
    _add_hearing(parser)
    _add_subtitles(parser)
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to write (default: results/ below the root)")
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="write the signed record of the result, for verify; this machine's key signs it, which is machine-key in"
        " results/, made if there is none",
    )
    options = parser.parse_args(arguments)
    if bool(options.file) == options.worker:
        parser.error("name a FILE, or say --worker")
    options.formats = list(dict.fromkeys(name.strip() for name in options.format.split(",")))
    if unknown := [name for name in options.formats if name not in FORMATS]:
        parser.error(f"unknown format {unknown[0]!r}: choose of {', '.join(FORMATS)}")
    return options


def _add_hearing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--channels",
        default="mix",
        choices=("mix", "separate", "auto"),
        help="hear them as one, each by itself with its number as speaker, or so where each has its own voice",
    )
    parser.add_argument("--audio-stream", default="", metavar="S", help="of several: its number, title or language")
    group = parser.add_argument_group("speakers", "each of these asks for them")
    group.add_argument("--speakers", action="store_true", help="tell speakers apart, and say who speaks")
    group.add_argument("--min-speakers", type=int, metavar="N", help="at least so many speak")
    group.add_argument("--max-speakers", type=int, metavar="N", help="at most so many speak")
    group.add_argument(
        "--known-speaker",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="call the one whose voice is in FILE so, which has 2 to 10 s of it; may be given again for others",
    )


def _add_subtitles(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("subtitles", "of srt and vtt")
    group.add_argument("--subtitles", choices=("readable", "raw"), default="readable", help="raw: a segment each")
    group.add_argument("--max_line_width", type=int, default=42, metavar="N", help="characters a line (default: 42)")
    group.add_argument("--max_line_count", type=int, default=2, metavar="N", help="lines (default: 2)")
    group.add_argument("--max_cps", type=float, default=17.0, metavar="N", help="characters a second (default: 17)")
    group.add_argument("--highlight_words", action="store_true", help="the time of each word as well (vtt)")


def main(arguments: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["verify"]:
        from transcribe import verifying

        return verifying.run(given[1:])
    options = parse(given)
    config = load_or_exit("transcribe_optimized", working=True)
    if options.worker:
        return startup.work(config)
    from transcribe import cli

    return cli.run(config, options)


if __name__ == "__main__":
    raise SystemExit(main())
