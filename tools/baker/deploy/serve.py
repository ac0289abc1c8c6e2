"""Serving machines, launched from the published image: one, or a group behind a target group."""

import urllib.error
import urllib.request
import uuid
from collections.abc import Sequence
from dataclasses import replace

from baker.aws import requests, volumes
from baker.aws.autoscaling import READY, AutoScaling, Group
from baker.aws.client import read_only, wait_for
from baker.aws.growth import Growth
from baker.aws.images import Ami
from baker.aws.placement import Refusal, after, is_refusal
from baker.aws.requests import Place
from baker.config import InstanceSection, LauncherConfig
from baker.context import BakeContext
from baker.deploy.template import ServiceSetup, digest, template_data
from baker.errors import AwsError, BakeError, UsageError
from baker.images import publish

RUNNING_SECONDS = 300.0
READY_SECONDS = 900.0  # for a disk of the usual size
POLL_SECONDS = 1.0
REFUSED = 401  # what the service answers to who has no key


def template(context: BakeContext, setup: ServiceSetup) -> str:
    """Bring the launch template up to date; returns its name. Raises UsageError when nothing is published."""
    config = context.config
    with read_only():
        published = publish.home(context).parameter.current()
    if not published:
        raise UsageError(f"{config.publish.ssm_parameter} names no image yet: publish one")
    groups = security_groups(context)
    image = context.images.get(published)
    if image is None:
        raise UsageError(f"{config.publish.ssm_parameter} names {published}, and there is no such image: publish one")
    data = template_data(config, setup, groups, image.root_device)
    name = config.launch.name
    _auto_scaling(context).template(name, data, digest(data), _tags(context))
    return name


def patience(context: BakeContext, image: Ami | None) -> float:
    """By how much more than usual a first start of an image may take, by the size of its disk."""
    return volumes.patience(image.volume_gb if image else 0, context.config.instance.initialization_rate)


def _patience(context: BakeContext) -> float:
    """The same of the published image."""
    return patience(context, context.images.get(publish.home(context).parameter.current()))


def places(context: BakeContext) -> tuple[Place, ...]:
    """Where machines that serve may run: the subnets of [launch], or of [instance], in zones that offer the type.

    Raises UsageError if there is none.
    """
    launch, instance = context.config.launch, context.config.instance
    with read_only():
        kind = launch.instance_type or instance.types[0]
        subnets = launch.subnets or instance.subnets
        return context.zones.places(InstanceSection(types=(kind,), markets=launch.markets, subnets=subnets))


def security_groups(context: BakeContext) -> list[str]:
    """Those of a machine that serves: the configured ones, or the closed one."""
    launch = context.config.launch
    closed = InstanceSection(subnets=launch.subnets or context.config.instance.subnets)
    return list(launch.security_groups) or [context.networks.security_group(closed, context.config.tags)]


def one(context: BakeContext) -> str:
    """Start one machine as the template says, in the first place that has room; returns its id once it runs."""
    template = {"LaunchTemplateName": context.config.launch.name, "Version": "$Default"}
    return started(context, {"LaunchTemplate": template})


def started(context: BakeContext, request: requests.Request) -> str:
    """Start one machine as asked, in the first place that has room; returns its id once it runs.

    Raises BakeError with every refusal when there is room nowhere.
    """
    waiting, refused = list(places(context)), list[Refusal]()
    while waiting:
        place = waiting.pop(0)
        try:
            instance = context.machines.run(_request(request, place))
        except AwsError as error:
            if not is_refusal(error):
                raise
            refused.append(Refusal(place, error))
            waiting = after(refused[-1], waiting)
            continue
        context.machines.wait(instance, "running")
        return instance
    reasons = {refusal.error.code: str(refusal.error) for refusal in refused}
    raise BakeError(f"AWS has no machine for us now ({'; '.join(map(str, refused))}): {'; '.join(reasons.values())}")


def _request(request: requests.Request, place: Place) -> requests.Request:
    return {
        **request,
        **requests.market_options(place.market),
        "MinCount": 1,
        "MaxCount": 1,
        "SubnetId": place.subnet,
        "ClientToken": str(uuid.uuid4()),  # for the retries of this one call
    }


def reachable(context: BakeContext, setup: ServiceSetup) -> str:
    """From where a machine that is launched can be reached, for a person; empty: from inside its VPC."""
    if not setup.open:
        return "only from the machine itself, since it has no keys: name a file with --keys"
    groups = context.config.launch.security_groups
    if not groups or not context.networks.lets_in(groups, setup.port):
        return f"from nowhere: its security group lets nobody in to port {setup.port}; see [launch] security_groups"
    return ""


