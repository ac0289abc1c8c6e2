"""What a person can ask for on the page besides a file, in headless Chromium."""

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys
from support.api_server_fixture import Api, running
from support.browser import Page, chromium, findings

pytestmark = pytest.mark.slow
CLIP = Path(__file__).resolve().parents[2] / "service" / "clips" / "verify.flac"


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def driver(downloads: Path) -> Iterator[Any]:
    with chromium(downloads) as found:
        yield found


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(tmp_path_factory.mktemp("api")) as found:
        yield found


@pytest.fixture
def page(driver: Any, api: Api) -> Iterator[Page]:
    found = Page(driver, api.url)
    yield found
    assert found.complaints() == []


def test_channels_languages_and_terms_reach_the_job(page: Page, api: Api) -> None:
    assert not page.find("#which-languages").is_displayed()
    page.find("#language").send_keys("Several")
    page.find("#languages").send_keys("Swedish, en")
    page.find("#more summary").click()
    page.find("#channels").send_keys("Each by itself where")
    page.find("#hotwords").send_keys("Ärendet, KBLab")
    assert findings(page) == []
    page.send(CLIP)
    page.done()
    asked = api.worker.seen[-1].options
    assert (asked.multilingual, asked.candidates, asked.language) == (True, ("sv", "en"), None)
    assert (asked.channels, asked.hotwords, asked.speakers) == ("auto", "Ärendet, KBLab", None)


def test_languages_need_not_be_named(page: Page, api: Api) -> None:
    page.find("#language").send_keys("Several")
    page.send(CLIP)
    page.done()
    asked = api.worker.seen[-1].options
    assert (asked.multilingual, asked.candidates, asked.language) == (True, (), None)


def test_counts_of_speakers_and_known_voices_reach_the_job(page: Page, api: Api, tmp_path: Path) -> None:
    page.until(lambda: page.find("#tell-speakers").is_displayed())
    assert not page.find("#speakers-more").is_displayed()
    page.find("#tell-speakers").click()
    page.find("#max-speakers").send_keys("3")
    for name in ("Åsa", "Bo", "Cia"):
        (tmp_path / f"{name}.wav").write_bytes(f"RIFF {name}".encode())
        page.find("#add-voice").click()
        page.driver.switch_to.active_element.send_keys(name)
        page.find("#voices .voice:last-child .voice-file").send_keys(str(tmp_path / f"{name}.wav"))
    page.find("#voices .voice:nth-child(2) .voice-remove").click()
    page.find("#tongue").click()
    try:
        labels = page.script("[...document.querySelectorAll('#voices input')].map((e) => e.ariaLabel + e.placeholder)")
        assert set(labels) == {"Namn på en känd talareNamn", "2 till 10 sekunder av den här rösten"}
        assert findings(page) == []
    finally:
        page.find("#tongue").click()
    page.send(CLIP)
    page.done()
    asked = api.worker.seen[-1].options.speakers
    assert asked is not None
    assert (asked.min_speakers, asked.max_speakers, asked.known_names) == (None, 3, ("Åsa", "Cia"))
    assert api.worker.references == [b"RIFF \xc3\x85sa", b"RIFF Cia"]


def test_what_cannot_be_used_is_said(page: Page) -> None:
    page.until(lambda: page.find("#tell-speakers").is_displayed())
    page.find("#tell-speakers").click()
    page.find("#min-speakers").send_keys("two")
    page.send(CLIP)
    page.until(lambda: page.find("#error").is_displayed())
    assert page.find("#error").text == "min_speakers must be a whole number from 1 to 50."
    page.driver.get_log("browser")  # the 400


def test_subtitles_are_made_as_they_are_wanted(page: Page, downloads: Path) -> None:
    page.find("#language").send_keys("Greek")  # not a job of another test again
    page.send(CLIP)
    page.done()
    page.find("#format").send_keys("Subtitles (WebVTT)")
    page.find("#subtitle-options summary").click()
    page.find("#max_line_width").send_keys(Keys.BACKSPACE, Keys.BACKSPACE, "12")
    page.find("#highlight_words").click()
    assert findings(page) == []
    page.find("#download").click()
    text = page.downloaded(downloads / "verify.vtt")
    assert "<00:00:0" in text
    lines = [html.unescape(re.sub(r"<[^>]*>", "", line)) for line in text.splitlines()[2:] if "-->" not in line]
    assert max(map(len, lines)) <= 12, text
    page.find("#format").send_keys("Table")
    assert not page.find("#subtitle-options").is_displayed()


def test_the_signed_record_is_downloaded(page: Page, downloads: Path) -> None:
    page.find("#language").send_keys("Hindi")  # not a job of another test again
    page.send(CLIP)
    page.done()
    page.find("#format").send_keys("Signed record")
    page.find("#download").click()
    record = page.downloaded(downloads / "verify.record.json")
    assert set(json.loads(record)) == {"payload", "public_key", "signature"}
