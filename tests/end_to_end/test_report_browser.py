"""The report as it is used: opened from a file in Chromium, without a screen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import list_requests, needs_chromium, open_chromium, resize
from report_samples import HOSTILE_CLASS, HOSTILE_IMAGE, report

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("report")
    report(folder)
    return (folder / "report.html").as_uri()


@pytest.fixture
def page(browser: Any, address: str) -> Any:
    resize(browser, 1200, 900)
    browser.get(address)
    return browser


def _find(page: Any, selector: str) -> Any:
    return page.find_element("css selector", selector)


def _order(page: Any) -> list[str]:
    script = "return [...document.querySelectorAll('#class-table tbody tr')].map(r => r.cells[1].textContent)"
    names: list[str] = page.execute_script(script)
    return names


def _expected(page: Any, figure: str, *, descending: bool = False) -> list[str]:
    """Names of the classes by a figure of the JSON in the page, those that have none last."""
    classes = json.loads(page.execute_script("return document.getElementById('figures').textContent"))["classes"]
    known = {name: found[figure] for name, found in classes.items() if found[figure] is not None}
    ordered = sorted(known, key=lambda name: known[name], reverse=descending)
    return ordered + [name for name in classes if name not in known]


def _head(page: Any, text: str) -> Any:
    return page.find_element("xpath", f"//table[@id='class-table']//button[text()='{text}']")


def _wipe(page: Any) -> str:
    clip: str = page.execute_script("return getComputedStyle(document.querySelector('.stage .over')).clipPath")
    return clip


def test_it_opens_without_a_complaint_or_a_request(page: Any) -> None:
    page.execute_script("window.scrollTo(0, document.body.scrollHeight)")
    assert page.execute_script("return [...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert page.get_log("browser") == []
    asked = list_requests(page)
    assert asked
    assert all(url.startswith(("file:", "data:")) for url in asked)


def test_foreign_names_are_shown_as_text(page: Any) -> None:
    assert HOSTILE_CLASS in _order(page)
    assert _find(page, "#worst-1 .name").text == HOSTILE_IMAGE
    assert len(page.find_elements("css selector", "script")) == 2
    assert not page.find_elements("css selector", "img[onerror]")


@pytest.mark.parametrize(("column", "figure"), [("IoU %", "iou"), ("recall %", "recall"), ("precision %", "precision")])
def test_a_click_on_a_column_sorts_and_a_second_one_reverses(page: Any, column: str, figure: str) -> None:
    before = _order(page)
    _head(page, column).click()
    assert _order(page) == _expected(page, figure) != before
    assert _head(page, column).find_element("xpath", "..").get_attribute("aria-sort") == "ascending"
    _head(page, column).click()
    assert _order(page) == _expected(page, figure, descending=True)
    assert _order(page)[-1] == "absent"
    assert len(page.find_elements("css selector", "#class-table th[aria-sort]")) == 1


def test_a_column_is_sorted_by_keyboard(page: Any) -> None:
    from selenium.webdriver import ActionChains, Keys

    page.execute_script("arguments[0].focus()", _head(page, "class"))
    ActionChains(page).send_keys(Keys.TAB, Keys.ENTER).perform()
    assert page.switch_to.active_element.text == "IoU %"
    assert _order(page) == _expected(page, "iou")
    ActionChains(page).send_keys(Keys.SPACE).perform()
    assert _order(page) == _expected(page, "iou", descending=True)


def test_the_slider_wipes_by_arrow_keys_and_by_mouse(page: Any) -> None:
    from selenium.webdriver import ActionChains, Keys

    slider = _find(page, ".stage input[type=range]")
    assert "50%" in _wipe(page)
    page.execute_script("arguments[0].focus()", slider)
    ActionChains(page).send_keys(*[Keys.ARROW_RIGHT] * 5).perform()
    assert "55%" in _wipe(page)
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", slider)
    width = slider.size["width"]
    ActionChains(page).move_to_element(slider).click_and_hold().move_by_offset(int(-0.3 * width), 0).release().perform()
    assert 15 <= float(_wipe(page).split()[-1].rstrip("%)")) <= 25


def test_buttons_choose_what_is_compared(page: Any) -> None:
    def shown() -> list[str]:
        views: list[str] = page.execute_script(
            "return [...document.querySelector('.stage').querySelectorAll('img')].map(i => i.dataset.view)"
        )
        return views

    assert shown() == ["image", "prediction"]
    button = page.find_element("xpath", "//button[text()='truth | prediction']")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()
    assert shown() == ["truth", "prediction"]
    assert button.get_attribute("aria-pressed") == "true"


@pytest.mark.parametrize("width", [320, 360, 768])
def test_nothing_is_wider_than_a_phone(page: Any, width: int) -> None:
    resize(page, width, 740)
    wide, room = page.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert wide <= room <= width
    assert _find(page, ".stage").size["width"] <= width


def test_pictures_are_there_without_scripts(page: Any, address: str) -> None:
    page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page.get(address)
        assert len(page.find_elements("css selector", "#worst-1 .tile img")) == 4
        assert not page.find_elements("css selector", ".stage")
    finally:
        page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
