"""What every part of the launcher works with."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import boto3

from baker import interrupts
from baker.aws.client import Clients, connect, open_session, read_only
from baker.aws.dry_run import DryRuns
from baker.aws.images import Images
from baker.aws.instances import Instances
from baker.aws.network import Networks
from baker.aws.placement import Zones
from baker.aws.pricing import Prices
from baker.aws.s3 import Bucket
from baker.aws.volumes import Volumes
from baker.config import LauncherConfig
from baker.display.progress import Display


@dataclass(frozen=True)
class BakeContext:
    """The tree, the configuration, AWS and the terminal."""

    root: Path
    config: LauncherConfig
    images: Images
    machines: Instances
    volumes: Volumes
    zones: Zones
    networks: Networks
    dry_runs: DryRuns
    prices: Prices
    bucket: Bucket
    display: Display
    clients_in: Callable[[str], Clients]  # for a region by its name
    renew_lease: Callable[[], None] = lambda: None  # raises if another launcher has taken over
    sleep: Callable[[float], None] = interrupts.sleep
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    @property
    def clients(self) -> Clients:
        """Those of the region where images are made."""
        return self.clients_in(self.config.aws.region)

    @property
    def logs(self) -> Path:
        return self.root / ".cache/logs"


def open_context(
    root: Path,
    config: LauncherConfig,
    display: Display,
    *,
    session: boto3.Session | None = None,
    sleep: Callable[[float], None] = interrupts.sleep,
) -> BakeContext:
    """Clients for what `config` names; sends no request. Raises UsageError for a profile that does not exist."""
    with read_only():
        opened = session or open_session(config)

    @cache
    def clients_in(region: str) -> Clients:
        with read_only():
            return connect(replace(config, aws=replace(config.aws, region=region)), opened, sleep=sleep)

    clients = clients_in(config.aws.region)
    return BakeContext(
        root=root,
        config=config,
        images=Images(clients),
        machines=Instances(clients),
        volumes=Volumes(clients),
        zones=Zones(clients),
        networks=Networks(clients),
        dry_runs=DryRuns(clients),
        prices=Prices(clients),
        bucket=Bucket(clients, config.s3.bucket),
        display=display,
        clients_in=clients_in,
        sleep=sleep,
    )
