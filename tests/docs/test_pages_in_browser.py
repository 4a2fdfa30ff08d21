"""The built pages as they are read, in Chromium: nothing is cut off on a phone, and the search finds.

They are in `docs/_build/html` after `make docs`; without them, these tests are skipped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import list_requests, needs_chromium, open_chromium, resize

HTML = Path(__file__).parents[2] / "docs" / "_build" / "html"
PAGES = sorted(HTML.rglob("*.html"))

pytestmark = [needs_chromium, pytest.mark.skipif(not PAGES, reason="make docs")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_chromium() as driver:
        yield driver


def test_no_page_scrolls_sideways_on_a_phone(browser: Any) -> None:
    resize(browser, 360, 740)
    wide = {}
    for path in PAGES:
        browser.get(path.as_uri())
        there, shown = browser.execute_script(
            "const e = document.documentElement; return [e.scrollWidth, e.clientWidth]"
        )
        if there > shown:
            wide[path.relative_to(HTML).as_posix()] = there
    assert wide == {}


def test_pages_ask_for_nothing_on_other_servers(browser: Any) -> None:
    list_requests(browser)
    browser.get((HTML / "index.html").as_uri())
    assert {url.partition(":")[0] for url in list_requests(browser)} <= {"file", "data"}


@pytest.mark.parametrize(("word", "page"), [("confidence", "faq"), ("crop_size", "reference/settings")])
def test_search_finds_pages(browser: Any, word: str, page: str) -> None:
    resize(browser, 1200, 900)
    browser.get((HTML / "index.html").as_uri())
    field = browser.find_element("css selector", ".sidebar-search")
    field.send_keys(word)
    field.submit()
    end = time.monotonic() + 60
    found: list[str] = []
    while not any(f"/{page}.html" in link for link in found):
        assert time.monotonic() < end, found
        time.sleep(0.2)
        found = [link.get_attribute("href") for link in browser.find_elements("css selector", "ul.search li a")]
