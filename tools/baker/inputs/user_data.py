"""User-data: cloud-init/user-data.yaml with this bake's values in it."""

import base64
import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from baker.errors import UsageError

LIMIT = 16_384  # bytes before base64: EC2's own limit
TEMPLATE = "cloud-init/user-data.yaml"
BOOTSTRAP = "cloud-init/bootstrap.sh"


def render(root: Path, parameters: Mapping[str, Any]) -> str:
    """The user-data for a machine that is to do what `parameters` say; raises UsageError beyond EC2's limit.

    The values enter as base64, a number of seconds and an identifier: none of them can break the YAML around it.
    """
    values = {
        "parameters_gzip_base64": _packed(json.dumps(parameters, sort_keys=True).encode()),
        "bootstrap_gzip_base64": _packed((root / BOOTSTRAP).read_bytes()),
        "deadline_seconds": str(int(parameters["deadline_seconds"])),
    }
    try:
        text = Template((root / TEMPLATE).read_text(encoding="utf-8")).substitute(values)
    except (KeyError, ValueError) as error:
        raise UsageError(f"{TEMPLATE} asks for a value that the launcher does not have: {error}") from None
    size = len(text.encode())
    if size > LIMIT:
        raise UsageError(f"the user-data would be {size:,} bytes; EC2 takes {LIMIT:,}: shorten {BOOTSTRAP}")
    return text


def _packed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, mtime=0)).decode("ascii")
