"""What machines tell CloudWatch of the work that waits, for the policies that let a group grow."""

from typing import Any

NAMESPACE = "Transcribe/Fleet"
WAITING = "WaitingAudioSeconds"  # in the queues, as each machine estimates it: the average counts
SPEED = "Speed"  # seconds of audio a second, of each machine that is ready: the sum counts


def dimensions(queue: str) -> list[dict[str, str]]:
    """What tells one fleet's figures from another's."""
    return [{"Name": "Queue", "Value": queue}]


def datum(name: str, queue: str, minute: int, value: float) -> dict[str, Any]:
    """One figure of a minute, a Unix time, as CloudWatch takes it."""
    return {"MetricName": name, "Dimensions": dimensions(queue), "Timestamp": minute, "Value": value, "Unit": "None"}
