"""Logs as one line of JSON each, for the journal: never a transcript, a file's name, a key or a client's words."""

import json
import logging
import sys
import time
import traceback
from typing import Any

LOGGER = logging.getLogger("transcribe")


class JsonFormatter(logging.Formatter):
    """One JSON object a record; whatever is in it, it stays one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record with its fields."""
        entry: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1]:
            entry |= _described(record.exc_info[1])
        return json.dumps(entry)


def configure() -> None:
    """Sends every log of the process to standard output in this form."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def event(name: str, **fields: Any) -> None:
    """Logs that something happened."""
    LOGGER.info(name, extra={"fields": fields})


def warning(name: str, **fields: Any) -> None:
    """Logs what an operator should look at."""
    LOGGER.warning(name, extra={"fields": fields})


def failure(name: str, error: BaseException, **fields: Any) -> None:
    """Logs an unexpected exception: where it was raised and its kind, not its message, which may quote a client."""
    LOGGER.error(name, extra={"fields": {**fields, **_described(error)}})


def _described(error: BaseException) -> dict[str, Any]:
    frames = traceback.extract_tb(error.__traceback__)
    codes = {name: getattr(error, name) for name in ("errno", "sqlite_errorname") if hasattr(error, name)}
    where = [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in frames[-8:]]
    return {"exception": type(error).__name__, **codes, "where": where}
