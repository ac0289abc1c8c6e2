"""Runs the feeder until it is asked to stop, or AWS is about to end the machine."""

import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import boto3
from botocore.config import Config as ClientConfig

from transcribe import logs
from transcribe.config import EXIT_CONFIG, ConfigError, FleetConfig, ServiceConfig, check_user, default_path, load
from transcribe.feeder import leaving, taker
from transcribe.feeder.desk import Desk, DeskServer
from transcribe.feeder.finisher import Finisher
from transcribe.feeder.fleet import Fleet, program_digest, trouble
from transcribe.feeder.gauge import Gauge
from transcribe.feeder.holder import Holder
from transcribe.feeder.hook import FinishHook
from transcribe.feeder.idle import Idle
from transcribe.feeder.taker import Taker
from transcribe.fleet import encryption, queues
from transcribe.fleet.bucket import Bucket
from transcribe.jobs.store import Store, StoreError
from transcribe.sdnotify import notify, watchdog_seconds

EXIT_OK, EXIT_FAILURE = 0, 1
LOOK_SECONDS = 0.2  # between two looks at what the worker has done
NOTICE_SECONDS = 5.0  # AWS's own advice
GAUGE_SECONDS = 5.0  # until it is looked whether a minute is over
ENDED_BY_GROUP = ("scale-in", "idle")  # why the machine is to end
IDLE_SECONDS = 5.0  # between two looks for work
RELEASES = 720  # tries to let the machine end: an hour, as long as a balancer may keep it at most
QUEUE_SECONDS = 5.0  # until the queues are looked for again
CLIENT = ClientConfig(
    retries={"mode": "standard", "total_max_attempts": 4},
    connect_timeout=5,
    read_timeout=30,
    user_agent_extra="transcribe-feeder",
)


class Loop:
    """A thread that does one thing again and again. Whatever goes wrong in a round, the next one comes."""

    def __init__(self, name: str, once: Callable[[], object], seconds: float) -> None:
        """`once` is called again at once if it returns something true, or else after so many seconds."""
        self._name = name
        self._once = once
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Ends it; waits so long for the round that is under way."""
        self._stop.set()
        self._thread.join(seconds)

    @property
    def alive(self) -> bool:
        """The thread is there."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                more = self._once()
            except Exception as error:
                logs.failure(f"{self._name}_failed", error)
                more = False
            if not more:
                self._stop.wait(self._seconds)


CallBack = Callable[[ServiceConfig, Store], Callable[[], None]]


def run(call_back: CallBack) -> int:
    """Feeds as transcribe.json says; returns the program's exit code. `call_back` starts what makes the callbacks of
    jobs that are over, and returns what stops it."""
    try:
        config = load(default_path())
        if not config.fleet.on:
            raise ConfigError("fleet.queue names no queue, so there is nothing to feed")
        check_user(config)
        logs.configure()
        feed(config, call_back)
    except ConfigError as error:
        print(f"fleet_feeder: {error}", file=sys.stderr)
        return EXIT_CONFIG
    except (StoreError, OSError, ValueError) as error:
        print(f"fleet_feeder: {error}", file=sys.stderr)
        return EXIT_FAILURE
    return EXIT_OK


def feed(config: ServiceConfig, call_back: CallBack) -> None:
    """Feeds until SIGTERM, SIGINT or a notice of AWS. Raises StoreError, ConfigError or OSError if it cannot start."""
    store, leave = Store(config.database), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leave.set())
    stop_calls = call_back(config, store)
    notify("READY=1\nSTATUS=looking for the queue")
    fleet = _connected(config, store, leave)
    if fleet is None:
        stop_calls()
        return
    taker.clean(fleet)
    why: list[str] = []
    hook = FinishHook(fleet, clients(config.fleet)("autoscaling"), leaving.instance)
    loops = _loops(fleet, why, hook)
    with DeskServer(Desk(fleet), config.fleet.socket) as desk:
        threading.Thread(target=desk.serve_forever, name="desk", daemon=True).start()
        for loop in loops:
            loop.start()
        logs.event("feeding", queue=config.fleet.queue, machine=fleet.machine)
        notify(f"STATUS=takes jobs from {config.fleet.queue}")
        _watch(loops, leave)
        notify("STOPPING=1\nSTATUS=leaving")
        for loop in reversed(loops):
            loop.stop(0.0 if loop is loops[0] else taker.WAIT_SECONDS)
        logs.event("leaving", reason=why[0] if why else "asked", jobs=len(store.tickets.all()))
        seconds = leaving.SPOT_SECONDS if why == ["spot"] else config.fleet.leave_seconds
        leaving.leave(fleet, seconds, lambda: loops[0].stop(taker.WAIT_SECONDS + 1.0))
        stop_calls()
        desk.shutdown()
    if why and why[0] in ENDED_BY_GROUP:
        let_go(hook)
    logs.event("stopped")


