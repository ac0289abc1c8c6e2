"""What the local cloud adds to moto for images that are published: copies, dates, parameters, all of which last."""

from datetime import UTC, datetime
from typing import Any

import pytest
from localcloud.common import Folders
from localcloud.endpoint import BUCKET, REGION
from support.running_cloud import RunningCloud, launch, refused, stopped

ABROAD = "eu-west-1"
TAGS = [{"ResourceType": kind, "Tags": [{"Key": "k", "Value": kind}]} for kind in ("image", "snapshot")]


def image_of(running: RunningCloud) -> str:
    return str(running.ec2.create_image(InstanceId=stopped(running.ec2), Name="one")["ImageId"])


def copy(abroad: Any, image_id: str, **changes: Any) -> str:
    request = {"SourceImageId": image_id, "SourceRegion": REGION, "Name": "one", "TagSpecifications": TAGS, **changes}
    return str(abroad.copy_image(**request)["ImageId"])


def test_a_copy_has_its_tags_its_disk_and_a_name_of_its_own(running: RunningCloud) -> None:
    image_id, abroad = image_of(running), running.client("ec2", ABROAD)
    copied = copy(abroad, image_id, ClientToken="t")
    assert copy(abroad, image_id, ClientToken="t") == copied
    assert refused(lambda: copy(abroad, image_id, ClientToken="u")) == "InvalidAMIName.Duplicate"
    [image] = abroad.describe_images(Owners=["self"])["Images"]
    snapshot_id = image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    [snapshot] = abroad.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
    assert (image["Tags"], snapshot["Tags"]) == (TAGS[0]["Tags"], TAGS[1]["Tags"])
    assert launch(abroad, ImageId=copied) in running.cloud.machines.running()


@pytest.mark.slow
def test_what_is_said_of_images_outlives_the_local_cloud(folders: Folders) -> None:
    first = RunningCloud(folders)
    image_id = image_of(first)
    copied = copy(first.client("ec2", ABROAD), image_id)
    at = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    first.ec2.enable_image_deprecation(ImageId=image_id, DeprecateAt=at)
    first.ec2.modify_image_attribute(ImageId=image_id, ImdsSupport={"Value": "v2.0"})
    first.client("s3").put_object(Bucket=BUCKET, Key="bakes/manifests/ä.json", Body=b"{}")
    first.client("s3").put_object(Bucket=BUCKET, Key="bakes/builds/signal", Body=b"{}")
    for value in (image_id, "ami-2"):
        put = {"Type": "String", "Overwrite": True, "DataType": "aws:ec2:image", "Description": f"d {value}"}
        first.client("ssm").put_parameter(Name="/p/image", Value=value, **put)
    first.close()
    second = RunningCloud(folders)
    [after] = second.ec2.describe_images(Owners=["self"])["Images"]
    assert (after["ImageId"], after["ImdsSupport"]) == (image_id, "v2.0")
    assert datetime.fromisoformat(after["DeprecationTime"]) == at
    [abroad] = second.client("ec2", ABROAD).describe_images(Owners=["self"])["Images"]
    assert abroad["ImageId"] == copied
    [kept] = second.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]
    assert kept["Key"] == "bakes/manifests/ä.json"
    history = second.client("ssm").get_parameter_history(Name="/p/image")["Parameters"]
    assert [(v["Version"], v["Value"], v["Description"]) for v in history] == [
        (1, image_id, f"d {image_id}"),
        (2, "ami-2", "d ami-2"),
    ]
    second.close()
