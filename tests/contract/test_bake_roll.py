"""A new image replaces the machines of a group, after a canary, and goes back by itself; against moto over HTTP."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from baker.aws.members import Members
from baker.config import FleetSection
from baker.context import BakeContext
from baker.deploy import canary, roll, serve, template
from baker.deploy.canary import BadImageError
from baker.deploy.hearing import Clip, ThroughQueue
from baker.errors import AwsError, BakeError, UsageError
from baker.fleet.cloud import FleetCloud, make_queues
from baker.images import publish
from localcloud.aws.moto_instances import MotoRegion
from localcloud.aws.steward import calls
from localcloud.aws.steward.groups import Groups
from support import fleets
from support.fake_cloud import REGION, Cloud
from support.fake_worker import TEXTS
from support.made_images import KEYS, client, made, named, served
from support.served_machines import Behaviour, ServedMachines, served_machines
from support.waiting import until

pytestmark = pytest.mark.slow
SIZE = 2


@dataclass
class Newsroom:
    """A group of two machines of the image `old`, and a `new` one that nobody has published."""

    cloud: Cloud
    context: BakeContext
    machines: ServedMachines
    old: Any
    new: Any

    def group(self) -> Any:
        scaling = client(self.cloud, "autoscaling", REGION)
        [found] = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=["newsroom"])["AutoScalingGroups"]
        return found

    def images(self) -> Counter[str]:
        """How many machines of the group each image has."""
        mine = {one["InstanceId"] for one in self.group()["Instances"]}
        return Counter(one["ImageId"] for one in self.cloud.instances() if one["InstanceId"] in mine)

    def roll(self) -> dict[str, str]:
        return roll.forward(self.context, self.new, self.machines.reach)

    def assert_serves(self, image: Any) -> None:
        """The group has its size, of this image, and nothing is left beside it."""
        assert self.images() == {image.id: SIZE}
        assert (self.group()["DesiredCapacity"], self.group()["MaxSize"]) == (SIZE, SIZE)
        assert len(self.cloud.living()) == SIZE
        assert named(self.context) == {REGION: image.id}


@pytest.fixture
def newsroom(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Newsroom]:
    cloud.fleet.end()  # what serves takes no part in a bake
    MotoRegion(REGION)  # groups start machines of the image that the parameter names
    calls.lead_here(Groups(REGION, time.time))  # and refuse what Auto Scaling does
    monkeypatch.setattr(canary, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(canary, "FIRST_SECONDS", 1.5)
    monkeypatch.setattr(canary, "TRIES", 2)
    monkeypatch.setattr(canary, "LEAST_SPEED", 0.25)  # this computer has other work
    monkeypatch.setattr(roll, "READY_SECONDS", 1.5)
    monkeypatch.setattr(roll, "POLL_SECONDS", 0.05)
    context = served(cloud, name="newsroom", keys_file=KEYS, min_size=SIZE, max_size=SIZE)
    old, new = made(cloud, "old"), made(cloud, "new")
    publish.publish_image(context, old)
    setup = template.service_setup(context.root, context.config)
    serve.template(context, setup)
    serve.group(context, setup)
    with served_machines(cloud.ec2) as machines:
        found = Newsroom(cloud, context, machines, old, new)
        found.assert_serves(old)
        yield found


def test_a_new_image_replaces_one_machine_after_the_other(newsroom: Newsroom, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    ends = Members.end

    def end(self: Members, instance: str) -> bool:
        seen.append((len(self.now().serving), newsroom.images()[newsroom.new.id]))
        return ends(self, instance)

    monkeypatch.setattr(Members, "end", end)
    assert newsroom.roll() == {REGION: newsroom.new.id}
    assert seen == [(SIZE + 1, 1), (SIZE + 1, 2)], "one is ready before another one ends"
    newsroom.assert_serves(newsroom.new)
    assert set(newsroom.machines.asked) == {newsroom.old.id, newsroom.new.id}
    assert roll.back(newsroom.context)[0] == newsroom.new.id
    newsroom.assert_serves(newsroom.old)


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (Behaviour(text="And now for something completely different"), "it is wrong: .* hears 'And now for"),
        (Behaviour(seconds=2.0), r"it is slow: \d\.\d\d s for the clip, where ami-\w+ needs"),
        (Behaviour(answers=False), "it is silent: nothing heard in 2 s, .* answers 503"),
    ],
    ids=["wrong", "slow", "silent"],
)
def test_a_bad_image_is_not_published(newsroom: Newsroom, behaviour: Behaviour, words: str) -> None:
    newsroom.machines.images[newsroom.new.id] = behaviour
    with pytest.raises(BadImageError, match=f"{newsroom.new.id} was not published; {words}") as caught:
        newsroom.roll()
    assert "\n" not in str(caught.value)
    newsroom.assert_serves(newsroom.old)


def test_an_image_that_is_clearly_slow_is_told_after_few_tries(
    newsroom: Newsroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries, listen = list[int](), canary.Subject.listen

    def counted(self: canary.Subject, standard: canary.Standard) -> None:
        listen(self, standard)
        tries.append(len(self.heard))

    monkeypatch.setattr(canary.Subject, "listen", counted)
    monkeypatch.setattr(canary, "TRIES", 10**6)
    monkeypatch.setattr(canary, "JUDGED_SECONDS", 20.0)
    newsroom.machines.images[newsroom.new.id] = Behaviour(seconds=2.0)
    with pytest.raises(BadImageError, match="it is slow"):
        newsroom.roll()
    assert max(tries) < 6


def test_if_the_image_that_serves_is_silent_too_the_new_one_is_not_blamed(newsroom: Newsroom) -> None:
    for image in (newsroom.old, newsroom.new):
        newsroom.machines.images[image.id] = Behaviour(answers=False)
    with pytest.raises(BakeError, match=f"so is {newsroom.old.id}, which serves now: look for another cause"):
        newsroom.roll()
    newsroom.assert_serves(newsroom.old)


def test_an_image_whose_second_machine_is_not_ready_is_taken_back(
    newsroom: Newsroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Members.unhealthy

    def unhealthy(self: Members, group: Any) -> set[str]:
        images = newsroom.context.machines.images(group.serving)
        new = {machine for machine, image in images.items() if image == newsroom.new.id}
        return told(self, group) | (new if len(new) > 1 else set())

    monkeypatch.setattr(Members, "unhealthy", unhealthy)
    why = f"{newsroom.new.id} was taken back, {newsroom.old.id} serves again; it is silent: i-"
    with pytest.raises(BadImageError, match=why):
        newsroom.roll()
    newsroom.assert_serves(newsroom.old)


def test_a_silent_image_is_told_by_the_one_that_serves(newsroom: Newsroom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary, "FIRST_SECONDS", 600.0)
    monkeypatch.setattr(canary, "LEAST_PATIENCE", 0.2)
    newsroom.machines.images[newsroom.new.id] = Behaviour(answers=False)
    why = rf"silent: {newsroom.old.id} has heard the clip after \d+ s, and it has not after \d+ s, .* answers 503"
    with pytest.raises(BadImageError, match=why):
        newsroom.roll()
    newsroom.assert_serves(newsroom.old)


def test_a_good_image_does_not_wait_for_a_silent_one_that_serves(
    newsroom: Newsroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canary, "FIRST_SECONDS", 600.0)
    monkeypatch.setattr(canary, "LEAST_PATIENCE", 0.2)
    newsroom.machines.images[newsroom.old.id] = Behaviour(answers=False)
    newsroom.roll()
    newsroom.assert_serves(newsroom.new)


@pytest.mark.parametrize("size", [0, 1, SIZE, 5])
def test_a_size_that_somebody_gives_the_group_meanwhile_is_the_one_that_it_has_in_the_end(
    newsroom: Newsroom, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """However many there are to be: no image is blamed for it, and the last ready machine does not end before another
    one is ready."""
    scaling, resize, least = client(newsroom.cloud, "autoscaling", REGION), Members.resize, list[int]()
    scaling.update_auto_scaling_group(AutoScalingGroupName="newsroom", MinSize=0, MaxSize=9)
    ends, due = Members.end, [size]

    def resized(self: Members, desired: int, max_size: int) -> None:
        resize(self, desired, max_size)
        if due:
            scaling.set_desired_capacity(AutoScalingGroupName="newsroom", DesiredCapacity=due.pop())

    def end(self: Members, instance: str) -> bool:
        least.append(len(self.now().serving - self.unhealthy(self.now())))
        return ends(self, instance)

    monkeypatch.setattr(Members, "resize", resized)
    monkeypatch.setattr(Members, "end", end)
    newsroom.roll()
    assert (newsroom.group()["DesiredCapacity"], newsroom.group()["MaxSize"]) == (size, 9)
    assert newsroom.images() == ({newsroom.new.id: size} if size else {})
    assert not size or all(serving > 1 for serving in least)


def test_machines_that_somebody_adds_late_are_not_taken_for_silent(
    newsroom: Newsroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has as long to be ready as the first one had."""
    scaling, told, first = client(newsroom.cloud, "autoscaling", REGION), Members.unhealthy, dict[str, float]()
    scaling.update_auto_scaling_group(AutoScalingGroupName="newsroom", MaxSize=9)
    due = [time.monotonic() + 3600.0]

    def unhealthy(self: Members, group: Any) -> set[str]:
        """New machines need most of the time that they have; somebody adds some when the first one is about ready."""
        images, now = newsroom.context.machines.images(group.serving), time.monotonic()
        new = {machine for machine, image in images.items() if image == newsroom.new.id}
        if new and not first:
            due[0] = now + 0.9
        first.update({machine: now for machine in new if machine not in first})
        if now > due[0]:
            due[0] += 3600.0
            scaling.set_desired_capacity(AutoScalingGroupName="newsroom", DesiredCapacity=5)
        return told(self, group) | {machine for machine in new if now - first[machine] < 1.2}

    monkeypatch.setattr(Members, "unhealthy", unhealthy)
    newsroom.roll()
    assert newsroom.images() == {newsroom.new.id: 5}


