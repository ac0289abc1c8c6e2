"""Launch templates as EC2 applies them: moto stores them, but ignores most of their content at launch."""

from collections.abc import Iterator, Mapping
from typing import Any

from moto.ec2.models import ec2_backends
from moto.ec2.utils import parse_user_data
from moto.ssm.models import ssm_backends

from localcloud.aws.moto_images import ACCOUNT
from localcloud.aws.query_protocol import Ec2Error, Form

RESOLVE = "resolve:ssm:"  # before the name of a parameter that holds an image's id
LISTS = {"TagSpecifications": "TagSpecification", "Tags": "Tag", "SecurityGroupIds": "SecurityGroupId"}
LISTS |= {"BlockDeviceMappings": "BlockDeviceMapping"}  # the names of lists on the wire


def resolve_image(image_id: str, region: str) -> str:
    """The image id behind an ImageId. Raises Ec2Error when it names an SSM parameter that does not exist."""
    if not image_id.startswith(RESOLVE):
        return image_id
    name, _, version = image_id.removeprefix(RESOLVE).partition(":")
    versions = ssm_backends[ACCOUNT][region]._parameters.get(name, [])
    wanted = [v for v in versions if not version or str(v.version) == version]
    if not wanted:
        raise Ec2Error("InvalidParameterValue", f"The SSM parameter {name} does not exist")
    return str(wanted[-1].value)


def expand(form: Form, region: str) -> Form:
    """A RunInstances request with its template's content filled in; what the request itself says wins."""
    names = ("LaunchTemplate.LaunchTemplateId", "LaunchTemplate.LaunchTemplateName")
    wanted = [form[name] for name in names if name in form]
    if not wanted:
        return {**form, "ImageId": resolve_image(form.get("ImageId", ""), region)}
    templates = ec2_backends[ACCOUNT][region].launch_templates.values()
    template = next((t for t in templates if wanted[0] in (t.id, t.name)), None)
    if template is None:
        raise Ec2Error("InvalidLaunchTemplateId.NotFound", f"The launch template {wanted[0]} does not exist")
    data = template.get_version(form.get("LaunchTemplate.Version", "$Default")).data
    given = {name.split(".")[0] for name in form}
    tags = [spec for spec in data.get("TagSpecifications", []) if spec["ResourceType"] != "launch-template"]
    fields = dict(
        _fields({LISTS.get(name, name): value for name, value in {**data, "TagSpecifications": tags}.items()})
    )
    kept = {name: value for name, value in fields.items() if name.split(".")[0] not in given}
    whole = {**{name: value for name, value in form.items() if name not in names}, **kept}
    whole.pop("LaunchTemplate.Version", None)
    return {**whole, "ImageId": resolve_image(whole.get("ImageId", ""), region)}


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


def convert_user_data(region: str) -> None:
    """Convert each version's user-data to the type that Auto Scaling expects; moto does so only for the first."""
    for template in ec2_backends[ACCOUNT][region].launch_templates.values():
        for version in template.versions:
            user_data = version.data.get("UserData")
            version.data["UserData"] = parse_user_data(None if user_data is None else str(user_data))
