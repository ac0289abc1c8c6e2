"""The baked machine as its clients meet it: the official client, the page, restarts in the middle, and what the journal
keeps of all that."""

import threading
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
from localcloud import LocalCloud
from support.baked_machine import ROOT, BakedMachine
from support.browser import Page, chromium
from support.waiting import until

CLIP = ROOT / "service" / "clips" / "verify.flac"
SAID = "Dashwood"
RUNNING = "curl --silent localhost:8000/health | grep --quiet '\"jobs_running\":1'"
FRESH = {"Cache-Control": "no-cache"}  # not the result of an earlier test again
RECORDINGS = sorted((ROOT / "tests" / "audio").glob("*.flac"))


@pytest.fixture
def client(machine: BakedMachine) -> Any:
    with openai.OpenAI(base_url=f"{LocalCloud.url_of(ROOT, machine.id, 8000)}/v1", api_key="none") as found:
        yield found


def test_the_official_client(client: Any) -> None:
    asked = {"model": "whisper-1", "language": "en"}
    found = client.audio.transcriptions.create(
        file=CLIP, response_format="verbose_json", timestamp_granularities=["word", "segment"], **asked
    )
    assert SAID in found.text
    times = [moment for word in found.words for moment in (word.start, word.end)]
    assert times == sorted(times)
    assert found.segments[0].start <= times[0] <= times[-1] <= found.segments[-1].end <= found.duration
    *deltas, done = client.audio.transcriptions.create(file=CLIP, stream=True, **asked)
    assert "".join(event.delta for event in deltas) == done.text == found.text
    with pytest.raises(openai.BadRequestError):
        client.audio.transcriptions.create(file=("a.wav", b"no sound"), **asked)


def test_the_page(machine: BakedMachine, tmp_path: Path) -> None:
    with chromium(tmp_path) as driver:
        page = Page(driver, LocalCloud.url_of(ROOT, machine.id, 8000))
        page.until(lambda: page.find("#health").text.startswith("Ready"))
        page.find("#language").send_keys("English")
        page.send(CLIP)
        page.until(lambda: page.find("#results").is_displayed(), 120)
        assert SAID in page.find("#lines").text
        page.find("#download").click()
        page.until(lambda: SAID in (file.read_text() if (file := tmp_path / "verify.srt").exists() else ""))
        assert page.complaints() == []


def test_a_restart_of_the_api_lets_the_running_request_finish(machine: BakedMachine, client: Any) -> None:
    texts: list[str] = []

    def ask() -> None:
        answer = client.with_options(max_retries=0).audio.transcriptions.create(
            file=RECORDINGS[2], model="whisper-1", language="en", extra_headers=FRESH
        )
        texts.append(answer.text)

    thread = threading.Thread(target=ask)
    thread.start()
    machine.wait(RUNNING)
    machine.run("systemctl", "restart", "transcribe-api")
    thread.join(60)
    assert "amiable" in texts[0]
    machine.wait_serving()
    assert machine.property("transcribe-api", "Result") == "success"


def test_a_restart_of_the_worker_costs_no_job(machine: BakedMachine) -> None:
    url = f"{LocalCloud.url_of(ROOT, machine.id, 8000)}/v1/jobs"
    with RECORDINGS[2].open("rb") as file:
        fields = {"model": "whisper-1", "language": "en"}
        job = requests.post(url, data=fields, files={"file": file}, headers=FRESH, timeout=60).json()["id"]
    machine.wait(RUNNING)
    machine.run("systemctl", "restart", "transcribe-worker")
    machine.wait_serving()

    def status() -> str:
        return str(requests.get(f"{url}/{job}", timeout=60).json()["status"])

    journal = "journalctl --unit=transcribe-worker --lines=40"
    until(lambda: status() not in ("queued", "running"), 120, lambda: machine.sh(journal))
    assert status() == "done"
    assert "amiable" in requests.get(f"{url}/{job}/result", params={"format": "txt"}, timeout=60).text


def test_the_journal_keeps_nothing_of_what_was_said(machine: BakedMachine, client: Any) -> None:
    content = CLIP.read_bytes()
    client.audio.transcriptions.create(
        file=("plantedname.flac", content), model="whisper-1", language="en", prompt="plantedprompt"
    )
    journal = machine.sh("journalctl --unit='transcribe-*' --output=cat")
    assert '"job_done"' in journal
    assert [word for word in (SAID, "plantedname", "plantedprompt", "Traceback") if word in journal] == []
