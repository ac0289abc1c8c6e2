#!/usr/bin/env python3
"""The HTTP service: takes recordings, hands them to the worker through the job store, and serves their text.

    api_server.py                  serve, as transcribe.json says
    api_server.py --new-key NAME   print a new API key, and the line for the keys file

Exit codes: 0 stopped when asked, 1 a failure, 2 usage, 78 a bad configuration.
"""

import argparse
import ipaddress
import os
import sys
import tempfile

from transcribe import logs
from transcribe.api import auth
from transcribe.api.main import serve
from transcribe.config import Config, ConfigError, default_path, load
from transcribe.jobs.store import StoreError

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Serve speech to text over HTTP.")
    parser.add_argument("--new-key", metavar="NAME", help="print a new API key and its line for the keys file")
    return parser.parse_args(arguments)


def check(config: Config) -> None:
    """Refuses to be open to a network. Raises ConfigError."""
    if not config.auth.keys_file and not is_loopback(config.host):
        raise ConfigError(f"host {config.host} can be reached from a network: set auth.keys_file, or host to 127.0.0.1")
    for name in (config.auth.keys_file, config.callbacks.secret_file if config.callbacks.enabled else ""):
        if name and not os.access(name, os.R_OK):
            raise ConfigError(f"{name} cannot be read: create it, readable for {config.user}")
    if config.callbacks.enabled and not config.callbacks.secret_file:
        raise ConfigError("callbacks.enabled needs callbacks.secret_file")


def is_loopback(host: str) -> bool:
    """Only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def main(arguments: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    options = parse(arguments)
    try:
        if options.new_key is not None:
            key, line = auth.new_key(options.new_key)
            print(f"key:  {key}\nline: {line}")
            return 0
        config = load(default_path())
        check(config)
        for folder in (config.temp, config.results):
            folder.mkdir(parents=True, exist_ok=True)
        tempfile.tempdir = str(config.temp)  # waitress keeps large requests in nameless files there
        logs.configure()
        serve(config)
    except ConfigError as error:
        print(f"api_server: {error}", file=sys.stderr)
        return EXIT_CONFIG
    except ValueError as error:
        print(f"api_server: {error}", file=sys.stderr)
        return EXIT_USAGE
    except (StoreError, OSError) as error:
        print(f"api_server: {error}", file=sys.stderr)
        return EXIT_FAILURE
    return 0


if __name__ == "__main__":
    sys.exit(main())
