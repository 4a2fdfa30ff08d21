"""What the doctor finds in images of named bands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from band_scenes import BANDS, draw_scene, write_folder, write_several

from refinenet import RefineNet
from refinenet.datasets import doctor, open_dataset
from refinenet.datasets.band_reading import with_bands
from refinenet.datasets.info import draw_contact_sheet
from refinenet.io.bands import read_bands


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


def test_training_does_not_start_on_files_of_other_bands(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "scenes", 6)
    network = RefineNet(encoder="test_resnet", bands="red,nir", device="cpu")
    with pytest.raises(ValueError, match=r"(?s)bands-refused: 4.*takes 2 bands: red, nir;.*has\s+5.*bands\.yaml"):
        network.train(root, output=tmp_path / "run", epochs=1, progress=False)


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
