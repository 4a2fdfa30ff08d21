"""Batches for pre-training: crops, order, and sharing between processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from class_folders import DIRECTIONS, SMALL, draw_stripes, write_class_folders
from PIL import Image
from torch import Tensor

from refinenet.training.loading.loader import Part
from refinenet.training.pretraining.config import PretrainConfig
from refinenet.training.pretraining.image_folder import open_image_folder
from refinenet.training.pretraining.loader import ImageLoader

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes, four images of each to learn from and one to measure on."""
    return write_class_folders(tmp_path_factory.mktemp("few"), 5)


def test_two_processes_share_what_one_gets(few: Path) -> None:
    def load(rank: int, processes: int) -> tuple[list[list[Part]], list[str]]:
        config = PretrainConfig(**{**SMALL, "workers": 0, "accumulation": 1})
        with ImageLoader(open_image_folder(few), config, CPU, rank, processes) as loader:
            measured = [name for part in loader.validation() for name in part.names]
            return list(loader.epoch(0)), measured

    (whole, measured), (first, left), (second, right) = load(0, 1), load(0, 2), load(1, 2)
    assert len(whole) == len(first) == len(second) == 3
    for (all_of_it,), (one,), (other,) in zip(whole, first, second, strict=True):
        assert one.names + other.names == all_of_it.names
        torch.testing.assert_close(torch.cat([one.images, other.images]), all_of_it.images, rtol=0, atol=1e-6)
        assert torch.equal(torch.cat([one.labels, other.labels]), all_of_it.labels)
    assert sorted(left + right) == sorted(measured)
    assert (len(left), len(right)) == (2, 1)


def crops(folder: Path, epoch: int = 0, first_step: int = 0, **settings: Any) -> dict[str, Tensor]:
    """Return the crops of an epoch, by file."""
    config = PretrainConfig(**{**SMALL, "workers": 0, **settings})
    with ImageLoader(open_image_folder(folder), config, CPU) as loader:
        parts = [part for step in loader.epoch(epoch, first_step) for part in step]
    return {name: image for part in parts for name, image in zip(part.names, part.images, strict=True)}


def test_what_is_seen_of_an_image_depends_on_neither_batch_nor_processes(few: Path) -> None:
    expected = crops(few)
    assert len(expected) == 12
    for other in (crops(few, workers=2), crops(few, batch_size=12, accumulation=1)):
        assert other.keys() == expected.keys()
        for name in expected:
            torch.testing.assert_close(other[name], expected[name], rtol=0, atol=1e-6)
    later = crops(few, first_step=2)
    assert list(later) == list(expected)[8:]
    assert all(torch.equal(later[name], expected[name]) for name in later)
    second, reseeded = crops(few, epoch=1), crops(few, seed=7)
    for other in (second, reseeded):
        assert list(other) != list(expected)
        assert not any(torch.equal(other[name], expected[name]) for name in expected)


def test_images_are_cut_out_mirrored_and_labelled(tmp_path: Path) -> None:
    """With everything else off, squares stay as they are, half of them mirrored."""
    for label, name in enumerate(DIRECTIONS):
        (tmp_path / name).mkdir()
        for seed in range(21):
            Image.fromarray(draw_stripes(name, seed)[:32, :32]).save(tmp_path / name / f"{seed:02d}-{label}.png")
    still: dict[str, Any] = {"crop_area": (1.0, 1.0), "crop_shape": (1.0, 1.0), "colour_jitter": 0.0, "hue": 0.0}
    mirrored = 0
    for name, image in crops(tmp_path, **still).items():
        original = torch.from_numpy(np.array(Image.open(name))).permute(2, 0, 1) / 255
        is_mirrored = torch.allclose(image, original.flip(-1), atol=1e-5)
        assert is_mirrored or torch.allclose(image, original, atol=1e-5)
        mirrored += is_mirrored
    assert 12 < mirrored < 42
    config = PretrainConfig(**{**SMALL, "workers": 0})
    with ImageLoader(open_image_folder(tmp_path), config, CPU) as loader:
        parts = [*next(iter(loader.epoch(0))), *loader.validation()]
    for part in parts:
        assert part.labels.flatten().tolist() == [int(Path(name).stem[-1]) for name in part.names]
    assert len({name for part in parts[2:] for name in part.names}) == 9