def test_what_somebody_else_publishes_meanwhile_ends_a_roll_out(
    newsroom: Newsroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or else machines would be replaced without end."""
    other, ends = made(newsroom.cloud, "other"), Members.end

    def end(self: Members, instance: str) -> bool:
        fewer = ends(self, instance)
        publish.publish_image(newsroom.context, other)
        return fewer

    with monkeypatch.context() as patched:
        patched.setattr(Members, "end", end)
        with pytest.raises(BakeError, match=f"names {other.id} by now, and no longer {newsroom.new.id}"):
            newsroom.roll()
    newsroom.roll()
    newsroom.assert_serves(newsroom.new)


def test_nothing_stays_of_a_canary_of_a_fleet(newsroom: Newsroom, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its queues are made anew as soon as SQS lets it."""
    client(newsroom.cloud, "iam", REGION).create_instance_profile(InstanceProfileName="fleet")
    config = replace(newsroom.context.config, fleet=FleetSection(queue="speech", profile="fleet"))
    due = [AwsError("", "AWS.SimpleQueueService.QueueDeletedRecently")]

    def make(context: BakeContext) -> FleetCloud:
        if due:
            raise due.pop()
        return make_queues(context)

    monkeypatch.setattr(canary, "make_queues", make)
    with pytest.raises(BakeError, match="look for another cause"):
        roll.forward(replace(newsroom.context, config=config), newsroom.new, newsroom.machines.reach)
    assert "QueueUrls" not in client(newsroom.cloud, "sqs", REGION).list_queues()
    assert list(newsroom.context.bucket.keys("transcribe-fleet/")) == []
    newsroom.assert_serves(newsroom.old)


class Lost(Exception):
    """The launcher is gone."""


def dies_at(call: int, of: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
    """`of`, but the launcher dies before or after its `call`th use has had its effect."""
    uses = iter(range(1, 1000))

    def dying(*arguments: Any, **named_: Any) -> Any:
        this = next(uses)
        if this == call and not after:
            raise Lost
        answer = of(*arguments, **named_)
        if this == call:
            raise Lost
        return answer

    return dying


DEATHS = [(roll.Rolling, "_save", 1, False), (roll.Rolling, "_save", 2, True), (Members, "resize", 1, True),
          (Members, "end", 1, True), (Members, "end", 2, False), (Members, "resize", 3, False)]  # fmt: skip


@pytest.mark.parametrize(
    ("owner", "method", "call", "after"), DEATHS, ids=lambda value: getattr(value, "__name__", value)
)
def test_the_same_command_goes_on_with_a_roll_out_whose_launcher_died(
    newsroom: Newsroom, monkeypatch: pytest.MonkeyPatch, owner: Any, method: str, call: int, *, after: bool
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(owner, method, dies_at(call, getattr(owner, method), after=after))
        with pytest.raises(Lost):
            newsroom.roll()
    assert sum(newsroom.images().values()) >= SIZE, "all serve that served before"
    newsroom.roll()
    newsroom.assert_serves(newsroom.new)


def test_after_a_roll_out_that_died_another_image_leaves_the_group_its_size(
    newsroom: Newsroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the size that its operator lets it have."""
    with monkeypatch.context() as patched:
        patched.setattr(Members, "end", dies_at(1, Members.end, after=False))
        with pytest.raises(Lost):
            newsroom.roll()
    client(newsroom.cloud, "autoscaling", REGION).update_auto_scaling_group(AutoScalingGroupName="newsroom", MaxSize=9)
    third = made(newsroom.cloud, "third")
    roll.forward(newsroom.context, third, newsroom.machines.reach)
    assert newsroom.images() == {third.id: SIZE}
    assert (newsroom.group()["DesiredCapacity"], newsroom.group()["MaxSize"]) == (SIZE, 9)


def test_a_roll_out_that_died_can_be_taken_back(newsroom: Newsroom, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Members, "end", dies_at(2, Members.end, after=False))
        with pytest.raises(Lost):
            newsroom.roll()
    with monkeypatch.context() as patched:
        patched.setattr(Members, "end", dies_at(1, Members.end, after=True))
        with pytest.raises(Lost):
            roll.back(newsroom.context)
    assert roll.back(newsroom.context) == (newsroom.new.id, {REGION: newsroom.old.id})
    newsroom.assert_serves(newsroom.old)


def test_a_group_that_is_not_there_or_an_image_that_may_not_serve_is_refused(newsroom: Newsroom) -> None:
    launch = replace(newsroom.context.config.launch, name="nowhere")
    context = replace(newsroom.context, config=replace(newsroom.context.config, launch=launch))
    with pytest.raises(UsageError, match=r"there is no group nowhere: bake\.py launch --group makes one"):
        roll.forward(context, newsroom.new, newsroom.machines.reach)
    with pytest.raises(UsageError, match="is not verified"):
        roll.forward(context, made(newsroom.cloud, "raw", verified=False), newsroom.machines.reach)


def test_what_is_compared_ends_itself_if_nobody_ends_it(newsroom: Newsroom) -> None:
    setup = template.service_setup(newsroom.context.root, newsroom.context.config)
    told = json.loads(template.user_data(template.on_trial(setup, "canary 0", 45)).removeprefix("#cloud-config\n"))
    [timer] = told["bootcmd"]
    assert ("--on-active=45m", timer[-1]) == (timer[2], "poweroff")
    assert "bootcmd" not in template.user_data(setup)


def test_a_canary_of_a_fleet_hears_the_clip_through_its_queue(tmp_path: Path) -> None:
    """By a real feeder; as often as it is asked."""
    clip = tmp_path / "clip.flac"
    clip.write_bytes(fleets.audio("clip"))
    with fleets.fleet_cloud() as cloud, fleets.machine(tmp_path / "a", cloud, delay=0.7) as here:
        here.start()
        own = FleetCloud(cloud.bucket, cloud.queues, cloud.layout, "anna")
        hearing = ThroughQueue(own, Clip(clip, "sv"))
        for jobs in (1, 2):
            heard = until(hearing.hear, 60)
            assert heard
            assert heard.text == " ".join(text.strip() for text in TEXTS)
            assert len(TEXTS) * 0.7 <= heard.seconds < 10.0, (
                "as long as the worker took, whatever speed it says that it has"
            )
            assert len(here.worker.seen) == jobs
