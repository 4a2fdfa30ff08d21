"""Training on 12-bit images: warned of once, and read alike for student and teacher."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import new_network, train, write_pictures

from refinenet import RefineNet
from refinenet.datasets.catalog import open_training_datasets, with_value_range
from refinenet.io.images.sample_values import ImageWarning
from refinenet.models.files.model_file import save
from refinenet.models.network import Network


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey images of 12 bits in PNG files of 16, a few of whose values are above 4095."""
    folder = write_pictures(tmp_path_factory.mktemp("deep"))
    random = np.random.default_rng(1)
    for path in (folder / "images").glob("*/*.png"):
        values = random.integers(0, 4096, (40, 40), dtype=np.uint16)
        values[0, :3] = 5000
        Image.fromarray(values).save(path)
    return folder


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("value_range", "word"), [(None, "nearly black"), ((0, 4095), "are clipped to it")])
def test_what_is_to_be_known_of_the_images_is_reported_once(
    value_range: tuple[int, int] | None, word: str, workers: int, deep: Path, tmp_path: Path
) -> None:
    """In two epochs of eight images, by two loading processes and by the validation in this one."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(deep, tmp_path, workers=workers, value_range=value_range)
    reported = [str(warning.message) for warning in caught if isinstance(warning.message, ImageWarning)]
    assert [word in text for text in reported] == [True]


def test_a_teacher_sees_the_images_as_the_student_does(
    deep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read with the student's range of values, though the teacher was trained with another one."""
    model = tmp_path / "teacher.safetensors"
    teacher = new_network()
    save(model, teacher.network, replace(teacher.card, value_range=(0.0, 65535.0)), "float32")
    seen: list[tuple[bool, torch.Tensor]] = []
    forward = Network.forward

    def see(self: Network, images: torch.Tensor) -> torch.Tensor:
        seen.append((self.training, images.clone()))
        return forward(self, images)

    monkeypatch.setattr(Network, "forward", see)
    whole: dict[str, Any] = {"crop_size": [40, 40], "scale": [1, 1], "flip": False, "colour_jitter": 0.0}
    whole |= {"class_crops": 0.0, "batch_size": 1, "epochs": 1}
    train(deep, tmp_path / "run", teacher=str(model), value_range=(0, 4095), stop_after=1, **whole)
    (is_student, taught), (is_other, of_teacher) = seen
    assert (is_student, is_other) == (True, False)
    assert torch.equal(taught, of_teacher)
    images = with_value_range(open_training_datasets(deep, None)[0], (0, 4095))
    expected = [torch.from_numpy(images[k].image).permute(2, 0, 1) / 255 for k in range(len(images))]
    assert any(torch.allclose(of_teacher[0], image, atol=1e-6) for image in expected)
    assert RefineNet(model=tmp_path / "run" / "last.safetensors", device="cpu").card.value_range == (0, 4095)
