"""The ledger of a fleet's run: what `jobs --ledger` writes of jobs that a real feeder has done."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from baker import cli
from baker.errors import UsageError
from baker.fleet import ledger
from support import fleets
from support.fleets import FleetCloud, audio
from transcribe.fleet import gauges
from transcribe.fleet.documents import State

pytestmark = pytest.mark.slow
PRICE = 0.5  # an hour, of a machine that the fake worker says to be ten times as fast as the sound


@pytest.fixture
def cloud() -> Iterator[FleetCloud]:
    with fleets.fleet_cloud() as made:
        yield made


def test_a_run_is_one_page_that_fetches_nothing(
    cloud: FleetCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in fleets.KEYS.items():
        monkeypatch.setenv(name, value)
    config = tmp_path / "bake.toml"
    config.write_text(
        f'[aws]\nregion = "{fleets.REGION}"\nendpoint_url = "{cloud.url}"\n[s3]\nbucket = "{fleets.BUCKET}"\n'
        '[source]\nami = "ami-1"\n[fleet]\nqueue = "speech"\nowner = "newsroom"\n'
    )
    page = tmp_path / "run.html"
    command = ["jobs", "--config", str(config), "--ledger"]
    jobs = [cloud.submit(audio(str(number)), seconds=40.0) for number in range(3)]
    assert cli.main([*command, str(page)]) == 2
    assert "no job has ended yet" in capsys.readouterr().err
    with fleets.machine(tmp_path / "a", cloud, fleet__price=PRICE) as machine:
        machine.start()
        cloud.wait_over(jobs)
    assert cli.main([*command, str(page)]) == 0
    text = page.read_text()
    cards = dict(re.findall(r"<b>(.*?)</b><span class=\"soft\">(.*?)<", text))
    assert {meaning: figure for figure, meaning in cards.items()}["US dollars an hour of audio"] == "0.0500"
    assert text.count("<polyline") == 4
    assert text.count("<tr>") == 1 + ledger.ROWS
    assert not re.search(r"https?://|src=|<script|<link", text)
    assert "as they told CloudWatch" not in text, "they told nothing"
    cloudwatch, minute = cloud.client("cloudwatch"), int(time.time() // 60 * 60)
    for metric, figure in ((gauges.SPEED, 9.0), (gauges.SPEED, 11.0), (gauges.WAITING, 100.0), (gauges.WAITING, 140.0)):
        told = [gauges.datum(metric, fleets.QUEUE, minute, figure)]
        cloudwatch.put_metric_data(Namespace=gauges.NAMESPACE, MetricData=told)
    assert cli.main([*command, str(page)]) == 0
    text = page.read_text()
    assert text.count("<polyline") == 6
    assert re.search(r"<td>2\.0</td>\s*<td>120</td></tr>", text), "two machines, which estimate 120 seconds on average"
    assert cli.main([*command, str(page), "--last-hours", "0.00001"]) == 2
    assert cli.main([*command, str(tmp_path / "none" / "run.html")]) == 2
    assert "run.html: No such file or directory" in capsys.readouterr().err


def job(
    name: str, *, at: tuple[float, float | None, float | None], machine: str = "", cost: float | None = None
) -> State:
    """One of an hour of audio, sent, begun and ended at these minutes."""
    sent, begun, ended = (None if minute is None else 60_000.0 + 60 * minute for minute in at)
    return State(
        job=name * 32, owner="o", status="done" if ended else "queued", seconds=3600.0, created=sent or 0.0,
        started=begun, finished=ended, machine=machine, dollars_per_hour=cost,
    )  # fmt: skip


def test_the_figures_of_a_run() -> None:
    made = ledger.read([
        job("a", at=(0, 10, 20), machine="m", cost=0.2),
        job("b", at=(0, 15, 40), machine="m", cost=0.4),
        job("c", at=(0, 20, 40), machine="n"),
        job("d", at=(30, None, None)),
    ])  # fmt: skip
    rows = list(made.rows(4))
    assert [round(row.machines, 3) for row in rows] == [0, 1, 2, 2]
    assert [round(row.queue) for row in rows] == [10_800, 5_400, 0, 3_600]
    assert [round(row.speed, 3) for row in rows] == [0, 7.2, 5.4, 5.4]
    assert [row.hours for row in rows] == [0, 1, 1, 3]
    assert [row.cost and round(row.cost, 3) for row in rows] == [None, 0.2, None, 0.4]
    with pytest.raises(UsageError, match="no job has ended yet"):
        ledger.read([job("d", at=(30, None, None))])
