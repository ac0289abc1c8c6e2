"""Everything that a bake decides before it creates anything. Planning costs nothing and changes nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from baker.aws import requests
from baker.aws.client import only_looking
from baker.aws.dry_run import Subject, Verdict
from baker.aws.images import Image
from baker.aws.requests import Place
from baker.bake import acceptance, attempt
from baker.context import Context
from baker.errors import UsageError
from baker.images import diff, manifest
from baker.inputs import components, model_hub, payload, pillar, source_tree, user_data
from baker.inputs import content_hash as contenthash

MIN_VOLUME_GB = 40  # libraries for CUDA, the model, and room to work


@dataclass(frozen=True)
class Plan:
    """What would be launched, from what, and what it would be called."""

    source: Image
    declared: Mapping[str, Any]  # the pillar as the machine will see it
    payload: payload.Payload
    inputs: Mapping[str, str]
    volume_gb: int
    places: tuple[Place, ...]  # where the machines may run, the most wished first
    user_data_bytes: int
    reference: str  # the words of the clip that every machine must transcribe
    untracked: tuple[str, ...]
    reusable: Image | None  # verified, and made from exactly these inputs
    changed_files: tuple[str, ...]  # of the payload, since the newest image; empty when that cannot be known
    newest: Image | None  # the newest verified image, to say what has changed since

    @property
    def content_hash(self) -> str:
        return contenthash.content_hash(self.inputs)

    @property
    def inputs_tag(self) -> str:
        return contenthash.as_tag(self.inputs)

    @property
    def model(self) -> Mapping[str, Any]:
        model: Mapping[str, Any] = self.declared["model"]
        return model

    @property
    def changed(self) -> list[str]:
        """Inputs that differ from the newest image's; empty when there is none."""
        if self.newest is None:
            return []
        return contenthash.changed(contenthash.from_tag(self.newest.tags.get(requests.TAG_INPUTS, "")), self.inputs)


def make(context: Context) -> Plan:
    """Resolve everything; whatever is wrong here is a UsageError, since nothing was created."""
    with only_looking():
        return _make(context)


def _make(context: Context) -> Plan:
    root, config = context.root, context.config
    declared = pillar.load(root)
    pillar.check_overrides(declared, config.pillar)
    wished = pillar.merge(declared, config.pillar)
    components.validate(root, [wished["verify"]["clip"], wished["verify"]["reference"]])
    source = context.images.source(config.source)
    overrides = pin_model(config.hub.endpoint_url, wished, config.pillar)
    packed = payload.build(root, {pillar.ROOT_KEY: overrides} if overrides else {})
    inputs = contenthash.inputs(root, packed.digests, overrides, {"source-image": source.id})
    context.bucket.check()
    verified = [i for i in context.images.tagged({requests.TAG_VERIFIED: "true"}) if i.state == "available"]
    content = contenthash.content_hash(inputs)
    return Plan(
        source=source,
        declared=pillar.merge(wished, overrides),
        payload=packed,
        inputs=inputs,
        volume_gb=volume_size(config.instance.volume_gb, source),
        places=context.zones.places(config.instance),
        user_data_bytes=_user_data_bytes(context, packed, source),
        reference=(root / "service/clips" / wished["verify"]["reference"]).read_text(encoding="utf-8").strip(),
        untracked=tuple(source_tree.untracked(root, source_tree.PAYLOAD_FOLDERS)),
        reusable=next((i for i in verified if i.tags.get(requests.TAG_CONTENT) == content), None),
        newest=verified[0] if verified else None,
        changed_files=_changed_files(context, packed, inputs, verified[0]) if verified else (),
    )


def _changed_files(
    context: Context, packed: payload.Payload, inputs: Mapping[str, str], newest: Image
) -> tuple[str, ...]:
    """The files of the changed inputs that differ from what the newest image was made of, as its manifest tells."""
    told = manifest.find(context.bucket, context.config.s3.prefix, newest)
    before = contenthash.from_tag(newest.tags.get(requests.TAG_INPUTS, ""))
    groups = contenthash.changed(before, inputs)
    names = diff.changed_sources(told, packed.contents) if told else []
    return tuple(name for name in names if contenthash.group_of(name) in groups)


def permitted(context: Context, plan: Plan) -> list[Verdict]:
    """What AWS says of every call that a bake would change something with."""
    with only_looking():
        group, vpc = context.networks.present_group(context.config.instance)
    subject = Subject(plan.places[0], plan.source, group, vpc, plan.newest)
    return context.permissions.ask(context.config, subject)


def pin_model(hub: str, wished: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`overrides` with the model's revision pinned to the commit that it names today."""
    model = wished["model"]
    commit = model_hub.resolve(hub or model["endpoint"], model["id"], model["revision"])
    return pillar.merge(overrides, {"model": {"revision": commit}})


def volume_size(wished: int, source: Image) -> int:
    """GiB of the machine's disk; raises UsageError when the source image would not fit."""
    if wished and wished < source.volume_gb:
        raise UsageError(f"[instance] volume_gb is {wished}; the source image {source.id} needs {source.volume_gb}")
    return wished or max(source.volume_gb, MIN_VOLUME_GB)


def origin(context: Context, bake: str, content_hash: str, source: Image) -> dict[str, Any]:
    """What only the launcher knows of where an image comes from; the machine writes it into the manifest."""
    commit, changed = source_tree.commit(context.root)
    return {
        "bake": bake,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": commit,
        "git_changed": changed,
        "content_hash": content_hash,
        "source_image": source.id,
        "source_name": source.name,
    }


def _user_data_bytes(context: Context, packed: payload.Payload, source: Image) -> int:
    """How large the user-data would be: rendered as for a launch, with addresses that nothing is sent to."""
    errand = attempt.Build(attempt.new_bake_name(), acceptance.BAKE, context.config.s3.prefix)
    known = origin(context, errand.bake, "0" * 64, source)
    seconds = context.config.bake.deadline_minutes * 60
    told = attempt.parameters(errand, context.bucket, seconds, payload=packed, origin=known)
    return len(user_data.render(context.root, told).encode())
