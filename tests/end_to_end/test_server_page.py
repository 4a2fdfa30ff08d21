"""The page of `refinenet serve` as it is used: in Chromium, without a screen."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import list_requests, needs_chromium, open_chromium, resize
from picture_bytes import file_bytes
from PIL import Image
from serve_process import ServeProcess

from refinenet import RefineNet
from refinenet.datasets.street_scenes import draw_street
from refinenet.labels import LabelSet

pytest.importorskip("fastapi", reason="pip install 'refinenet-torch[serve]'")
pytestmark = needs_chromium

HOSTILE = "<img src=x onerror=alert(1)>"
NAMES = (HOSTILE, "b", "c", "d", "e")
COLOURS = ((250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250))
PIXELS = draw_street(3, 48, 64)[0]
PICTURE = file_bytes(Image.fromarray(PIXELS), "PNG")


@pytest.fixture(scope="module")
def network() -> RefineNet:
    network = RefineNet(encoder="test_resnet", num_classes=5, device="cpu", seed=4)
    network.label_set = LabelSet(names=NAMES, colours=COLOURS)
    return network


@pytest.fixture(scope="module")
def server(network: RefineNet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    folder = tmp_path_factory.mktemp("page")
    network.save(folder / "hostile.safetensors")
    (folder / f"{HOSTILE.replace('/', '')}.png").write_bytes(PICTURE)
    (folder / "text.png").write_text("no image")
    running = ServeProcess("--model", folder / "hostile.safetensors", folder=folder, max_bytes=100_000)
    yield running
    if running.process.poll() is None:
        assert running.stop() == 0


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_chromium() as driver:
        yield driver


@pytest.fixture
def page(browser: Any, server: ServeProcess) -> Any:
    resize(browser, 1200, 900)
    browser.get(f"http://127.0.0.1:{server.port}/")
    _wait(browser, lambda: "5 classes" in _text(browser, "model-line"))
    return browser


def _wait(page: Any, is_so: Any) -> None:
    end = time.monotonic() + 90
    while not is_so():
        assert time.monotonic() < end, (_text(page, "status"), _text(page, "error"))
        time.sleep(0.05)


def _text(page: Any, identifier: str) -> str:
    return str(page.find_element("id", identifier).text)


def _choose(page: Any, path: Path) -> None:
    page.find_element("id", "file").send_keys(str(path))


def _send(page: Any, event: str) -> None:
    """Drop or paste the picture."""
    script = """
        const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
        const options = { bubbles: true, cancelable: true };
        document.dispatchEvent(arguments[1] === "drop" ? new DragEvent("drop", { ...options, dataTransfer: data })
          : new ClipboardEvent("paste", { ...options, clipboardData: data }));
    """
    page.execute_script(script, base64.b64encode(PICTURE).decode(), event)


def _shown(page: Any) -> Any:
    """The pixels drawn over the picture, `(H, W, 4)` uint8 RGBA."""
    script = """
        const canvas = document.getElementById("overlay");
        return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
    """
    return np.array(page.execute_script(script), np.uint8).reshape(48, 64, 4)


def _set(page: Any, identifier: str, value: object) -> None:
    script = (
        "const e = document.getElementById(arguments[0]); e.value = arguments[1]; e.dispatchEvent(new Event('input'))"
    )
    page.execute_script(script, identifier, value)


def _upload(page: Any, server: ServeProcess, network: RefineNet) -> Any:
    _choose(page, next(path for path in server.folder.glob("*.png") if path.name != "text.png"))
    _wait(page, lambda: page.find_element("id", "result").is_displayed())
    return network.segment(PIXELS)


def test_a_picture_is_segmented_and_shown_as_python_does(page: Any, server: ServeProcess, network: RefineNet) -> None:
    found = _upload(page, server, network)
    _set(page, "opacity", 100)
    shown = _shown(page)
    np.testing.assert_array_equal(shown[..., :3], found.colour)
    assert (shown[..., 3] == 255).all()
    rows = [row.text for row in page.find_elements("css selector", "#legend button")]
    ordered = sorted(((share, name) for name, share in found.areas.items() if share > 0), reverse=True)
    assert [row.replace("\n", " ") for row in rows] == [f"{name} {100 * share:.1f} %" for share, name in ordered]
    assert not page.find_elements("css selector", "img")


def test_a_class_is_hidden_by_keyboard_and_shown_again(page: Any, server: ServeProcess, network: RefineNet) -> None:
    from selenium.webdriver import Keys

    found = _upload(page, server, network)
    button = page.find_element("css selector", "#legend button")
    name = button.find_element("css selector", "span:nth-child(2)").text
    button.send_keys(Keys.SPACE)
    assert button.get_attribute("aria-pressed") == "false"
    page.execute_script("arguments[0].blur()", button)
    hidden = _shown(page)[..., 3] == 0
    np.testing.assert_array_equal(hidden, found.labels == NAMES.index(name))
    button.send_keys(Keys.SPACE)
    page.execute_script("arguments[0].blur()", button)
    assert (_shown(page)[..., 3] > 0).all()


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_picture_is_dropped_or_pasted(page: Any, event: str) -> None:
    _send(page, event)
    _wait(page, lambda: "64 × 48 pixels" in _text(page, "status"))


def test_nothing_foreign_is_asked_for_and_nothing_complains(
    page: Any, server: ServeProcess, network: RefineNet
) -> None:
    _upload(page, server, network)
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []
    asked = list_requests(page)
    ours = (f"http://127.0.0.1:{server.port}/", f"blob:http://127.0.0.1:{server.port}/", "data:")
    assert asked
    assert all(url.startswith(ours) for url in asked)


def test_it_fits_on_a_phone(page: Any, server: ServeProcess, network: RefineNet) -> None:
    resize(page, 360, 800)
    _upload(page, server, network)
    assert page.execute_script("return document.documentElement.scrollWidth") == 360


def test_errors_are_told_in_words(page: Any, server: ServeProcess) -> None:
    _choose(page, server.folder / "text.png")
    _wait(page, lambda: "is not a JPEG" in _text(page, "error"))
    (server.folder / "large.bin").write_bytes(bytes(40 * 2**20))
    _choose(page, server.folder / "large.bin")
    _wait(page, lambda: "40.0 MiB" in _text(page, "error"))
    server.stop()
    _send(page, "drop")
    _wait(page, lambda: "cannot be reached" in _text(page, "error"))
