"""Jobs of a fleet: real feeder processes on moto's S3 and SQS. Whatever ends where, each job has one outcome."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import fleets
from support.fake_worker import TEXTS
from support.fleets import FleetCloud, audio

pytestmark = pytest.mark.slow
TEXT = "".join(TEXTS).strip()
STEPS = [  # where a feeder is ended, in the order in which it comes there
    ("ReceiveMessage", "after"),
    ("PutObject state", "after"),
    ("GetObject audio", "after"),
    ("PutObject outcome.json", "before"),
    ("PutObject outcome.json", "after"),
    ("PutObject transcript.vtt", "after"),
    ("DeleteMessage", "before"),
    ("DeleteMessage", "after"),
]


@pytest.fixture
def cloud() -> Iterator[FleetCloud]:
    with fleets.fleet_cloud() as made:
        yield made


def test_a_job_goes_in_and_its_transcript_comes_out_in_every_format(cloud: FleetCloud, tmp_path: Path) -> None:
    job = cloud.submit(audio("one"))
    with fleets.machine(tmp_path / "a", cloud, fleet__price=0.5) as here:
        here.start()
        ended = cloud.wait_over([job])[job]
        cloud.assert_empty()
        assert here.stop() == 0
        assert here.store.tickets.all() == []
        assert here.store.get(job) is None
    assert (ended.status, ended.owner, ended.language) == ("done", "anna", "sv")
    assert "".join(segment.text for segment in ended.segments).strip() == TEXT
    assert ended.dollars_per_hour == 0.05  # at the speed of 10 that the worker reports
    keys = [key.rpartition("/")[2] for key in cloud.bucket.keys(f"transcribe-fleet/out/{job}/")]
    assert keys == [
        "outcome.json", "transcript.json", "transcript.srt", "transcript.tsv", "transcript.txt",
        "transcript.verbose.json", "transcript.vtt",
    ]  # fmt: skip
    found = cloud.bucket.read(cloud.layout.transcript(job, "text"))
    assert found
    assert found.data.decode().strip() == TEXT


def test_a_feeder_that_is_killed_at_each_step_loses_nothing_and_does_nothing_twice(
    cloud: FleetCloud, tmp_path: Path
) -> None:
    jobs = [cloud.submit(audio(str(number))) for number in range(len(STEPS))]
    left = list(STEPS)
    with fleets.machine(tmp_path / "a", cloud) as here:

        def meets(name: str, when: str) -> None:
            if left and (name, when) == left[0] and here.feeder:
                left.pop(0)
                here.feeder.kill()
                raise fleets.DroppedError

        cloud.watched.meets = meets
        while left:
            here.start().wait(30)
        here.start()
        ended = cloud.wait_over(jobs, 40)
        cloud.assert_empty()
        assert here.stop() == 0
    assert {one.status for one in ended.values()} == {"done"}
    assert cloud.watched.outcomes == dict.fromkeys(jobs, 1)
    assert cloud.queues.dead.waiting() == (0, 0)
