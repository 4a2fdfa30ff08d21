"""Steady labels: less flicker, nothing smeared, nothing kept after a cut; against probabilities made by hand."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from video_samples import write_video

from refinenet import RefineNet
from refinenet.datasets.street_scenes import draw_street
from refinenet.deployment.video.steady import Steadier
from refinenet.inference.segmentation import Logits
from refinenet.outputs import CLASSES

HEIGHT, WIDTH = 96, 128
RANDOM = np.random.default_rng(0)


def draw_texture(seed: int, low: int, high: int, height: int = HEIGHT, width: int = WIDTH) -> npt.NDArray[np.uint8]:
    """Smooth random grey levels, `(height, width, 3)`, on which motion can be seen."""
    random = np.random.default_rng(seed).uniform(low, high, (height // 4, width // 4, 1)).astype(np.float32)
    grey = cv2.resize(random, (width, height), interpolation=cv2.INTER_CUBIC)[..., None].clip(0, 255)
    return grey.repeat(3, 2).astype(np.uint8)


def make_logits(labels: npt.NDArray[np.integer], noise: float = 0.0, temperature: float = 1.0) -> Logits:
    """Logits `(3, H, W)`, 2 higher for the class of each pixel, with random noise."""
    values = 2 * (np.arange(3)[:, None, None] == labels) + noise * RANDOM.standard_normal((3, *labels.shape))
    return Logits(values=values.astype(np.float32), size=labels.shape, temperature=temperature)


def draw_square(left: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """A bright square of 32 pixels, of class 1, on a background of class 0: picture and labels."""
    picture, labels = draw_texture(1, 0, 120), np.zeros((HEIGHT, WIDTH), np.uint8)
    picture[32:64, left : left + 32] = draw_texture(2, 130, 250, 32, 32)
    labels[32:64, left : left + 32] = 1
    return picture, labels


def test_a_still_picture_flickers_less_and_is_right_more_often() -> None:
    picture, labels = draw_square(40)
    steadier = Steadier((CLASSES,), 3)
    plain, steady = [], []
    for _ in range(12):
        found = make_logits(labels, noise=1.5)
        noisy = (picture + RANDOM.normal(0, 6, picture.shape)).clip(0, 255).astype(np.uint8)
        plain.append(found.labels())
        steady.append(steadier.steady(noisy, found).labels())
    changes = [np.mean([(one != other).mean() for one, other in pairwise(found[4:])]) for found in (plain, steady)]
    wrong = [(np.stack(found[4:]) != labels).mean() for found in (plain, steady)]
    assert changes[0] > 0.2
    assert changes[1] < changes[0] / 3
    assert wrong[1] < wrong[0] / 3


def test_labels_are_averaged_along_the_motion_of_the_camera() -> None:
    """The camera passes by at 3 pixels a frame: without motion there would be nothing to average."""
    wide = draw_texture(3, 0, 255, HEIGHT, 2 * WIDTH)
    truth = np.zeros((HEIGHT, 2 * WIDTH), np.uint8)
    truth[40:], truth[:40, 64:] = 2, 1
    steadier = Steadier((CLASSES,), 3)
    wrong = np.zeros(2)
    for number in range(12):
        part = slice(3 * number, 3 * number + WIDTH)
        found = make_logits(truth[:, part], noise=1.5)
        steady = steadier.steady(np.ascontiguousarray(wide[:, part]), found)
        if number >= 4:
            wrong += [(each.labels() != truth[:, part]).mean() for each in (found, steady)]
    assert wrong[1] < wrong[0] / 3


@pytest.mark.parametrize("step", [2, 7])
def test_a_moving_square_is_not_smeared(step: int) -> None:
    """Averages over frames without motion would leave a trail of `step` pixels for each frame remembered."""
    steadier = Steadier((CLASSES,), 3)
    trail = np.zeros((HEIGHT, WIDTH), np.float32)
    for number in range(9):
        picture, labels = draw_square(10 + step * number)
        found = steadier.steady(picture, make_logits(labels))
        trail = 0.75 * trail + 0.25 * labels
    wrong = (found.labels() != labels).sum()
    assert ((trail > 0.5) != labels).sum() > 32 * step  # what the test would see
    assert wrong < 32  # less than one edge of the square by one pixel


def test_nothing_is_kept_after_a_cut() -> None:
    steadier = Steadier((CLASSES,), 3)
    for _ in range(4):
        steadier.steady(*before_and_logits(1, 0))
    picture, found = before_and_logits(2, 1)
    np.testing.assert_array_equal(steadier.steady(picture, found).labels(), 1)


def before_and_logits(seed: int, label: int) -> tuple[npt.NDArray[np.uint8], Logits]:
    picture = draw_texture(seed, 0, 255)
    return picture, make_logits(np.full((HEIGHT, WIDTH), label))


def test_equal_frames_keep_their_probabilities_whatever_the_temperature() -> None:
    picture, labels = draw_square(40)
    found = make_logits(labels, noise=1, temperature=1.7)
    steadier = Steadier((CLASSES,), 3)
    assert steadier.steady(picture, found) is found
    for _ in range(3):
        again = steadier.steady(picture, found)
    np.testing.assert_array_equal(again.labels(), found.labels())
    np.testing.assert_allclose(again.confidence(), found.confidence(), atol=1e-4)
    averaged = Logits(values=found.probabilities().astype(np.float32), size=found.size, temperature=None)
    shares = Steadier((CLASSES,), 3)
    shares.steady(picture, averaged)
    np.testing.assert_allclose(shares.steady(picture, averaged).values, averaged.values, atol=1e-4)


def test_a_frame_of_another_size_begins_anew() -> None:
    picture, labels = draw_square(40)
    steadier = Steadier((CLASSES,), 3)
    steadier.steady(picture, make_logits(labels))
    other = make_logits(labels[:40, :60])
    assert steadier.steady(np.ascontiguousarray(picture[:40, :60]), other) is other
    tiny = make_logits(labels[:5, :7])
    for _ in range(2):
        found = steadier.steady(np.ascontiguousarray(picture[:5, :7]), tiny)
    np.testing.assert_array_equal(found.labels(), tiny.labels())


@pytest.fixture(scope="module")
def noisy_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A street that stands still in the noise of a camera at night, without loss."""
    street = draw_street(4, 90, 120)[0]
    pictures = [(street + RANDOM.normal(0, 12, street.shape)).clip(0, 255).astype(np.uint8) for _ in range(8)]
    return write_video(tmp_path_factory.mktemp("video") / "night.mkv", pictures, codec="ffv1", pixels="bgr0")


