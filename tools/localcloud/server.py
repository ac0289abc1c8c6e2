"""The local cloud's HTTP servers: the AWS API with the control API beside it, and the model hub."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Flask, Response, jsonify, request
from werkzeug.serving import make_server

# moto reads these when it is imported: no built-in images, and no instance of an unknown image or type.
os.environ |= {"MOTO_EC2_LOAD_DEFAULT_AMIS": "false", "MOTO_ENABLE_AMI_VALIDATION": "true"}

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app

from localcloud.aws import fair_queues, persistence, s3_conditions, scaling
from localcloud.aws.ec2 import Ec2Layer
from localcloud.aws.query_protocol import Ec2Error
from localcloud.hub import models
from localcloud.hub.server import Repository, create_app

from .cloud import Backend
from .common import Folders, LocalCloudError
from .endpoint import Secret
from .guard import Guard, own_clients_only


class Http11Handler(MotoRequestHandler):  # type: ignore[misc]
    """Speaks HTTP/1.1, without which every upload of botocore waits a second for `100 Continue`."""

    protocol_version = "HTTP/1.1"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Do not log every request."""


class LoopbackServer:
    """Serves a WSGI application on a port of this host's loopback, in its own thread."""

    def __init__(self, application: WSGIApplication, port: int = 0) -> None:
        self._server = make_server("127.0.0.1", port, application, threaded=True, request_handler=Http11Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Repositories(Mapping[str, Repository]):
    """The hub's models, each converted on its first request."""

    def __init__(self, folders: Folders) -> None:
        self._folders = folders
        self._names = {source.id: name for name, source in models.SOURCES.items()}
        self._made: dict[str, Repository] = {}
        self._lock = threading.Lock()

    def __getitem__(self, repo_id: str) -> Repository:
        with self._lock:
            if repo_id not in self._made:
                folder = models.model_dir(self._names[repo_id], cache=self._folders.cache)
                self._made[repo_id] = Repository(repo_id, folder)
            return self._made[repo_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass
class Activity:
    """The time of the last request; the daemon ends when there are none."""

    last: float = 0.0

    def touch(self) -> None:
        self.last = time.monotonic()

    def noticing(self, inner: WSGIApplication) -> WSGIApplication:
        """`inner`, whose requests count as activity."""

        def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            self.touch()
            return inner(environ, start_response)

        return application


def aws_app(cloud: Backend, control: WSGIApplication, activity: Activity, secret: Secret) -> WSGIApplication:
    """The AWS API, and the control API beside it, for who has the secret."""
    fair_queues.act()
    moto = persistence.persistent(
        s3_conditions.atomic(DomainDispatcherApplication(create_backend_app)), cloud.images.folders
    )
    return Guard(
        activity.noticing(scaling.understood(Ec2Layer(moto, cloud))),
        activity.noticing(control),
        secret,
        cloud.metadata.sessions,
    )


def hub_app(folders: Folders) -> WSGIApplication:
    return own_clients_only(create_app(Repositories(folders)))


@dataclass(frozen=True)
class Process:
    """What the control API says of the local cloud's own process, and does to it."""

    facts: Mapping[str, object]
    stop: Callable[[], None]
    add_user: Callable[[int], None]


def control_app(cloud: Backend, process: Process) -> Flask:
    """The control API beside the AWS APIs: machines from images, their init processes and their ports."""
    app = Flask(__name__)

    @app.post("/_cloud/machines")
    def boot() -> Response:
        asked = request.get_json()
        return jsonify(id=cloud.boot(asked["image"], owner=int(asked["owner"])))

    @app.get("/_cloud/machines/<machine_id>")
    def describe(machine_id: str) -> Response:
        return jsonify(leader=cloud.machines.get(machine_id).leader())

    @app.delete("/_cloud/machines/<machine_id>")
    def terminate(machine_id: str) -> Response:
        cloud.terminate([machine_id])
        return jsonify({})

    @app.post("/_cloud/machines/<machine_id>/interrupt-spot")
    def interrupt_spot(machine_id: str) -> Response:
        cloud.interrupt_spot(machine_id)
        return jsonify({})

    @app.post("/_cloud/machines/<machine_id>/spot-notice")
    def spot_notice(machine_id: str) -> Response:
        cloud.machines.get(machine_id)  # refuses one that is not there
        cloud.steward.notice(machine_id)
        return jsonify({})

    add_process_views(app, cloud, process)
    add_views(app, cloud)

    @app.errorhandler(LocalCloudError)
    @app.errorhandler(Ec2Error)
    def refuse(error: Exception) -> tuple[Response, int]:
        return jsonify(error=str(error)), 400

    return app


def add_process_views(app: Flask, cloud: Backend, process: Process) -> None:
    """The routes of the local cloud's own process: how it is, who uses it, its end."""

    @app.get("/_cloud/health")
    def health() -> Response:
        return jsonify({**process.facts, "running": cloud.machines.running()})

    @app.post("/_cloud/users")
    def use() -> Response:
        process.add_user(int(request.get_json()["pid"]))
        return jsonify({})

    @app.post("/_cloud/stop")
    def end() -> Response:
        process.stop()
        return jsonify({})


def add_views(app: Flask, cloud: Backend) -> None:
    """The read-only routes: a machine's ports, an image's disk."""

    @app.get("/_cloud/machines/<machine_id>/ports/<int:port>")
    def url(machine_id: str, port: int) -> Response:
        return jsonify(url=cloud.url_of(machine_id, port))

    @app.get("/_cloud/images/<image_id>")
    def disk(image_id: str) -> Response:
        return jsonify(disk=[str(path) for path in cloud.images.disk(cloud.images.get(image_id))])
