"""What AWS really answers where moto is kinder: each is told in AWS's own words, once, and leaves nothing."""

import re
from collections.abc import Callable

import pytest
from baker.aws import images
from faults import account
from faults.conftest import Lab
from faults.faultcloud import DENIED, DroppingHandler, Fault
from faults.regions import Regions
from faults.test_capacity import Desk
from localcloud.aws.query_protocol import Form
from moto.ec2.models.instances import StateReason
from support.fake_cloud import REGION
from support.fake_machine import FakeMachine, Script

Change = Callable[[Lab], Fault | None]
ENCODED = " Encoded authorization failure message: " + "x1Y" * 400
BY_POLICY = (
    "You are not authorized to perform this operation. User: arn:aws:iam::111122223333:user/baker is not authorized to "
    "perform: ec2:RunInstances with an explicit deny in a service control policy."
)
TERMS = "In order to use this AWS Marketplace product you need to accept terms and subscribe. To do so please visit x"
REFUSALS = {  # code, AWS' words, and the mend
    ("PendingVerification", "Your account is currently being verified."): "wait some hours for AWS' mail",
    ("OptInRequired", "You are not subscribed to this service."): "finish its sign-up in AWS' console",
    ("OptInRequired", TERMS): "accept the image's terms at that address",
    ("SubscriptionRequiredException", "The AWS Access Key Id needs a subscription for the service"): "sign-up",
    ("Blocked", "This account is currently blocked and not recognized as a valid account."): "ask AWS Support",
    ("VolumeLimitExceeded", "You have exceeded the maximum gp3 storage limit of 0 TiB"): "Service Quotas",
    ("InvalidKMSKey.InvalidState", "The KMS key provided is in an incorrect state"): "KMS key",
    ("VcpuLimitExceeded", "You have requested more vCPU capacity than your limit of 0"): "`bake.py doctor` names",
    ("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded"): "`bake.py doctor` names the quota",
    (
        "InvalidParameterValue",
        "Value (x) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile n",
    ): "make the instance profile that [fleet] profile",
    ("InvalidParameterCombination", "The specified instance type is not eligible for Free Tier. For a list"): "upgrade",
    ("UnauthorizedOperation", BY_POLICY + ENCODED): "ask who administers your organization",
    ("UnauthorizedOperation", BY_POLICY.replace("service control policy", "permissions boundary")): "as well",
    ("UnauthorizedOperation", "You are not authorized to perform this operation." + ENCODED): "CloudTrail has AWS'",
    ("UnauthorizedOperation", "You are not authorized to perform this operation."): "`bake.py plan --policy` prints",
}


def closed(lab: Lab) -> None:
    """The region of the configuration is not enabled: its services take no keys, and only others say why."""
    lab.cloud.regions = Regions(closed=REGION)
    there = f"-[^<]*(</optInStatus><regionName>{REGION})".encode()
    lab.cloud.rewrites = lambda name, form, body: (
        re.sub(b">opt-in" + there, rb">not-opted-in\1", body) if name == "DescribeRegions" else body
    )


def refusing(code: str) -> Change:
    return lambda lab: Fault(DENIED, "DescribeImages by id", answer=code.encode())


def ends(code: str, message: str) -> Script:
    """A machine whose launch fails after RunInstances has succeeded."""

    def run(machine: FakeMachine) -> None:
        instance = account.backend().get_instance_by_id(machine.id)
        instance.terminate()
        instance.state_reason = StateReason(message, code)

    return run


@pytest.mark.parametrize(
    ("code", "message", "mend"),
    [
        ("Server.InternalError", "Client.VolumeLimitExceeded: Volume limit exceeded", "Service Quotas"),
        ("Client.InternalError", "Client.InternalError: Client error on launch", "KMS key"),
        ("Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown", ""),
        ("Client.InvalidKMSKey.InvalidState", "Client.InvalidKMSKey.InvalidState: The key is disabled", "kms_key"),
        ("Server.InternalError", "Client.InvalidSnapshot.NotFound: The snapshot does not exist", "[source]"),
    ],
)
def test_a_launch_that_fails_for_the_client_is_told_and_not_tried_again(
    lab: Lab, record_property: Callable[[str, object], None], code: str, message: str, mend: str
) -> None:
    record_property("fault", ("machine", "launch fails after RunInstances"))
    lab.machines.scripts["bake"] = ends(code, message)
    ended = lab.launch("bake")
    assert ended.code == 1
    [line] = ended.err.strip().splitlines()
    assert message in line
    assert mend in line
    assert len(account.backend().all_instances()) == 1
    lab.assert_left(images=0)


