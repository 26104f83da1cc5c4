"""A headless Chromium, driven by Selenium, that a test opens pages in; skipped with the reason where there is none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@contextmanager
def opened_browser(profile: Path) -> Iterator[Any]:
    """A driver with a new profile; its logs are kept."""
    pytest.importorskip("selenium", reason="selenium is not installed")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    browser = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("chromium and chromedriver are not installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.binary_location = browser
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield opened
    finally:
        opened.quit()


class Page:
    """One page, open in a browser, and what it says."""

    def __init__(self, browser: Any, page: Path | str, width: int = 1280, dark: bool = False) -> None:
        """page: a file, or the address of what is served."""
        self.browser = browser
        self.url = page if isinstance(page, str) else page.as_uri()
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        browser.get_log("browser"), browser.get_log("performance")
        browser.get(self.url)

    def js(self, script: str, *arguments: Any) -> Any:
        """What a script in the page returns; a promise is waited for."""
        return self.browser.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        return str(self.js("return document.querySelector(arguments[0]).textContent", selector))

    def column(self, table: str, number: int) -> list[str]:
        """The texts of a column of a table's body."""
        script = "return [...document.querySelectorAll(arguments[0])].map((row) => row.cells[arguments[1]].textContent)"
        return list(self.js(script, f"{table} tbody tr", number))

    def set(self, selector: str, value: str) -> None:
        """Give a control a value as if it had been chosen."""
        self.js(
            "const control = document.querySelector(arguments[0]); control.value = arguments[1];"
            "for (const kind of ['input', 'change']) control.dispatchEvent(new Event(kind, { bubbles: true }));",
            selector, value,
        )  # fmt: skip

    def complaints(self) -> list[str]:
        """What the console has to say: errors, refused loads, warnings."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.browser.get_log("browser")]

    def requests(self) -> list[str]:
        """What was asked for beside the page itself and the data inside it."""
        messages = (json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance"))
        asked = [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in asked if url != self.url and not url.startswith("data:")]


def shown(joules: float) -> str:
    """As the page writes microjoules."""
    value = joules * 1e6
    if value == 0:
        return "0"
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}" if value >= 1e-3 else _exponent(value)


def _exponent(value: float) -> str:
    mantissa, power = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(power)}"
