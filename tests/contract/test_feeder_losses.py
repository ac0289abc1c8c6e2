"""Jobs whose machine is lost at a bad moment."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from support import fleets
from support.fake_worker import canned
from support.fleets import Feeder, audio
from support.waiting import until
from transcribe.fleet import states
from transcribe.fleet.documents import Outcome
from transcribe.jobs import uploads
from transcribe.jobs.tickets import Ticket

pytestmark = pytest.mark.slow


def test_a_job_of_which_only_the_outcome_was_written_is_ended_by_a_machine_that_has_other_work(tmp_path: Path) -> None:
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


def test_a_job_is_taken_in_once_its_recording_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fleets.fleet_cloud(tries=50) as cloud, fleets.machine(tmp_path / "a", cloud) as here:
        feeder, synced = Feeder(cloud, here), list[str]()
        adopt, sync = feeder.fleet.store.tickets.adopt, uploads.sync

        def noted(path: Path) -> None:
            synced.append(path.name)
            sync(path)

        def adopted(*arguments: Any) -> None:
            assert synced[-1] == job
            adopt(*arguments)

        monkeypatch.setattr(uploads, "sync", noted)
        monkeypatch.setattr(feeder.fleet.store.tickets, "adopt", adopted)
        job = cloud.submit(audio("kept"))
        feeder.adopt(job)
        assert synced
