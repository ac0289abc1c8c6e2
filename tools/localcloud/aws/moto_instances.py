"""moto's records of instances and images, read and corrected in place."""

import base64
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from moto.autoscaling.models import ASG_NAME_TAG, autoscaling_backends
from moto.ec2.models import ec2_backends
from moto.ec2.models.amis import Ami
from moto.ec2.models.instances import StateReason
from moto.s3.models import s3_backends

from localcloud.aws import account, launch_templates, moto_images
from localcloud.aws.moto_images import ACCOUNT, ROOT_DEVICE
from localcloud.machines import base_image
from localcloud.machines.disk_images import DiskImage

SOURCE_OWNER = "136693071363"  # Debian's account, which owns its images on AWS
CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}


@dataclass(frozen=True)
class StartedInstance:
    """An instance as it was started."""

    id: str
    image_id: str
    user_data: bytes


class MotoRegion:
    """One region's EC2 records, and the bucket."""

    def __init__(self, region: str) -> None:
        self.region = region
        self._ec2: Any = ec2_backends[ACCOUNT][region]
        self._resolve_images()
        account.furnish(region)

    def create_bucket(self, name: str) -> None:
        s3_backends[ACCOUNT]["aws"].create_bucket(name, self.region)

    # --- instances

    def state(self, instance_id: str) -> str:
        """An instance's state; `terminated` if there is none."""
        instance = self._ec2.get_instance_by_id(instance_id)
        return str(instance.state) if instance else "terminated"

    def set_state(self, instance_id: str, state: str, *, code: str = "", reason: str = "") -> None:
        """Change an instance's state; `code` and `reason` are EC2's StateReason."""
        instance = self._ec2.get_instance_by_id(instance_id)
        if instance is None:
            return
        if state == "terminated" and instance.state != "terminated":
            instance.terminate()
        instance._state.name, instance._state.code = state, CODES[state]
        if code:
            instance._reason = reason
            instance.state_reason = StateReason(f"{code}: {reason}", code)

    def ends_on_shutdown(self, instance_id: str) -> bool:
        """Whether a power-off from inside terminates the instance."""
        instance = self._ec2.get_instance_by_id(instance_id)
        return bool(instance and str(instance.instance_initiated_shutdown_behavior) == "terminate")

    def role(self, instance_id: str) -> str:
        """The name of the role that an instance's profile gives it; empty if it has no profile."""
        self._take_profile_of_group(instance_id)
        found = self._ec2.iam_instance_profile_associations.get(instance_id)
        return str(found.iam_instance_profile.roles[0].name) if found else ""

    def group(self, instance_id: str) -> str:
        """The Auto Scaling group that has started an instance; empty if none has."""
        tags = self._ec2.describe_tags({"resource-id": [instance_id], "key": [ASG_NAME_TAG]})
        return str(tags[0]["value"]) if tags else ""

    def _take_profile_of_group(self, instance_id: str) -> None:
        """Give an instance that Auto Scaling has started the profile of its group's template, which moto leaves out."""
        group = autoscaling_backends[ACCOUNT][self.region].autoscaling_groups.get(self.group(instance_id))
        if group is None or group.ec2_launch_template is None:
            return
        data = group.ec2_launch_template.get_version(group.launch_template_version).data
        name = data.get("IamInstanceProfile", {}).get("Name")
        if name and instance_id not in self._ec2.iam_instance_profile_associations:
            self._ec2.associate_iam_instance_profile(instance_id, name)

    def started(self, *, without: Collection[str]) -> list[StartedInstance]:
        """The running instances of Auto Scaling groups, except those in `without`."""
        return [
            StartedInstance(i.id, i.image_id, base64.b64decode(str(i.user_data or "")))
            for reservation in list(self._ec2.reservations.values())
            for i in reservation.instances
            if str(i.state) == "running" and hasattr(i, "autoscaling_group") and i.id not in without
        ]

    def _resolve_images(self) -> None:
        """Let every way of starting an instance name its image by an SSM parameter."""
        run = self._ec2.run_instances

        def run_instances(image_id: str, *arguments: Any, **named: Any) -> Any:
            return run(launch_templates.resolve_image(image_id, self.region), *arguments, **named)

        self._ec2.run_instances = run_instances

    # --- images

    def has_image_named(self, name: str) -> bool:
        return moto_images.is_named(self.region, name)

    def add_source(self, image: DiskImage, base: str) -> None:
        """Offer the image that a bake on this base starts from, as Debian would."""
        made = base_image.BASES[base]
        facts = {"name": f"{made.image_name}-{made.key()[:8]}", "description": f"{made.system} (local cloud)"}
        self._add(image.id, owner=SOURCE_OWNER, facts=facts)

    def restore(self, image: DiskImage) -> None:
        """Offer an image of an earlier run again, with its tags and its snapshot's id."""
        ami = self._add(image.id, owner=ACCOUNT, facts=image.facts)
        ami.launch_permissions = list(image.facts.get("launch_permissions", []))
        ami.deprecation_time = image.facts.get("deprecated") or None
        ami.imds_support = image.facts.get("imds_support", "")
        snapshots = ami.ec2_backend.snapshots
        snapshot = snapshots.pop(ami.ebs_snapshot.id)
        snapshot.id = image.facts.get("snapshot", snapshot.id)
        snapshots[snapshot.id] = snapshot
        snapshot.add_tags(image.facts.get("snapshot_tags", {}))

    def finish_image(self, image_id: str, snapshot_tags: Mapping[str, str]) -> None:
        """Complete what moto leaves out of a new image."""
        moto_images.complete(image_id, {}, snapshot_tags)

    def facts(self, image_id: str) -> dict[str, Any]:
        """What must survive a restart of the local cloud."""
        return moto_images.facts(image_id)

    def _add(self, image_id: str, *, owner: str, facts: Mapping[str, Any]) -> Any:
        created, region = facts.get("created"), facts.get("region", self.region)
        backend = ec2_backends[ACCOUNT][region]
        ami = Ami(
            backend,
            image_id,
            name=facts.get("name"),
            description=facts.get("description"),
            owner_id=owner,
            virtualization_type="hvm",
            architecture="x86_64",
            hypervisor="xen",
            root_device_type="ebs",
            root_device_name=ROOT_DEVICE,
            region_name=f"{region}a",
            creation_date=datetime.fromisoformat(created) if created else None,
            tags=dict(facts.get("tags", {})),
        )
        backend.amis[image_id] = ami
        return ami
