"""The page in headless Chromium, as a person uses it."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from support.javascript import installed

ARGUMENTS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1100,900"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
    "--autoplay-policy=no-user-gesture-required",
    "--force-prefers-reduced-motion",  # of what fades in, WebDriver reads no text and axe-core no contrast at first
)


class Page:
    """A tab with the page in it."""

    def __init__(self, driver: Any, url: str) -> None:
        self.driver = driver
        driver.get(f"{url}/")

    def find(self, css: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def lines(self) -> list[Any]:
        found: list[Any] = self.driver.find_elements(By.CSS_SELECTOR, "#lines .line")
        return found

    def script(self, code: str) -> Any:
        return self.driver.execute_script(f"return {code}")

    def until(self, true: Callable[[], Any], seconds: float = 15.0) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, self.find("body").text
            time.sleep(0.05)

    def downloaded(self, file: Path) -> str:
        """The text of a download, once all of it is there: Chromium makes an empty file first, and another beside it
        that takes its place."""
        self.until(lambda: file.exists() and file.stat().st_size)
        return file.read_text()

    def send(self, file: Path) -> None:
        self.until(lambda: self.find("#choose").is_displayed())
        self.find("#file").send_keys(str(file))

    def done(self) -> None:
        self.until(lambda: self.find("#results").is_displayed())

    def press(self, key: str) -> None:
        webdriver.ActionChains(self.driver).send_keys(key).perform()

    def complaints(self) -> list[str]:
        """What the browser wrote to its console, violations of the policy among it."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@contextmanager
def chromium(downloads: Path) -> Iterator[Any]:
    """A browser that saves into this folder; its microphone hears a beep."""
    browser, program = shutil.which("chromium"), shutil.which("chromedriver")
    if not (browser and program):
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(program))
    try:
        yield found
    finally:
        found.quit()


def findings(page: Page) -> list[Any]:
    """What axe-core finds wrong, with the places."""
    page.driver.execute_script((installed("axe_js") / "node_modules/axe-core/axe.min.js").read_text())
    told = "(r) => arguments[0](r.violations.map((v) => [v.id, v.nodes.map((n) => n.target.join())]))"
    found: list[Any] = page.driver.execute_async_script(f"axe.run().then({told})")
    return found
