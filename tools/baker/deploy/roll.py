"""A new image replaces the machines of a group, one by one; and the one before replaces it again if it is bad.

What is under way is written down before it is done, in the bucket. So a launcher may die anywhere: the same command
again goes on, and meanwhile the group serves with the machines that it has.
"""

import json
from dataclasses import asdict, dataclass, replace

from baker.aws import ssm
from baker.aws.autoscaling import AutoScaling
from baker.aws.client import wait_for
from baker.aws.images import Ami
from baker.aws.members import GroupNow, Members
from baker.context import BakeContext
from baker.deploy import canary, serve
from baker.deploy.canary import BadImageError, Reach
from baker.errors import BakeError
from baker.images import publish
from baker.recovery import lease

READY_SECONDS = 900.0  # for a new machine, at most: a first start fetches its disk
KNOWN_SECONDS = 60.0  # until all of EC2 knows one that Auto Scaling has started
GONE_SECONDS = 900.0  # for an old one: a balancer lets its requests end first
POLL_SECONDS = 5.0
LONGEST_STEP = 4  # times the time for a new machine to be ready, in which others may change the group as well


@dataclass(frozen=True)
class Roll:
    """A roll-out that is under way. `before` is the image that it began with, by which it is taken back; `reason` says
    why it was. `wanted` is how many machines the group had to have when `leaving` was chosen, for which one more is
    started before it ends. `patience` is for a new machine to be ready, in seconds."""

    image: str
    before: str
    reason: str = ""
    back: bool = False
    leaving: str = ""
    wanted: int = 0
    over: bool = False
    patience: float = READY_SECONDS


