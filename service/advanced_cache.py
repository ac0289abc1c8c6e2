#!/usr/bin/env python3
"""Puts the configured model into the cache, warms it and describes it in cache_info.json.

    advanced_cache.py           bring the cache up to date; writes nothing if it already is
    advanced_cache.py --check   check the cache without using the network (exit 0 or 1)
    advanced_cache.py --anew    prepare weights and kernels again, for the processor or GPU that is here now

Exit codes: 0 up to date, 1 the download failed or the check found a problem, 2 usage, 78 a bad configuration.
"""

import argparse
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [
    str(HERE / "scripts"),
    str(HERE),
]  # the package is in scripts/ when installed, beside this file in a checkout

import msgspec  # noqa: E402
from transcribe.config import ServiceConfig, load_or_exit  # noqa: E402
from transcribe.model_cache import cache_info, fetch  # noqa: E402

EXIT_WRONG = 1


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Download, warm and describe the configured model.")
    parser.add_argument("--check", action="store_true", help="only check the cache, without the network")
    parser.add_argument("--quick", action="store_true", help="with --check: compare sizes, not digests")
    parser.add_argument("--anew", action="store_true", help="prepare the model again, for this processor or GPU")
    parser.add_argument("--json", action="store_true", help="print the update as one JSON object")
    return parser.parse_args(arguments)


def check(config: ServiceConfig, options: argparse.Namespace) -> int:
    """Prints one line: what is cached, or what is wrong and how to fix it."""
    wrong = fetch.find_problem(config, hashes=not options.quick)
    if options.json:
        print(json.dumps({"ok": not wrong, "reason": wrong}))
    elif wrong:
        print(f"advanced_cache: {wrong}", file=sys.stderr)
    else:
        print(summary(cache_info.read(config.cache_info)))
    return EXIT_WRONG if wrong else 0


def ensure(config: ServiceConfig, options: argparse.Namespace) -> int:
    """Brings the cache up to date and prints what was done."""
    try:
        update = fetch.ensure(config, anew=options.anew)
    except (fetch.DownloadError, OSError) as error:
        print(f"advanced_cache: {error}", file=sys.stderr)
        return EXIT_WRONG
    if update.info.warmup_error:
        print(f"advanced_cache: warning: the warm-up failed: {update.info.warmup_error}", file=sys.stderr)
    if options.json:
        outcome = {"changed": update.changed, "reason": update.reason, "warmup_error": update.info.warmup_error}
        print(json.dumps({**outcome, **msgspec.to_builtins(update.info)}))
    else:
        print(f"{summary(update.info)}, {'written' if update.changed else 'nothing to do'}")
    return 0


def summary(info: cache_info.CacheInfo) -> str:
    """One line about a usable cache."""
    size = sum(file.bytes for file in info.files.values())
    kernels = "kernels stored" if info.kernels_compiled else "no kernels stored"
    return (
        f"{info.model_id} at {info.model_revision[:12]}: {len(info.files)} files, {size / 1e6:.0f} MB, "
        f"{info.device} {info.torch_dtype}, {kernels}"
    )


def main(arguments: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    options = parse(arguments)
    config = load_or_exit("advanced_cache")
    return check(config, options) if options.check else ensure(config, options)


if __name__ == "__main__":
    raise SystemExit(main())
