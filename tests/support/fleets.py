"""A fleet for tests: moto over HTTP for S3 and SQS, and machines: each a folder, a real feeder process, a fake worker.

The layer before moto sees every request of the feeders: it can end the process that sent one, or refuse it.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import boto3
import requests
from localcloud.aws import fair_queues, s3_conditions, scaling
from localcloud.aws.query_protocol import read_form
from localcloud.server import Http11Handler
from transcribe.config import ServiceConfig
from transcribe.feeder.desk import Desk
from transcribe.feeder.finisher import Finisher
from transcribe.feeder.fleet import Fleet
from transcribe.feeder.holder import Holder
from transcribe.feeder.taker import Taker
from transcribe.fleet import gauges, queues, states, submission
from transcribe.fleet.bucket import Bucket
from transcribe.fleet.documents import Outcome, Request, State, decoded
from transcribe.fleet.layout import Layout, job_id
from transcribe.fleet.queues import Queue
from transcribe.jobs.store import Store
from transcribe.types import DecodeOptions
from werkzeug.serving import make_server

from support.api_server_fixture import free_port, settings
from support.fake_worker import FakeWorker
from support.moto_app import moto_app
from support.waiting import until

FEEDER = Path(__file__).resolve().parents[2] / "service" / "fleet_feeder.py"
GROUP = "newsroom"
BUCKET, QUEUE, REGION = "fleet", "speech", "eu-north-1"
HOLD = 3  # seconds
CALLS = {"PUT": "PutObject", "GET": "GetObject", "HEAD": "HeadObject", "DELETE": "DeleteObject"}
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}


class DroppedError(ConnectionError):
    """Ends a request without an answer."""


class DroppingHandler(Http11Handler):
    """Closes the connection of a request that is lost."""

    def connection_dropped(self, error: BaseException, environ: WSGIEnvironment | None = None) -> None:
        self.close_connection = True


def name_of(environ: WSGIEnvironment) -> str:
    """A request's operation, and for an object its kind."""
    target = str(environ.get("HTTP_X_AMZ_TARGET", ""))
    if target:
        return target.rpartition(".")[2]
    if action := read_form(environ).get("Action"):
        return action
    key = environ["PATH_INFO"].strip("/").partition("/")[2]
    kind = "state" if "/state/" in key else "checkpoint" if "/checkpoint/" in key else key.rpartition("/")[2]
    return f"{CALLS.get(environ['REQUEST_METHOD'], 'POST')} {kind}"


