#!/usr/bin/env python3
"""Feeds this machine's worker from the queue of its fleet, and brings the results back.

    fleet_feeder.py   as transcribe.json says

Exit codes: 0 stopped when asked, or because the machine is to end; 1 a failure, 78 a bad configuration.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from transcribe.api.webhooks import WebhookSender
from transcribe.config import ConfigError, ServiceConfig
from transcribe.feeder.main import run
from transcribe.jobs.store import Store


def call_back(config: ServiceConfig, store: Store) -> Callable[[], None]:
    """Starts to make the callbacks of jobs that are over, where they are switched on; returns what stops that. Raises
    ConfigError."""
    if not config.callbacks.enabled:
        return lambda: None
    secret = config.callbacks.secret_file
    try:
        sender = WebhookSender(store, Path(secret))
    except OSError as error:
        wanted = f"in a fleet the group {config.group} must be able to read it"
        raise ConfigError(f"callbacks.secret_file {secret!r} cannot be read ({error.strerror}): {wanted}") from None
    except ValueError as error:
        raise ConfigError(f"callbacks.secret_file {error}") from None
    sender.start()
    return sender.stop


if __name__ == "__main__":
    sys.exit(run(call_back))
