"""The first machine of a new image is judged before anybody depends on it, beside one of the image that serves now.

Both are started alike and at the same time, outside the group, so that they differ in the image only: a disk that was
just made from its snapshot is slow, and so is a machine that has work. Neither gets a request or a job of anybody's.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace

from transcribe.keys import new_key

from baker.aws import requests
from baker.aws.client import wait_for
from baker.aws.images import Ami
from baker.aws.instances import ENDED
from baker.bake.acceptance import word_error_rate
from baker.context import BakeContext
from baker.deploy import serve
from baker.deploy.hearing import Clip, Heard, Hearing, OverHttp, ThroughQueue
from baker.deploy.template import instance_tags, on_trial, service_setup, template_data, user_data
from baker.errors import AwsError, BakeError
from baker.fleet.cloud import FleetCloud, make_queues, remove
from baker.inputs import pillar

CANARY, CONTROL = "canary", "control"  # roles of the two machines
FIRST_SECONDS = 900.0  # until the clip is heard first: a first start fetches its disk
LEAST_PATIENCE = 90.0  # seconds more than another machine has needed
REMOVED_LATELY, NAME_SECONDS = "QueueDeletedRecently", 60.0  # SQS' refusal of a queue's name, and for how long
JUDGED_SECONDS = 120.0  # from then on, until there are figures to compare
POLL_SECONDS = 2.0
TRIES = 5  # of the clip, of which the quickest counts
LEAST_SPEED = 0.6  # of the image that serves now
CLEAR_TRIES, CLEARLY_SLOW = 2, 0.3  # after which so much less speed needs no further tries
MINUTES = 45  # after which both machines end themselves, if nobody is there to end them

Reach = Callable[[str], Sequence[str]]  # the addresses of a machine, by its id


class BadImageError(BakeError):
    """The image must not serve; the message says why."""


@dataclass(frozen=True)
class Standard:
    """What every machine must hear in the clip."""

    clip: Clip
    reference: str
    max_word_error_rate: float


@dataclass
class Subject:
    """A machine that is judged: its id, its image, and what it has made of the clip so far. `age` says for how many
    seconds it is there, and `took` after how many it had heard the clip."""

    machine: str
    image: str
    hearing: Hearing
    age: Callable[[], float]
    heard: list[Heard] = field(default_factory=list)
    took: float = 0.0

    def listen(self, standard: Standard) -> None:
        """Take down what it hears now. Raises BadImageError if that is something else than is said."""
        heard = self.hearing.hear()
        if heard is None:
            return
        rate = word_error_rate(standard.reference, heard.text)
        if rate > standard.max_word_error_rate:
            said = " ".join(heard.text.split())[:80]
            raise BadImageError(f"wrong: {self.image} hears {said!r} in the clip, a word error rate of {rate:.0%}")
        self.took = self.took or self.age()
        self.heard.append(heard)

    @property
    def seconds(self) -> float:
        """For the clip, at its quickest."""
        return min(each.seconds for each in self.heard)


def judge(context: BakeContext, image: Ami, before: Ami | None, reach: Reach) -> float:
    """Return how many seconds a machine of `image` has needed from its start until it has heard the clip. Raises
    BadImageError if it is silent, wrong, or slow beside one of `before`; BakeError if that cannot be found out."""
    standard = _standard(context)
    sweep(context, CANARY, CONTROL)
    with (
        _subject(context, CANARY, image, reach, standard) as canary,
        _subject(context, CONTROL, before, reach, standard) if before else nullcontext() as control,
    ):
        _first(context, canary, control, standard, FIRST_SECONDS * serve.patience(context, image))
        if control and control.heard:
            _compare(context, canary, control, standard)
        return canary.took


def patience(seconds: float) -> float:
    """How long to wait for what has taken another machine so many seconds."""
    return seconds + max(seconds, LEAST_PATIENCE)


def sweep(context: BakeContext, *roles: str) -> None:
    """End what there is of such machines, as an earlier roll-out may have left them."""
    for role in roles:
        for machine in context.machines.launched(context.config.launch.name, role):
            context.machines.terminate(machine)


def _first(context: BakeContext, canary: Subject, control: Subject | None, standard: Standard, seconds: float) -> None:
    """Return once the canary has heard the clip, and its control as well if it can."""
    both = [one for one in (canary, control) if one]

    def poll() -> bool | None:
        for one in both:
            if not one.heard:
                one.listen(standard)
        if not canary.heard and context.machines.state(canary.machine) in ENDED:
            raise BadImageError(f"silent: its machine has ended, {context.machines.why_ended(canary.machine)}")
        if control and control.heard and not canary.heard and canary.age() > patience(control.took):
            told = f"{control.image} has heard the clip after {control.took:.0f} s, and it has not after"
            raise BadImageError(f"silent: {told} {canary.age():.0f} s, {canary.hearing.problem}")
        mute = control and canary.heard and control.age() > patience(canary.took)  # which a new image may mend
        return bool(mute) or all(one.heard for one in both) or None

    if wait_for(poll, seconds, context.sleep, every=POLL_SECONDS) or canary.heard:
        return
    told = f"silent: nothing heard in {seconds:.0f} s, {canary.hearing.problem}"
    if control and not control.heard:
        raise BakeError(f"{canary.image} is {told}; so is {control.image}, which serves now: look for another cause")
    raise BadImageError(told)


def _compare(context: BakeContext, canary: Subject, control: Subject, standard: Standard) -> None:
    """Let both hear the clip some more times, and compare how long they need."""

    def poll() -> bool | None:
        for one in (canary, control):
            if len(one.heard) < TRIES:
                one.listen(standard)
        slow = len(canary.heard) >= CLEAR_TRIES and control.seconds < CLEARLY_SLOW * canary.seconds
        return slow or min(len(canary.heard), len(control.heard)) >= TRIES or None

    wait_for(poll, JUDGED_SECONDS, context.sleep, every=POLL_SECONDS)
    if len(canary.heard) < len(control.heard) // 2:
        raise BadImageError(f"silent: it has heard the clip {len(canary.heard)} times, {canary.hearing.problem}")
    if control.seconds < LEAST_SPEED * canary.seconds:
        raise BadImageError(
            f"slow: {canary.seconds:.2f} s for the clip, where {control.image} needs {control.seconds:.2f} s"
        )


@contextmanager
def _subject(context: BakeContext, role: str, image: Ami, reach: Reach, standard: Standard) -> Iterator[Subject]:
    """A machine as the group's are, but with a key of its own, and of a fleet with queues of its own. Nothing of it
    stays after the block."""
    config, wanted, hearing = context.config, context.config.fleet, None
    with ExitStack() as stack:
        if wanted.queue:
            own = replace(wanted, queue=f"{wanted.queue}-roll-{role}", prefix=f"{wanted.prefix}/roll/{role}")
            config = replace(config, fleet=replace(own, idle_minutes=0, wait_minutes=0))
            fleet = _fleet(replace(context, config=config))
            stack.callback(remove, fleet)
            hearing = ThroughQueue(fleet, standard.clip)
        context = replace(context, config=config)
        key, line = new_key(role)
        setup = on_trial(service_setup(context.root, config), line, int(MINUTES * serve.patience(context, image)))
        data = template_data(config, setup, serve.security_groups(context), image.root_device)
        tags = {**instance_tags(config), requests.TAG_ROLE: role}
        tagged = requests.tag_specifications(("instance", "volume"), tags)
        request = {**data, "ImageId": image.id, "TagSpecifications": tagged, "UserData": user_data(setup)}
        stack.callback(sweep, context, role)  # before its queues are removed
        began = context.clock()
        machine = serve.started(context, request)  # boto3 encodes its user-data
        over_http = OverHttp(lambda: reach(machine), key, standard.clip)
        yield Subject(machine, image.id, hearing or over_http, lambda: context.clock() - began)


def _fleet(context: BakeContext) -> FleetCloud:
    """The queues of one machine. SQS makes none of a name that was removed in the last minute."""

    def make() -> FleetCloud | None:
        try:
            return make_queues(context)
        except AwsError as error:
            if REMOVED_LATELY not in error.code:
                raise
            return None

    found = wait_for(make, 2 * NAME_SECONDS, context.sleep, every=POLL_SECONDS)
    if found is None:
        raise BakeError(f"SQS makes no queue {context.config.fleet.queue}; the same command again goes on")
    return found


def _standard(context: BakeContext) -> Standard:
    declared = pillar.merge(pillar.load(context.root), context.config.pillar)["verify"]
    clips = context.root / "service/clips"
    reference = (clips / declared["reference"]).read_text(encoding="utf-8").strip()
    clip = Clip(clips / declared["clip"], declared["language"])
    return Standard(clip, reference, float(declared["max_word_error_rate"]))
