"""Both programs of the service as processes, on a real small model: what a client on a machine meets."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from localcloud.hub import models
from serving.run import SERVICE, ServedModel, environment, fill_cache, lay_out

from support.api_server_fixture import HttpRequests, free_port, settings

if TYPE_CHECKING:
    import openai

PROGRAMS = {"api": ["api_server.py"], "worker": ["transcribe_optimized.py", "--worker"]}
READY_SECONDS = 300.0


@dataclass
class Service(HttpRequests):
    """A folder like the machine's, and the processes that run on it."""

    headers: ClassVar = {"Cache-Control": "no-cache"}  # the same clip again is transcribed again
    config: Path
    port: int
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    began: dict[str, int] = field(default_factory=dict)  # where the log of each process begins, in bytes

    def log(self, name: str) -> Path:
        """What `api` or `worker` wrote."""
        return self.config.parent / f"{name}.log"

    def start(self, name: str) -> None:
        """Starts `api` or `worker`."""
        program, *arguments = PROGRAMS[name]
        command = [sys.executable, str(SERVICE / program), *arguments]
        with self.log(name).open("ab") as log:
            self.began[name] = log.tell()
            environ = environment(self.config, offline=True)
            self.processes[name] = subprocess.Popen(command, env=environ, stdout=log, stderr=log)

    def stop(self, name: str, number: int = signal.SIGTERM) -> int:
        """Ends it, and returns how it ended."""
        process = self.processes.pop(name)
        process.send_signal(number)
        return process.wait(60)

    def get(self, path: str) -> Any:
        """A JSON answer, whatever its status."""
        return self.request("GET", path).json

    def wait_ready(self) -> None:
        """Until the model is loaded, by the worker that was started last: just after a kill, `/ready` still goes by
        the heartbeat of the one before, and a stop would meet a process that has not set its signals yet."""
        end = time.monotonic() + READY_SECONDS
        while True:
            try:
                if self.get("/ready")["ready"] and self.loaded():
                    return
            except OSError:
                pass
            assert time.monotonic() < end, self.log("worker").read_text()[-2000:]
            time.sleep(0.2)

    def loaded(self) -> bool:
        """The running worker, if there is one, has said that it is ready."""
        if "worker" not in self.processes:
            return True
        return b'"event": "ready"' in self.log("worker").read_bytes()[self.began["worker"] :]

    def client(self) -> "openai.OpenAI":
        """The official one."""
        import openai  # not on every machine with a GPU

        return openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key="none", max_retries=0)


@contextmanager
def serving(root: Path, name: str = "whisper-tiny.en", **changes: Any) -> Iterator[Service]:
    """The service below `root`, ready; keyword names are configuration keys with `__` for the dot. Both processes
    must end well when they are asked to."""
    folder = models.model_dir(name)
    model = ServedModel(models.SOURCES[name].id, models.commit_of(folder), folder)
    lay_out(model, root / "models" / f"models--{model.id.replace('/', '--')}" / "snapshots" / model.commit)
    port = free_port()
    about = {"model.id": model.id, "model.revision": model.commit, "model.language": "en", "port": port, **changes}
    config = root / "transcribe.json"
    config.write_text(json.dumps(settings(root, about)))
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    fill_cache(config, model)
    found = Service(config, port)
    try:
        found.start("api")
        found.start("worker")
        found.wait_ready()
        yield found
        for process in list(found.processes):
            code = found.stop(process)
            assert code == 0, f"{process} ended with {code}: {found.log(process).read_text()[-2000:]}"
    finally:
        for left in found.processes.values():
            left.kill()
            left.wait()
