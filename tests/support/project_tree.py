"""A small source tree that the launcher accepts, for its tests."""

import json
from pathlib import Path

from baker.inputs.source_tree import REQUIRED

PROJECT = Path(__file__).resolve().parents[2]
REFERENCE = "And Mr. John Dashwood had then leisure to consider how much there might be"

PILLAR = {
    "transcribe": {
        "root": "/opt/transcribe",
        "host": "127.0.0.1",
        "port": 8000,
        "auth": {"keys_file": ""},
        "model": {
            "id": "example/small",
            "revision": "0123456789abcdef0123456789abcdef01234567",
            "endpoint": "https://hub.example",
            "language": "en",
        },
        "batch": {"max_chunks": "auto"},
        "install": {"lock": "auto"},
        "verify": {"clip": "verify.flac", "language": "en", "reference": "verify.txt", "max_word_error_rate": 0.3},
    }
}
USER_DATA = """#cloud-config
# ${deadline_seconds}
write_files:
- path: /run/transcribe-bake/parameters.json
  encoding: gz+b64
  content: ${parameters_gzip_base64}
- path: /run/transcribe-bake/bootstrap.sh
  encoding: gz+b64
  content: ${bootstrap_gzip_base64}
"""


def make_tree(root: Path) -> Path:
    """Write the tree under `root`; it is not a git work tree."""
    for name in REQUIRED:
        write(root / name, f"# {name}\n")
    write(root / "cloud-init/user-data.yaml", USER_DATA)
    write(root / "salt/pillar/transcribe.sls", json.dumps(PILLAR))
    write(root / "salt/states/layout.sls", "layout: test.nop\n")
    write(root / "service/clips/verify.flac", "sound")
    write(root / "service/clips/verify.txt", REFERENCE + "\n")
    write(root / "tools/bake.py", "# launcher\n")
    write(root / "tools/baker/cli.py", "# launcher\n")
    return root


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