def test_frames_and_written_videos_flicker_less(camvid_model: RefineNet, noisy_video: Path, tmp_path: Path) -> None:
    plain, steady = (
        [frame.segmentation.labels for frame in camvid_model.frames(noisy_video, steady=steady)]
        for steady in (False, True)
    )
    changes = [np.mean([(one != other).mean() for one, other in pairwise(found)]) for found in (plain, steady)]
    assert changes[0] > 0.01
    assert changes[1] < changes[0] / 2
    np.testing.assert_array_equal(plain[0], steady[0])
    seen = []
    camvid_model.deploy_video(
        noisy_video, tmp_path / "out.mp4", steady=True, progress=False, on_prediction=lambda found: seen.append(found)
    )
    for found, expected in zip(seen, steady, strict=True):
        assert found.segmentation is not None
        np.testing.assert_array_equal(found.segmentation.labels, expected)


def test_other_outputs_stay_as_they_are(noisy_video: Path) -> None:
    model = RefineNet(encoder="test_resnet", outputs="depth:0.5:80,classes", num_classes=5, device="cpu", seed=3)
    with pytest.warns(UserWarning, match="network is untrained"):
        plain, steady = ([*model.frames(noisy_video, steady=steady)] for steady in (False, True))
    for one, other in zip(plain, steady, strict=True):
        np.testing.assert_array_equal(one.prediction.depth, other.prediction.depth)
    assert any(
        (one.segmentation.labels != other.segmentation.labels).any() for one, other in zip(plain, steady, strict=True)
    )


def test_what_is_missing_is_named(camvid_model: RefineNet, noisy_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    depth = RefineNet(encoder="test_resnet", outputs="depth", device="cpu", backend="pytorch")
    with pytest.warns(UserWarning, match="untrained"), pytest.raises(ValueError, match="Only labels can be steadied"):
        depth.frames(noisy_video, steady=True)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ValueError, match=r"need OpenCV, .*: pip install 'refinenet-torch\[steady\]'"):
        camvid_model.frames(noisy_video, steady=True)