@pytest.mark.parametrize(("code", "words"), REFUSALS)
def test_an_account_that_may_not_launch_is_told_so_once_and_what_to_do(
    lab: Lab, record_property: Callable[[str, object], None], code: str, words: str
) -> None:
    record_property("fault", ("account", "may not launch yet"))
    desk = Desk(lab, lambda *place: None if lab.cloud.log[-1].endswith("dry") else (code, words))
    ended = lab.launch("bake")
    [line] = ended.err.strip().splitlines()
    assert (ended.code, len(desk.asked)) == (1, 1)
    assert f"{words.removesuffix(ENCODED)} ({code}); " in line
    assert (REFUSALS[code, words] in line, "x1Y" in line) == (True, False), line
    lab.assert_left(images=0)


@pytest.mark.parametrize("command", ["plan", "bake"])
def test_a_dry_run_counts_and_its_words_are_told(
    lab: Lab, record_property: Callable[[str, object], None], command: str
) -> None:
    record_property("fault", ("dry run", "refused"))
    told = {
        "UnauthorizedOperation": BY_POLICY + ENCODED,
        "InvalidParameterCombination": "The parameter GroupName cannot be used with the parameter SubnetId",
    }
    for code, message in told.items():
        lab.cloud.rewrites = lambda name, form, body, code=code, message=message: (
            re.sub(b"<Code>.*</Message>", f"<Code>{code}</Code><Message>{message}</Message>".encode(), body)
            if name == "RunInstances dry"
            else body
        )
        ended = lab.launch(command)
        [line] = ended.err.strip().splitlines()
        assert ended.code == 2
        assert message.partition(" Encoded")[0] in line
        assert "x1Y" not in line
        lab.assert_left(images=0)


@pytest.mark.parametrize(
    ("regions", "says"),
    [
        (Regions(), "is in eu-west-1, and machines run in eu-north-1"),
        (Regions(bucket="eu-west-1"), "is in eu-west-1, and machines run in eu-north-1"),  # a 301 without a Location
        (Regions(bucket="eu-west-1", named=False), "is in another region than the machines, eu-north-1"),
    ],
)
def test_a_bucket_of_another_region_is_refused(
    lab: Lab, record_property: Callable[[str, object], None], regions: Regions, says: str
) -> None:
    record_property("fault", ("bucket", "of another region"))
    account.bucket_in("eu-west-1")
    lab.cloud.regions = regions
    for command in ("plan", "bake"):
        ended = lab.launch(command)
        [line] = ended.err.strip().splitlines()
        assert (ended.code, f"{says}: name a bucket of the same region" in line) == (2, True), line
    lab.assert_left(images=0)


NOT_ENABLED = (
    "the region eu-north-1 is not enabled for this account, and takes no keys of it (AuthFailure); `aws account enable"
)
KEYS_REFUSED = {  # at the first call: what is refused, how far AWS' clock is ahead in seconds, and what is said
    "region not enabled": (closed, 0, NOT_ENABLED),
    "clock behind": (refusing("RequestExpired"), 1000, "this computer's clock is 17 minutes behind AWS': set this"),
    "clock of a late answer": (refusing("RequestTimeTooSkewed"), 0, "; set this computer's clock (in WSL"),
    "token of the global endpoint": (refusing("InvalidToken"), 0, "; log in again, replace the keys"),
    "no token": (
        refusing("MissingAuthenticationToken"),
        0,
        "; log in again, replace the keys of the environment (AWS_ACCESS_KEY",
    ),
}


