"""Training on images of named bands, and what their augmentation may change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from band_scenes import BANDS, draw_scene, write_folder, write_several
from numpy.random import default_rng
from small_runs import different, state

from refinenet import RefineNet
from refinenet.datasets import open_dataset
from refinenet.datasets.band_reading import with_bands
from refinenet.io.images.bands import read_bands
from refinenet.training.augmentation.colour import ColourChange, vary_bands, vary_colour
from refinenet.training.augmentation.config import AugmentationConfig
from refinenet.training.augmentation.geometry import Pair
from refinenet.training.augmentation.pipeline import Augmentation
from refinenet.training.band_statistics import fit_bands
from refinenet.training.config import TrainConfig
from refinenet.training.loading.loader import Loader

MODEL = read_bands(BANDS)
SETTINGS: dict[str, Any] = {
    **{"crop_size": [32, 32], "scale": [1.0, 1.0], "batch_size": 4, "workers": 0, "learning_rate": 0.003},
    **{"progress": False, "check": False},
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("bands") / "scenes", 20)


@pytest.fixture(scope="module")
def trained(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> RefineNet:
    network = RefineNet(encoder="test_resnet", bands=BANDS, device="cpu")
    network.train(scenes, output=tmp_path_factory.mktemp("run") / "run", epochs=12, **SETTINGS)
    return network


def test_the_fourth_band_tells_classes_of_equal_colour_apart(trained: RefineNet, scenes: Path) -> None:
    found = trained.eval(scenes, progress=False, check=False)
    labels = np.stack([draw_scene(seed)[1] for seed in range(0, 20, 5)])
    grass, tarpaulin = np.count_nonzero(labels == 1), np.count_nonzero(labels == 2)
    # By colour alone even perfect outlines leave the two classes to chance.
    best_by_colour = (1 + max(grass, tarpaulin) / (grass + tarpaulin)) / 3
    miou = found.metrics.scores.miou
    assert miou is not None
    assert miou > best_by_colour + 0.1


def test_the_bands_are_in_the_model_and_the_recipe(trained: RefineNet, scenes: Path) -> None:
    assert trained.card.architecture.bands == MODEL
    low, high = MODEL[3].range or (0, 1)
    train = [draw_scene(seed)[0][..., 3] for seed in range(20) if seed % 5]
    values = (np.stack(train) - low) / (high - low)
    assert float(trained.network.mean[3]) == pytest.approx(values.mean(), abs=1e-5)
    # The encoder expects deviations of 0.5, more than twice those of natural colours.
    spread = float(trained.network.std[3]) / values.std()
    assert spread == pytest.approx(0.5 / np.mean([0.229, 0.224, 0.225]), rel=1e-4)
    assert trained.network.mean[:3].flatten().tolist() == [0.5, 0.5, 0.5]
    recipe = (Path(trained._origin["model"]).parent / "recipe.toml").read_text()
    assert "red:0.0:255.0" in recipe


def test_files_of_other_bands_are_refused_where_training_starts(
    trained: RefineNet, scenes: Path, tmp_path: Path
) -> None:
    other = RefineNet(encoder="test_resnet", bands="red,green,blue,nir", device="cpu")
    with pytest.raises(ValueError, match=r"takes 4 bands: red, green, blue, nir; .*\.npy has 5"):
        other.train(scenes, output=tmp_path / "run", epochs=1, **SETTINGS)
    student = RefineNet(encoder="test_resnet", device="cpu")
    model = tmp_path / "teacher.safetensors"
    trained.save(model)
    plain = write_several(tmp_path / "several", 5)
    with pytest.raises(ValueError, match="both must take the same ones"):
        student.train(plain, output=tmp_path / "other", epochs=1, teacher=str(model), **SETTINGS)


def test_only_colour_changes_its_colours() -> None:
    images = torch.rand(2, 5, 6, 7, generator=torch.Generator().manual_seed(1))
    changes = torch.tensor([ColourChange(1.2, 0.8, 1.3, 0.1, 1.1, 1.0), ColourChange(0.9, 1.1)])
    mixed = read_bands("nir,blue,green,red,height")
    varied = vary_bands(images, changes, mixed)
    assert torch.equal(varied[:, [0, 4]], images[:, [0, 4]])
    torch.testing.assert_close(varied[:, [3, 2, 1]], vary_colour(images[:, [3, 2, 1]], changes))
    bytes_ = (images[:, :3] * 255).round().to(torch.uint8)
    torch.testing.assert_close(vary_colour(bytes_, changes), vary_colour(bytes_.float() / 255, changes))
    assert vary_bands(images, changes, read_bands("a,b,c,d,e")) is images
    grey = vary_bands(images[:, :1], torch.tensor([ColourChange(brightness=0.5)] * 2), read_bands("grey"))
    torch.testing.assert_close(grey, images[:, :1] * 0.5)


def test_geometry_moves_all_bands_without_rounding_and_fills_with_means() -> None:
    image = torch.linspace(0, 1, 20).view(1, 4, 5).repeat(2, 1, 1)
    pair = Pair(image, torch.ones(4, 5, dtype=torch.uint8))
    config = AugmentationConfig(crop_size=(8, 8), scale=(1.0, 1.0), rotation=20.0, class_crops=0.0, cutout=1.0)
    means = (0.25, 0.75)
    augmentation = Augmentation(config, 255, bands=read_bands("nir,swir"), fill=means)
    varied = augmentation.vary(pair, [], default_rng(0))
    assert varied.image.dtype == torch.float32
    difference = varied.image[1] - varied.image[0]
    # Both bands are moved alike, and hidden or missing parts have the mean of each.
    known = varied.labels == 1
    assert bool(((difference.abs() < 1e-6) | (difference > 0)).all())
    covered = (varied.image == torch.tensor(means)[:, None, None]).all(0)
    assert bool(covered.any())
    assert not bool((covered & known).any())
    assert len(set(varied.image.flatten().tolist())) > 10  # not rounded


@pytest.mark.parametrize("place", ["workers", "device"])
def test_batches_keep_fractions(scenes: Path, place: str) -> None:
    dataset = with_bands(open_dataset(scenes)("train"), MODEL)
    config = TrainConfig.from_dict(
        {"crop_size": [32, 40], "scale": [1.0, 1.0], "flip": False, "colour_jitter": 0.0, "workers": 0}
        | {"batch_size": 4, "augment_on": place, "class_crops": 0.0}
    )
    with Loader(dataset, config, torch.device("cpu"), means=[0.0] * 5) as loader:
        part = next(iter(loader.epoch(0)))[0]
    expected = {Path(str(dataset.image_file(item))).name: dataset[k].image for k, item in enumerate(dataset.items)}
    for name, image in zip(part.names, part.images, strict=True):
        np.testing.assert_allclose(image.permute(1, 2, 0).numpy(), expected[Path(name).name], atol=1e-6)


def test_bands_are_measured_once(scenes: Path) -> None:
    dataset = with_bands(open_dataset(scenes)("train"), MODEL)
    network = RefineNet(encoder="test_resnet", bands=BANDS, num_classes=3, device="cpu").network
    fit_bands(network, dataset, show=False)
    measured = network.mean.clone()
    network.std[4] = 7
    fit_bands(network, dataset, show=False)
    assert torch.equal(network.mean, measured)
    assert float(network.std[4]) == 7


def test_a_stopped_run_on_bands_ends_bit_for_bit_where_it_would_have(scenes: Path, tmp_path: Path) -> None:
    """Cut-out parts are filled with the means of the bands, which a resumed run has to know before its weights."""
    settings = {**SETTINGS, "epochs": 2, "cutout": 1.0, "loggers": [], "crop_size": [16, 16]}
    for name, stop_after in (("whole", None), ("cut", 3)):
        network = RefineNet(encoder="test_resnet", bands=BANDS, device="cpu", seed=4)
        network.train(scenes, output=tmp_path / name, stop_after=stop_after, **settings)
    RefineNet(encoder="test_resnet", device="cpu").train(resume=tmp_path / "cut", progress=False)
    assert different(state(tmp_path / "whole"), state(tmp_path / "cut")) == []


def test_all_stages_on_bands_are_checked_before_the_first_one(scenes: Path, tmp_path: Path) -> None:
    other = write_folder(tmp_path / "other", 5)
    (path,) = other.rglob("03.npy")
    np.save(path, np.load(path)[..., :3])
    stages = [{"dataset": str(scenes), "epochs": 1}, {"dataset": str(other), "epochs": 1}]
    network = RefineNet(encoder="test_resnet", bands=BANDS, device="cpu")
    with pytest.raises(ValueError, match=r"bands-refused\]: 1 \(03\)"):
        network.train(stages=stages, output=tmp_path / "run", **{**SETTINGS, "check": True})
    assert not (tmp_path / "run").exists()
