#!/usr/bin/env python3
"""The HTTP service: takes recordings, hands them to the worker through the job store, and serves their text.

    api_server.py                  serve, as transcribe.json says
    api_server.py --new-key NAME   print a new API key, and the line for the keys file

Exit codes: 0 stopped when asked, 1 a failure, 2 usage, 78 a bad configuration.
"""

import argparse
import sys

from transcribe import keys

EXIT_USAGE = 2


def main(arguments: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(description="Serve speech to text over HTTP.")
    parser.add_argument("--new-key", metavar="NAME", help="print a new API key and its line for the keys file")
    options = parser.parse_args(arguments)
    if options.new_key is None:
        from transcribe.api.main import run  # a key can be made where the server's packages are not installed

        return run()
    try:
        print(keys.printed(options.new_key))
    except ValueError as error:
        print(f"api_server: {error}", file=sys.stderr)
        return EXIT_USAGE
    return 0


if __name__ == "__main__":
    sys.exit(main())
