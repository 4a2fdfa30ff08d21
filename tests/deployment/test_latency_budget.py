"""The latency budget: the best choice that is fast enough, reported with its cost.

Time is a fake clock that only the fake backends advance, so that a busy machine changes no measurement.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from refinenet import RefineNet
from refinenet.deployment import latency_budget
from refinenet.deployment.latency_budget import SCALES, choose
from refinenet.io.arrays import Array
from refinenet.labels import LabelSet

LABELS = LabelSet.numbered(2)


class Clock:
    """A clock for `latency_budget` that stands still between calls of `Slow`."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def perf_counter(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(latency_budget, "time", clock)
    return clock


class Slow:
    """Backend that tells for each pixel whether its red is above a limit, and takes some seconds per million pixels."""

    def __init__(self, clock: Clock, limit: float, seconds: float) -> None:
        self.clock, self.limit, self.seconds = clock, limit, seconds

    @property
    def device(self) -> str:
        return "cpu"

    def __call__(self, images: Array) -> Array:
        self.clock.seconds += self.seconds * images.shape[-1] * images.shape[-2] / 1e6
        red = images[:, :1] - self.limit
        return np.concatenate([-red, red], 1) * 100


def stripes() -> npt.NDArray[np.uint8]:
    """Red stripes, some too thin for a smaller image to show them."""
    columns = np.random.default_rng(0).integers(0, 2, 400, np.uint8) * 255
    picture = np.zeros((250, 400, 3), np.uint8)
    picture[..., 0] = columns
    return picture


def test_a_slow_network_sees_a_smaller_image(clock: Clock) -> None:
    only = ("only", "float32", lambda: Slow(clock, 0.5, 2.0))  # 200 ms at full size, 12.5 at a quarter
    best, measured = choose([only], LABELS, 1.0, stripes(), 1000)
    assert best.scale == 1
    assert best.miou == 1
    assert [choice.scale for choice in measured] == list(SCALES)
    assert [round(choice.milliseconds) for choice in measured[::2]] == [200, 50, 12]
    best, measured = choose([only], LABELS, 1.0, stripes(), 130)
    assert best.scale == 0.75
    assert best.milliseconds <= 130
    assert best.miou < 1
    assert all(choice.miou <= best.miou for choice in measured if choice.milliseconds <= 130)
    assert f"{100 * (1 - best.miou):.1f} points of mIoU lost" in best.describe()


def test_of_equal_results_the_fastest_is_chosen_and_of_others_the_better(clock: Clock) -> None:
    slow, fast, wrong = Slow(clock, 0.5, 1.0), Slow(clock, 0.5, 0.1), Slow(clock, 2.0, 0.0)
    made = [("slow", "float32", lambda: slow), ("fast", "float32", lambda: fast), ("wrong", "float32", lambda: wrong)]
    best, _ = choose(made, LABELS, 1.0, stripes(), 1000)
    assert (best.backend, best.scale, best.miou) == ("fast", 1, 1)


def test_an_impossible_budget_is_refused_with_the_fastest_choice(clock: Clock) -> None:
    only = ("only", "float32", lambda: Slow(clock, 0.5, 2.0))
    with pytest.raises(ValueError, match=r"400x250 pixels in 1 ms here; the fastest is only in float32.* 0\.25 of its"):
        choose([only], LABELS, 1.0, stripes(), 1)
    with pytest.raises(ValueError, match="above 0, not -3"):
        choose([only], LABELS, 1.0, stripes(), -3)


def test_a_model_keeps_its_choice_for_images_of_one_size(
    camvid_model: RefineNet, street: npt.NDArray[np.uint8], capsys: pytest.CaptureFixture[str]
) -> None:
    r = RefineNet(model="camvid", device="cpu")
    found = r.segment(street, max_latency_ms=60_000)
    notes = capsys.readouterr().err
    assert "At most 60000 ms: pytorch in float32, the image at 1 of its size" in notes
    assert (found.labels == camvid_model.segment(street).labels).all()
    r.deploy(image=street, max_latency_ms=60_000)
    assert capsys.readouterr().err == ""
    for wrong in ("fast", True, float("nan"), 0):
        with pytest.raises(ValueError, match="max_latency_ms must be a number above 0"):
            r.segment(street, max_latency_ms=wrong)  # type: ignore[arg-type]


def test_the_command_line_reports_its_choice(street_file: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from refinenet.cli import app

    target = tmp_path / "labels.png"
    result = CliRunner().invoke(app, ["deploy", str(street_file), "-o", str(target), "--max-latency", "60000"])
    assert result.exit_code == 0, result.output
    assert "At most 60000 ms" in result.stderr
    assert Image.open(target).size == (120, 90)
