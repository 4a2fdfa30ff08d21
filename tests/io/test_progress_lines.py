"""Signs of life of long work whose standard error is no terminal."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import time
from datetime import timedelta

import pytest
from rich.console import Console
from rich.progress import Progress

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


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self._now)
        monkeypatch.setattr(console, "_SILENCE", console._Silence())  # the next test has the old one, and real time

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds


def test_the_slow_first_steps_are_no_part_of_the_estimate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first image of 40 s, then 2 s for each: what is left is 2 s for each, from the second line on."""
    clock = Clock(monkeypatch)
    with progress_bar(True) as bar:
        task = bar.add_task("Evaluating", total=100, status="", unit="images")
        for seconds in (40, *[2] * 45):
            clock.sleep(seconds)
            bar.advance(task)
    assert capsys.readouterr().err.splitlines() == [
        "Evaluating: 1 of 100 images",
        "Evaluating: 16 of 100 images; 3 min left",  # 84 images of 2 s are 168 s
        "Evaluating: 31 of 100 images; 2 min left",
        "Evaluating: 46 of 100 images; 2 min left",
    ]


@pytest.mark.parametrize("at_once", [1, 4])
def test_a_bar_follows_the_recent_pace(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether results come one by one or several at once, and also if the work becomes slower."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # stands for a terminal
    clock = Clock(monkeypatch)
    with progress_bar(True) as bar:
        task = bar.add_task("Segmenting", total=1000, status="", unit="images")
        clock.sleep(50)
        bar.update(task, completed=at_once)
        assert "-:--:-- left" in show(bar)
        clock.sleep(3)
        bar.update(task, completed=2 * at_once)
        rest = 3 / at_once * (1000 - 2 * at_once)
        assert f"{write_time(rest)} left" in show(bar)
        for _ in range(100):
            clock.sleep(0.02)  # far shorter than the time between two drawings
            bar.advance(task)
        for _ in range(60):
            clock.sleep(2.0)
            bar.advance(task, at_once)
        rest = 2.0 / at_once * (1000 - bar.tasks[0].completed)
        assert f"{write_time(rest)} left" in show(bar)
        bar.update(task, completed=1000)
        assert "0:00:00 left" in show(bar)


def write_time(seconds: float) -> str:
    """Return hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))


def show(bar: Progress) -> str:
    """Return a bar as it is drawn."""
    drawn = io.StringIO()
    Console(file=drawn, width=80, force_terminal=False).print(bar.get_renderable())
    return drawn.getvalue()
