"""Reports and results of networks with other outputs than classes, on drawn streets."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refinenet import RefineNet
from refinenet.datasets.catalog import open_dataset

STREETS = "streets:3:64x48"


@pytest.fixture(scope="module")
def model() -> RefineNet:
    outputs = "depth:0.5:300,normals,soil=regression[height:m]"
    return RefineNet(encoder="test_resnet", outputs=outputs, device="cpu", backend="pytorch", seed=3)


@pytest.fixture(scope="module")
def folder(model: RefineNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report and results.json; streets have no soil."""
    path = tmp_path_factory.mktemp("report")
    model.eval(STREETS, report=path, output_file=path / "results.json", progress=False)
    return path


def test_each_output_has_a_section_with_its_tables_and_no_class_has_one(folder: Path) -> None:
    page, results = (folder / "report.html").read_text("utf-8"), json.loads((folder / "results.json").read_text())
    for name in ("depth", "normals"):
        assert f'<section id="output-{name}">' in page
        assert f'<a href="#output-{name}">' in page
    assert "output-soil" not in page
    assert 'id="classes"' not in page
    assert "mIoU" not in page.split('<script type="application/json"', 1)[0]
    pooled = results["outputs"]["depth"]["pooled"]
    assert f"<td>{pooled['abs_rel']:.3f}</td>" in page
    assert pooled["rmse"] > 0


def test_the_metrics_of_an_image_are_those_of_its_pixels(model: RefineNet, folder: Path) -> None:
    images = json.loads((folder / "results.json").read_text())["per_image"]
    dataset = open_dataset(STREETS)("val").with_targets(["depth", "normals"])
    for sample, entry in zip(dataset, images, strict=True):
        found = model.predict(sample.image)
        true = sample.targets["depth"][0].astype(np.float64)
        known = np.isfinite(true)
        errors = found.depth.astype(np.float64)[known] - true[known]
        assert entry["outputs"]["depth"]["rmse"] == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-6)
        normals = sample.targets["normals"].astype(np.float64)
        cosines = (found.normals.astype(np.float64) * np.moveaxis(normals, 0, -1)).sum(-1)[np.isfinite(normals).all(0)]
        angles = np.degrees(np.arccos(cosines.clip(-1, 1)))
        assert entry["outputs"]["normals"]["mean_angle"] == pytest.approx(angles.mean(), rel=1e-4)


def test_the_worst_image_comes_first_with_four_pictures_above_their_bars(folder: Path) -> None:
    images = json.loads((folder / "results.json").read_text())["per_image"]
    worst = max(images, key=lambda image: image["outputs"]["depth"]["rmse"])
    strip = Image.open(folder / "pictures" / f"depth-worst-01-{worst['name']}.png")
    assert strip.width >= 4 * 64
    assert strip.height > 48 + 40  # a title above, and a colour bar below
    page = (folder / "report.html").read_text("utf-8")
    first = page.split('id="depth-worst-1"', 1)[1].split("</article>", 1)[0]
    assert worst["name"] in first
    assert [first.count(words) for words in ("true depth", "predicted depth", "error of depth")] == [2, 2, 2]
    assert f"rmse {worst['outputs']['depth']['rmse']:.4g} m, abs_rel" in first
    assert "<td>m</td>" in page
    angles = page.split('id="normals-worst-1"', 1)[1].split("</article>", 1)[0]
    assert re.search(r"mean_angle [\d.]+ degrees, within_11_25 [\d.e-]+\.<", angles)
