"""The report of an evaluation: what it shows, and the files beside it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from markupsafe import escape
from PIL import Image
from report_samples import (
    CLASSES,
    HEIGHT,
    HOSTILE,
    HOSTILE_CLASS,
    HOSTILE_IMAGE,
    IMAGES,
    ROAD,
    TREE,
    WIDTH,
    make_dataset,
    make_predictor,
    numbered,
    report,
    truth,
)

from refinenet import RefineNet
from refinenet.datasets.catalog import Dataset, Sample
from refinenet.distributed import ALONE
from refinenet.evaluation.evaluator import Prediction, Predictor
from refinenet.evaluation.pipeline import run_evaluation
from refinenet.evaluation.report.images import CONFIDENTLY_WRONG, WRONG
from refinenet.evaluation.report.plots import draw_matrix, largest_confusions
from refinenet.evaluation.report.selection import find_spot
from refinenet.labels import LabelSet

TOP, GAP = 58, 10
"""Where the pictures of a strip begin, and what lies between them."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report")
    report(path)
    return path


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def _section(page: str, name: str) -> str:
    return page.split(f'id="{name}"')[1].split("</section>")[0]


def _names(page: str, group: str) -> list[str]:
    return re.findall(r'class="name">(.*?)</span>', _section(page, group))


def _strip(path: Path) -> list[npt.NDArray[np.uint8]]:
    """The four pictures of a strip."""
    strip = np.asarray(Image.open(path))
    lefts = [GAP + k * (WIDTH + GAP) for k in range(4)]
    return [strip[TOP : TOP + HEIGHT, left : left + WIDTH] for left in lefts]


def test_the_worst_image_is_the_worst(page: str) -> None:
    assert _names(page, "worst") == [str(escape(HOSTILE_IMAGE)), "second", "third"]
    assert _names(page, "best") == ["fourth"]


def test_a_strip_shows_image_truth_prediction_and_mistakes(folder: Path) -> None:
    image, truth, prediction, mistakes = _strip(folder / "pictures" / "worst-02-second.png")
    assert (image == 100).all()
    for place, in_truth, in_prediction in (((5, 5), ROAD, TREE), ((30, 30), HOSTILE, HOSTILE), ((5, 50), ROAD, ROAD)):
        assert tuple(truth[place]) == CLASSES.colours[in_truth]
        assert tuple(prediction[place]) == CLASSES.colours[in_prediction]
    assert tuple(mistakes[5, 5]) == CONFIDENTLY_WRONG
    assert tuple(mistakes[5, 15]) == WRONG
    assert (mistakes[5, 30] == 176).all()
    assert {tuple(pixel) for pixel in truth[36:].reshape(-1, 3)} == {(0, 0, 0), (255, 255, 255)}


def test_confident_mistakes_are_found_framed_and_named(folder: Path, page: str) -> None:
    shown = _section(page, "mistakes")
    assert "says road and the model tree" in shown
    assert "97.00 %" in shown
    assert "fourth" not in shown
    names = sorted(path.name for path in (folder / "pictures").glob("mistakes-*.png"))
    assert names[0] == "mistakes-01-a_b_img_src_x_onerror_alert_2-detail.png"
    assert len(names) == 6
    framed = _strip(folder / "pictures" / "mistakes-02-second.png")[0]
    assert (framed == 255).all(-1).any()
    assert (framed == 0).all(-1).any()


def test_the_densest_spot_is_found() -> None:
    mistakes = np.zeros((160, 200), bool)
    mistakes[5, ::3] = True
    mistakes[100:120, 150:170] = True
    spot = find_spot(mistakes)
    assert (spot.rows, spot.columns) == (slice(100, 120), slice(150, 170))
    assert (spot.shown_rows, spot.shown_columns) == (slice(70, 150), slice(120, 200))


