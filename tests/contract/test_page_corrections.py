"""Corrections on the page in headless Chromium: speakers renamed and lines put right by mouse, and nothing lost."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select
from support import fake_worker
from support.api_server_fixture import Api, running
from support.browser import Page, chromium, findings
from transcribe.api.context import AppContext
from transcribe.api.params import Offer
from transcribe.api.routes import jobs
from transcribe.jobs.corrections import TooManyCorrectionsError
from transcribe.jobs.sqlite import sqlite3
from transcribe.types import Segment, SpeakerOptions

pytestmark = pytest.mark.slow
CLIP = Path(__file__).resolve().parents[2] / "service" / "clips" / "verify.flac"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("downloads")) as found:
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


def told_apart(page: Page, language: str) -> None:
    """Sends the clip, with speakers told apart. In a language of its own it is not a job of another test again."""
    page.find("#language").send_keys(language)
    page.until(lambda: page.find("#tell-speakers").is_displayed())
    page.find("#tell-speakers").click()
    page.send(CLIP)
    page.done()


def two_speakers(segments: list[Segment], speakers: SpeakerOptions) -> list[Segment]:
    """As of a recording in which B answers A."""
    names = "ABA"
    return [replace(segment, speaker=names[segment.id]) for segment in segments]


def open_field(page: Page, text: str) -> None:
    """Writes into the field that is open."""
    page.driver.switch_to.active_element.send_keys(Keys.CONTROL, "a")
    page.driver.switch_to.active_element.send_keys(text)


def test_two_speakers_are_renamed_one_after_the_other_by_mouse(
    page: Page, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_worker, "spoken", two_speakers)
    told_apart(page, "Maltese")
    buttons = page.driver.find_elements(By.CSS_SELECTOR, "#speakers button")
    assert [button.text for button in buttons] == ["A", "B"]
    buttons[0].click()
    open_field(page, "Åsa")
    buttons[1].click()  # which saves the first while the second is open
    page.until(lambda: "Saved" in page.find("#status").text)
    assert page.script("document.activeElement.ariaLabel") == "New name for B"
    open_field(page, "Bo")
    page.find("#tongue").click()
    page.find("#tongue").click()
    page.until(lambda: page.find("#speakers").text.split("\n") == ["Speakers:", "Åsa", "Bo"])
    assert [line.text.split("\n")[-1].split()[0] for line in page.lines()] == ["Åsa", "Bo", "Åsa"]
    assert findings(page) == []


def drop(page: Page, name: str) -> None:
    """Drops a new recording on the page."""
    page.driver.execute_script(
        "const data = new DataTransfer(); data.items.add(new File(['sound'], arguments[0]));"
        "document.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }))",
        name,
    )


def test_what_is_being_written_is_saved_before_another_recording_comes(page: Page, api: Api) -> None:
    told_apart(page, "Yoruba")
    job = api.store.jobs("")[0].id
    page.lines()[1].click()
    page.press(Keys.F2)
    open_field(page, "Nu talar vi.")
    drop(page, "other.wav")
    page.until(lambda: page.find("#name").text == "other.wav")
    page.done()
    assert api.store.corrections.get(job).segments == {1: "Nu talar vi."}


def test_what_cannot_be_saved_stays_though_another_recording_comes(page: Page, api: Api) -> None:
    told_apart(page, "Hausa")
    page.lines()[1].click()
    page.press(Keys.F2)
    open_field(page, "Nu talar vi.")
    api.store.delete(api.store.jobs("")[0].id)
    drop(page, "other.wav")
    page.until(lambda: page.find("#error").is_displayed())
    assert (page.find("#name").text, page.find(".editor").get_attribute("value")) == ("verify.flac", "Nu talar vi.")
    page.find("#again").click()
    assert page.find(".editor").is_displayed()
    page.find(".editor").send_keys(Keys.ESCAPE)
    page.driver.get_log("browser")  # the 404


def test_after_a_recording_is_deleted_with_what_could_not_be_saved_others_come(
    page: Page, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise TooManyCorrectionsError

    told_apart(page, "Lao")
    monkeypatch.setattr(api.store.corrections, "change", refuse)
    page.lines()[1].click()
    page.press(Keys.F2)
    open_field(page, "Nu talar vi.")
    page.press(Keys.ENTER)
    page.until(lambda: page.find("#error").is_displayed())
    page.find("#delete").click()
    page.send(CLIP)
    page.until(lambda: page.find("#work").is_displayed())
    page.done()
    assert page.driver.find_elements(By.CSS_SELECTOR, ".editor") == []
    page.driver.get_log("browser")  # the 400s


def test_a_line_without_text_has_no_name_and_is_not_copied(
    page: Page, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_worker, "spoken", two_speakers)
    told_apart(page, "Basque")
    counts: list[int] = []
    read = api.store.segments

    def counted(job_id: str, after: int = -1, limit: int = -1) -> list[Segment]:
        found = read(job_id, after, limit)
        counts.append(len(found))
        return found

    monkeypatch.setattr(api.store, "segments", counted)
    page.lines()[1].click()
    page.press(Keys.F2)
    open_field(page, Keys.DELETE + Keys.ENTER)
    page.until(lambda: "Saved" in page.find("#status").text)
    page.until(lambda: not page.driver.find_elements(By.CSS_SELECTOR, ".editor"))
    page.until(
        lambda: [line.find_element(By.TAG_NAME, "b").is_displayed() for line in page.lines()] == [True, False, False]
    )
    assert counts == [3, 1], "of what follows the line, nothing is fetched again"
    page.driver.execute_script("navigator.clipboard.writeText = (text) => { window.copied = text; }")
    page.find("#copy").click()
    page.until(lambda: page.script("window.copied"))
    assert page.script("window.copied") == "A: Hej och välkomna. Tack --> slut & adjö."


def test_a_line_that_is_saved_and_cannot_be_read_again_is_shown_as_written(
    page: Page, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    told_apart(page, "Tamil")
    read = api.store.segments

    def failing(job_id: str, after: int = -1, limit: int = -1) -> list[Segment]:
        if limit == 1:
            raise sqlite3.OperationalError("disk I/O error")
        return read(job_id, after, limit)

    monkeypatch.setattr(api.store, "segments", failing)
    page.lines()[1].click()
    page.press(Keys.F2)
    open_field(page, "Nu talar vi.")
    page.press(Keys.ENTER)
    page.until(lambda: "Saved" in page.find("#status").text)
    page.until(lambda: not page.driver.find_elements(By.CSS_SELECTOR, ".editor"))
    page.until(lambda: "Nu talar vi." in page.lines()[1].text)
    assert not page.find("#error").is_displayed()
    page.driver.execute_script("navigator.clipboard.writeText = (text) => { window.copied = text; }")
    page.find("#copy").click()
    page.until(lambda: page.script("window.copied"))
    assert " Nu talar vi." in page.script("window.copied")
    page.driver.get_log("browser")  # the 500


def test_a_job_whose_corrections_nobody_keeps_offers_none(
    page: Page, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = jobs.job_body
    monkeypatch.setattr(jobs, "job_body", lambda *about, **more: body(*about, **{**more, "correctable": False}))
    told_apart(page, "Galician")
    assert "A Hej" in page.lines()[0].text
    assert page.driver.find_elements(By.CSS_SELECTOR, ".edit, #speakers button") == []
    page.lines()[0].click()
    page.press(Keys.F2)
    assert page.driver.find_elements(By.CSS_SELECTOR, ".editor") == []
    assert not page.find("#edit-hint").is_displayed()


def test_why_speakers_are_not_told_apart_is_said(page: Page, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    page.until(lambda: page.find("#tell-speakers").is_displayed())
    page.find("#tell-speakers").click()
    Select(page.find("#task")).select_by_visible_text("In English")
    assert not page.find("#tell-speakers").is_enabled()
    assert "only in what was said" in page.find("#speakers-reason").text
    assert findings(page) == []
    Select(page.find("#task")).select_by_visible_text("As it was said")
    assert page.find("#tell-speakers").is_enabled()
    monkeypatch.setattr(
        AppContext, "offer", property(lambda shared: Offer(shared.config, set(), tells_speakers_apart=False))
    )
    page.until(lambda: "cannot tell speakers apart now" in page.find("#speakers-reason").text)
    assert page.find("#tell-speakers").is_displayed()
    page.find("#tongue").click()
    try:
        assert "kan inte skilja talare åt" in page.find("#speakers-reason").text
    finally:
        page.find("#tongue").click()
