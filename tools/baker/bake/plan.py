"""Everything that a bake decides before it creates anything. Planning costs nothing and changes nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from baker.aws import requests
from baker.aws.client import read_only
from baker.aws.dry_run import DryRunResult, Subject
from baker.aws.images import Ami
from baker.aws.requests import Place
from baker.bake import acceptance, attempt
from baker.context import BakeContext
from baker.doctor import credentials
from baker.errors import AwsError, UsageError
from baker.images import diff, manifest
from baker.inputs import content_hash, model_hub, payload, pillar, source_system, source_tree, user_data

MIN_VOLUME_GB = 40  # libraries for CUDA, the model, and room to work


@dataclass(frozen=True)
class BakePlan:
    """What would be launched, from what, and what it would be called."""

    source: Ami
    declared: Mapping[str, Any]  # the pillar as the machine will see it
    payload: payload.Payload
    inputs: Mapping[str, str]
    volume_gb: int
    places: tuple[Place, ...]  # where the machines may run, the preferred ones first
    user_data_bytes: int
    reference: str  # the words of the clip that every machine must transcribe
    untracked: tuple[str, ...]
    reusable: Ami | None  # verified, and made from exactly these inputs
    changed_files: tuple[str, ...]  # of the payload, since the newest image; empty when that cannot be known
    newest: Ami | None  # the newest verified image, to say what has changed since

    @property
    def content_hash(self) -> str:
        return content_hash.combined(self.inputs)

    @property
    def inputs_tag(self) -> str:
        return content_hash.as_tag(self.inputs)

    @property
    def model(self) -> Mapping[str, Any]:
        model: Mapping[str, Any] = self.declared["model"]
        return model

    @property
    def changed(self) -> list[str]:
        """Inputs that differ from the newest image's; empty when there is none."""
        if self.newest is None:
            return []
        return content_hash.changed(content_hash.from_tag(self.newest.tags.get(requests.TAG_INPUTS, "")), self.inputs)


def make_plan(context: BakeContext) -> BakePlan:
    """Resolve everything; whatever is wrong here is a UsageError, since nothing was created."""
    with read_only():
        try:
            return _make(context)
        except AwsError as error:
            raise credentials.explained(context, error) from None


def _make(context: BakeContext) -> BakePlan:
    root, config = context.root, context.config
    declared = pillar.load(root)
    pillar.check_overrides(declared, config.pillar)
    wanted = pillar.merge(declared, config.pillar)
    _check_clip(wanted)
    source_tree.validate(root, [wanted["verify"]["clip"], wanted["verify"]["reference"]])
    source = context.images.source(config.source)
    refuse_unserved(source)
    overrides = pin_model(config.hub.endpoint_url, wanted, config.pillar)
    packed = payload.build(root, {pillar.ROOT_KEY: overrides} if overrides else {})
    inputs = content_hash.inputs(root, packed.digests, overrides, {"source-image": source.id})
    context.bucket.check()
    verified = [i for i in context.images.tagged({requests.TAG_VERIFIED: "true"}) if i.state == "available"]
    content = content_hash.combined(inputs)
    return BakePlan(
        source=source,
        declared=pillar.merge(wanted, overrides),
        payload=packed,
        inputs=inputs,
        volume_gb=volume_size(config.instance.volume_gb, source),
        places=context.zones.places(config.instance),
        user_data_bytes=_user_data_bytes(context, packed, source, wanted),
        reference=(root / "service/clips" / wanted["verify"]["reference"]).read_text(encoding="utf-8").strip(),
        untracked=tuple(source_tree.untracked(root, source_tree.PAYLOAD_FOLDERS)),
        reusable=next((i for i in verified if i.tags.get(requests.TAG_CONTENT) == content), None),
        newest=verified[0] if verified else None,
        changed_files=_changed_files(context, packed, inputs, verified[0]) if verified else (),
    )


def _check_clip(wanted: Mapping[str, Any]) -> None:
    """The verification clip must be in the language that the model listens for."""
    heard, spoken = wanted["model"]["language"], wanted["verify"]["language"]
    if heard and heard != spoken:
        raise UsageError(
            f"the model listens for {heard!r} and the verification clip is in {spoken!r}; set clip, language, "
            "reference and max_word_error_rate in [pillar.verify], or language in [pillar.model]"
        )


def _changed_files(
    context: BakeContext, packed: payload.Payload, inputs: Mapping[str, str], newest: Ami
) -> tuple[str, ...]:
    """The files of the changed inputs that differ from what the newest image was made of, by its manifest."""
    document = manifest.find(context.bucket, context.config.s3.prefix, newest)
    before = content_hash.from_tag(newest.tags.get(requests.TAG_INPUTS, ""))
    groups = content_hash.changed(before, inputs)
    names = diff.changed_sources(document, packed.contents) if document else []
    return tuple(name for name in names if content_hash.group_of(name) in groups)


def permitted(context: BakeContext, plan: BakePlan) -> list[DryRunResult]:
    """The dry run of every call with which a bake would change something."""
    with read_only():
        group, vpc = context.networks.present_group(context.config.instance)
    subject = Subject(plan.places[0], plan.source, group, vpc, plan.newest)
    return context.dry_runs.ask(context.config, subject)


def pin_model(hub: str, wanted: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`overrides` with the model's revision pinned to the commit that it names today."""
    model = wanted["model"]
    commit = model_hub.resolve(hub or model["endpoint"], model["id"], model["revision"])
    return pillar.merge(overrides, {"model": {"revision": commit}})


def volume_size(wanted: int, source: Ami) -> int:
    """GiB of the machine's disk; raises UsageError when the source image would not fit."""
    if wanted and wanted < source.volume_gb:
        raise UsageError(f"[instance] volume_gb is {wanted}; the source image {source.id} needs {source.volume_gb}")
    return wanted or max(source.volume_gb, MIN_VOLUME_GB)


def refuse_unserved(source: Ami) -> None:
    """Raises UsageError if the locks cannot serve the source image's system."""
    why = source_system.obstacle(source.name, source.architecture)
    if why:
        raise UsageError(f"[source] {source.id} {source.name}: {why}")


def image_origin(
    context: BakeContext, bake: str, combined_hash: str, source: Ami, wanted: Mapping[str, Any]
) -> dict[str, Any]:
    """Where an image comes from, as only the launcher knows it; the machine writes this into the manifest."""
    commit, changed = source_tree.commit(context.root)
    return {
        "bake": bake,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": commit,
        "git_changed": changed,
        "content_hash": combined_hash,
        "source_image": source.id,
        "source_name": source.name,
        "lock": wanted["install"]["lock"],  # which decides how much room a bake needs
    }


def _user_data_bytes(context: BakeContext, packed: payload.Payload, source: Ami, wanted: Mapping[str, Any]) -> int:
    """How large the user-data would be: rendered as for a launch, with presigned URLs that are never used."""
    sample = attempt.MachineAttempt(attempt.new_bake_name(), acceptance.BAKE, context.config.s3.prefix)
    origin = image_origin(context, sample.bake, "0" * 64, source, wanted)
    seconds = context.config.bake.deadline_minutes * 60
    parameters = attempt.parameters(sample, context.bucket, seconds, payload=packed, origin=origin)
    return len(user_data.render(context.root, parameters).encode())
