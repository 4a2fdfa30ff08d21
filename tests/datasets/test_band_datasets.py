"""Datasets for models of named bands: one file for each image, or several."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from band_scenes import BANDS, draw_scene, write_folder, write_several

from refinenet.datasets import open_dataset, open_training_datasets, read_for_model
from refinenet.datasets.band_reading import with_bands
from refinenet.io.images.bands import read_bands

MODEL = read_bands(BANDS)


def test_one_file_or_several_give_the_same_images(tmp_path: Path) -> None:
    one = with_bands(open_dataset(write_folder(tmp_path / "one", 2))("train"), MODEL)
    several = with_bands(open_dataset(write_several(tmp_path / "several", 2))("train"), MODEL)
    assert one.items == several.items == ["01"]
    low, high = np.array([band.range for band in MODEL]).T
    expected = (draw_scene(1)[0] - low) / (high - low)
    assert pickle.dumps(several)  # so that loading processes can read it
    for dataset in (one, several):
        sample = dataset[0]
        np.testing.assert_allclose(sample.image, expected, atol=1e-6)
        np.testing.assert_array_equal(sample.labels, draw_scene(1)[1])
        assert sample.image.dtype == np.float32


def test_declared_bands_are_found_by_name(tmp_path: Path) -> None:
    dataset = open_dataset(write_several(tmp_path / "mine", 2))("train")
    chosen = with_bands(dataset, read_bands("nir:0:4095,blue"))
    pixels = draw_scene(1)[0]
    np.testing.assert_allclose(chosen[0].image, pixels[..., [3, 2]] / [4095, 255], atol=1e-6)
    assert dataset[0].image.dtype == np.uint8  # without bands, the RGB of images/
    with pytest.raises(ValueError, match=r"bands\.yaml does not declare thermal: it has blue, green, height, nir, red"):
        with_bands(dataset, read_bands("red,thermal"))


def test_joined_datasets_read_the_bands_in_the_files_of_each(tmp_path: Path) -> None:
    several, other = write_several(tmp_path / "several", 2), write_several(tmp_path / "other", 2)
    # The same bands, in files of another order and scale.
    (other / "bands.yaml").write_text("lidar: [height]\nimages: [red, green, blue]\nnir: ['nir:0:8190']\n")
    folders = [str(folder) for folder in (several, write_folder(tmp_path / "one", 2), other)]
    train, val = open_training_datasets(folders, bands=MODEL)
    assert len(train) == 3
    low, high = np.array([band.range for band in MODEL]).T
    expected = (draw_scene(1)[0] - low) / (high - low)
    copied = pickle.loads(pickle.dumps(train))  # noqa: S301 - the test's own bytes, as loading processes get them
    for index in (0, 1):
        np.testing.assert_allclose(copied[index].image, expected, atol=1e-6)
    np.testing.assert_allclose(train[2].image[..., 3], expected[..., 3] / 2, atol=1e-6)
    np.testing.assert_allclose(val[0].image.shape, (32, 40, 5))
    plain, _ = open_training_datasets(folders[::2])
    assert plain[1].image.dtype == np.uint8
    with pytest.raises(ValueError, match=r"several \+ other joins datasets that each have a bands\.yaml"):
        with_bands(plain, MODEL)


def test_ranges_of_files_and_of_the_model(tmp_path: Path) -> None:
    root = write_several(tmp_path / "mine", 2)
    declared = root / "bands.yaml"
    declared.write_text("images: [red, green, blue]\nnir: ['nir:0:8190']\nlidar: [height]\n")
    dataset = open_dataset(root)("train")
    found = with_bands(dataset, read_bands("nir:0:4095"))[0].image[..., 0]
    np.testing.assert_allclose(found, draw_scene(1)[0][..., 3] / 8190, atol=1e-6)
    with pytest.raises(ValueError, match=r"create the model with the band nir:0\.0:8190\.0"):
        with_bands(dataset, read_bands("nir"))
    with pytest.raises(ValueError, match="its own range"):
        read_for_model(dataset, (0, 4095), MODEL)


def test_faults_of_the_files_are_named(tmp_path: Path) -> None:
    root = write_several(tmp_path / "mine", 2)
    np.save(root / "lidar" / "01.npy", np.zeros((5, 5), np.float32))
    with pytest.raises(ValueError, match=r"01\.npy has 5x5 pixels .* 40x32"):
        with_bands(open_dataset(root)("train"), MODEL)[0]
    (root / "lidar" / "01.npy").unlink()
    with pytest.raises(FileNotFoundError, match="lidar has no file for the image 01"):
        with_bands(open_dataset(root)("train"), MODEL)[0]
    for text, message in (
        ("nir: [nir]\nlidar: [nir]\n", "each band needs its own name"),
        ("nir: [NIR]\n", "letters a-z"),
        ("[red]\n", "must map folders to lists"),
        ("nir: {a: b}\n", "list of bands"),
    ):
        (root / "bands.yaml").write_text(text)
        with pytest.raises(ValueError, match=rf"bands\.yaml: .*{message}"):
            open_dataset(root)("train")
    (root / "bands.yaml").write_text("thermal: [thermal]\n")
    with pytest.raises(FileNotFoundError, match="no folder thermal"):
        open_dataset(root)("train")


def test_drawn_images_have_no_other_bands() -> None:
    with pytest.raises(ValueError, match="are not files"):
        with_bands(open_dataset("streets:2:32x32")("train"), MODEL)
