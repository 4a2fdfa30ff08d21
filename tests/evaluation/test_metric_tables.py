"""Tables of an evaluation: the numbers of its results file, and those counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
from conftest import CommandLine
from PIL import Image

from refinenet.datasets.catalog import open_dataset

STREETS = "streets:2:48x32"


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """The ground truth of drawn streets, moved to the right."""
    (tmp_path / "theirs").mkdir()
    for sample in open_dataset(STREETS)("val"):
        Image.fromarray(np.roll(sample.labels, 5, axis=1)).save(tmp_path / "theirs" / f"{sample.name}.png")
    return tmp_path / "theirs"


def test_rows_by_class_and_image(predictions: Path) -> None:
    from refinenet import evaluate_predictions

    found = evaluate_predictions(STREETS, predictions, progress=False)
    classes, values = found.to_frame().set_index("class"), found.to_dict()
    assert dict(classes["iou"].dropna()) == {k: v for k, v in values["class_iou"].items() if v is not None}
    low, high = values["classes"]["Road"]["iou_interval"]
    assert tuple(classes.loc["Road", ["iou_low", "iou_high"]]) == (low, high)
    images = found.to_frame("image")
    assert list(images["miou"]) == [image["miou"] for image in values["per_image"]]
    each = found.to_frame("image_class")
    sample = next(iter(open_dataset(STREETS)("val")))
    true, predicted = sample.labels == 3, np.asarray(Image.open(predictions / f"{sample.name}.png")) == 3
    road = each[(each["image"] == sample.name) & (each["class"] == "Road")].iloc[0]
    counted = sample.labels != 255
    assert road["iou"] == (true & predicted).sum() / ((true | predicted) & counted).sum()
    assert (road["true_pixels"], road["correct_pixels"]) == (true.sum(), (true & predicted).sum())
    assert road["recall"] == (true & predicted).sum() / true.sum()
    with pytest.raises(ValueError, match="class, image, image_class, not 'pixel'"):
        found.to_frame("pixel")  # type: ignore[arg-type]


def test_on_the_command_line(predictions: Path, call_refinenet: CommandLine, tmp_path: Path) -> None:
    arguments = ["eval", "-d", STREETS, "--predictions", predictions, "--json"]
    assert call_refinenet(*arguments, "--table", "new/t.csv", "--table-by", "image").returncode == 0
    table = pd.read_csv(tmp_path / "new" / "t.csv")
    assert list(table) == ["image", "miou", "pixel_accuracy", "boundary_miou", "confident_mistakes"]
    assert len(table) == 2
    for wrong, message in ((["--table", "t.txt"], ".csv or .parquet"), (["--table-by", "image"], "only with --table")):
        refused = call_refinenet(*arguments, *wrong)
        assert refused.returncode == 2
        assert message in " ".join(refused.stderr.replace("│", " ").split())
