"""The command about API keys: new-key."""

import argparse
from pathlib import Path

from transcribe import keys

from baker.errors import UsageError


def new_key(root: Path, options: argparse.Namespace) -> int:
    """Print a new API key, for its client, and its line, for the keys file; neither is kept."""
    try:
        print(keys.printed(options.name))
    except ValueError as error:
        raise UsageError(f"{options.name!r}: {error}") from None
    return 0
