"""The page of `refinenet serve` as it is used: in Chromium, without a screen."""

from __future__ import annotations

import base64
import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import FAKE_CAMERA, list_requests, needs_chromium, open_chromium, resize
from picture_bytes import file_bytes
from PIL import Image
from serve_process import ServeProcess
from server_page import canvas, choose, one, open_page, overlay, put, send, states, text, wait

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
MAX_PIXELS = 20_000
AXE = os.environ.get("REFINENET_AXE", "")


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
    limits: dict[str, float] = {"max_bytes": 100_000, "max_pixels": MAX_PIXELS, "queue": 1, "workers": 1}
    running = ServeProcess("--model", folder / "hostile.safetensors", folder=folder, **limits, decode_seconds=200)
    yield running
    assert running.process.poll() is not None or running.stop() == 0


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_chromium(*FAKE_CAMERA) as driver:
        yield driver


@pytest.fixture
def page(browser: Any, server: ServeProcess) -> Any:
    resize(browser, 1200, 900)
    open_page(browser, server)
    return browser


def upload(page: Any, server: ServeProcess, network: RefineNet) -> Any:
    choose(page, next(path for path in server.folder.glob("*.png") if path.name != "text.png"))
    wait(page, lambda: page.find_element("id", "result").is_displayed())
    return network.segment(PIXELS)


def test_a_picture_is_segmented_and_shown_as_python_does(page: Any, server: ServeProcess, network: RefineNet) -> None:
    found = upload(page, server, network)
    shown = overlay(page)
    np.testing.assert_array_equal(shown[..., :3], found.colour)
    assert (shown[..., 3] == 255).all()
    np.testing.assert_array_equal(canvas(page, "picture")[..., :3], PIXELS)
    rows = [row.text for row in page.find_elements("css selector", "#legend button")]
    ordered = sorted(((share, name) for name, share in found.areas.items() if share > 0), reverse=True)
    assert [row.replace("\n", " ") for row in rows] == [f"{name} {100 * share:.1f} %" for share, name in ordered]


def test_names_of_classes_and_files_are_text(page: Any, server: ServeProcess, network: RefineNet) -> None:
    upload(page, server, network)
    send(page, "drop", PICTURE)
    wait(page, lambda: states(page) == ["done"] * 2)
    assert [each.get_attribute("src") for each in page.find_elements("css selector", "img")] == [
        f"http://127.0.0.1:{server.port}/static/icon.svg"
    ]
    names = [each.text for each in page.find_elements("css selector", "#strip .name")]
    assert names == [f"{HOSTILE.replace('/', '')}.png", "dropped0.png"]


def test_a_class_is_hidden_by_keyboard_and_shown_again(page: Any, server: ServeProcess, network: RefineNet) -> None:
    from selenium.webdriver import Keys

    found = upload(page, server, network)
    button = one(page, "#legend button")
    number = int(button.get_attribute("data-id"))
    button.send_keys(Keys.SPACE)
    assert button.get_attribute("aria-pressed") == "false"
    page.execute_script("arguments[0].blur()", button)
    np.testing.assert_array_equal(overlay(page)[..., 3] == 0, found.labels == number)
    button.send_keys(Keys.SPACE)
    page.execute_script("arguments[0].blur()", button)
    assert (overlay(page)[..., 3] > 0).all()
    page.find_element("id", "hide-all").click()
    assert (overlay(page)[..., 3] == 0).all()
    page.find_element("id", "show-all").click()
    assert (overlay(page)[..., 3] > 0).all()


def test_a_class_is_seen_alone_while_it_is_hovered(page: Any, server: ServeProcess, network: RefineNet) -> None:
    from selenium.webdriver import ActionChains

    found = upload(page, server, network)
    button = page.find_elements("css selector", "#legend button")[1]
    ActionChains(page).move_to_element(button).perform()
    number = int(button.get_attribute("data-id"))
    np.testing.assert_array_equal(overlay(page)[..., 3] > 0, found.labels == number)
    ActionChains(page).move_to_element(page.find_element("id", "title")).perform()
    assert (overlay(page)[..., 3] > 0).all()


def test_outlines_opacity_and_confidence(page: Any, server: ServeProcess, network: RefineNet) -> None:
    found = upload(page, server, network)
    labels = found.labels
    differs = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        step = np.diff(labels.astype(int), axis=axis) != 0
        before = [slice(None), slice(None)]
        after = [slice(None), slice(None)]
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        differs[tuple(before)] |= step
        differs[tuple(after)] |= step
    put(page, "outlines", True)
    np.testing.assert_array_equal(overlay(page)[..., 3] > 0, differs)
    put(page, "outlines", False)
    put(page, "opacity", 40)
    assert page.execute_script("return document.querySelector('[data-name=overlay]').style.opacity") == "0.4"
    sure = np.array(Image.open(BytesIO(found.encode(".png", "confidence"))))
    put(page, "certain", 50)
    np.testing.assert_array_equal(overlay(page)[..., 3] > 0, sure >= 128)
    put(page, "certain", 0)
    put(page, "view", "confidence")
    bright = overlay(page)[..., :3].astype(int).sum(-1)
    order = np.argsort(sure.ravel(), kind="stable")
    assert (np.diff(bright.ravel()[order]) >= 0).all(), "more confidence is never darker"
    assert one(page, "[data-name=scale]").is_displayed()


