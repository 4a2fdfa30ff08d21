"""Chromium without a screen, for tests of pages."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

_BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_DRIVER = shutil.which("chromedriver")

needs_chromium = pytest.mark.skipif(
    not (_BROWSER and _DRIVER) and not os.environ.get("CI"),
    reason="there is no Chromium; on Debian: apt-get install chromium chromium-driver",
)


FAKE_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
"""Arguments for a camera that shows a moving test picture, and that pages may use without being asked for."""


@contextmanager
def open_chromium(*further: str) -> Iterator[Any]:
    """Open a browser, with further arguments, that logs what pages complain about and ask for, as a context."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    assert _BROWSER, "install chromium"
    assert _DRIVER, "install chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = _BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *further):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(_DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def resize(browser: Any, width: int, height: int) -> None:
    """Set the size of the window in CSS pixels; one narrower than 500 is a phone's."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def list_requests(browser: Any) -> list[str]:
    """Return the addresses that pages have asked for since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