def _loops(fleet: Fleet, why: list[str], hook: FinishHook) -> list[Loop]:
    """What is done again and again, the taking of jobs first. Why the machine is to end, if it is, goes into `why`."""
    found = [
        Loop("taker", Taker(fleet).once, LOOK_SECONDS),
        Loop("holder", Holder(fleet).once, min(fleet.hold_seconds / 24, 5.0)),
        Loop("finisher", Finisher(fleet).once, LOOK_SECONDS),
        Loop("notices", lambda: _look_for_notice(fleet, why, hook), NOTICE_SECONDS),
    ]
    client = clients(fleet.config.fleet)
    if fleet.config.fleet.wait_minutes:
        found.append(Loop("gauge", Gauge(fleet, client("cloudwatch")).once, GAUGE_SECONDS))
    if fleet.config.fleet.idle_minutes:
        idle = Idle(fleet, client("autoscaling"), leaving.group_member)
        found.append(Loop("idle", lambda: why.append("idle") if idle.once() else None, IDLE_SECONDS))
    return found


def _connected(config: ServiceConfig, store: Store, leave: threading.Event) -> Fleet | None:
    """The fleet, as soon as its queues answer; None if this is to end before."""
    fleet = config.fleet
    client = clients(fleet)
    found: queues.Queues | None = None
    while not leave.is_set():
        with trouble("find_queue"):
            found = queues.find(client("sqs"), fleet.queue)
            if found is None:
                logs.warning("no_such_queue", queue=fleet.queue, region=fleet.region)
        if found is not None:
            s3 = client("s3")
            encryption.ask_for(s3, fleet.encryption, fleet.kms_key)
            return Fleet(config, store, Bucket(s3, fleet.bucket), found, store.identity(), program_digest(), leave)
        _beat()
        leave.wait(QUEUE_SECONDS)
    return None


def clients(fleet: FleetConfig) -> Callable[[str], Any]:
    """Makes clients of a service, by its name."""
    style = CLIENT.merge(ClientConfig(s3={"addressing_style": "path" if fleet.endpoint_url else "virtual"}))
    session = boto3.Session(region_name=fleet.region)
    return lambda service: session.client(service, endpoint_url=fleet.endpoint_url or None, config=style)  # type: ignore[call-overload]


def _watch(loops: list[Loop], leave: threading.Event) -> None:
    """Waits until it is time to leave, and tells systemd meanwhile that all threads are there."""
    every = (watchdog_seconds() or 40.0) / 4
    while not leave.wait(every):
        if all(loop.alive for loop in loops):
            _beat()


def _beat() -> None:
    notify("WATCHDOG=1")


def let_go(hook: FinishHook) -> None:
    """Let the group end the machine, as soon as its balancer has let it go. Nothing is left to do, so that SIGTERM may
    end this at any moment."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for _ in range(RELEASES):
        with trouble("let_the_machine_end"):
            if hook.release():
                return
        notify(f"WATCHDOG=1\nEXTEND_TIMEOUT_USEC={int(10e6 * NOTICE_SECONDS)}")
        time.sleep(NOTICE_SECONDS)


def _look_for_notice(fleet: Fleet, why: list[str], hook: FinishHook) -> None:
    try:
        found = leaving.notice()
        if found == "scale-in" and not why and hook.finishing():
            return
    except OSError:  # there is no metadata service here, or it does not answer now
        return
    if found and not why:
        why.append(found)
        fleet.leaving.set()
