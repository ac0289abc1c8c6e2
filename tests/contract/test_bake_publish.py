"""Publishing and rolling back against moto over HTTP: publishing again completes whatever was interrupted."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from baker.aws import requests, ssm
from baker.aws.ssm import PUBLISHED, ROLLED_BACK, ParameterVersion
from baker.context import BakeContext
from baker.errors import AwsError, BakeError, UsageError
from baker.images import publish
from support.fake_cloud import REGION, Cloud
from support.made_images import ABROAD, ACCOUNT, UNIT, client, copies, made, named, publisher, record

pytestmark = pytest.mark.slow


@pytest.fixture(name="wide")
def widely_published(cloud: Cloud) -> BakeContext:
    """A launcher that publishes abroad and to others."""
    return publisher(cloud, accounts=(ACCOUNT,), organizations=(UNIT,))


def test_publishing_copies_shares_deprecates_and_moves_the_parameter_last(
    cloud: Cloud, wide: BakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, moved = made(cloud, "one"), []
    point = ssm.PublishedParameter.set

    def watched(self: ssm.PublishedParameter, image_id: str, why: str) -> None:
        [copy] = copies(cloud)
        moved.append((image_id, copy["ImageId"], copy["State"], copy.get("DeprecationTime", "")[:4] > "2000"))
        point(self, image_id, why)

    monkeypatch.setattr(ssm.PublishedParameter, "set", watched)
    held = publish.publish_image(wide, image)
    [copy] = copies(cloud)
    assert held == {REGION: image.id, ABROAD: copy["ImageId"]} == named(wide)
    assert moved == [
        (copy["ImageId"], copy["ImageId"], "available", True),
        (image.id, copy["ImageId"], "available", True),
    ]
    for region in publish.regions(wide):
        found = region.images.get(held[region.name])
        assert found
        assert (found.imdsv2, found.tags["project"], found.verified) == (True, "p", True)
        assert requests.TAG_PUBLISHED in found.tags
        assert region.sharing.shared_with(found.id) == {ACCOUNT, UNIT}
    assert {tag["Key"]: tag["Value"] for tag in copy["Tags"]}[requests.TAG_COPY] == image.id


def test_only_a_verified_image_is_published(cloud: Cloud) -> None:
    with pytest.raises(UsageError, match="is not verified; only a verified image"):
        publish.publish_image(cloud.context, made(cloud, "one", verified=False))
    assert named(cloud.context) == {REGION: ""}


def test_who_is_no_longer_named_loses_access_and_the_public_always(cloud: Cloud, wide: BakeContext) -> None:
    image = made(cloud, "one")
    permission = {"Add": [{"Group": "all"}, {"UserId": "999999999999"}]}
    cloud.ec2.modify_image_attribute(ImageId=image.id, LaunchPermission=permission)
    publish.publish_image(wide, image)
    assert publish.home(wide).sharing.shared_with(image.id) == {ACCOUNT, UNIT}


class Lost(Exception):
    """The launcher is gone."""


def dies_at(call: int, of: Callable[..., Any]) -> Callable[..., Any]:
    """`of`, but the launcher dies after its `call`th use has had its effect."""
    uses = iter(range(1, 1000))

    def dying(*arguments: Any, **named_: Any) -> Any:
        answer = of(*arguments, **named_)
        if next(uses) == call:
            raise Lost
        return answer

    return dying


STEPS = [("aws.sharing.Sharing.copy", 1), ("aws.sharing.Sharing.share", 1),
         ("aws.sharing.Sharing.require_imdsv2", 2), ("aws.sharing.Sharing.deprecate", 2),
         ("aws.images.Images.tag", 1), ("aws.ssm.PublishedParameter.set", 1), ("aws.s3.Bucket.put", 1)]  # fmt: skip


@pytest.mark.parametrize(("step", "call"), STEPS)
def test_publishing_again_completes_a_publication_that_died(
    cloud: Cloud, wide: BakeContext, monkeypatch: pytest.MonkeyPatch, step: str, call: int
) -> None:
    image = made(cloud, "one")
    module, kind, method = step.rsplit(".", 2)
    owner = getattr(__import__(f"baker.{module}", fromlist=[kind]), kind)
    with monkeypatch.context() as patched:
        patched.setattr(owner, method, dies_at(call, getattr(owner, method)))
        with pytest.raises(Lost):
            publish.publish_image(wide, image)
        assert named(wide)[REGION] == ""
    publish.publish_image(wide, image)
    assert len(copies(cloud)) == 1
    assert named(wide) == {REGION: image.id, ABROAD: copies(cloud)[0]["ImageId"]}
    assert [entry.image for entry in publish.home(wide).parameter.history()] == [image.id]


def test_a_copy_that_failed_is_removed_and_made_again(cloud: Cloud, wide: BakeContext) -> None:
    image = made(cloud, "one")
    region = publish.region(wide, ABROAD)
    failed = publish.copied(wide, region, image)
    record(failed.id, ABROAD).state = "failed"
    held = publish.publish_image(wide, image)
    assert held[ABROAD] != failed.id
    assert len(copies(cloud)) == 1


def test_a_parameter_that_does_not_take_the_image_is_an_error(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssm.PublishedParameter, "current", lambda self: "ami-old")
    monkeypatch.setattr(ssm, "SETTLE_SECONDS", 4.0)
    with pytest.raises(BakeError, match="does not name it after 4 s"):
        publish.publish_image(cloud.context, made(cloud, "one"))


def test_rollbacks_go_back_one_publication_each_in_every_region(cloud: Cloud, wide: BakeContext) -> None:
    images = [made(cloud, name) for name in ("one", "two", "three")]
    held = [publish.publish_image(wide, image) for image in images]
    assert publish.roll_back(wide) == (images[2].id, held[1])
    assert publish.roll_back(wide) == (images[1].id, held[0])
    assert named(wide) == held[0]
    with pytest.raises(UsageError, match="there is nothing to go back to"):
        publish.roll_back(wide)
    publish.publish_image(wide, images[2])
    assert publish.roll_back(wide)[1] == held[0]


def test_a_rollback_that_cannot_be_had_everywhere_moves_nothing(cloud: Cloud, wide: BakeContext) -> None:
    first, second = made(cloud, "one"), made(cloud, "two")
    held = publish.publish_image(wide, first)
    now = publish.publish_image(wide, second)
    publish.region(wide, ABROAD).images.remove(replace(first, id=held[ABROAD], snapshots=()))
    with pytest.raises(BakeError, match=f"{ABROAD} has no copy of {first.id}; nothing was changed"):
        publish.roll_back(wide)
    assert named(wide) == now


@pytest.mark.parametrize(
    ("history", "standing"),
    [
        ("", ""),
        ("+a", "a"),
        ("+a+b+c", "abc"),
        ("+a+b+c-b", "ab"),
        ("+a+b+c-b-a", "a"),
        ("+a+b-a+b", "ab"),
        ("+a+b+a", "aba"),
        ("+a+b+a-b", "ab"),
        ("+a+b-a+c", "ac"),
        ("-b", "b"),  # what came before it is beyond the hundred versions that SSM keeps
    ],
)
def test_history_reads_as_publications_that_stand(history: str, standing: str) -> None:
    pairs = zip(history[::2], history[1::2], strict=True)
    entries = [
        ParameterVersion(n, image, PUBLISHED if how == "+" else ROLLED_BACK) for n, (how, image) in enumerate(pairs, 1)
    ]
    assert ssm.published(entries) == list(standing)


def test_a_refusal_is_one_line(cloud: Cloud, wide: BakeContext) -> None:
    image = made(cloud, "one")
    cloud.ec2.register_image(Name=image.name)  # moto lets it
    other = client(cloud, "ec2", ABROAD).register_image(Name=image.name)["ImageId"]
    with pytest.raises(AwsError, match="AWS refused CopyImage: AMI name transcribe-one is already in use"):
        publish.publish_image(wide, image)
    assert other
