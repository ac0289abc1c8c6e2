"""OpenAI's JavaScript client and other packages as npm delivers them, and a web server for a browser."""

import hashlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "npm"


def installed(name: str = "openai_js") -> Path:
    """A copy of the folder of that name, with its locked package, which npm has checked; made once for each lock."""
    declared = Path(__file__).parent / name
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(declared.iterdir()))).hexdigest()
    folder = CACHE / f"{name.removesuffix('_js')}-{digest[:16]}"
    if folder.is_dir():
        return folder
    npm = shutil.which("npm")
    if npm is None:
        assert os.environ.get("CI") != "true", "CI may skip nothing: npm is not installed"
        pytest.skip("npm is not installed: apt install npm")
    CACHE.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=CACHE) as made:
        fresh = Path(made) / "fresh"
        shutil.copytree(declared, fresh)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
        done = subprocess.run(command, cwd=fresh, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        if not folder.is_dir():
            fresh.rename(folder)
    return folder


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """Serves the folder; gives the origin."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