def test_two_settings_stand_side_by_side(page: Any, server: ServeProcess, network: RefineNet) -> None:
    found = upload(page, server, network)
    page.find_element("id", "compare").click()
    put(page, "view", "confidence", pane=1)
    np.testing.assert_array_equal(overlay(page, 0)[..., :3], found.colour)
    assert (overlay(page, 0) != overlay(page, 1)).any()
    boxes = [each.rect for each in page.find_elements("css selector", ".stage")]
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    page.find_element("id", "compare").click()
    assert len([each for each in page.find_elements("css selector", ".stage") if each.is_displayed()]) == 1


def test_the_class_and_confidence_of_a_place_by_mouse_and_by_keys(
    page: Any, server: ServeProcess, network: RefineNet
) -> None:
    from selenium.webdriver import ActionChains, Keys

    found = upload(page, server, network)
    stage = one(page, ".stage")
    ActionChains(page).move_to_element_with_offset(stage, 5, 5).perform()
    words = text(page, "readout")
    column, row = (int(each) for each in words.rpartition("at ")[2].split(", "))
    assert words.startswith(
        f"{NAMES[found.labels[row, column]]}, confidence {100 * found.confidence[row, column]:.0f} %"
    )
    stage.send_keys(Keys.ARROW_RIGHT * 10)
    moved = [int(each) for each in text(page, "readout").rpartition("at ")[2].split(", ")]
    assert column < moved[0] <= column + 8
    assert moved[1] == row
    assert one(page, "[data-name=cross]").is_displayed()


def test_the_divider_shows_the_picture_beside_the_result(page: Any, server: ServeProcess, network: RefineNet) -> None:
    from selenium.webdriver import ActionChains

    upload(page, server, network)
    put(page, "divider", 50)
    clip = "return document.querySelector('[data-name=overlay]').style.clipPath"
    assert page.execute_script(clip) == "inset(0px 0px 0px 50%)"
    stage = one(page, ".stage")
    ActionChains(page).move_to_element(stage).click_and_hold().move_by_offset(int(stage.rect["width"] / 4), 0).perform()
    ActionChains(page).release().perform()
    assert 70 <= int(one(page, "[data-name=divider]").get_attribute("value")) <= 80


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_picture_is_dropped_or_pasted(page: Any, event: str) -> None:
    send(page, event, PICTURE)
    wait(page, lambda: "64 × 48 pixels" in text(page, "status"))


def test_several_images_form_a_strip(page: Any) -> None:
    from selenium.webdriver import Keys

    send(page, "drop", PICTURE, count=3)
    wait(page, lambda: states(page) == ["done"] * 3)
    first = one(page, "#strip li button")
    assert first.get_attribute("aria-current") == "true"
    first.send_keys(Keys.ARROW_RIGHT)
    buttons = page.find_elements("css selector", "#strip .thumb")
    assert [each.get_attribute("aria-current") for each in buttons] == [None, "true", None]
    page.switch_to.active_element.send_keys(Keys.DELETE)
    assert [each.text for each in page.find_elements("css selector", "#strip .name")] == [
        "dropped0.png",
        "dropped2.png",
    ]
    assert page.execute_script("return document.activeElement.textContent") == "dropped2.png"


def test_a_photo_that_is_too_large_is_reduced_and_said(page: Any) -> None:
    """Also one of more bytes than the server reads."""
    large = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    content = file_bytes(Image.fromarray(large), "PNG")
    assert len(content) > 100_000
    send(page, "drop", content)
    wait(page, lambda: "173 × 115 pixels in" in text(page, "status"))  # 300 x 200, at most 20,000
    assert "Reduced from 300 × 200 pixels" in text(page, "status")


