"""Temperature scaling: a known one is found again, it is kept with the model, and confidence follows it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from conftest import CommandLine
from torch import Tensor

from refinenet import RefineNet
from refinenet.datasets.catalog import Dataset, open_dataset
from refinenet.evaluation.calibration import fit_temperature
from refinenet.inference.segmenter import Segmenter
from refinenet.labels import LabelMap, LabelSet

LABELS = LabelSet(names=("a", "b", "c"), colours=((255, 0, 0), (0, 255, 0), (0, 0, 255)))
TRUE_TEMPERATURE = 2.5


class Overconfident:
    """A backend whose logits are `TRUE_TEMPERATURE` times as large as they should be."""

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def __call__(self, images: Tensor) -> Tensor:
        return TRUE_TEMPERATURE * (images * 255 / 40)


def draw_labels(pixels: npt.NDArray[np.uint8], seed: int) -> LabelMap:
    """Classes drawn by the probabilities that the pixels stand for, and some void."""
    random = np.random.default_rng(seed)
    chances = np.exp(pixels / 40.0)
    limits = (chances / chances.sum(-1, keepdims=True)).cumsum(-1)
    drawn = (random.random(pixels.shape[:2])[..., None] > limits).sum(-1).clip(0, 2).astype(np.uint8)
    return np.where(random.random(drawn.shape) < 0.1, np.uint8(255), drawn)


def made(images: int) -> Dataset:
    pixels = [np.random.default_rng(n).integers(0, 201, (60, 80, 3), np.uint8) for n in range(images)]
    return Dataset(
        name="made",
        split="val",
        label_set=LABELS,
        items=[str(n) for n in range(images)],
        read_image=lambda item: pixels[int(item)],
        read_labels=lambda item: draw_labels(pixels[int(item)], int(item)),
    )


def test_a_known_temperature_is_found_again() -> None:
    fitted = fit_temperature(Segmenter(Overconfident(), LABELS), made(20), progress=False)
    assert fitted.value == pytest.approx(TRUE_TEMPERATURE, rel=0.03)
    assert fitted.loss_after < fitted.loss_before
    assert fitted.error_after < 0.01 < fitted.error_before
    assert (fitted.images, 80_000 < fitted.pixels <= 100_000) == (20, True)


def test_a_split_without_a_class_is_refused() -> None:
    empty = Dataset(
        name="void",
        split="val",
        label_set=LABELS,
        items=["1"],
        read_image=lambda _: np.zeros((4, 4, 3), np.uint8),
        read_labels=lambda _: np.full((4, 4), 255, np.uint8),
    )
    with pytest.raises(ValueError, match="void val has no pixel with a class"):
        fit_temperature(Segmenter(Overconfident(), LABELS), empty, progress=False)


def test_the_model_file_keeps_it_and_confidence_follows(tmp_path: Path) -> None:
    network = RefineNet(model="camvid", device="cpu")
    pixels = open_dataset("streets:1:96x64")("val")[0].image
    before = network.segment(pixels)
    fitted = network.calibrate("streets:3:96x64", progress=False)
    assert network.card.temperature == fitted.value != 1
    network.save(tmp_path / "calibrated.safetensors")
    again = RefineNet(model=tmp_path / "calibrated.safetensors", device="cpu")
    assert again.card.temperature == fitted.value
    with torch.no_grad():
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
        logits = again.network(image)[0]
    found = again.segment(pixels)
    assert (found.labels == before.labels).all()
    expected = (logits / fitted.value).softmax(0).amax(0).numpy()
    np.testing.assert_allclose(found.confidence, expected, atol=1e-5)


def test_training_forgets_it(tmp_path: Path) -> None:
    network = RefineNet(model="camvid", device="cpu")
    network.calibrate("streets:2:64x48", progress=False)
    network.train(
        "streets:2:64x48",
        epochs=1,
        batch_size=2,
        crop_size=(32, 32),
        workers=0,
        output=tmp_path / "run",
        progress=False,
    )
    assert network.card.temperature == 1


def test_on_the_command_line(call_refinenet: CommandLine) -> None:
    done = call_refinenet("calibrate", "-d", "streets:2:64x48", "-o", "new.safetensors", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["model"] == "new.safetensors"
    info = call_refinenet("info", "new.safetensors", "--json")
    assert json.loads(info.stdout)["temperature"] == told["value"]
    refused = call_refinenet("calibrate", "-d", "streets:2:64x48", "-m", "new.safetensors", "-o", "new.safetensors")
    assert refused.returncode == 1
    assert "is the input itself" in refused.stderr
