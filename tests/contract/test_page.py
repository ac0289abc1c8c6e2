"""The page in headless Chromium, with a real recording."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from support.api_server_fixture import Api, running
from support.browser import Page, chromium, findings
from transcribe.api.routes import jobs
from transcribe.keys import new_key

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
    with running(tmp_path_factory.mktemp("api"), delay=0.6) as found:
        yield found


@pytest.fixture
def page(driver: Any, api: Api) -> Iterator[Page]:
    found = Page(driver, api.url)
    yield found
    assert found.complaints() == []


def test_its_policy_allows_no_foreign_or_inline_code(api: Api) -> None:
    reply = api.get("/")
    policy = reply.headers["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "unsafe" not in policy
    text = reply.body.decode()
    assert "style=" not in text
    assert "onclick" not in text
    assert "{{" not in text
    for name in (
        "style.css",
        "main.js",
        "api.js",
        "choices.js",
        "wave.js",
        "transcript.js",
        "editor.js",
        "speakers.js",
        "recorder.js",
        "tongue.js",
        "icon.svg",
    ):
        assert api.get(f"/static/{name}").status == 200
        assert b"http://" not in api.get(f"/static/{name}").body.replace(b"http://www.w3.org/2000/svg", b"")
    for name in ("index.html", "..%2fpage.py", "nothing.js"):
        assert api.get(f"/static/{name}").code == "not_found"


def test_text_arrives_while_the_worker_listens(page: Page) -> None:
    page.send(CLIP)
    page.until(page.lines)
    assert len(page.lines()) < 3, "the lines came all at once"
    assert "Listening: 0:0" in page.find("#status").text
    page.done()
    assert [line.text.split("\n")[-1] for line in page.lines()] == [
        "Hej och välkomna.",
        "Nu ska vi tala om Ärendet.",
        "Tack --> slut & adjö.",
    ]


def test_a_line_plays_its_part_and_the_keyboard_does_too(page: Page) -> None:
    page.send(CLIP)
    page.done()
    page.lines()[1].click()
    page.until(lambda: page.script("!audio.paused && audio.currentTime >= 2.5"))
    assert page.lines()[1].get_attribute("aria-current") == "true"
    page.until(lambda: page.find("#lines .now").text in ("Nu", "ska", "vi", "tala", "om", "Ärendet."))
    page.find("#wave").click()
    page.press(Keys.SPACE)
    assert page.script("audio.paused")
    page.press(Keys.ARROW_LEFT)
    assert page.script("audio.currentTime") < 2.5
    page.press(Keys.ARROW_DOWN)
    page.press(Keys.ARROW_DOWN)
    focused = page.script("document.activeElement.textContent")
    assert "slut" in focused or "Nu" in focused
    page.press(Keys.ENTER)
    page.until(lambda: page.script("!audio.paused"))
    assert float(page.find("#wave").get_attribute("aria-valuemax")) > 5


def test_tab_goes_from_one_doubtful_word_to_the_next(page: Page) -> None:
    page.find("#language").send_keys("Norwegian")
    page.send(CLIP)
    page.done()
    assert [mark.text for mark in page.driver.find_elements(By.CSS_SELECTOR, "#lines mark")] == ["Ärendet."]
    page.lines()[0].click()
    page.press(Keys.SPACE)
    page.press(Keys.TAB)
    assert page.script("document.activeElement.textContent") == "Ärendet. 33 %"
    assert page.find("#lines mark").get_attribute("class") == "shown"
    page.press(Keys.ENTER)
    page.until(lambda: page.script("audio.currentTime >= 4 && audio.currentTime < 5"))
    page.press(Keys.TAB)
    assert page.script("document.activeElement.id") == "format", "lines are reached by arrows"


def texts(page: Page) -> list[str]:
    """Every text and label in the page."""
    code = "[...document.querySelectorAll('body *')].flatMap((e) => [e.ariaLabel, ...[...e.childNodes].filter("
    found: list[str] = page.script(f"{code}(n) => n.nodeType === 3).map((n) => n.nodeValue.trim())]).filter(Boolean)")
    return found


def test_it_speaks_swedish(page: Page) -> None:
    page.find("#language").send_keys("Estonian")
    page.send(CLIP)
    page.done()
    english = texts(page)
    page.find("#tongue").click()
    try:
        page.until(lambda: page.find("#status").text.startswith("Klar: 0:07 ljud"))
        page.until(lambda: page.find("#health").text.startswith("Redo"))
        assert page.script("[document.documentElement.lang, document.title]") == ["sv", "Tal till text"]
        assert findings(page) == []
        swedish = texts(page)
        assert len(swedish) == len(english)
        same = {one for one, other in zip(english, swedish, strict=True) if one == other}
        said = {word for line in page.lines() for word in line.text.split()}
        names = set(page.script("[...document.querySelectorAll('#language option')].map((o) => o.textContent)"))
        kept = {"verify.flac", "Text", "Tab", "F2", *"↑↓←→×", *said, *names}
        assert {one for one in same - kept if not re.match(r"[\d:]+$|Ärendet", one)} == set()
        assert {"Svenska", "Tyska"} <= names
    finally:
        page.find("#tongue").click()
    page.until(lambda: texts(page)[:5] == english[:5])


@pytest.mark.parametrize("dark", [False, True])
def test_an_accessibility_checker_finds_nothing(page: Page, dark: bool) -> None:
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    assert findings(page) == []
    page.send(CLIP)
    page.done()
    assert findings(page) == []
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_speakers_get_names_and_lines_are_corrected_by_keyboard(page: Page, downloads: Path) -> None:
    page.find("#language").send_keys("Latin")  # not a job of another test again
    page.until(lambda: page.find("#tell-speakers").is_displayed())
    page.find("#tell-speakers").click()
    page.send(CLIP)
    page.done()
    assert "A Hej och välkomna." in page.lines()[0].text
    assert page.find("#speakers").text.split("\n") == ["Speakers:", "A"]
    page.find("#speakers button").send_keys(Keys.ENTER)
    assert page.script("document.activeElement.ariaLabel") == "New name for A"
    page.press(Keys.ESCAPE)
    assert page.script("document.activeElement.ariaLabel") == "Rename A"
    page.press(Keys.ENTER)
    page.driver.switch_to.active_element.send_keys("Åsa Ek", Keys.ENTER)
    page.until(lambda: "Saved" in page.find("#status").text)
    assert page.script("document.activeElement.ariaLabel") == "Rename Åsa Ek"
    page.press(Keys.ARROW_DOWN)
    page.press(Keys.ARROW_DOWN)
    page.press(Keys.F2)
    label = page.script("document.activeElement.ariaLabel")
    assert label in ("Text at 0:00", "Text at 0:02")
    assert findings(page) == []
    page.driver.switch_to.active_element.send_keys(" Ja", Keys.ENTER)
    page.until(lambda: page.script("document.activeElement.className") == "line")
    page.until(lambda: "Saved" in page.find("#status").text)
    assert page.script("document.activeElement.textContent").endswith("Ja ")
    assert findings(page) == []
    page.find("#format").send_keys("Table")
    page.find("#download").click()
    text = page.downloaded(downloads / "verify.tsv")
    assert {line.split("\t")[3] for line in text.splitlines()[1:]} == {"Åsa Ek"}
    assert ". Ja\t" in text


def test_what_was_left_out_can_be_heard(page: Page, api: Api) -> None:
    api.worker.coverage["dropped"] = [{"start": 3.0, "end": 4.5, "reason": "no_text", "text": ""}]
    page.find("#language").send_keys("Danish")  # not a job of another test again
    try:
        page.send(CLIP)
        page.done()
    finally:
        api.worker.coverage["dropped"] = []
    assert page.find("#gaps").text.split("\n") == ["Heard, but not written:", "0:03 no text found"]
    page.find("#gaps button").click()
    page.until(lambda: page.script("!audio.paused && audio.currentTime >= 3"))


def test_the_waveform_is_drawn(page: Page) -> None:
    page.send(CLIP)
    page.done()
    code = "(() => { const c = document.getElementById('wave'); const d = c.getContext('2d')"
    colours = f"{code}.getImageData(0, c.height >> 1, c.width, 1).data; const s = new Set();"
    colours += "for (let i = 0; i < d.length; i += 4) s.add(d.slice(i, i + 4).join()); return s.size; })()"
    assert page.script(colours) >= 3, "bars, tint and cursor have colours of their own"


def test_subtitles_are_downloaded_and_the_recording_deleted(page: Page, api: Api, downloads: Path) -> None:
    page.send(CLIP)
    page.done()
    page.find("#format").send_keys("Subtitles (WebVTT)")
    page.find("#download").click()
    assert page.downloaded(downloads / "verify.vtt").startswith("WEBVTT\n\n00:00:00.000 --> 00:00:02.420\nHej")
    before = len(api.store.jobs(""))
    page.find("#delete").click()
    page.until(lambda: page.find("#choose").is_displayed())
    assert len(api.store.jobs("")) == before - 1


def test_a_recording_from_the_microphone(page: Page, api: Api) -> None:
    page.find("#record").click()
    page.until(lambda: "0:01" in page.find("#record").text)
    page.find("#record").click()
    page.done()
    assert page.find("#name").text.startswith("Recording ")
    assert api.worker.seen[-1].suffix == ".webm"


def test_what_goes_wrong_is_said(page: Page, tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"bad")
    page.send(bad)
    page.until(lambda: page.find("#error").is_displayed())
    assert page.find("#error").text == "The file has no sound."
    page.find("#again").click()
    assert page.find("#choose").is_displayed()


def test_a_job_can_be_cancelled(page: Page, api: Api) -> None:
    api.worker.hold.set()
    page.find("#language").send_keys("Finnish")
    page.send(CLIP)
    page.until(lambda: "Waiting" in page.find("#status").text)
    page.find("#cancel").click()
    page.until(lambda: page.find("#error").text == "Cancelled.")
    assert api.store.jobs("")[0].options.language == "fi"
    api.worker.hold.clear()


def test_a_job_that_waits_elsewhere_is_followed(page: Page, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_queue", lambda shared, job: None)  # as of a job of a fleet
    api.worker.hold.set()
    page.find("#language").send_keys("Welsh")  # not a job of another test again
    page.send(CLIP)
    page.until(lambda: page.find("#status").text == "Waiting for the worker")
    page.find("#tongue").click()
    try:
        page.until(lambda: page.find("#status").text == "Väntar på sin tur")
        assert not page.find("#error").is_displayed()
    finally:
        page.find("#tongue").click()
        api.worker.hold.clear()
    page.done()


def test_a_server_that_is_busy_is_asked_again(page: Page, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transcribe.api.context.READING_SECONDS", 0.0)
    slots, refused = api.shared.reading_slots, list[str]()
    acquire = slots.acquire

    def counted(key: str, seconds: float = 0.0) -> bool:
        taken = acquire(key, seconds)
        refused.extend([] if taken else [key])
        return taken

    for _ in range(slots.total):
        assert acquire("")
    monkeypatch.setattr(slots, "acquire", counted)
    page.find("#language").send_keys("Icelandic")  # not a job of another test again
    page.send(CLIP)
    page.until(lambda: len(refused) > 1)
    for _ in range(slots.total):
        slots.release("")
    page.done()
    assert len(page.lines()) == 3
    page.driver.get_log("browser")  # the 429s


def test_it_fits_a_phone(page: Page) -> None:
    page.driver.set_window_size(500, 850)  # Chromium's narrowest window
    page.send(CLIP)
    page.done()
    assert page.script("document.documentElement.scrollWidth <= window.innerWidth")
    small = page.script(
        "[...document.querySelectorAll('button')].filter(b => b.offsetHeight && b.offsetHeight < 40).length"
    )
    assert page.script(small) == 0, "buttons must be large enough for a finger"
    page.driver.set_window_size(1100, 900)


def test_a_key_is_asked_for_when_keys_are_on(driver: Any, tmp_path: Path) -> None:
    key, line = new_key("anna")
    (tmp_path / "keys").write_text(line)
    with running(tmp_path / "root", auth__keys_file=str(tmp_path / "keys")) as keyed:
        page = Page(driver, keyed.url)
        page.until(lambda: page.find("#key").is_displayed())
        assert not page.find("#choose").is_displayed()
        page.find("#key").send_keys(key, Keys.ENTER)
        page.send(CLIP)
        page.done()
        assert keyed.worker.seen[-1].key_id.startswith("anna:")
        driver.get_log("browser")  # the 401 that asked for a key
