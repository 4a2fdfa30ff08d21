"""`refinenet label correct` as it is used: the command, its page in Chromium, and the masks that `label take` reads."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import list_requests, needs_chromium, open_chromium, resize
from corrector_page import accept, click, drag, open_corrector, overlay, press, text, wait
from draft_folders import NAMES, STEMS, component, read_ids, write_ids, write_photographs
from PIL import Image
from serve_process import CorrectorProcess

from refinenet.labelling import take_labels, write_labels

pytest.importorskip("fastapi", reason="pip install 'refinenet-torch[serve]'")
pytestmark = needs_chromium

HOSTILE = "<img src=x onerror=alert(1)>"
HOSTILE_FILE = "<b onclick=alert(1)>&amp;"
VOID = 255


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_chromium() as driver:
        resize(driver, 1200, 900)
        yield driver


def write_todo(folder: Path, names: tuple[str, ...] = NAMES, file_format: str = "labelme") -> dict[str, Any]:
    """Write drafts to `todo/`, and return their ids by stem."""
    photographs, ids = write_photographs(folder), write_ids(folder, names)
    write_labels(
        str(photographs),
        folder / "todo",
        masks=folder / "ids",
        file_format=file_format,
        min_area=0,
        recursive=True,
        progress=False,
    )
    return dict(ids)


@pytest.fixture
def todo(tmp_path: Path) -> dict[str, Any]:
    return write_todo(tmp_path)


@pytest.fixture
def server(todo: dict[str, Any], tmp_path: Path) -> Iterator[CorrectorProcess]:
    running = CorrectorProcess(tmp_path / "todo", folder=tmp_path)
    yield running
    assert running.process.poll() is not None or running.stop() == 0, running.error_text()


def disc(ids: Any, column: float, row: float, diameter: int) -> Any:
    """The pixels whose middle lies in a disc."""
    rows, columns = np.indices(ids.shape) + 0.5
    return (columns - column) ** 2 + (rows - row) ** 2 <= diameter**2 / 4


def test_what_was_painted_filled_and_accepted_is_taken_bit_for_bit(
    browser: Any, server: CorrectorProcess, todo: dict[str, Any], tmp_path: Path
) -> None:
    open_corrector(browser, server.port)
    assert text(browser, "progress") == "0 of 3 reviewed"
    first, second, _ = (todo[stem] for stem in STEMS)
    expected = first.copy()
    region = component(first, 20, 12)
    assert 100 < region.sum() < 1000
    elsewhere = np.argwhere(~region & (first < 3))[0]
    press(browser, "f", "4")
    click(browser, 12.5, 20.5)
    expected[region] = 3
    click(browser, elsewhere[1] + 0.5, elsewhere[0] + 0.5)  # will be undone
    press(browser, "z", "b", "1")
    click(browser, 44.27, 30.63)
    expected[disc(first, 44.27, 30.63, 15)] = 0
    press(browser, "e")
    drag(browser, (5, 38.2), (30, 38.2))
    expected[disc(first, 5, 38.2, 15) | disc(first, 30, 38.2, 15)] = VOID
    expected[31:, 5:30] = VOID  # rows of which the middle is at most 7.5 pixels from the line
    assert text(browser, "state") == "changed, not saved"
    accept(browser)
    assert text(browser, "progress") == "1 of 3 reviewed"
    assert "drive_002" in text(browser, "name")
    accept(browser)  # as drafted
    assert "street_7" in text(browser, "name")
    press(browser, "f", "2")
    click(browser, 12.5, 20.5)  # is never accepted

    corrected = tmp_path / "todo" / "corrected" / "masks"
    np.testing.assert_array_equal(read_ids(corrected / "drive_001.png"), expected)
    taken = take_labels(tmp_path / "todo", tmp_path / "mine", progress=False)
    assert {image.name: image.pixels for image in taken.images} == {
        "drive_001": int((expected != first).sum()),
        "drive_002": 0,
    }
    masks = {path.stem: read_ids(path) for path in (tmp_path / "mine" / "masks").rglob("*.png")}
    assert masks.keys() == {"drive_001", "drive_002"}
    np.testing.assert_array_equal(masks["drive_001"], expected)
    np.testing.assert_array_equal(masks["drive_002"], second)


def test_undo_and_redo_restore_every_pixel(browser: Any, server: CorrectorProcess, todo: dict[str, Any]) -> None:
    open_corrector(browser, server.port)
    before = overlay(browser)
    press(browser, "3")
    drag(browser, (5, 5), (50, 30), (5, 35))
    painted = overlay(browser)
    press(browser, "f", "1")
    click(browser, 50.5, 2.5)
    filled = overlay(browser)
    assert not np.array_equal(before, painted)
    assert not np.array_equal(painted, filled)
    press(browser, "z")
    np.testing.assert_array_equal(overlay(browser), painted)
    press(browser, "z")
    np.testing.assert_array_equal(overlay(browser), before)
    assert text(browser, "state") == "draft"
    press(browser, "y", "y")
    np.testing.assert_array_equal(overlay(browser), filled)


def test_changes_stay_when_one_goes_on_and_leaving_asks(browser: Any, server: CorrectorProcess) -> None:
    open_corrector(browser, server.port)
    press(browser, "4", "]")
    click(browser, 20.5, 20.5)
    painted = overlay(browser)
    press(browser, "n")
    wait(browser, lambda: text(browser, "state") == "draft")
    press(browser, "p")
    wait(browser, lambda: text(browser, "state") == "changed, not saved")
    np.testing.assert_array_equal(overlay(browser), painted)
    asks = "return !window.dispatchEvent(new Event('beforeunload', { cancelable: true }))"
    assert browser.execute_script(asks)
    press(browser, "n")
    wait(browser, lambda: text(browser, "state") == "draft")
    assert browser.execute_script(asks)  # that of another image is not saved, either
    press(browser, "p")
    wait(browser, lambda: text(browser, "state") == "changed, not saved")
    accept(browser)
    assert not browser.execute_script(asks)


def test_a_killed_server_loses_nothing_and_the_next_one_goes_on(
    browser: Any, server: CorrectorProcess, todo: dict[str, Any], tmp_path: Path
) -> None:
    open_corrector(browser, server.port)
    press(browser, "f", "4")
    click(browser, 12.5, 20.5)
    accept(browser)
    os.kill(server.process.pid, signal.SIGKILL)
    server.wait()
    again = CorrectorProcess(tmp_path / "todo", folder=tmp_path)
    try:
        assert "3 images, 1 reviewed" in again.lines[0]
        open_corrector(browser, again.port)
        assert "drive_002" in text(browser, "name")
        press(browser, "p")
        wait(browser, lambda: text(browser, "state") == "reviewed")
        drawn = overlay(browser)[..., :3]
        assert (drawn[component(todo["drive_001"], 20, 12)] == drawn[20, 12]).all()
        browser.find_element("id", "withdraw").click()
        browser.switch_to.alert.accept()
        wait(browser, lambda: text(browser, "progress") == "0 of 3 reviewed" and text(browser, "state") == "draft")
        assert not list((tmp_path / "todo" / "corrected" / "masks").rglob("*.png"))
    finally:
        assert again.stop() == 0


def test_names_of_classes_files_and_reasons_are_text(browser: Any, tmp_path: Path) -> None:
    names = (HOSTILE, *NAMES[1:])
    write_photographs(tmp_path)
    (tmp_path / "photographs" / "drive_001.png").rename(tmp_path / "photographs" / f"{HOSTILE_FILE}.png")
    ids = write_ids(tmp_path, NAMES)
    (tmp_path / "ids" / "masks" / "drive_001.png").rename(tmp_path / "ids" / "masks" / f"{HOSTILE_FILE}.png")
    (tmp_path / "ids" / "classes.yaml").write_text(f"names: ['{HOSTILE}', road, car, tree]\n")
    write_labels(str(tmp_path / "photographs"), tmp_path / "todo", masks=tmp_path / "ids", min_area=0, progress=False)
    record = (tmp_path / "todo" / "drafts.json").read_text()
    (tmp_path / "todo" / "drafts.json").write_text(record.replace('"ids":', f'"reasons":"{HOSTILE}","ids":'))
    server = CorrectorProcess(tmp_path / "todo", folder=tmp_path)
    list_requests(browser)
    open_corrector(browser, server.port)
    assert HOSTILE_FILE in text(browser, "name")
    assert text(browser, "reasons") == HOSTILE
    assert [each.text for each in browser.find_elements("css selector", "#palette .name")][:2] == list(names[:2])
    assert len(browser.find_elements("css selector", "img")) == 1
    press(browser, "f", "1")
    click(browser, 12.5, 20.5)
    accept(browser)
    address = f"http://127.0.0.1:{server.port}/"
    assert all(each.startswith((address, "blob:", "data:")) for each in list_requests(browser))
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert server.stop() == 0
    taken = take_labels(tmp_path / "todo", tmp_path / "mine", progress=False)
    assert [(image.name, image.action) for image in taken.images] == [(HOSTILE_FILE, "new")]
    expected = ids["drive_001"].copy()
    expected[component(expected, 20, 12)] = 0
    (mask,) = (tmp_path / "mine" / "masks").rglob("*.png")
    np.testing.assert_array_equal(read_ids(mask), expected)


def test_a_turned_photograph_and_its_mask_are_upright(browser: Any, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    (tmp_path / "photographs").mkdir()
    Image.new("RGB", (30, 20), (10, 200, 30)).save(tmp_path / "photographs" / "turned.png", exif=exif)
    (tmp_path / "ids" / "masks").mkdir(parents=True)
    ids = np.zeros((30, 20), np.uint8)
    ids[:10] = 1
    Image.fromarray(ids).save(tmp_path / "ids" / "masks" / "turned.png")
    (tmp_path / "ids" / "classes.yaml").write_text("names: [a, b]\n")
    write_labels(str(tmp_path / "photographs"), tmp_path / "todo", masks=tmp_path / "ids", min_area=0, progress=False)
    server = CorrectorProcess(tmp_path / "todo", folder=tmp_path)
    open_corrector(browser, server.port)
    assert overlay(browser).shape == (30, 20, 4)
    press(browser, "f", "1")
    click(browser, 15.5, 5.5)
    accept(browser)
    assert server.stop() == 0
    np.testing.assert_array_equal(
        read_ids(tmp_path / "todo" / "corrected" / "masks" / "turned.png"), np.zeros_like(ids)
    )


def test_a_phone_needs_no_sideways_scrolling(browser: Any, server: CorrectorProcess) -> None:
    try:
        resize(browser, 360, 780)
        open_corrector(browser, server.port)
        assert browser.execute_script("return document.documentElement.scrollWidth") == 360
        browser.execute_script("scrollTo(0, document.documentElement.scrollHeight)")
        for name in ("stage", "accept"):  # both stay in sight
            box = browser.find_element("id", name).rect
            top = box["y"] - browser.execute_script("return scrollY")
            assert top >= -1
            assert top + box["height"] <= 781
    finally:
        resize(browser, 1200, 900)


def test_a_token_is_asked_for(browser: Any, todo: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "token.txt").write_text("secret\n")
    server = CorrectorProcess(tmp_path / "todo", "--token-file", tmp_path / "token.txt", folder=tmp_path)
    assert server.ask("GET", "/list").status == 401
    assert server.ask("GET", "/images/0/picture").status == 401
    browser.get(f"http://127.0.0.1:{server.port}/")
    wait(browser, lambda: browser.find_element("id", "token-form").is_displayed())
    browser.find_element("id", "token").send_keys("secret\n")
    wait(browser, lambda: text(browser, "state") == "draft")
    accept(browser)
    assert text(browser, "progress") == "1 of 3 reviewed"
    assert server.stop() == 0
    shutil.rmtree(tmp_path / "todo")
