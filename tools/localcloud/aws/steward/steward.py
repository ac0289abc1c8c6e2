"""What happens by itself in the local cloud, a little at every tick."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime

from localcloud.aws.steward import calls
from localcloud.aws.steward.alarms import Alarms
from localcloud.aws.steward.figures import Figures
from localcloud.aws.steward.groups import Groups, target_state
from localcloud.aws.steward.policies import Policies

NOTICE_SECONDS = 120.0  # between a spot notice and the end of the machine
SPOT, LIFECYCLE = "spot/instance-action", "autoscaling/target-lifecycle-state"  # paths of the metadata service


class Steward:
    """One region's. `clock` gives Unix times."""

    def __init__(self, region: str, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.groups = Groups(region, clock)
        self._figures = Figures(region)
        self._policies = Policies(region, self.groups, clock)
        self._alarms = Alarms(region, self._figures, self._policies.act)
        self._notices: dict[str, float] = {}  # when a spot machine ends
        calls.lead_here(self.groups)

    def tick(self) -> None:
        """Do what is due; the caller boots and ends the machines that were started and ended."""
        now = self._clock()
        self.groups.tick()
        self._figures.tell(now)
        self._policies.tick()
        self._alarms.tick(now)

    def notice(self, instance_id: str) -> None:
        """Tell a spot machine that it ends in two minutes; to tell it again changes nothing."""
        self._notices.setdefault(instance_id, self._clock() + NOTICE_SECONDS)

    def taken(self) -> list[str]:
        """The spot machines whose two minutes are over, each once."""
        due = [instance for instance, end in self._notices.items() if end <= self._clock()]
        for instance in due:
            del self._notices[instance]
        return due

    def metadata(self, instance_id: str) -> dict[str, str]:
        """What a machine's metadata tell of its near end and of its group, by path."""
        member = next((member for _, member in self.groups.members() if member.instance_id == instance_id), None)
        told = {LIFECYCLE: target_state(member)} if member else {}
        if end := self._notices.get(instance_id):
            at = datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            told[SPOT] = json.dumps({"action": "terminate", "time": at})
        return told
