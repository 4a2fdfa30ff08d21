"""Label maps of any origin are measured as a model is, and refused in words where they do not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from conftest import CommandLine
from PIL import Image

from refinenet import RefineNet, evaluate_predictions
from refinenet.datasets.catalog import Dataset, Splits, open_dataset

STREETS = "streets:3:96x64"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the bundled model predicts for drawn streets."""
    network = RefineNet(model="camvid", device="cpu")
    for sample in open_dataset(STREETS)("val"):
        path = tmp_path / "theirs" / f"{sample.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        network.segment(sample.image).save(path)
    return tmp_path / "theirs"


def change(folder: Path, pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> Path:
    """Write other pixels over the first prediction."""
    path = min(folder.rglob("*.png"))
    Image.fromarray(pixels).save(path)
    return path


def test_figures_are_those_of_the_model_that_made_them(folder: Path) -> None:
    theirs = evaluate_predictions(STREETS, folder, progress=False)
    own = RefineNet(model="camvid", device="cpu").eval(STREETS, progress=False)
    assert theirs.scores == own.scores
    assert theirs.metrics.boundary_miou == own.metrics.boundary_miou
    assert theirs.metrics.trimap_miou == own.metrics.trimap_miou
    assert (theirs.metrics.calibration, theirs.model_sha256) == (None, None)
    assert str(folder) in theirs.protocol


def test_on_the_command_line_with_a_report(folder: Path, call_refinenet: CommandLine, tmp_path: Path) -> None:
    options = ["-d", STREETS, "--predictions", folder, "-o", "results.json", "--report", "report", "--json"]
    done = call_refinenet("eval", *options)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((tmp_path / "results.json").read_text())
    assert (tmp_path / "report" / "report.html").exists()
    for idle in (["--flip"], ["--model", "camvid"], ["--abstain-below", "0.5"], ["--device", "cpu"]):
        refused = call_refinenet("eval", "-d", STREETS, "--predictions", folder, *idle)
        assert (refused.returncode, idle[0] in refused.stderr) == (2, True), refused.stderr


def test_void_in_a_prediction_is_a_miss(folder: Path) -> None:
    before = evaluate_predictions(STREETS, folder, progress=False)
    path = min(folder.rglob("*.png"))
    labels = np.asarray(Image.open(path)).copy()
    truth = next(iter(open_dataset(STREETS)("val"))).labels
    labels[:32] = 255
    change(folder, labels)
    found = evaluate_predictions(STREETS, folder, progress=False)
    labelled = sum(int((sample.labels != 255).sum()) for sample in open_dataset(STREETS)("val"))
    assert found.metrics.abstained == int((truth[:32] != 255).sum()) / labelled
    assert found.scores.pixel_accuracy is not None
    assert before.scores.pixel_accuracy is not None
    assert found.scores.pixel_accuracy < before.scores.pixel_accuracy


def test_files_may_lie_side_by_side_or_in_folders_like_the_images(tmp_path: Path) -> None:
    for names in (["a/1", "b/2"], ["1", "2"]):
        target = tmp_path / f"of_{len(names[0])}"
        nested = _renamed(["a/1", "b/2"])
        for name, sample in zip(names, nested, strict=True):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(sample.labels).save(target / f"{name}.png")
        assert evaluate_predictions(_only(nested), target, progress=False).scores.miou == 1
    same = _renamed(["a/1", "b/1"])
    with pytest.raises(ValueError, match="have the same name"):
        evaluate_predictions(_only(same), tmp_path / "of_1", progress=False)


def _only(dataset: Dataset) -> Splits:
    return lambda _: dataset


def _renamed(items: list[str]) -> Dataset:
    data = open_dataset("streets:2:64x48")("val")
    old = dict(zip(items, data.items, strict=True))
    return replace(
        data,
        items=items,
        read_image=lambda item: data.read_image(old[item]),
        read_labels=lambda item: data.read_labels(old[item]),
    )


def test_what_cannot_be_measured_is_refused_with_the_file_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no predictions folder .*nowhere"):
        evaluate_predictions(STREETS, tmp_path / "nowhere", progress=False)
    path = change(folder, np.full((64, 96), 11, np.uint8))
    with pytest.raises(ValueError, match=rf"{path.name} has the id 11 at row 0, column 0 \(6144 pixels"):
        evaluate_predictions(STREETS, folder, progress=False)
    change(folder, np.zeros((32, 96), np.uint8))
    with pytest.raises(ValueError, match=rf"{path.name} has 96x32 pixels \(width x height\), but the image has 96x64"):
        evaluate_predictions(STREETS, folder, progress=False)
    change(folder, np.zeros((64, 96, 3), np.uint8))
    with pytest.raises(ValueError, match=f"{path.name} is a colour picture"):
        evaluate_predictions(STREETS, folder, progress=False)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"lacks predictions for 1 of the 3 images of .*: {path.name}\."):
        evaluate_predictions(STREETS, folder, progress=False)
