"""Machines of a group that serve: moto's records, and an HTTP server that answers for each as its image would."""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from baker.deploy.template import KEYS

from support.project_tree import REFERENCE


@dataclass
class Behaviour:
    """What the machines of an image do: what they hear in a recording, if they answer, and after how many seconds."""

    text: str = REFERENCE
    seconds: float = 0.1
    answers: bool = True


@dataclass
class ServedMachines:
    """The machines, by the id of each. `images` says how those of an image behave; others are as they should be."""

    ec2: Any
    url: str = ""
    images: dict[str, Behaviour] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)  # images that have heard a recording
    _known: set[str] = field(default_factory=set)  # machines that have the clip's text

    def reach(self, instance: str) -> list[str]:
        """A machine's address."""
        return [f"{self.url}/{instance}"]

    def knows(self, instance: str, key: str) -> bool:
        """Whether the machine's user-data has the digest of the key."""
        told = self.ec2.describe_instance_attribute(InstanceId=instance, Attribute="userData")["UserData"]["Value"]
        document = json.loads(base64.b64decode(told).decode().removeprefix("#cloud-config\n"))
        files = {file["path"]: base64.b64decode(file["content"]).decode() for file in document["write_files"]}
        return hashlib.sha256(key.encode()).hexdigest() in files[KEYS]

    def answer(self, instance: str, key: str, *, anew: bool) -> tuple[int, dict[str, Any]]:
        """What a machine answers to a recording: the text of the last time, at once, unless it is asked for anew."""
        [found] = self.ec2.describe_instances(InstanceIds=[instance])["Reservations"]
        image = found["Instances"][0]["ImageId"]
        behaviour = self.images.get(image, Behaviour())
        if found["Instances"][0]["State"]["Name"] != "running" or not behaviour.answers:
            return 503, {}
        if not self.knows(instance, key):
            return 401, {}
        self.asked.append(image)
        if anew or instance not in self._known:
            time.sleep(behaviour.seconds)
        self._known.add(instance)
        return 200, {"text": behaviour.text}


@contextmanager
def served_machines(ec2: Any) -> Iterator[ServedMachines]:
    """The machines, while their server runs."""
    machines = ServedMachines(ec2)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert b'name="file"; filename="verify.flac"' in body
            _, instance, path = self.path.split("/", 2)
            assert path == "v1/audio/transcriptions"
            key, anew = self.headers["Authorization"].removeprefix("Bearer "), "no-cache" in self.headers.as_string()
            status, answer = machines.answer(instance, key, anew=anew)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    machines.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield machines
    finally:
        server.shutdown()
        server.server_close()
