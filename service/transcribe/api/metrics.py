"""/metrics for Prometheus: what this process counted, and what the store and the worker say at the moment."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from transcribe.api.job_watcher import Snapshot

LATENCY_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)  # seconds
STATES = ("loading", "ready", "draining", "broken", "absent")


disable_created_metrics()  # type: ignore[no-untyped-call]  # a second gauge for every counter helps nobody here


class Metrics:
    """The counters of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        names = ("method", "route", "status")
        self.requests = Counter("transcribe_requests", "HTTP requests", names, registry=self.registry)
        self.latency = Histogram(
            "transcribe_request_seconds",
            "Time to the answer",
            ("route",),
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.errors = Counter("transcribe_errors", "Answers that were errors", ("code",), registry=self.registry)
        self.uploads = Counter("transcribe_upload_bytes", "Bytes of audio received", registry=self.registry)
        self.waiting = Gauge("transcribe_waiting_requests", "Requests that wait", registry=self.registry)

    def watch(self, snapshot: Callable[[], Snapshot], counts: Callable[[], dict[str, int]]) -> None:
        """Adds what `snapshot` and `counts` (stored jobs by status) say whenever the metrics are read."""
        self.registry.register(StoreCollector(snapshot, counts))

    def text(self) -> bytes:
        """Prometheus's exposition format."""
        return generate_latest(self.registry)


class StoreCollector(Collector):
    """The queue, the stored jobs and the worker, as they are when asked."""

    def __init__(self, snapshot: Callable[[], Snapshot], counts: Callable[[], dict[str, int]]) -> None:
        self._snapshot = snapshot
        self._counts = counts

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance: the worker decides what it measures."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """The samples."""
        snapshot = self._snapshot()
        queue = snapshot.queue
        yield GaugeMetricFamily("transcribe_queue_jobs", "Jobs that wait", value=queue.queued)
        yield GaugeMetricFamily("transcribe_running_jobs", "Jobs being worked on", value=queue.running)
        yield GaugeMetricFamily("transcribe_queue_audio_seconds", "Audio still to be done", value=queue.seconds)
        jobs = GaugeMetricFamily("transcribe_stored_jobs", "Jobs in the store", labels=["status"])
        for status, count in self._counts().items():
            jobs.add_metric([status], count)
        yield jobs
        states = GaugeMetricFamily("transcribe_worker_state", "1 for the worker's state", labels=["state"])
        for state in STATES:
            states.add_metric([state], float(state == snapshot.worker_state))
        yield states
        yield from _worker(snapshot)


def _worker(snapshot: Snapshot) -> Iterable[Metric]:
    speed = snapshot.speed
    yield GaugeMetricFamily("transcribe_speed", "Seconds of audio done in a second", value=speed)
    yield GaugeMetricFamily("transcribe_real_time_factor", "Seconds needed for a second of audio", value=1 / speed)
    for name, value in sorted(snapshot.worker.get("metrics", {}).items()):
        if name.endswith("_total"):
            yield CounterMetricFamily(f"transcribe_worker_{name}", "As counted by the worker", value=value)
        else:
            yield GaugeMetricFamily(f"transcribe_worker_{name}", "As measured by the worker", value=value)
    sizes = {int(size): count for size, count in snapshot.worker.get("batch_sizes", {}).items()}
    if sizes:
        total, buckets = 0, []
        for size in sorted(sizes):
            total += sizes[size]
            buckets.append((str(float(size)), total))
        weight = sum(size * count for size, count in sizes.items())
        yield HistogramMetricFamily(
            "transcribe_worker_batch_size", "Chunks in a batch", buckets=[*buckets, ("+Inf", total)], sum_value=weight
        )
