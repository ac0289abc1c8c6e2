"""Which images prune takes, and how an image is named, against moto over HTTP."""

import pytest
from baker.context import BakeContext
from baker.errors import UsageError
from baker.images import catalog, publish
from support.fake_cloud import Cloud
from support.made_images import ABROAD, ACCOUNT, client, copies, made, publisher

pytestmark = pytest.mark.slow


@pytest.fixture(name="wide")
def published_abroad(cloud: Cloud) -> BakeContext:
    """A launcher that publishes to a second region as well."""
    return publisher(cloud)


def reasons(context: BakeContext, keep: int) -> dict[str, tuple[str, ...]]:
    return {decision.image.image.name: decision.reasons for decision in catalog.judge(catalog.read(context), keep)}


def test_prune_removes_only_what_nobody_needs_with_copies_and_disks(cloud: Cloud, wide: BakeContext) -> None:
    images = {name: made(cloud, name) for name in ("old", "runs", "shared", "back", "now", "new")}
    made(cloud, "half", verified=False)
    cloud.fleet.end()  # the instance is no bake's
    for name in ("old", "back", "now"):
        publish.publish_image(wide, images[name])
    instance = cloud.ec2.run_instances(ImageId=images["runs"].id, MinCount=1, MaxCount=1, InstanceType="g4dn.xlarge")
    identity = instance["Instances"][0]["InstanceId"]
    publish.home(wide).sharing.share(images["shared"].id, [ACCOUNT])
    assert {name.removeprefix("transcribe-"): why for name, why in reasons(wide, 1).items()} == {
        "new": ("number 1 of 1",),
        "now": ("published", f"published in {ABROAD}"),
        "back": ("rollback's next", f"rollback's next in {ABROAD}"),
        "shared": (f"shared with {ACCOUNT}",),
        "runs": (f"{identity} runs it",),
        "old": (),
    }
    gone = catalog.remove(wide, catalog.judge(catalog.read(wide), 1))
    assert [entry.id for entry in gone] == [images["old"].id]
    assert images["old"].id not in [image["ImageId"] for image in cloud.images()]
    assert len(cloud.images()) == 6
    assert len(copies(cloud)) == 2
    assert catalog.remove(wide, catalog.judge(catalog.read(wide), 1)) == []


def test_a_copy_that_runs_abroad_keeps_its_image(cloud: Cloud, wide: BakeContext) -> None:
    first = publish.publish_image(wide, made(cloud, "one"))
    for name in ("two", "three"):
        publish.publish_image(wide, made(cloud, name))
    client(cloud, "ec2", ABROAD).run_instances(ImageId=first[ABROAD], MinCount=1, MaxCount=1)
    assert "runs it in eu-west-1" in reasons(wide, 1)["transcribe-one"][0]


def test_a_copy_that_was_left_alone_is_pruned(cloud: Cloud, wide: BakeContext) -> None:
    images = [made(cloud, name) for name in ("one", "two", "three")]
    for image in images:
        publish.publish_image(wide, image)
    publish.home(wide).images.remove(images[0])  # prune died, or somebody did it by hand
    assert len(copies(cloud)) == 3
    catalog.remove(wide, catalog.judge(catalog.read(wide), 5))
    assert len(copies(cloud)) == 2


def test_an_image_is_chosen_by_id_name_or_word(cloud: Cloud) -> None:
    old, new = made(cloud, "one"), made(cloud, "two")
    made(cloud, "three", verified=False)
    publish.publish_image(cloud.context, old)
    for word, image in ((old.id, old), ("transcribe-two", new), ("latest", new), ("published", old)):
        assert catalog.choose(cloud.context, word).id == image.id
    with pytest.raises(UsageError, match=r"there is no image ami-0 named transcribe-… in this region"):
        catalog.choose(cloud.context, "ami-0")
