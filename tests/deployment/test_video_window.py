"""The window that shows a video while it is segmented, on a screen of its own (Xvfb)."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import CommandLine
from PIL import ImageGrab
from video_samples import moving_street, read_video, write_video

from refinenet import RefineNet
from refinenet.cli import main
from refinenet.inference.prediction import Prediction


@cache
def start_screen() -> str:
    """A screen of 800 x 600 pixels without a window manager, for as long as this process lives; its display.

    Tk keeps the connection to a screen after the last window is closed, and ends the process when the screen goes.
    """
    command = ["Xvfb", "-displayfd", "1", "-screen", "0", "800x600x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    atexit.register(server.kill)
    assert server.stdout is not None
    return f":{int(server.stdout.readline())}"


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> str:
    """The screen, which is the display of this process."""
    if shutil.which("Xvfb") is None:
        pytest.skip("needs Xvfb")
    pytest.importorskip("tkinter")
    monkeypatch.setenv("DISPLAY", start_screen())
    return start_screen()


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "in.mp4", moving_street(5))


def grab(display: str) -> npt.NDArray[np.uint8]:
    """What is on the upper left of the screen, where windows are without a window manager: `(48, 64, 3)`."""
    return np.asarray(ImageGrab.grab(xdisplay=display).convert("RGB"))[:48, :64]


def press_q() -> None:
    """Press the key in the window of this process."""
    import tkinter

    window: Any = vars(tkinter)["_default_root"]
    window.focus_force()
    window.update()
    window.event_generate("<KeyPress-q>")


def test_the_window_shows_the_overlay_of_each_frame(
    camvid_model: RefineNet, video: Path, tmp_path: Path, screen: str
) -> None:
    overlays: list[npt.NDArray[np.uint8]] = []
    shown: list[npt.NDArray[np.uint8]] = []

    def look(found: Prediction) -> None:
        if overlays:
            time.sleep(0.1)
            shown.append(grab(screen))
        assert found.segmentation is not None
        overlays.append(found.segmentation.overlay)

    result = camvid_model.deploy_video(video, tmp_path / "out.mp4", display=True, on_prediction=look, progress=False)
    assert (result.frames, result.left_out) == (5, 0)
    assert len(read_video(tmp_path / "out.mp4")[0]) == 5
    assert len(shown) == 4
    for picture, overlay in zip(shown, overlays[:4], strict=True):
        np.testing.assert_array_equal(picture, overlay)
    assert grab(screen).max() == 0  # the window is gone


def test_q_ends_a_video_that_is_only_shown(camvid_model: RefineNet, tmp_path: Path, screen: str) -> None:
    video, seen = write_video(tmp_path / "long.mp4", moving_street(500)), 0
    before = sorted(tmp_path.iterdir())

    def press(_: Prediction) -> None:
        nonlocal seen
        seen += 1
        if seen == 3:
            press_q()

    result = camvid_model.deploy_video(video, display=True, on_prediction=press, progress=False)
    assert result.output is None
    assert result.frames == seen < 100
    assert f"long.mp4, shown: {seen} frames" in result.describe()
    assert sorted(tmp_path.iterdir()) == before


def test_the_command_shows_and_writes_nothing(
    video: Path, screen: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(video.parent.iterdir())
    monkeypatch.setattr(sys, "argv", ["refinenet", "deploy", str(video), "--display"])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert f"{video}, shown: " in capsys.readouterr().out
    assert sorted(video.parent.iterdir()) == before


@pytest.mark.usefixtures("screen")
def test_options_serve_what_is_shown_or_what_is_written(
    camvid_model: RefineNet, video: Path, call_refinenet: CommandLine, tmp_path: Path
) -> None:
    """Files of ids have no legend, which the window beside them has; a scale serves neither."""
    folder = tmp_path / "ids"
    result = camvid_model.deploy_video(video, folder, "labels", display=True, legend=True, progress=False)
    assert result.frames == len(list(folder.glob("*.png"))) == 5
    words = r"legend \(--legend\) has no effect on labels \(\.png\): leave it out"
    with pytest.raises(ValueError, match=words):
        camvid_model.deploy_video(video, tmp_path / "others", "labels", legend=True, progress=False)
    for more, kinds in (((), "overlay (.jpg)"), (("-o", "new", "--kind", "labels"), "labels (.png), overlay (.jpg)")):
        refused = call_refinenet("deploy", video, "--display", "--scale", "5", *more)
        assert refused.returncode == 1
        assert f"scale (--scale) has no effect on {kinds}: leave it out" in refused.stderr


def test_without_a_display_one_line_says_so(
    video: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tkinter")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr(sys, "argv", ["refinenet", "deploy", str(video), "--display", "--model", "no such model"])
    with pytest.raises(SystemExit, match="1"):
        main()
    said = capsys.readouterr().err
    assert said.startswith("Error: There is no display for a window (")
    assert said.endswith("leave out --display, or set DISPLAY.\n")


def test_without_tk_one_line_says_what_to_install(
    camvid_model: RefineNet, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tkinter", None)
    with pytest.raises(ValueError, match="On Debian and Ubuntu: sudo apt install python3-tk"):
        camvid_model.deploy_video(video, display=True)


def test_a_video_needs_an_output_or_a_window(camvid_model: RefineNet, video: Path) -> None:
    with pytest.raises(ValueError, match=r"Specify an output for the video, such as overlay\.mp4, or display=True"):
        camvid_model.deploy_video(video)


@pytest.mark.parametrize("option", ["--display", "--steady"])
def test_images_are_neither_shown_nor_steadied(call_refinenet: CommandLine, street_file: Path, option: str) -> None:
    for words in ((), ("--output", "-")):
        found = call_refinenet("deploy", str(street_file), option, *words)
        assert found.returncode == 2
        assert option in found.stderr
