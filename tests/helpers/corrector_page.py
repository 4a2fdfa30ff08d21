"""The page of `refinenet label correct` driven by Selenium."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt


def wait(page: Any, is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < end, (text(page, "name"), text(page, "state"), text(page, "error"))
        time.sleep(0.05)


def text(page: Any, identifier: str) -> str:
    return str(page.find_element("id", identifier).text)


def open_corrector(page: Any, port: int) -> None:
    page.get(f"http://127.0.0.1:{port}/")
    wait(page, lambda: text(page, "state") in ("draft", "reviewed"))


def press(page: Any, *keys: str) -> None:
    """Press keys one after the other, wherever the focus is."""
    from selenium.webdriver import ActionChains

    ActionChains(page).send_keys("".join(keys)).perform()


def accept(page: Any) -> None:
    """Accept by keyboard, and wait until the next image is there or, after the last one, its labels are saved."""
    before = text(page, "progress")
    press(page, "a")
    wait(page, lambda: text(page, "progress") != before and text(page, "state") in ("draft", "reviewed"))


def click(page: Any, column: float, row: float) -> None:
    """Click on a pixel of the image, given with fractions."""
    drag(page, (column, row))


def drag(page: Any, *points: tuple[float, float]) -> None:
    """Press the button of the mouse on the first point, in pixels of the image, go to the others, and let it go."""
    script = """
        const [points] = arguments;
        const box = document.getElementById("picture").getBoundingClientRect();
        const canvas = document.getElementById("picture");
        const stage = document.getElementById("stage");
        const send = (type, [x, y]) => stage.dispatchEvent(new PointerEvent(type, {
          bubbles: true, cancelable: true, pointerId: 1, pointerType: "mouse", button: type === "pointermove" ? -1 : 0,
          clientX: box.left + (x * box.width) / canvas.width, clientY: box.top + (y * box.height) / canvas.height,
        }));
        stage.setPointerCapture = () => {};  // there is no such pointer
        send("pointerdown", points[0]);
        for (const point of points.slice(1)) send("pointermove", point);
        send("pointerup", points.at(-1));
    """
    page.execute_script(script, [[float(x), float(y)] for x, y in points])


def overlay(page: Any) -> npt.NDArray[np.uint8]:
    """The labels as they are drawn, `(H, W, 4)` uint8 RGBA."""
    script = """
        const canvas = document.getElementById("overlay");
        const { data, width, height } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return [width, height, ...data];
    """
    width, height, *values = page.execute_script(script)
    return np.array(values, np.uint8).reshape(height, width, 4)
