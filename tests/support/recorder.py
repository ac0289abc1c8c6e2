"""What a launcher asks of AWS, recorded as it leaves its hands: a hook in botocore, and checks of what it recorded."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import boto3
import botocore.session
from baker.aws import iam_policy
from botocore.model import OperationModel, Shape
from botocore.validate import ParamValidator


@dataclass
class Recorder:
    """Every call of the sessions that it made, by service and operation, with the parameters of each."""

    calls: dict[tuple[str, str], list[Mapping[str, Any]]] = field(default_factory=dict)
    models: dict[tuple[str, str], OperationModel] = field(default_factory=dict)

    def session(self, like: boto3.Session) -> boto3.Session:
        """A session with the keys and the region of `like` that is recorded; it shares the models that `like` read."""
        core = botocore.session.Session()
        core.register_component("data_loader", like._session.get_component("data_loader"))
        keys = like.get_credentials()
        assert keys is not None
        made = boto3.Session(keys.access_key, keys.secret_key, region_name=like.region_name, botocore_session=core)
        made.events.register("before-parameter-build.*.*", self._record)
        return made

    def _record(self, params: Mapping[str, Any], model: OperationModel, **_: Any) -> None:
        key = (model.service_model.service_name, model.name)
        self.models[key] = model
        self.calls.setdefault(key, []).append(dict(params))

    def undeclared(self) -> list[tuple[str, str]]:
        """Calls that the policy table does not know."""
        return sorted(key for key in self.calls if not iam_policy.declared(*key))

    def faults(self) -> list[str]:
        """What the service's own model says against the recorded requests; also what botocore lets pass: enums."""
        found = []
        for key, requests in self.calls.items():
            shape = self.models[key].input_shape
            for params in requests:
                found += [f"{key[1]}: {fault}" for fault in model_faults(params, shape)]
        return found


def model_faults(params: Mapping[str, Any], shape: Shape | None) -> list[str]:
    """Faults of one request against its shape in the service model."""
    assert shape is not None
    report = ParamValidator().validate(params, shape)
    return [report.generate_report()] if report.has_errors() else list(_wrong_words(params, shape))


def _wrong_words(value: Any, shape: Any) -> Iterator[str]:
    """Words that are not among those of an enum, which botocore does not check."""
    if shape.type_name == "structure":
        for name, inner in value.items():
            yield from _wrong_words(inner, shape.members[name])
    elif shape.type_name == "list":
        for inner in value:
            yield from _wrong_words(inner, shape.member)
    elif shape.type_name == "string" and shape.enum and value not in shape.enum:
        yield f"{value!r} is none of {', '.join(shape.enum)}"
