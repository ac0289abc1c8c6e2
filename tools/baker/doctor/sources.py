"""The sources of a bake's packages and model, as this computer reaches them."""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

from baker.context import BakeContext
from baker.doctor.finding import NOTE, OK, Finding
from baker.inputs import model_hub

TIMEOUT = 10.0  # seconds for one address
PIP_DEFAULT = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"  # pip has no command for it


def hub(context: BakeContext, model: Mapping[str, Any]) -> Iterator[Finding]:
    """The model hub knows the model."""
    address = context.config.hub.endpoint_url or str(model["endpoint"])
    commit = model_hub.resolve(address, str(model["id"]), str(model["revision"]))
    yield Finding("model hub", OK, f"{model['id']} at {commit[:12]}")


def packages() -> Iterator[Finding]:
    """pip's index, as pip is configured here; a machine has its own way to it."""
    address = _index()
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT):
            yield Finding("package index", OK, "answers")
    except urllib.error.HTTPError as error:
        error.close()
        yield Finding("package index", OK if error.code < 500 else NOTE, f"answers {error.code}")
    except (OSError, ValueError) as error:
        detail = f"does not answer from here: {getattr(error, 'reason', error)}"
        yield Finding("package index", NOTE, detail, "`bake.py doctor --machine` looks from where a machine is")


def _index() -> str:
    named = os.environ.get("PIP_INDEX_URL", "")
    if named:
        return named
    for question in (["-m", "pip", "config", "get", "global.index-url"], ["-c", PIP_DEFAULT]):
        done = subprocess.run([sys.executable, *question], check=False, capture_output=True, text=True)
        if answer := done.stdout.strip():
            return answer
    return ""
