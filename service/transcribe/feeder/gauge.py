"""Tells CloudWatch once a minute how much audio waits, and how fast this machine is: by both, the group grows."""

import time
from collections.abc import Callable
from typing import Any

from transcribe.feeder.fleet import Fleet, trouble
from transcribe.fleet import gauges


class Gauge:
    """One thread calls `once` again and again."""

    def __init__(self, fleet: Fleet, cloudwatch: Any, clock: Callable[[], float] = time.time) -> None:
        """`cloudwatch` is boto3's client; `clock` gives Unix times."""
        self._fleet, self._cloudwatch, self._clock = fleet, cloudwatch, clock
        self._told = 0

    def once(self) -> None:
        """Tells the figures of a minute, once: CloudWatch adds up what all machines tell of the same minute."""
        minute = int(self._clock() // 60 * 60)
        if minute == self._told:
            return
        self._told = minute
        with trouble("tell_figures"):
            figures = {gauges.WAITING: self.waiting(), gauges.SPEED: self.speed()}
            queue = self._fleet.config.fleet.queue
            data = [gauges.datum(name, queue, minute, value) for name, value in figures.items() if value is not None]
            if data:
                self._cloudwatch.put_metric_data(Namespace=gauges.NAMESPACE, MetricData=data)

    def waiting(self) -> float | None:
        """Seconds of audio that no machine has taken; None as long as nothing tells how long recordings are."""
        queues, total = self._fleet.queues, 0.0
        for queue in (queues.priority, queues.usual):
            count = queue.waiting()
            mean = self._fleet.lengths.mean(queue.url)
            if count and mean is None:
                return None
            total += count * (mean or 0.0)
        return total

    def speed(self) -> float | None:
        """Seconds of audio a second, as the worker has measured; None while it is not ready."""
        worker = self._fleet.ready_worker
        return worker.get("speed") if worker else None
