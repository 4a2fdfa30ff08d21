"""The page of `refinenet serve` driven by Selenium."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from serve_process import ServeProcess


def wait(page: Any, is_so: Any) -> None:
    end = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < end, (text(page, "status"), text(page, "error"))
        time.sleep(0.05)


def text(page: Any, identifier: str) -> str:
    return str(page.find_element("id", identifier).text)


def one(page: Any, selector: str) -> Any:
    return page.find_element("css selector", selector)


def choose(page: Any, *paths: Path) -> None:
    page.find_element("id", "file").send_keys("\n".join(map(str, paths)))


def send(page: Any, event: str, content: bytes, count: int = 1) -> None:
    """Drop or paste pictures."""
    script = """
        const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
        const data = new DataTransfer();
        for (let k = 0; k < arguments[2]; k++) {
          data.items.add(new File([bytes], `dropped${k}.png`, { type: "image/png" }));
        }
        const options = { bubbles: true, cancelable: true };
        document.dispatchEvent(arguments[1] === "drop" ? new DragEvent("drop", { ...options, dataTransfer: data })
          : new ClipboardEvent("paste", { ...options, clipboardData: data }));
    """
    page.execute_script(script, base64.b64encode(content).decode(), event, count)


def canvas(page: Any, name: str, pane: int = 0) -> npt.NDArray[np.uint8]:
    """The pixels of a canvas, `(H, W, 4)` uint8 RGBA."""
    script = """
        const canvas = document.querySelectorAll(`[data-name=${arguments[0]}]`)[arguments[1]];
        const { data, width, height } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return [width, height, ...data];
    """
    width, height, *values = page.execute_script(script, name, pane)
    return np.array(values, np.uint8).reshape(height, width, 4)


def overlay(page: Any, pane: int = 0) -> npt.NDArray[np.uint8]:
    return canvas(page, "overlay", pane)


def put(page: Any, name: str, value: object, pane: int = 0) -> None:
    script = """
        const element = document.querySelectorAll(`[data-name=${arguments[0]}]`)[arguments[2]];
        if (element.type === "checkbox") element.checked = arguments[1]; else element.value = arguments[1];
        element.dispatchEvent(new Event("input"));
    """
    page.execute_script(script, name, value, pane)


def states(page: Any) -> list[str]:
    found: list[str] = page.execute_script(
        "return [...document.querySelectorAll('#strip li')].map((each) => each.dataset.state)"
    )
    return found


def open_page(browser: Any, server: ServeProcess) -> None:
    browser.get(f"http://127.0.0.1:{server.port}/")
    wait(browser, lambda: ":" in text(browser, "model-line"))