def group(context: BakeContext, setup: ServiceSetup) -> str:
    """The Auto Scaling group of the template's name behind a target group; returns the ARN of the latter."""
    config = context.config
    if not setup.open:
        raise UsageError("[launch] keys_file is needed for a group: without keys a machine listens to itself only")
    if not config.launch.security_groups:
        raise UsageError("[launch] security_groups is needed for a group: the balancer must reach its machines")
    subnets = list(dict.fromkeys(place.subnet for place in places(context)))
    vpc = context.networks.vpc(InstanceSection(subnets=tuple(subnets)))
    scaling, name = _auto_scaling(context), config.launch.name
    target = scaling.target_group(name, vpc, setup.port, _tags(context))
    sizes, tags = (config.launch.min_size, config.launch.max_size), _tags(context)
    wanted = Group(
        name,
        subnets,
        target,
        *sizes,
        tags,
        holds_work=bool(config.fleet.queue),
        patience=_patience(context),
        on_demand=config.launch.min_size if mixed(config) else None,
    )
    scaling.group(wanted)
    growth = Growth(context.clients_in(config.aws.region))
    if config.fleet.queue:
        growth.let_finish(name)
    if config.fleet.queue and config.fleet.wait_minutes:
        growth.put(name, config.fleet.queue, config.fleet.wait_minutes, tags, patience=wanted.patience)
    elif config.fleet.queue:
        growth.remove(name, config.fleet.queue)
    return target


def mixed(config: LauncherConfig) -> bool:
    """Whether a group has machines of both markets: `min_size` of them on demand, those beyond spot."""
    return len(set(config.launch.markets)) > 1


def members(context: BakeContext) -> list[str]:
    """Ids of the group's machines, once there are as many as it must have; raises BakeError if that never comes."""
    name, wanted = context.config.launch.name, context.config.launch.min_size

    def poll() -> list[str] | None:
        found = context.machines.launched(name)
        return found if len(found) >= wanted else None

    machines = wait_for(poll, RUNNING_SECONDS, context.sleep, every=POLL_SECONDS)
    if machines is None:
        why = _auto_scaling(context).last_failure(name)
        told = f"the group {name} has fewer than {wanted} machines after {RUNNING_SECONDS:.0f} s"
        raise BakeError(f"{told}: {why}" if why else told)
    for instance in machines:
        context.machines.wait(instance, "running")  # before that, a public address may be missing
    return machines


def end(context: BakeContext) -> list[str]:
    """End and remove everything that was launched under the configured name; returns the instances that ran."""
    name = context.config.launch.name
    with read_only():
        instances = context.machines.launched(name)
    _auto_scaling(context).remove(name)
    if context.config.fleet.queue:
        Growth(context.clients_in(context.config.aws.region)).remove_alarms(name, context.config.fleet.queue)
    for instance in instances:
        context.machines.terminate(instance)
    for instance in instances:
        context.machines.wait(instance, "terminated")
    return instances


def wait_ready(context: BakeContext, urls: Sequence[str], setup: ServiceSetup) -> None:
    """Return once the service at any of `urls`, which are one machine's, is ready, and asks for a key if it has any.

    Raises BakeError if it never is. A machine is ready twice: as its image was, and again when its own keys and
    overrides are applied.
    """

    def ready(url: str) -> bool:
        return _status(url + READY) == 200 and (not setup.keys or _status(f"{url}/v1/models") == REFUSED)

    def poll() -> bool | None:
        return any(map(ready, urls)) or None

    seconds = READY_SECONDS * _patience(context)
    if wait_for(poll, seconds, context.sleep, every=POLL_SECONDS) is None:
        raise BakeError(f"{' or '.join(urls)} was not ready after {seconds:.0f} s; end it with `launch --end`")


def _status(url: str) -> int:
    """The status of an answer; 0 for none."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0


def _tags(context: BakeContext) -> dict[str, str]:
    return {**context.config.tags, requests.TAG_LAUNCH: context.config.launch.name}


def _auto_scaling(context: BakeContext) -> AutoScaling:
    return AutoScaling(context.clients_in(context.config.aws.region))


def with_keys(context: BakeContext, keys_file: str) -> BakeContext:
    """The same, with a keys file that the command line names."""
    launch = replace(context.config.launch, keys_file=keys_file)
    return replace(context, config=replace(context.config, launch=launch))
