"""Signs of life of long work whose standard error is no terminal."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import pytest

from refinenet.io import console
from refinenet.io.console import print_note, progress_bar

WORK = """
import time
from refinenet.io import console
console.FIRST_LINE, console.LATER_LINES = 0.4, 0.8
with console.progress_bar(True) as bar:
    task = bar.add_task("Evaluating", total=30, status="", unit="images")
    for _ in range(30):
        time.sleep(0.1)
        bar.advance(task)
"""
LINE = re.compile(r"Evaluating: (\d+) of 30 images; (\d+) s left")


def test_a_first_line_comes_soon_and_others_rarely() -> None:
    started = time.monotonic()
    result = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True, check=True)
    seconds = time.monotonic() - started
    found = [LINE.fullmatch(line) for line in result.stderr.splitlines()]
    done = [int(match[1]) for match in found if match is not None]
    assert len(done) == len(found), result.stderr
    assert 2 <= len(done) <= 1 + seconds / 0.8
    assert done == sorted(set(done))
    assert done[0] <= 5
    left = [int(match[2]) for match in found if match is not None]
    assert left == sorted(left, reverse=True)
    assert result.stdout == ""


@pytest.fixture
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "FIRST_LINE", 0.2)
    monkeypatch.setattr(console, "LATER_LINES", 0.2)


@pytest.mark.usefixtures("_no_patience")
def test_other_lines_count_as_signs_of_life(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(True) as bar:
        task = bar.add_task("Work", total=100, status="")
        for _ in range(6):
            time.sleep(0.08)
            print_note("something else")
            bar.advance(task)
    assert "Work" not in capsys.readouterr().err


@pytest.mark.usefixtures("_no_patience")
def test_what_a_line_says(capsys: pytest.CaptureFixture[str]) -> None:
    """Steps of several images are counted in images, and the time left is that of the whole, if it is known."""
    with progress_bar(True) as bar:
        task = bar.add_task("Epoch 1/8", total=20, completed=4, status="", unit="images", each=8)
        time.sleep(0.25)
        bar.update(task, advance=1, status="loss 1.5", run="2 h", left="2 h left plus validation")
        other = bar.add_task("Frames", total=None, status="3.0 frames/s")
        time.sleep(0.25)
        bar.advance(other)
    assert capsys.readouterr().err.splitlines() == [
        "Epoch 1/8: 40 of 160 images, loss 1.5; 2 h left plus validation",
        "Frames: 1, 3.0 frames/s",
    ]


@pytest.mark.usefixtures("_no_patience")
@pytest.mark.parametrize(("enabled", "seconds"), [(False, 0.3), (True, 0.0)])
def test_short_work_and_work_that_shall_be_silent_print_nothing(
    enabled: bool, seconds: float, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_bar(enabled) as bar:
        task = bar.add_task("Work", total=3, status="")
        time.sleep(seconds)
        bar.advance(task)
    assert capsys.readouterr().err == ""