def test_downloads_hold_what_is_shown(page: Any, server: ServeProcess, network: RefineNet) -> None:
    # The page may not read blobs that the browser is to save; the test may, and at once: they are gone after a second.
    page.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
    open_page(page, server)
    found = upload(page, server, network)
    page.execute_script("""
        window.saved = [];
        HTMLAnchorElement.prototype.click = function () { window.saved.push([this.download, fetch(this.href)]); };
    """)
    for name in ("save-picture", "save-labels", "save-summary"):
        page.find_element("id", name).click()
    wait(page, lambda: page.execute_script("return window.saved.length") == 3)
    read = """
        const done = arguments[arguments.length - 1];
        Promise.all(window.saved.map(async ([name, answer]) => {
          const bytes = new Uint8Array(await (await answer).arrayBuffer());
          return [name, btoa(String.fromCharCode(...bytes))];
        })).then(done, (error) => done([["failed", btoa(error.message)]]));
    """
    saved = {name: base64.b64decode(content) for name, content in page.execute_async_script(read)}
    page.execute_cdp_cmd("Page.setBypassCSP", {"enabled": False})
    labels = next(content for name, content in saved.items() if name.endswith("-labels.png"))
    assert labels == found.encode(".png")
    assert any(name.endswith(".json") and b'"areas"' in content for name, content in saved.items())
    picture = next(content for name, content in saved.items() if name.endswith("-overlay.png"))
    mixed = 0.4 * PIXELS + 0.6 * found.colour
    np.testing.assert_allclose(np.array(Image.open(BytesIO(picture)))[..., :3], mixed, atol=2)


def test_the_camera_is_segmented_live(page: Any) -> None:
    live = page.find_element("id", "live")
    live.click()
    wait(page, lambda: "frames/s" in text(page, "rate"))
    assert (overlay(page)[..., 3] > 0).any()
    assert page.find_elements("css selector", "#legend button")
    page.find_element("id", "keep").click()
    wait(page, lambda: states(page) == ["done"])
    assert one(page, "#strip .name").get_attribute("textContent").startswith("camera-")
    assert live.text == "Live camera", "a picture stops the camera"


def test_a_request_is_cancelled(page: Any, server: ServeProcess) -> None:
    from selenium.webdriver import Keys

    server.process.send_signal(signal.SIGSTOP)
    try:
        send(page, "drop", PICTURE, count=2)
        wait(page, lambda: states(page) == ["running", "waiting"])
        page.find_element("id", "cancel").click()
        wait(page, lambda: "Cancelled." in text(page, "status"))
        assert not page.find_element("id", "error").is_displayed()
        send(page, "drop", PICTURE)
        wait(page, lambda: states(page)[-1] == "running")
        one(page, "body").send_keys(Keys.ESCAPE)
        wait(page, lambda: states(page) == ["failed"] * 3)
    finally:
        server.process.send_signal(signal.SIGCONT)
    send(page, "drop", PICTURE)
    wait(page, lambda: states(page)[-1] == "done")


def test_a_double_click_and_two_drops_do_no_harm(page: Any) -> None:
    send(page, "drop", PICTURE)
    send(page, "drop", PICTURE)
    wait(page, lambda: states(page) == ["done"] * 2)
    page.execute_script("for (let k = 0; k < 2; k++) document.getElementById('compare').click()")
    assert not page.find_element("id", "error").is_displayed()


