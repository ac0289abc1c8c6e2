"""EC2 calls that create and change images: adds what moto leaves out, and acts on the disks."""

from collections.abc import Callable, Mapping
from typing import Protocol

from localcloud.aws import moto_images
from localcloud.aws.query_protocol import Ec2Error, Form, MotoCall, element_texts


class ImageActions(Protocol):
    """What these calls do beyond moto's records."""

    def may_image(self, instance_id: str, name: str) -> None: ...
    def imaged(self, instance_id: str, image_id: str, *, no_reboot: bool, snapshot_tags: Mapping[str, str]) -> None: ...
    def copied(self, source_id: str, image_id: str) -> None: ...
    def deregistered(self, image_id: str) -> None: ...
    def changed(self) -> None: ...


def take_tags(form: Form, kind: str) -> dict[str, str]:
    """Remove the tags for one kind of resource from a request, where moto would refuse or forget them."""
    specs = [key.split(".")[1] for key, value in form.items() if key.endswith(".ResourceType") and value == kind]
    tags: dict[str, str] = {}
    for number in specs:
        prefix = f"TagSpecification.{number}."
        ours = {key: form.pop(key) for key in list(form) if key.startswith(prefix)}
        for key, value in ours.items():
            if key.endswith(".Key"):
                tags[value] = ours.get(key[: -len("Key")] + "Value", "")
    return tags


class ImageCalls:
    """The handlers; the EC2 layer calls one at a time."""

    def __init__(self, actions: ImageActions) -> None:
        self._actions = actions
        self._copies: dict[str, bytes] = {}  # by client token

    def handlers(self) -> Mapping[str, Callable[[Form, MotoCall], bytes]]:
        """By the name of the call."""
        return {
            "CreateImage": self._create,
            "CopyImage": self._copy,
            "DeregisterImage": self._deregister,
            "ModifyImageAttribute": self._modify,
            "EnableImageDeprecation": self._deprecate,
        }

    def _create(self, form: Form, call: MotoCall) -> bytes:
        instance_id = form.get("InstanceId", "")
        self._actions.may_image(instance_id, form.get("Name", ""))
        tags = take_tags(form, "snapshot")
        body = call.forward(form)
        if call.ok:
            no_reboot = form.get("NoReboot") == "true"
            [image_id] = element_texts(body, "imageId")
            self._actions.imaged(instance_id, image_id, no_reboot=no_reboot, snapshot_tags=tags)
        return body

    def _copy(self, form: Form, call: MotoCall) -> bytes:
        token = form.get("ClientToken", "")
        if token in self._copies:
            return self._copies[token]
        if moto_images.is_named(call.region, form.get("Name", "")):
            raise Ec2Error("InvalidAMIName.Duplicate", f"AMI name {form['Name']} is already in use by another image")
        tags = [take_tags(form, kind) for kind in ("image", "snapshot")]
        body = call.forward(form)
        if call.ok:
            image_id = element_texts(body, "imageId")[0]
            moto_images.complete(image_id, *tags)
            self._actions.copied(form.get("SourceImageId", ""), image_id)
            self._copies |= {token: body} if token else {}
        return body

    def _deregister(self, form: Form, call: MotoCall) -> bytes:
        body = call.forward(form)
        if call.ok:
            self._actions.deregistered(form.get("ImageId", ""))
        return body

    def _modify(self, form: Form, call: MotoCall) -> bytes:
        body = call.forward(form)
        if call.ok and form.get("ImdsSupport.Value") == "v2.0":
            moto_images.require_imdsv2(form["ImageId"])
        self._actions.changed()
        return body

    def _deprecate(self, form: Form, call: MotoCall) -> bytes:
        image_id = form.get("ImageId", "")
        if moto_images.find(image_id) is None:
            raise Ec2Error("InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist")
        moto_images.deprecate(image_id, form.get("DeprecateAt", ""))
        self._actions.changed()
        return b"<EnableImageDeprecationResponse><return>true</return></EnableImageDeprecationResponse>"
