"""What the doctor finds in images of named bands."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from band_scenes import BANDS, draw_scene, write_folder, write_several, write_tiff
from PIL import Image

from refinenet import RefineNet
from refinenet.datasets import describe, doctor, open_dataset, split_folder
from refinenet.datasets.band_reading import with_bands
from refinenet.datasets.contact_sheet import draw_contact_sheet
from refinenet.io.images.bands import read_bands


def _kinds(root: Path, bands: str = BANDS) -> dict[str, str]:
    report = doctor.check_bands(with_bands(open_dataset(root)("train"), read_bands(bands)), progress=False)
    return {finding.kind: finding.text() for finding in report.findings}


def test_sound_scenes_have_no_findings(tmp_path: Path) -> None:
    assert _kinds(write_folder(tmp_path / "scenes", 3)) == {}


@pytest.mark.parametrize(
    ("bands", "kind", "word"),
    [
        (BANDS.replace("0:4095", "0:1500"), "band-clipped", "nir:LOW:HIGH"),
        (BANDS.replace("-5:60", "-500:6000"), "band-narrow", "height"),
        ("red,green,blue", "bands-refused", "takes 3 bands"),
    ],
)
def test_ranges_and_numbers_that_do_not_fit(tmp_path: Path, bands: str, kind: str, word: str) -> None:
    found = _kinds(write_folder(tmp_path / "scenes", 3), bands)
    assert list(found) == [kind]
    assert word in found[kind]


def test_a_band_of_one_value_and_one_of_gaps(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "scenes", 3)
    for seed in range(3):
        pixels = draw_scene(seed)[0]
        pixels[..., 4] = 7
        pixels[:20, :, 3] = np.nan
        np.save(root / "images" / f"{seed:02d}.npy", pixels)
    found = _kinds(root)
    assert list(found) == ["band-clipped", "band-constant"]
    assert "nir" in found["band-clipped"]
    assert "are missing" in found["band-clipped"]
    assert "height" in found["band-constant"]


def _bare(root: Path) -> Path:
    """A folder of NumPy files and their depth, without masks."""
    write_folder(root, 6)
    shutil.rmtree(root / "masks")
    (root / "classes.yaml").unlink()
    (root / "depth").mkdir()
    for seed in range(6):
        np.save(root / "depth" / f"{seed:02d}.npy", 20 + draw_scene(seed)[0][..., 4])
    return root


@pytest.mark.parametrize("write", [lambda root: write_folder(root, 6), _bare])
def test_numpy_files_are_images_for_every_command_on_datasets(write: Callable[[Path], Path], tmp_path: Path) -> None:
    root = write(tmp_path / "scenes")
    found = doctor.check(root, workers=0, progress=False).findings
    assert [(finding.kind, finding.count, finding.stops) for finding in found] == [("image-array", 6, False)]
    assert {name: dict(counts.sizes) for name, counts in describe(root, workers=0, progress=False).splits.items()} == {
        "train": {(32, 40): 4},
        "val": {(32, 40): 2},
    }
    np.save(root / "images" / "03.npy", np.zeros((9, 40, 5), np.float32))
    kinds = {finding.kind for finding in doctor.check(root, workers=0, progress=False).findings}
    assert kinds >= {"image-constant", "size-differs" if (root / "masks").is_dir() else "target-size"}
    assert sum(map(len, split_folder(root).values())) == 6
    (root / "train.txt").write_text("00.npy\n")
    assert open_dataset(root)("train").items == ["00"]
    with pytest.raises(ValueError, match=r"00\.npy is a NumPy file; such files are read only as bands"):
        open_dataset(root)("train")[0]


def test_numpy_files_beside_other_images_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = _bare(tmp_path / "scenes")
    for name in ("01", "02", "04"):
        Image.new("RGB", (40, 32)).save(root / "images" / f"{name}.png")
    for name in ("01", "02"):  # of which there are pictures, so that these files may be anything
        (root / "images" / f"{name}.npy").unlink()
    with pytest.warns(UserWarning, match=r"NumPy files that are not read, .*: 00\.npy, 03\.npy, 05\.npy\. Keep"):
        assert open_dataset(root)("train").items == ["02", "04"]
    found = {finding.kind: finding for finding in doctor.check(root, workers=0, progress=False).findings}
    assert found["file-kind-unread"].examples == ("images/00.npy", "images/03.npy", "images/05.npy")
    assert sum(map(len, split_folder(root).values())) == 3
    assert "images holds NumPy files that are not read" in capsys.readouterr().err
    shutil.copytree(root / "images", root / "masks", ignore=shutil.ignore_patterns("*.npy"))
    (root / "masks" / "00.png").write_bytes((root / "masks" / "01.png").read_bytes())
    for path in root.glob("*.txt"):
        path.unlink()
    found = {finding.kind: finding for finding in doctor.check(root, workers=0, progress=False).findings}
    assert found["sample-kind-unread"].examples == ("images/00.npy", "masks/00.png")


def test_repaired_copies_keep_numpy_files(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "scenes", 6)
    shutil.copy(root / "masks" / "03.png", root / "masks" / "09.png")
    doctor.fix(root, tmp_path / "out", workers=0, progress=False)
    pixels = np.load(tmp_path / "out" / "images" / "train" / "03.npy")
    assert np.array_equal(pixels, draw_scene(3)[0])


def test_training_does_not_start_on_files_of_other_bands(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "scenes", 6)
    network = RefineNet(encoder="test_resnet", bands="red,nir", device="cpu")
    with pytest.raises(ValueError, match=r"(?s)bands-refused\]: 4.*takes 2 bands: red, nir;.*has\s+5.*bands\.yaml"):
        network.train(root, output=tmp_path / "run", epochs=1, progress=False)


@pytest.mark.parametrize(("dtype", "bands"), [(np.uint16, 4), (np.float32, 5), (np.float32, 3)])
def test_rasters_of_bands_are_no_damaged_images(dtype: type, bands: int, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "scenes", 2, ".tif")
    for seed in range(2):
        write_tiff(root / "images" / f"{seed:02d}.tif", draw_scene(seed)[0][..., :bands].astype(dtype))
    report = doctor.check(root, workers=0, progress=False)
    found = {finding.kind: finding for finding in report.findings}
    assert set(found) == {"image-bands"}
    assert f"hold {bands} bands of {np.dtype(dtype)}," in found["image-bands"].meaning
    assert "deploy --bands 3,2,1" in found["image-bands"].advice
    assert "remove" not in found["image-bands"].text()
    assert not report.stops_training
    assert report.with_errors(["image-bands"]).stops_training
    (root / "images" / "01.tif").write_bytes((root / "images" / "01.tif").read_bytes()[:900])
    assert "image-damaged" in {finding.kind for finding in doctor.check(root, workers=0, progress=False).findings}


def test_training_of_rgb_networks_does_not_start_on_bands(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "scenes", 6, ".tif")
    with pytest.raises(ValueError, match=r"(?s)image-bands\]: 6.*hold 5 bands of float32"):
        RefineNet(encoder="test_resnet", device="cpu").train(root, output=tmp_path / "run", epochs=1, progress=False)


def test_contact_sheets_show_colours(tmp_path: Path) -> None:
    root = write_several(tmp_path / "mine", 2)
    (root / "bands.yaml").write_text("nir: nir\nlidar: [height]\nimages: [blue, green, red]\n")
    turned = draw_contact_sheet(open_dataset(root)("val"), workers=0)
    (root / "bands.yaml").unlink()
    plain = draw_contact_sheet(open_dataset(root)("val"), workers=0)
    assert turned.shape == plain.shape
    assert not np.array_equal(turned, plain)
    # Where both are coloured, red and blue have changed places.
    image = np.s_[80:100, 20:60]
    np.testing.assert_allclose(turned[image].mean((0, 1)), plain[image].mean((0, 1))[::-1], atol=1)