@pytest.mark.skipif(sys.platform != "linux", reason="finds child processes by /proc")
def test_a_busy_server_is_told_in_words(page: Any, server: ServeProcess) -> None:
    (decoder,) = server.children()
    os.kill(decoder, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(2) as threads:
            waiting = [threads.submit(server.segment, PICTURE) for _ in range(2)]
            while b"refinenet_queue_length 2" not in server.ask("GET", "/metrics").body:
                time.sleep(0.02)
            send(page, "drop", PICTURE)
            wait(page, lambda: "The server is busy" in text(page, "error"))
            os.kill(decoder, signal.SIGCONT)
            assert [each.result().status for each in waiting] == [200, 200]
    finally:
        os.kill(decoder, signal.SIGCONT)
    page.find_element("id", "dismiss").click()
    assert not page.find_element("id", "error").is_displayed()


def test_being_offline_is_told_in_words(page: Any) -> None:
    conditions = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.execute_cdp_cmd("Network.enable", {})
    page.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": True, **conditions})
    try:
        send(page, "drop", PICTURE)
        wait(page, lambda: "You are offline" in text(page, "error"))
    finally:
        page.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": False, **conditions})


def test_everything_is_reached_by_the_tab_key(page: Any, server: ServeProcess, network: RefineNet) -> None:
    from selenium.webdriver import ActionChains, Keys

    upload(page, server, network)
    page.execute_script("document.activeElement.blur()")
    reached = set()
    for _ in range(60):
        ActionChains(page).send_keys(Keys.TAB).perform()
        where = "const e = document.activeElement; return e.id || e.dataset.name || e.closest('ul')?.id || e.tagName"
        reached.add(page.execute_script(where))
    wanted = {"file", "photo", "live", "compare", "stage", "divider", "view", "opacity", "outlines", "certain"}
    wanted |= {"legend", "show-all", "hide-all", "save-picture", "save-labels", "save-summary", "keys-open"}
    assert wanted <= reached


def test_nothing_foreign_is_asked_for_and_nothing_complains(
    page: Any, server: ServeProcess, network: RefineNet
) -> None:
    page.get_log("browser")
    list_requests(page)
    open_page(page, server)
    upload(page, server, network)
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []
    asked = list_requests(page)
    ours = (f"http://127.0.0.1:{server.port}/", f"blob:http://127.0.0.1:{server.port}/", "data:")
    assert asked
    assert all(url.startswith(ours) for url in asked)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.skipif(not AXE, reason="npm install axe-core; REFINENET_AXE=node_modules/axe-core/axe.min.js")
def test_axe_finds_nothing(page: Any, server: ServeProcess, network: RefineNet, scheme: str) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    run = """
        const done = arguments[arguments.length - 1];
        axe.run().then((found) => done(found.violations.map((each) => [each.id, each.nodes.map((node) => node.html)])));
    """
    page.execute_script(Path(AXE).read_text("utf-8"))
    assert page.execute_async_script(run) == []
    upload(page, server, network)
    page.find_element("id", "compare").click()
    send(page, "drop", PICTURE, count=2)
    wait(page, lambda: states(page) == ["done"] * 3)
    assert page.execute_async_script(run) == []
    page.find_element("id", "keys-open").click()
    assert page.execute_async_script(run) == []


def test_it_fits_on_a_phone(page: Any, server: ServeProcess, network: RefineNet) -> None:
    resize(page, 360, 800)
    upload(page, server, network)
    send(page, "drop", PICTURE, count=5)
    wait(page, lambda: states(page) == ["done"] * 6)
    assert page.execute_script("return document.documentElement.scrollWidth") == 360
    wider = """
        return [...document.querySelectorAll("main *")].filter((each) => !each.closest("#strip")
          && each.getBoundingClientRect().right > 361).map((each) => each.outerHTML.slice(0, 80));
    """
    assert page.execute_script(wider) == []


def test_a_hundred_uploads_leave_nothing_behind(page: Any) -> None:
    def held() -> dict[str, float]:
        for _ in range(3):
            page.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
            time.sleep(0.5)
        found = {row["name"]: row["value"] for row in page.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]}
        return {name: found[name] for name in ("JSHeapUsedSize", "Nodes", "JSEventListeners")}

    page.execute_cdp_cmd("Performance.enable", {})
    found = []
    for count in (35, 35, 35):
        send(page, "drop", PICTURE, count=count)
        wait(page, lambda: set(states(page)) == {"done"})
        found.append(held())
    assert len(states(page)) == 30, "the strip is bounded"
    _, before, after = found  # the first time it fills the strip
    assert after["Nodes"] <= before["Nodes"] + 10, found
    assert after["JSEventListeners"] <= before["JSEventListeners"] + 10, found
    assert after["JSHeapUsedSize"] <= before["JSHeapUsedSize"] + 5e5, found


def test_depth_and_normals_are_views(browser: Any, tmp_path: Path) -> None:
    network = RefineNet(encoder="test_resnet", num_classes=3, outputs="classes,depth,normals", device="cpu", seed=4)
    network.save(tmp_path / "many.safetensors")
    server = ServeProcess("--model", tmp_path / "many.safetensors", folder=tmp_path)
    try:
        open_page(browser, server)
        assert text(browser, "model-line") == "many: 3 classes, depth, normals"
        send(browser, "drop", PICTURE)
        wait(browser, lambda: browser.find_element("id", "result").is_displayed())
        assert [each.text for each in browser.find_elements("css selector", ".view option, [data-name=view] option")][
            :4
        ] == ["classes", "confidence", "depth", "normals"]
        for kind in ("depth_colour", "normals"):
            put(browser, "view", kind)
            drawn = np.array(Image.open(BytesIO(server.segment(PICTURE, f"?kind={kind}").body)))
            np.testing.assert_array_equal(overlay(browser)[..., :3], drawn[:48, :64, :3])
        put(browser, "view", "depth_colour")
        assert one(browser, "[data-name=bar]").is_displayed(), "the scale of the depths"
    finally:
        server.stop()


def test_errors_are_told_in_words(page: Any, server: ServeProcess) -> None:
    choose(page, server.folder / "text.png")
    wait(page, lambda: "is not a JPEG" in text(page, "error"))
    (server.folder / "large.bin").write_bytes(bytes(40 * 2**20))
    choose(page, server.folder / "large.bin")
    wait(page, lambda: "40.0 MiB" in text(page, "error"))
    server.stop()
    send(page, "drop", PICTURE)
    wait(page, lambda: "cannot be reached" in text(page, "error"))