@pytest.mark.parametrize("name", KEYS_REFUSED)
@pytest.mark.parametrize("command", ["plan", "bake"])
def test_keys_that_a_region_does_not_take_are_one_line_at_once(
    lab: Lab, record_property: Callable[[str, object], None], command: str, name: str
) -> None:
    record_property("fault", ("credentials", name))
    change, ahead, says = KEYS_REFUSED[name]
    fault = change(lab)
    lab.patch.setattr(DroppingHandler, "ahead", ahead)
    ended = lab.launch(command, fault=fault)
    [line] = ended.err.strip().splitlines()
    assert (ended.code, says in line) == (2, True), line
    assert len(lab.cloud.log) <= 2, "it was tried again"
    lab.assert_left(images=0)


def test_a_bucket_whose_policy_demands_an_encryption(lab: Lab, record_property: Callable[[str, object], None]) -> None:
    """Every write has to name it: the launcher's, and those that machines make at signed addresses."""
    record_property("fault", ("bucket", "demands an encryption"))
    lab.cloud.demands = "aws:kms"
    ended = lab.launch("bake")
    [line] = ended.err.strip().splitlines()
    assert (ended.code, "Access Denied" in line) == (2, True)
    lab.assert_left(images=0)
    named = '[s3]\nencryption = "aws:kms"\nkms_key = "alias/objects"'
    lab.config.write_text(lab.config.read_text().replace("[s3]", named))
    ended = lab.launch("bake")
    assert ended.code == 0, ended.err
    lab.assert_left(images=1)
    assert account.encryptions() == {("aws:kms", "alias/objects")}


@pytest.mark.parametrize("code", ["ExpiredToken", "RequestTimeTooSkewed"])  # the latter: a computer that has slept
@pytest.mark.parametrize("call", ["DescribeInstanceStatus by id", "StopInstances", "TerminateInstances"])
def test_credentials_that_end_in_the_middle_leave_a_bake_to_resume(
    lab: Lab, record_property: Callable[[str, object], None], call: str, code: str
) -> None:
    """A static session token: at the machine's work, before the image, and after it."""
    record_property("fault", ("credentials", "end in the middle"))
    lab.cloud.expires, lab.cloud.expired = call, code
    ended = lab.launch("bake")
    name = lab.bake()
    told = " ".join(ended.out.split())
    assert ended.code == 1
    assert {"ExpiredToken": "log in again", "RequestTimeTooSkewed": "set this computer's clock"}[code] in ended.err
    assert f"`bake.py resume {name}` continues the bake, or `bake.py reap --bake {name} --yes`" in told
    lab.cloud.expires, lab.cloud.expired = "", "ExpiredToken"
    ended = lab.launch("resume", name)
    assert ended.code == 0, ended.err
    lab.assert_left(images=1)


@pytest.mark.parametrize("command", ["publish", "list"])
def test_a_region_to_publish_to_that_is_not_enabled_is_named(
    lab: Lab, record_property: Callable[[str, object], None], command: str
) -> None:
    record_property("fault", ("credentials", "region of a copy not enabled"))
    lab.configure('[publish]\nregions = ["eu-west-1"]\n')
    assert lab.launch("bake").code == 0
    lab.cloud.regions = Regions(closed="eu-west-1")
    ended = lab.launch(command)
    [line] = ended.err.strip().splitlines()
    assert (ended.code in (1, 2), "or enable the region eu-west-1" in line) == (True, True)
    lab.assert_left(images=1)


def test_credentials_that_were_over_before_are_one_line(
    lab: Lab, record_property: Callable[[str, object], None]
) -> None:
    record_property("fault", ("credentials", "over before"))
    lab.cloud.expires = "DescribeImages by id"
    ended = lab.launch("bake")
    [line] = ended.err.strip().splitlines()
    assert (ended.code, "log in again" in line) == (2, True)
    lab.assert_left(images=0)


def silent(text: str) -> Script:
    """A machine that only speaks on its console."""

    def run(machine: FakeMachine) -> None:
        same = machine.parameters
        said = text.format(id=same["build_id"], nonce=same["nonce"])
        account.CONSOLES[machine.id] = said

    return run


def test_a_machine_whose_report_cannot_arrive_is_heard_by_its_console(
    lab: Lab, record_property: Callable[[str, object], None]
) -> None:
    record_property("fault", ("signal", "only on the console"))
    lab.configure_deadline(30)
    lab.machines.scripts["bake"] = silent("TRANSCRIBE-BAKE {id} {nonce} success 00\n")
    ended = lab.launch("bake")
    assert ended.code == 1
    assert "says success on its console, but its report does not arrive" in ended.err
    lab.assert_left(images=0)