def test_files_have_safe_names_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "report.html").write_text("an older one")
    report(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert "older" not in (tmp_path / "report.html").read_text()
    names = [path.name for path in tmp_path.rglob("*.png")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in names)
    assert {"curve-coverage.png", "curve-outlines.png", "curve-reliability.png", "best-01-fourth.png"} < set(names)


def test_foreign_text_is_text_and_nothing_is_fetched(page: str) -> None:
    assert HOSTILE_CLASS not in page
    assert "<img src=x" not in page
    assert HOSTILE_IMAGE not in page
    assert "default-src 'none'" in page
    assert not re.search(r'(?:src|href)="(?!data:|#|pictures/)', page)
    assert not re.search(r"@import|url\((?!#|&quot;#)", page)


def test_names_neither_leave_attributes_nor_steer_the_text_around_them(tmp_path: Path) -> None:
    name = "a\" onmouseover='x' \u202egnp.\u200f\x1b[31m\n\x00\udcff"
    data = replace(make_dataset(), name=name, items=(name,), read_labels=lambda _: truth())
    wrong = Prediction(np.zeros_like(truth()), np.ones((HEIGHT, WIDTH), np.float32))
    predictor = replace(make_predictor(), predict=lambda _: wrong, protocol=name)
    run_evaluation(predictor, data, report=tmp_path, progress=False, processes=ALONE)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not set(page) & set("\u202e\u200f\x1b\x00")
    assert _names(page, "worst") == [str(escape(name.encode("unicode_escape", "surrogatepass").decode()))]
    pictures = re.findall(r"<img [^>]*>", page)
    assert pictures
    assert not any("onmouseover" in re.sub(r'"[^"]*"', "", picture) for picture in pictures)


def test_absent_classes_have_dashes_and_are_named(page: str) -> None:
    row = next(row for row in _section(page, "classes").split("<tr") if ">absent<" in row)
    assert row.count(">-</td>") == 8
    assert "1, not in any mean: absent" in page


def test_without_confidence_the_page_says_so(tmp_path: Path) -> None:
    report(tmp_path, make_predictor(confident=False))
    page = (tmp_path / "report.html").read_text()
    assert "not known: the predictions have no confidence" in page
    assert "there is no reliability or coverage curve" in page
    assert "not known" in _section(page, "mistakes")
    assert sorted(path.name for path in tmp_path.rglob("curve-*.png")) == ["curve-outlines.png"]


def test_the_largest_confusions_are_told(tmp_path: Path, page: str) -> None:
    first = largest_confusions(report(tmp_path).metrics, 3)[0]
    assert (first.truth, first.prediction, first.pixels) == (HOSTILE, TREE, 16 * 60)
    assert first.share == pytest.approx(60 / 160)
    assert "37.5 % of its pixels (960)" in page


def test_many_classes_make_a_picture_of_the_matrix(tmp_path: Path) -> None:
    report(tmp_path, make_predictor(last=299), numbered(300))
    page = (tmp_path / "report.html").read_text()
    assert "Confusion matrix of 300 classes" in page
    assert "<strong>class 299</strong>" in page
    picture = np.asarray(Image.open(tmp_path / "pictures" / "confusion.png"))
    assert picture.shape == (600, 600, 3)
    assert picture[0, 599, 0] > picture[0, 599, 2]
    assert draw_matrix(np.eye(2000)).shape[0] <= 720


def test_one_class_and_no_image_with_a_figure(tmp_path: Path) -> None:
    one = LabelSet(names=("all",), colours=((1, 2, 3),))
    void = np.full((HEIGHT, WIDTH), 255, np.uint8)

    def predict(sample: Sample) -> Prediction:
        return Prediction(np.zeros_like(void), np.ones(void.shape, np.float32))

    predictor = Predictor(predict=predict, has_confidence=True, protocol="made up", model_sha256="0")
    for name, labels in (("void", void), ("all", np.zeros_like(void))):
        data = Dataset(
            name=name,
            split="val",
            label_set=one,
            items=["only"],
            read_image=lambda _: np.zeros((HEIGHT, WIDTH, 3), np.uint8),
            read_labels=lambda _, labels=labels: labels,  # type: ignore[misc]
        )
        run_evaluation(predictor, data, report=tmp_path / name, progress=False, processes=ALONE)
    assert "No image has an mIoU." in (tmp_path / "void" / "report.html").read_text()
    assert "No class is confused with another one." in (tmp_path / "all" / "report.html").read_text()


@pytest.mark.parametrize("place", ["file", "file/inside", "folder"])
def test_an_impossible_folder_is_refused_before_anything_is_measured(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder" / "report.html").mkdir(parents=True)

    def predict(sample: Sample) -> Prediction:
        raise AssertionError("measured")

    with pytest.raises(ValueError, match="Choose another folder"):
        report(tmp_path / place, replace(make_predictor(), predict=predict))


def test_only_images_shown_are_asked_for_again(tmp_path: Path) -> None:
    asked: list[str] = []
    predictor = make_predictor()

    def predict(sample: Sample) -> Prediction:
        asked.append(sample.name)
        return predictor.predict(sample)

    report(tmp_path, replace(predictor, predict=predict))
    assert max(asked.count(name) for name in IMAGES) == 2


def test_a_model_is_reported_on(camvid_model: RefineNet, tmp_path: Path) -> None:
    camvid_model.eval("streets:2:120x90", split="test", report=tmp_path / "new", progress=False)
    page = (tmp_path / "new" / "report.html").read_text()
    assert "SignSymbol" in page
    assert camvid_model.card.weights_sha256 is not None
    assert camvid_model.card.weights_sha256 in page
