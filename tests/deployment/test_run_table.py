"""The table of `deploy`: what the label files have, also of resumed runs, and square metres of maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd  # type: ignore[import-untyped]
import pytest
import rasterio
from conftest import CommandLine
from PIL import Image
from rasterio.transform import from_origin
from scipy import ndimage

from refinenet import RefineNet


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network of three classes."""
    path = tmp_path_factory.mktemp("models") / "small.safetensors"
    return RefineNet("lightweight", encoder="test_resnet", num_classes=3, device="cpu").save(path)


@pytest.fixture
def images(tmp_path: Path, street: npt.NDArray[np.uint8]) -> Path:
    """A picture, and a map of half a metre per pixel."""
    (tmp_path / "in").mkdir()
    Image.fromarray(street).save(tmp_path / "in" / "a.png")
    profile = {"crs": "EPSG:3035", "transform": from_origin(4_300_000, 3_200_000, 0.5, 0.5), "dtype": "uint8"}
    with rasterio.open(tmp_path / "in" / "map.tif", "w", height=90, width=120, count=3, **profile) as target:
        target.write(np.moveaxis(street, -1, 0))
    return tmp_path / "in"


def test_a_row_for_each_image_and_class(images: Path, model: Path, call_refinenet: CommandLine, tmp_path: Path) -> None:
    deploy = ["deploy", images, "-o", "out", "--model", model]
    assert call_refinenet(*deploy).returncode == 0
    done = call_refinenet(*deploy, "--table", "t.csv")
    assert done.returncode == 0, done.stderr
    assert "already done" not in done.stdout  # the first run has not counted regions
    table = pd.read_csv(tmp_path / "t.csv")
    labels = np.asarray(Image.open(tmp_path / "out" / "a.png"))
    rows = table[table["image"].str.endswith("a.png")]
    assert list(rows["pixels"]) == list(np.bincount(labels.ravel(), minlength=3))
    assert list(rows["share"]) == pytest.approx([(labels == k).mean() for k in range(3)])
    assert list(rows["regions"]) == [ndimage.label(labels == k)[1] for k in range(3)]
    assert rows["square_metres"].isna().all()  # in a run with a map
    placed = table[table["image"].str.endswith("map.tif")]
    assert placed["square_metres"].sum() == pytest.approx(90 * 120 * 0.25, rel=1e-5)
    again = call_refinenet(*deploy, "--table", "again.csv")
    assert again.stdout.count("already done") == 2
    assert (tmp_path / "again.csv").read_text() == (tmp_path / "t.csv").read_text()


def test_text_has_a_column_of_square_metres_only_with_maps(
    images: Path, model: Path, call_refinenet: CommandLine, tmp_path: Path
) -> None:
    done = call_refinenet("deploy", images / "a.png", "-o", "a.png", "--model", model, "--table", "t.csv")
    assert done.returncode == 0, done.stderr
    head, *rows = (tmp_path / "t.csv").read_text().splitlines()
    assert head == "image,id,class,pixels,share,regions"
    sizes = [int(row.split(",")[3]) for row in rows]
    assert [row.split(",")[4] for row in rows] == [str(float(f"{size / (90 * 120):.6g}")) for size in sizes]


def test_from_python(images: Path, model: Path, tmp_path: Path) -> None:
    network = RefineNet(model=model, device="cpu")
    network.deploy_files(images / "a.png", tmp_path / "a_labels.png", table=tmp_path / "t.parquet", progress=False)
    table, found = pd.read_parquet(tmp_path / "t.parquet"), network.segment(images / "a.png")
    pd.testing.assert_frame_equal(table.drop(columns="image"), found.to_frame(), check_dtype=False)
    assert table["square_metres"].isna().all()  # the columns of data frames and Parquet do not depend on the images
    assert table["square_metres"].dtype == float
    assert list(found.to_frame(2.0)["square_metres"]) == list(2.0 * table["pixels"])


def test_what_has_no_areas_is_refused(images: Path, call_refinenet: CommandLine, tmp_path: Path) -> None:
    depths = RefineNet("lightweight", encoder="test_resnet", outputs="depth:0.5:80", device="cpu")
    depths.save(tmp_path / "depths.safetensors")
    refused = call_refinenet("deploy", images / "a.png", "--model", "depths.safetensors", "--table", "t.csv")
    assert "the model predicts none" in refused.stderr
    assert call_refinenet("deploy", images / "a.png", "--table", "t.xlsx").returncode == 2
    assert not (tmp_path / "t.csv").exists()