def test_what_a_machine_says_before_it_ends_is_told(lab: Lab, record_property: Callable[[str, object], None]) -> None:
    record_property("fault", ("signal", "only on the console"))

    def without_way_out(machine: FakeMachine) -> None:
        account.CONSOLES[machine.id] = "[  9.1] x\r\ntranscribe-bake: bootstrap: is there a way out?\r\n"
        machine.power_off()

    lab.machines.scripts["bake"] = without_way_out
    ended = lab.launch("bake")
    assert "bootstrap: is there a way out?" in ended.err
    lab.assert_left(images=0)


def test_an_image_that_takes_long_is_left_to_resume(
    lab: Lab, record_property: Callable[[str, object], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    record_property("fault", ("image", "takes longer than an hour"))
    monkeypatch.setattr(images, "IMAGE_TIMEOUT", 10.0)
    lab.cloud.rewrites = lambda name, form, body: (
        body.replace(b"<imageState>available", b"<imageState>pending")
        if name == "DescribeImages by id" and b"<name>transcribe-" in body
        else body
    )
    ended = lab.launch("bake")
    name = lab.bake()
    assert ended.code == 1
    assert f"`bake.py resume {name}` waits for it again, and nothing was removed" in ended.err
    assert len(account.remains()["images"]) == 1
    lab.cloud.rewrites = None
    ended = lab.launch("resume", name)
    assert ended.code == 0, ended.err
    lab.assert_left(images=1)


def test_a_launch_goes_where_there_is_room(lab: Lab, record_property: Callable[[str, object], None]) -> None:
    record_property("fault", ("capacity", "no room for what serves"))
    assert lab.launch("bake").code == 0
    assert lab.launch("publish").code == 0
    full = ("InsufficientInstanceCapacity", "Insufficient capacity.")
    zones: list[str] = []

    def refuses(form: Form) -> tuple[str, str] | None:
        [subnet] = account.backend().describe_subnets([form["SubnetId"]])
        zones.append(subnet.availability_zone[-1])
        return full if len(zones) == 1 else None

    lab.cloud.refuses = refuses
    ended = lab.launch("launch")
    assert ended.code == 0, ended.err
    assert zones == ["a", "b"]
    lab.configure('[launch]\nmarkets = ["spot", "on-demand"]\n')
    no_spot = ("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
    desk = Desk(lab, lambda kind, market, zone: no_spot if market == "spot" else full if zone == "a" else None)
    assert lab.launch("launch").code == 0
    assert [(market, zone) for _, market, zone in desk.asked] == [("spot", "a"), ("on-demand", "a"), ("on-demand", "b")]
    assert "only from the machine itself, since it has no keys" in " ".join(ended.out.split())
    lab.cloud.refuses = lambda form: full
    ended = lab.launch("launch")
    assert (ended.code, ended.err.count("InsufficientInstanceCapacity") >= 3) == (1, True)
    assert lab.launch("launch", "--end").code == 0


def test_the_console_is_read_where_ec2_has_no_latest_output(
    lab: Lab, record_property: Callable[[str, object], None]
) -> None:
    """Latest=True is for running instances of some types; what is over has what EC2 kept."""
    record_property("fault", ("machine", "no latest console output"))

    def dies(machine: FakeMachine) -> None:
        account.CONSOLES[machine.id] = "transcribe-bake: no room\r\n"
        machine.power_off()

    lab.machines.scripts["bake"] = dies
    lab.cloud.rewrites = lambda name, form, body: (
        re.sub(b"<output>.*</output>", b"", body)
        if name == "GetConsoleOutput" and form.get("Latest") == "true"
        else body
    )
    assert "no room" in lab.launch("bake").err


def test_a_proxys_page_in_place_of_an_answer_is_one_line(
    lab: Lab, record_property: Callable[[str, object], None]
) -> None:
    record_property("fault", ("answer", "a page of HTML"))
    lab.cloud.rewrites = lambda name, form, body: b"<!doctype html>\n<html lang=en>" if form else body
    ended = lab.launch("plan")
    [line] = ended.err.strip().splitlines()
    assert (ended.code, "is there a proxy" in line) == (2, True)
