"""A job whose machine was lost when its outcome was written, and nothing else."""

from pathlib import Path

import msgspec
import pytest
from support import fleets
from support.fake_worker import canned
from support.fleets import Feeder, audio
from support.waiting import until
from transcribe.fleet import states
from transcribe.fleet.documents import Outcome
from transcribe.jobs.tickets import Ticket

pytestmark = pytest.mark.slow


def test_it_is_brought_to_its_end_by_a_machine_that_has_other_work(tmp_path: Path) -> None:
    with fleets.fleet_cloud(tries=50) as cloud, fleets.machine(tmp_path / "a", cloud) as here:
        here.worker.hold.set()
        feeder = Feeder(cloud, here)
        feeder.adopt(cloud.submit(audio("other")))
        job = cloud.submit(audio("one"))
        found = cloud.queues.usual.receive(hold=60, wait=5)
        assert found
        taken = {"status": "running", "machine": "lost", "message": found.id}
        states.change(cloud.bucket, cloud.layout, job, lambda state: msgspec.structs.replace(state, **taken))
        outcome = Outcome(job=job, owner=cloud.state(job).owner, status="done", segments=tuple(canned(words=True)))
        states.conclude(cloud.bucket, cloud.layout, outcome)

        ticket = Ticket(job, found.queue, found.receipt, found.id, 2, concluded=True)
        feeder.fleet.store.tickets.put(ticket)  # as the second delivery is taken
        feeder.hold()
        feeder.hold()
        feeder.adopt(job)

        def over() -> bool:
            feeder.finisher.once()
            return cloud.state(job).over

        until(over)
        assert cloud.state(job).status == "done"
        assert cloud.bucket.read(cloud.layout.transcript(job, "text"))
        here.worker.hold.clear()
