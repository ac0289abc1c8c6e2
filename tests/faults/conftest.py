"""The misbehaving cloud, and the table of what was tried on it."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import boto3
import botocore.session
import pytest
from faults import account, launchers
from faults.faultcloud import DroppingHandler, Fault, Machines, Misbehaving, serve
from faults.regions import Regions
from rich.console import Console
from rich.table import Table
from support.fake_cloud import BUCKET, REGION
from support.project_tree import REFERENCE, make_tree

SERVICES: Final = ("ec2", "s3", "ssm", "sts", "service-quotas", "kms", "iam", "autoscaling", "elbv2", "pricing")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("fault")


@dataclass
class Lab:
    """One launcher's world."""

    tree: Path
    config: Path
    cloud: Misbehaving
    machines: Machines
    cloud_url: str
    patch: pytest.MonkeyPatch  # of the test

    def launch(self, *arguments: str, fault: Fault | None = None, late: float = 0.0) -> launchers.Ended:
        """Run `bake.py` with these arguments while `fault` is in force."""
        try:
            return self.start(*arguments, fault=fault, late=late).ended()
        finally:
            self.cloud.fault = None

    def start(self, *arguments: str, fault: Fault | None = None, late: float = 0.0) -> launchers.Launcher:
        """The same, without waiting for its end; the fault stays."""
        self.cloud.log.clear()
        self.cloud.fault = fault
        command = [*arguments, "--config", str(self.config)]
        return launchers.start(command, self.tree, late=late, born=self._born)

    def _born(self, pid: int) -> None:
        self.cloud.launcher = pid

    def configure_deadline(self, minutes: int) -> None:
        """A deadline that is further away."""
        self.config.write_text(self.config.read_text().replace("deadline_minutes = 1", f"deadline_minutes = {minutes}"))

    def configure(self, text: str) -> None:
        """Add sections to the configuration."""
        self.config.write_text(self.config.read_text() + text)

    def bake(self) -> str:
        """The name of the only bake that the bucket knows."""
        [known] = account.keys("bakes/")
        return known.rpartition("/")[2].removesuffix(".json")

    def assert_left(self, *, images: int, verified: int | None = None) -> None:
        """What there is, is so many images, all verified unless said otherwise, each with its snapshot."""
        left = account.remains()
        assert self.machines.most <= 1, "more than one machine at a time"
        assert left["instances"] == []
        assert left["volumes"] == []
        assert len(left["images"]) == images
        assert len(left["images"]) - len(left["unverified"]) == (images if verified is None else verified)
        assert len(left["snapshots"]) == images
        assert left["groups"] in ([], ["transcribe-bake"])


@dataclass
class Served:
    """What all tests of this process share; `session` opens sessions that do not read AWS' models again."""

    tree: Path
    url: str
    cloud: Misbehaving
    machines: Machines
    session: Callable[..., boto3.Session]


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A tree and a server, for every test of this process."""
    os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"
    true_session = boto3.Session
    loader = botocore.session.Session().get_component("data_loader")

    def session(**keys: Any) -> boto3.Session:
        core = botocore.session.Session()
        core.register_component("data_loader", loader)
        return true_session(**keys, botocore_session=core)

    made: dict[str, Any] = {}
    machines = Machines(lambda: made["ec2"], REFERENCE)
    server, cloud = serve(machines)
    url = f"http://127.0.0.1:{server.server_port}"
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": REGION}
    for service in SERVICES:  # which reads their models, once for every launcher
        made[service] = session(**keys).client(service, endpoint_url=url)
    made["ec2"].get_paginator("describe_images")  # and how its answers are parted
    yield Served(make_tree(tmp_path_factory.mktemp("launcher") / "tree"), url, cloud, machines, session)
    server.shutdown()
    server.server_close()


@pytest.fixture
def lab(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    cloud, machines = served.cloud, served.machines
    monkeypatch.setattr(boto3, "Session", served.session)  # reading EC2's model takes longer than a whole bake
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    account.reset()
    machines.forget()
    cloud.refuses, cloud.rewrites, cloud.meets, cloud.expires = lambda form: None, None, lambda name: None, ""
    cloud.ignores_conditions, cloud.regions = False, Regions()
    cloud.fault, cloud.demands, cloud.expired = None, "", "ExpiredToken"
    monkeypatch.setattr(DroppingHandler, "ahead", 0.0)
    cloud.answers = lambda method, path: None
    disk = {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 10}}
    ec2 = machines.client()
    source = ec2.register_image(Name="source", RootDeviceName="/dev/xvda", BlockDeviceMappings=[disk])["ImageId"]
    config = tmp_path / "bake.toml"
    config.write_text(
        f'[aws]\nregion = "{REGION}"\nendpoint_url = "{served.url}"\n[s3]\nbucket = "{BUCKET}"\n'
        f'[source]\nami = "{source}"\n[bake]\ndeadline_minutes = 1\n'
    )
    return Lab(served.tree, config, cloud, machines, served.url, monkeypatch)


# --- the table


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Rows are what something was done to, and how many were right of how many were tried."""
    cells: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, value in getattr(report, "user_properties", []):
                if name == "fault":
                    cells[value[0]][value[1]].append(outcome == "passed")
    calls = {row: told for row, told in cells.items() if row[0].isupper()}
    others = {row: told for row, told in cells.items() if row not in calls}
    console = Console(width=170, file=terminalreporter._tw._file, force_terminal=terminalreporter.hasmarkup)
    if calls:
        console.print(_by_call(calls))
    if others:
        console.print(_listed(others))


def _by_call(cells: dict[str, dict[str, list[bool]]]) -> Table:
    columns = sorted({column for row in cells.values() for column in row})
    table = Table(title="AWS calls: right of tried", title_justify="left")
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column)
    for row, told in sorted(cells.items()):
        table.add_row(row, *(_cell(told.get(column, [])) for column in columns))
    table.add_section()
    sums = [[ok for row in cells.values() for ok in row.get(column, [])] for column in columns]
    table.add_row("in all", *map(_cell, sums), end_section=True)
    table.caption = _caption(ok for column in sums for ok in column)
    return table


def _listed(cells: dict[str, dict[str, list[bool]]]) -> Table:
    title = "Capacity, machines, signals, operators, launchers: right of tried"
    table = Table("", "", "", title=title, title_justify="left")
    for row, told in sorted(cells.items()):
        for number, (column, tried) in enumerate(sorted(told.items())):
            table.add_row("" if number else row, column, _cell(tried), end_section=number == len(told) - 1)
    table.caption = _caption(ok for told in cells.values() for tried in told.values() for ok in tried)
    return table


def _caption(verdicts: Iterable[bool]) -> str:
    told = list(verdicts)
    return f"{sum(told)} of {len(told)} as it must be"


def _cell(tried: list[bool]) -> str:
    if not tried:
        return ""
    colour = "green" if all(tried) else "red"
    return f"[{colour}]{sum(tried)}/{len(tried)}[/{colour}]"