@dataclass
class Watched:
    """The layer. `meets` is told of each request of a feeder, by its name and before or after it is answered, and may
    raise DroppedError; what it returns, a status, is the answer instead."""

    inner: WSGIApplication
    meets: Callable[[str, str], int | None] = lambda name, when: None
    outcomes: Counter[str] = field(default_factory=Counter)  # by job: how many were created
    calls: set[str] = field(default_factory=set)  # all that were made

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        name = name_of(environ)
        if " transcribe-feeder" not in environ.get("HTTP_USER_AGENT", ""):
            return self.inner(environ, start_response)
        self.calls.add(name)
        status = self.meets(name, "before")
        if status:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            body = b"<Error><Code>InternalError</Code><Message>-</Message></Error>"
            start_response(f"{status} Refused", [("Content-Type", "text/xml"), ("Content-Length", str(len(body)))])
            return [body]
        told: list[str] = []

        def begin(answer: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            told.append(answer)
            return start_response(answer, headers, *error)

        body = b"".join(self.inner(environ, begin))
        if name == "PutObject outcome.json" and told[0].startswith("200"):
            self.outcomes[environ["PATH_INFO"].split("/")[-2]] += 1
        self.meets(name, "after")
        return [body]


def audio(text: str) -> bytes:
    """A recording for the fake worker, which looks at its first bytes only."""
    return f"sound {text}".encode() * 50


@dataclass
class Machine:
    """A folder like a machine's, the worker in this process, and the feeder that was started last."""

    mapping: dict[str, Any]
    file: Path
    store: Store
    worker: FakeWorker
    environment: dict[str, str]
    identity: str
    feeder: "subprocess.Popen[bytes] | None" = None

    def start(self, **environment: str) -> "subprocess.Popen[bytes]":
        """Starts the feeder."""
        with (self.file.parent / "feeder.log").open("ab") as log:
            self.feeder = subprocess.Popen(
                [sys.executable, str(FEEDER)], env={**self.environment, **environment}, stdout=log, stderr=log
            )
        return self.feeder

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ends the feeder; returns how it ended."""
        assert self.feeder
        self.feeder.send_signal(number)
        return self.feeder.wait(30)

    def log(self) -> list[dict[str, Any]]:
        """What its feeders have logged."""
        return [json.loads(line) for line in (self.file.parent / "feeder.log").read_text().splitlines()]


@dataclass
class FleetCloud:
    """The bucket and the queues, as a submitter sees them."""

    url: str
    watched: Watched
    bucket: Bucket
    queues: queues.Queues
    layout: Layout

    def submit(self, content: bytes, *, owner: str = "anna", **changes: Any) -> str:
        """Submits a recording; returns its job."""
        job = job_id(owner, content.decode())
        options = DecodeOptions(language="sv")
        request = Request(job=job, owner=owner, options=options, bytes=len(content), **{"seconds": 8.0, **changes})
        submission.submit(self.bucket, self.queues, self.layout, request, lambda key: self.bucket.put(key, content))
        return job

    def client(self, service: str) -> Any:
        """A client of AWS's, who is nobody's feeder."""
        session: Any = boto3.Session("testing", "testing", region_name=REGION)
        return session.client(service, endpoint_url=self.url)

    def group_of_two(self) -> list[str]:
        """Makes a group in moto, as `launch --group` does; its machines are records, whose ids this returns."""
        ec2, scaling = self.client("ec2"), self.client("autoscaling")
        image = ec2.register_image(Name="image", RootDeviceName="/dev/xvda")["ImageId"]
        data = {"ImageId": image, "InstanceType": "t3.micro"}
        ec2.create_launch_template(LaunchTemplateName=GROUP, LaunchTemplateData=data)
        zone = ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]
        scaling.create_auto_scaling_group(
            AutoScalingGroupName=GROUP, LaunchTemplate={"LaunchTemplateName": GROUP, "Version": "$Default"},
            MinSize=0, MaxSize=3, DesiredCapacity=2, AvailabilityZones=[zone], NewInstancesProtectedFromScaleIn=True,
        )  # fmt: skip
        return self.members()

    def group(self) -> Any:
        """What Auto Scaling says of the group."""
        [found] = self.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
        return found

    def members(self) -> list[str]:
        """The ids of the group's machines."""
        return [one["InstanceId"] for one in self.group()["Instances"]]

    def figures(self, name: str, now: float) -> list[float]:
        """What was told to CloudWatch around this Unix time, added up by the minute."""
        metric = {"Namespace": gauges.NAMESPACE, "MetricName": name, "Dimensions": gauges.dimensions(QUEUE)}
        found = self.client("cloudwatch").get_metric_data(
            MetricDataQueries=[{"Id": "a", "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Sum"}}],
            StartTime=now - 600, EndTime=now + 600, ScanBy="TimestampAscending",
        )  # fmt: skip
        return list(found["MetricDataResults"][0]["Values"])

    def resend(self, job: str) -> None:
        """A second message for the job."""
        found = self.bucket.read(self.layout.request(job))
        assert found
        submission.send(self.queues, decoded(found.data, Request))

    def state(self, job: str) -> State:
        found = states.read(self.bucket, self.layout, job)
        assert found
        return found[0]

    def outcome(self, job: str) -> Outcome | None:
        return states.outcome(self.bucket, self.layout, job)

    def wait_over(self, jobs: Iterable[str], seconds: float = 30.0) -> dict[str, Outcome]:
        """The outcomes of the jobs, once their states say that they are over."""
        jobs = list(jobs)
        until(lambda: all(self.state(job).over for job in jobs), seconds, lambda: [self.state(job) for job in jobs])
        found = {job: self.outcome(job) for job in jobs}
        return {job: ended for job, ended in found.items() if ended}

    def assert_empty(self, seconds: float = 10.0) -> None:
        """No message is left, neither waiting nor held."""
        for queue in (self.queues.usual, self.queues.priority):
            until(partial(self._empty, queue), seconds, partial(self.waiting, queue))

    def _empty(self, queue: Queue) -> bool:
        return self.waiting(queue) == (0, 0)

    def waiting(self, queue: Queue) -> tuple[int, int]:
        """How many messages of the queue wait, and how many are held."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        told = self.client("sqs").get_queue_attributes(QueueUrl=queue.url, AttributeNames=names)["Attributes"]
        return int(told[names[0]]), int(told[names[1]])


@contextmanager
def fleet_cloud(tries: int = queues.TRIES) -> Iterator[FleetCloud]:
    """moto behind the layer, with the bucket and the queues."""
    fair_queues.act()
    watched = Watched(s3_conditions.atomic(moto_app()))
    server = make_server("127.0.0.1", 0, scaling.understood(watched), threaded=True, request_handler=DroppingHandler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    requests.post(f"{url}/moto-api/reset", timeout=10)
    session = boto3.Session("testing", "testing", region_name=REGION)
    s3: Any = session.client("s3", endpoint_url=url)
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    made = queues.make(session.client("sqs", endpoint_url=url), QUEUE, {"project": "test"}, tries)
    try:
        yield FleetCloud(url, watched, Bucket(s3, BUCKET), made, Layout("transcribe-fleet"))
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def machine(root: Path, cloud: FleetCloud, *, delay: float = 0.0, **changes: Any) -> Iterator[Machine]:
    """A machine below `root`, whose feeder is not started yet; keyword names are configuration keys with `__`."""
    root.mkdir(exist_ok=True)
    about = {
        "port": free_port(),
        "fleet__queue": QUEUE,
        "fleet__bucket": BUCKET,
        "fleet__region": REGION,
        "fleet__endpoint_url": cloud.url,
        "fleet__socket": str(root / "feeder.sock"),
        "fleet__hold_seconds": HOLD,
        "fleet__leave_seconds": 1,
        **changes,
    }
    mapping = settings(root, about)
    config, file = ServiceConfig.from_mapping(mapping), root / "transcribe.json"
    file.write_text(json.dumps(mapping))
    store = Store(config.database)
    worker = FakeWorker(store, config.temp, delay=delay, resumes=True).start()
    kept = {name: value for name, value in os.environ.items() if not re.match("AWS_", name)}
    nowhere = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:9", "PYTHONUNBUFFERED": "1"}
    found = Machine(
        mapping, file, store, worker, {**kept, **KEYS, **nowhere, "TRANSCRIBE_CONFIG": str(file)}, store.identity()
    )
    try:
        yield found
    finally:
        if found.feeder and found.feeder.poll() is None:
            found.feeder.kill()
            found.feeder.wait()
        worker.stop()
        store.close()


class Feeder:
    """A feeder's parts, without their threads."""

    def __init__(self, cloud: FleetCloud, here: Machine) -> None:
        config = ServiceConfig.from_mapping(here.mapping)
        self.fleet = Fleet(config, here.store, cloud.bucket, cloud.queues, here.identity, "program")
        self.taker, self.finisher, self.desk = Taker(self.fleet), Finisher(self.fleet), Desk(self.fleet)
        self.now = 0.0
        self.holder = Holder(self.fleet, lambda: self.now)

    def take(self, condition: Callable[[], Any]) -> None:
        """Until the condition is met."""

        def met() -> Any:
            self.taker.once()
            return condition()

        until(met, 30, self.fleet.store.tickets.all)

    def adopt(self, job: str) -> None:
        self.take(lambda: self.fleet.store.get(job))

    def hold(self) -> None:
        self.now += HOLD / 3
        self.holder.once()

    def finish(self) -> None:
        """Until no message is held."""

        def settled() -> bool:
            self.finisher.once()
            return all(not ticket.receipt for ticket in self.fleet.store.tickets.all())

        until(settled)

    def ask(self, **question: Any) -> Any:
        return json.loads(self.desk.answer(json.dumps(question).encode()))


@contextmanager
def metadata_service() -> Iterator[tuple[str, dict[str, str]]]:
    """Where an instance asks about itself: its address, and what it answers, by the path below meta-data."""
    answers: dict[str, str] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self._answer("token")

        def do_GET(self) -> None:
            self._answer(answers.get(self.path.removeprefix("/latest/meta-data/"), ""))

        def _answer(self, text: str) -> None:
            self.send_response(200 if text else 404)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", answers
    finally:
        server.shutdown()
        server.server_close()
