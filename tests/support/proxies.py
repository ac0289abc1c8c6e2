"""nginx and HAProxy as Debian ships them, with the configurations that docs/proxies.md gives."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.api_server_fixture import free_port
from support.waiting import until

PAGE = Path(__file__).resolve().parents[2] / "docs" / "proxies.md"
PATH = "/usr/sbin:" + os.environ["PATH"]


def documented(language: str) -> str:
    """The page's block in this language."""
    [found] = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(found)


def certificate(folder: Path) -> Path:
    """A certificate of its own for 127.0.0.1; beside it the key, and both in one file."""
    key, made = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(made)]
    subprocess.run(command, check=True, capture_output=True)
    (folder / "both.pem").write_text(made.read_text() + key.read_text())
    return made


@contextmanager
def proxy(name: str, folder: Path, service_port: int) -> Iterator[int]:
    """Runs the proxy in front of the service; gives its port."""
    program = shutil.which(name, path=PATH)
    if program is None:
        assert os.environ.get("CI") != "true", f"CI may skip nothing: {name} is not installed"
        pytest.skip(f"{name} is not installed: apt install {name}")
    port = free_port()
    config = {"nginx": _nginx, "haproxy": _haproxy}[name](folder, port)
    config = config.replace("127.0.0.1:8000", f"127.0.0.1:{service_port}").replace("/etc/ssl/speech", str(folder))
    file = folder / f"{name}.conf"
    file.write_text(config)
    command = (
        [program, "-e", str(folder / "errors"), "-c", str(file)] if name == "nginx" else [program, "-f", str(file)]
    )
    with (folder / "output").open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            until(lambda: process.poll() is not None or _listens(port))
            assert process.poll() is None, (folder / "output").read_text()
            yield port
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def _nginx(folder: Path, port: int) -> str:
    """Debian's file, with this site in place of its own, and everything that it writes in the folder."""
    shipped = Path("/etc/nginx/nginx.conf").read_text()
    shipped = re.sub(r"(?m)^(user|pid|include) .*;$", "", shipped)
    shipped = re.sub(r"(?m)^\s*(include /etc/nginx/(conf|sites).*|(access|error)_log .*);$", "", shipped)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    site = documented("nginx").replace("listen 443", f"listen 127.0.0.1:{port}")
    body = f"http {{\naccess_log off;\n{paths}{site}"
    return f"daemon off;\npid {folder}/pid;\n" + shipped.replace("http {", body)


def _haproxy(folder: Path, port: int) -> str:
    """Debian's file without what needs root, and this added."""
    shipped = Path("/etc/haproxy/haproxy.cfg").read_text()
    shipped = re.sub(r"(?m)^\s*(log|chroot|stats|user|group|daemon)\b.*$", "", shipped)
    return shipped + documented("haproxy").replace("bind :443", f"bind 127.0.0.1:{port}")