class Rolling:
    """The roll-out to one group, by its name."""

    def __init__(self, context: BakeContext) -> None:
        self._context = context
        self._name = context.config.launch.name
        self._members = Members(context.clients, self._name)
        self._key = f"{context.config.s3.prefix}/rolls/{self._name}.json"

    def forward(self, image: Ami, reach: Reach) -> dict[str, str]:
        """Publish `image` once its canary is good, and let it replace the group's machines; returns it by region.

        Raises BadImageError if it was taken back, or never published.
        """
        context, known = self._context, self._known()
        self._members.now()
        if known and known.back and known.reason:
            self._again(known)
        if known is None or known.back or known.image != image.id:
            before = self._before(image)
            try:
                with context.display.phase("judge a canary"):
                    took = canary.judge(context, image, context.images.get(before) if before else None, reach)
            except BadImageError as error:
                raise BadImageError(f"{image.id} was not published; it is {error}") from None
            most = READY_SECONDS * serve.patience(self._context, image)
            fresh = Roll(image.id, before, patience=min(canary.patience(took), most))
            if known:  # the group may have one machine more for the one that was to end
                fresh = replace(fresh, leaving=known.leaving, wanted=known.wanted)
            known = self._save(fresh)
        replicas = publish.publish_image(context, image)
        try:
            self._replace(known)
        except BadImageError as error:
            if not known.before:
                raise
            self._take_back(known, str(error))
        return replicas

    def back(self) -> tuple[str, dict[str, str]]:
        """Publish what was published before, and let it replace the group's machines; returns the image that was left,
        and the other one by region. What was broken off is gone on with, or taken back."""
        context, known = self._context, self._known()
        self._members.now()
        if known is None or not (known.back or known.before):
            left, replicas = publish.previous(context)
            home = replicas[context.config.aws.region]
            known = Roll(
                home, left, back=True, patience=READY_SECONDS * serve.patience(context, context.images.get(home))
            )
        elif not known.back:
            known = replace(known, image=known.before, before=known.image, back=True)
            known = replace(known, patience=max(known.patience, READY_SECONDS))
        self._again(self._save(known), quietly=True)
        return known.before, {region.name: region.parameter.current() for region in publish.regions(context)}

    def _before(self, image: Ami) -> str:
        """The image that was published last, but for this one; empty if there is none."""
        standing = ssm.published(publish.home(self._context).parameter.history())
        return next((found for found in reversed(standing) if found != image.id), "")

    def _take_back(self, bad: Roll, reason: str) -> None:
        """Let the image before replace a bad one: what is not ready ends at once, the rest one by one. Raises
        BadImageError."""
        self._context.display.note(f"  {bad.image} is {reason}", "yellow")
        bad = self._known() or bad  # with the step that it was in
        going = replace(bad, image=bad.before, before=bad.image, reason=reason, back=True)
        roll = self._save(replace(going, patience=max(bad.patience, READY_SECONDS)))
        self._publish_before(roll)
        group = self._members.now()
        for machine in sorted(self._members.unhealthy(group) & self._older(roll.image, group)):
            self._members.end(machine)
        group = self._members.now()
        if group.desired < roll.wanted:
            self._members.resize(roll.wanted, max(group.max_size, roll.wanted))
        self._again(roll)

    def _again(self, roll: Roll, *, quietly: bool = False) -> None:
        """Go back, as far as that is not done. Raises BadImageError if it is because of a bad image."""
        self._publish_before(roll)
        self._replace(roll)
        if roll.reason and not quietly:
            raise BadImageError(f"{roll.before} was taken back, {roll.image} serves again; it is {roll.reason}")

    def _publish_before(self, roll: Roll) -> None:
        """Move the parameters back to the roll's image, unless that is done."""
        if publish.home(self._context).parameter.current() != roll.image:
            publish.roll_back(self._context)

    def _replace(self, roll: Roll) -> None:
        """Machine after machine: one of the roll's image is started and ready, then an older one ends."""
        while True:
            group = self._members.now()
            older = sorted(self._older(roll.image, group))
            if not older:
                break
            self._still_published(roll)
            if roll.leaving not in older:
                roll = self._save(
                    replace(roll, leaving=older[0], wanted=group.desired - self._one_too_many(roll, group))
                )
            with self._context.display.phase(f"replace {roll.leaving}, of {len(older)} left"):
                roll = self._ready(self._one_more(roll, group))
                fewer = self._members.end(roll.leaving)
                self._gone(roll.leaving)
            if fewer:  # the group wants no machine more for it
                roll = self._save(replace(roll, leaving=""))
        fleet = self._context.config.fleet.queue  # whose machines end themselves
        size = group.desired if fleet else group.desired - self._one_too_many(roll, group)
        raised = group.max_size == roll.wanted + 1
        largest = max(self._context.config.launch.max_size, size) if raised else group.max_size
        if (size, largest) != (group.desired, group.max_size):
            self._members.resize(size, largest)
        self._save(replace(roll, over=True))

    def _still_published(self, roll: Roll) -> None:
        """Raise BakeError if the group would start another image: the replacing would never end."""
        parameter = publish.home(self._context).parameter
        if (named := parameter.current()) != roll.image:
            told = f"{parameter.name} names {named or 'nothing'} by now, and no longer {roll.image}"
            raise BakeError(f"{told}: somebody else has published; the same command again goes on with {roll.image}")

    def _one_too_many(self, roll: Roll, group: GroupNow) -> bool:
        """Whether the group has a machine for one that was to end, but ended by itself and was replaced."""
        return bool(roll.leaving) and group.desired == roll.wanted + 1

    def _one_more(self, roll: Roll, group: GroupNow) -> Roll:
        """One machine more than there are to be, unless that is so already. If somebody has given the group another
        size meanwhile, so many are to be from now on."""
        if group.desired == roll.wanted + 1:
            return roll
        if group.desired != roll.wanted:
            roll = self._save(replace(roll, wanted=group.desired))
        self._members.resize(roll.wanted + 1, max(group.max_size, roll.wanted + 1))
        return roll

    def _ready(self, roll: Roll) -> Roll:
        """Return once those that are to be serve without the one that leaves, and none that counts is silent. Machines
        that others let the group have meanwhile are not waited for, and each has its own time to be ready."""
        began, since = self._context.clock(), dict[str, float]()

        def poll() -> Roll | None:
            nonlocal roll
            group, now = self._members.now(), self._context.clock()
            roll = self._one_more(roll, group)
            silent = self._members.unhealthy(group) - self._older(roll.image, group)
            for machine in set(since) - silent:
                del since[machine]
            since.update({machine: now for machine in silent if machine not in since})
            overdue = sorted(machine for machine in silent if now - since[machine] >= roll.patience)
            if overdue:
                raise BadImageError(f"silent: {', '.join(overdue)} was not ready in {roll.patience:.0f} s")
            if len(group.serving - silent - {roll.leaving}) >= roll.wanted:
                return roll
            if silent or now - began < roll.patience:
                return None
            why = AutoScaling(self._context.clients).last_failure(self._name) or "see its activities"
            raise BakeError(f"the group {self._name} lacks a machine, so none is taken from it; again goes on: {why}")

        found = wait_for(poll, LONGEST_STEP * roll.patience, self._context.sleep, every=POLL_SECONDS)
        if found is None:
            raise BakeError(f"the group {self._name} does not come to rest; the same command again goes on")
        return found

    def _gone(self, machine: str) -> None:
        """Return once the machine serves no more."""

        def poll() -> bool | None:
            return machine not in self._members.now().serving or None

        if wait_for(poll, GONE_SECONDS, self._context.sleep, every=POLL_SECONDS) is None:
            raise BakeError(f"{machine} has not ended in {GONE_SECONDS:.0f} s; the same command again goes on")

    def _older(self, image: str, group: GroupNow) -> set[str]:
        """The serving machines that were started from another image."""

        def poll() -> dict[str, str] | None:
            found = self._context.machines.images(group.serving)
            return found if group.serving <= set(found) else None

        found = wait_for(poll, KNOWN_SECONDS, self._context.sleep)
        if found is None:
            raise BakeError(f"EC2 does not know all machines of the group {self._name}; the same command again goes on")
        return {machine for machine in group.serving if found[machine] != image}

    def _known(self) -> Roll | None:
        """What is under way, or None."""
        stored = self._context.bucket.get(self._key)
        found = Roll(**json.loads(stored)) if stored else None
        return found if found and not found.over else None

    def _save(self, roll: Roll) -> Roll:
        self._context.renew_lease()
        self._context.bucket.put(self._key, json.dumps(asdict(roll), indent=1).encode())
        return roll


def forward(context: BakeContext, image: Ami, reach: Reach) -> dict[str, str]:
    """Rolling.forward, as the only launcher that changes the group."""
    publish.check(image)
    with lease.held(context, _what(context), _what(context)) as alone:
        return Rolling(alone).forward(image, reach)


def back(context: BakeContext) -> tuple[str, dict[str, str]]:
    """Rolling.back, as the only launcher that changes the group."""
    with lease.held(context, _what(context), _what(context)) as alone:
        return Rolling(alone).back()


def _what(context: BakeContext) -> str:
    return f"roll-{context.config.launch.name}"
