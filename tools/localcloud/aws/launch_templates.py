"""Launch templates as EC2 applies them: moto keeps them, but takes little of them when an instance starts."""

from collections.abc import Iterator, Mapping
from typing import Any

from moto.ec2.models import ec2_backends
from moto.ec2.utils import parse_user_data
from moto.ssm.models import ssm_backends

from localcloud.aws.moto_images import ACCOUNT
from localcloud.aws.query_protocol import ApiError, Form

RESOLVE = "resolve:ssm:"  # before the name of a parameter that holds an image's id
LISTS = {"TagSpecifications": "TagSpecification", "Tags": "Tag", "SecurityGroupIds": "SecurityGroupId"}
LISTS |= {"BlockDeviceMappings": "BlockDeviceMapping"}  # the names of lists on the wire


def resolved(image_id: str, region: str) -> str:
    """The image that an ImageId means. Raises ApiError when it names a parameter that is not there."""
    if not image_id.startswith(RESOLVE):
        return image_id
    name, _, version = image_id.removeprefix(RESOLVE).partition(":")
    versions = ssm_backends[ACCOUNT][region]._parameters.get(name, [])
    wanted = [v for v in versions if not version or str(v.version) == version]
    if not wanted:
        raise ApiError("InvalidParameterValue", f"The SSM parameter {name} does not exist")
    return str(wanted[-1].value)


def expanded(form: Form, region: str) -> Form:
    """A RunInstances as if its template's content had been written into it; what the request says itself wins."""
    names = ("LaunchTemplate.LaunchTemplateId", "LaunchTemplate.LaunchTemplateName")
    wanted = [form[name] for name in names if name in form]
    if not wanted:
        return {**form, "ImageId": resolved(form.get("ImageId", ""), region)}
    templates = ec2_backends[ACCOUNT][region].launch_templates.values()
    template = next((t for t in templates if wanted[0] in (t.id, t.name)), None)
    if template is None:
        raise ApiError("InvalidLaunchTemplateId.NotFound", f"The launch template {wanted[0]} does not exist")
    data = template.get_version(form.get("LaunchTemplate.Version", "$Default")).data
    said = {name.split(".")[0] for name in form}
    tags = [told for told in data.get("TagSpecifications", []) if told["ResourceType"] != "launch-template"]
    fields = dict(
        _fields({LISTS.get(name, name): value for name, value in {**data, "TagSpecifications": tags}.items()})
    )
    kept = {name: value for name, value in fields.items() if name.split(".")[0] not in said}
    whole = {**{name: value for name, value in form.items() if name not in names}, **kept}
    whole.pop("LaunchTemplate.Version", None)
    return {**whole, "ImageId": resolved(whole.get("ImageId", ""), region)}


def _fields(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """A parsed structure as the query protocol writes it."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _fields(inner, f"{name}.{LISTS.get(key, key)}" if name else key)
    elif isinstance(value, list):
        for number, inner in enumerate(value, 1):
            yield from _fields(inner, f"{name}.{number}")
    elif isinstance(value, bool):
        yield name, str(value).lower()
    elif value is not None:
        yield name, str(value)


def mend(region: str) -> None:
    """Give each version its user-data in the type that moto's Auto Scaling wants, and moto itself only the first."""
    for template in ec2_backends[ACCOUNT][region].launch_templates.values():
        for version in template.versions:
            version.data["UserData"] = parse_user_data(_plain(version.data.get("UserData")))


def _plain(user_data: Any) -> str | None:
    return None if user_data is None else str(user_data)
