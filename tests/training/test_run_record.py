"""What a run records and draws: its machine, curves, sample sheets, and metrics in TensorBoard."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import warm_start
from PIL import Image

from refinenet.datasets.catalog import Dataset
from refinenet.distributed import describe_run
from refinenet.inference.backends.pytorch import PyTorchBackend
from refinenet.inference.segmenter import Segmenter
from refinenet.labels import LabelSet
from refinenet.models.architecture import Architecture
from refinenet.models.network import Network
from refinenet.training.loggers import Logger, LoggerConfig, Row, open_loggers
from refinenet.training.records.curves import CLASS_IOU, MOST_CLASSES, draw_curves
from refinenet.training.records.samples import choose_samples, draw_samples

RGB = npt.NDArray[np.uint8]
CLASSES = LabelSet(names=("sky", "road", "tram"), colours=((10, 120, 230), (128, 64, 128), (200, 0, 50)))
IMAGE = (40, 80, 120)
ROWS = [
    {"epoch": str(epoch), "loss": str(2 / epoch), "val_miou": "" if epoch % 2 else str(0.1 * epoch), "seconds": "3"}
    for epoch in range(1, 7)
]


def test_a_run_is_described_by_what_it_runs_on() -> None:
    described = describe_run()
    assert json.loads(json.dumps(described)) == described
    assert described["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert {"refinenet", "torchvision", "timm", "lightning", "numpy"} <= set(described["packages"])
    assert described["python"] == platform.python_version()
    assert described["command"] == sys.argv
    assert described["processes"] == 1
    assert described["started"].endswith("+00:00")
    assert described["cpu"]


def pixels(path: Path) -> RGB:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def count(picture: RGB, colour: Sequence[int]) -> int:
    return int((picture == colour).all(axis=2).sum())


def test_curves_are_drawn_of_what_was_measured(tmp_path: Path) -> None:
    """Loss in blue and mIoU in green, its best point in vermilion; only metrics that were measured have a panel."""
    blue, green, vermilion = (0, 114, 178), (0, 158, 115), (213, 94, 0)
    loss = pixels(draw_curves([{"epoch": "1", "loss": "1"}, {"epoch": "2", "loss": "nan"}], tmp_path / "a.png"))
    assert count(loss, blue) > 10
    assert not count(loss, green) + count(loss, vermilion)
    both = pixels(draw_curves(ROWS, tmp_path / "b.png"))
    assert min(count(both, colour) for colour in (blue, green, vermilion)) > 10
    rates: list[Row] = [{**row, "learning_rate": "0.1", "encoder_learning_rate": 0.05} for row in ROWS]
    outputs = [{**row, "val_soil_height_r2": "0.5", "val_soil_height_rmse": "2"} for row in ROWS]
    assert pixels(draw_curves(outputs, tmp_path / "d.png")).shape[0] > both.shape[0]
    assert loss.shape[0] < both.shape[0] < pixels(draw_curves(rates, tmp_path / "c.png")).shape[0]


def test_equal_learning_rates_are_one_line_for_both(tmp_path: Path) -> None:
    """Neither hides the other: one line in blue; two where they differ, the encoder's in vermilion."""
    blue, vermilion = (0, 114, 178), (213, 94, 0)

    def colours(encoder: str) -> tuple[bool, bool]:
        rows: list[Row] = [
            {"epoch": str(epoch), "learning_rate": str(0.1 / epoch), "encoder_learning_rate": encoder}
            for epoch in (1, 2, 3)
        ]
        rows = [{**row, "encoder_learning_rate": encoder or row["learning_rate"]} for row in rows]
        picture = pixels(draw_curves(rows, tmp_path / "rates.png"))
        return count(picture, blue) > 10, count(picture, vermilion) > 10

    assert colours("") == (True, False)
    assert colours("0.01") == (True, True)


def test_the_best_point_is_marked_where_it_is(tmp_path: Path) -> None:
    def place(values: Sequence[float]) -> float:
        rows: list[Row] = [{"epoch": k, "val_miou": value} for k, value in enumerate(values, start=1)]
        picture = pixels(draw_curves(rows, tmp_path / "a.png"))
        marked = np.flatnonzero((picture == (213, 94, 0)).all(axis=2).any(axis=0))
        return float(marked.mean() / picture.shape[1])

    assert place([0.9, 0.1, 0.2]) < 0.35 < place([0.1, 0.9, 0.2]) < 0.65 < place([0.1, 0.2, 0.9])


def test_each_class_has_a_line_in_the_map_and_of_many_the_worst(tmp_path: Path) -> None:
    def height(classes: int) -> int:
        """Of the map alone; IoU 0 is drawn in viridis' darkest, 1 in its brightest colour."""
        ious = {f"{CLASS_IOU}class {k} $x": float(k >= MOST_CLASSES) for k in range(classes)}
        row: Row = {"epoch": 1, "loss": 1, **ious}
        picture = pixels(draw_curves([row], tmp_path / "map.png"))
        assert not count(picture, (253, 231, 37))
        return int((picture == (68, 1, 84)).all(axis=2).any(axis=1).sum())

    assert height(13) - height(8) == pytest.approx(height(8) - height(3), abs=10)
    assert height(MOST_CLASSES + 20) == height(MOST_CLASSES) > 3 * height(13)


def test_no_rows_make_no_curves(tmp_path: Path) -> None:
    for rows in ([], [{"loss": "1"}], [{"epoch": "", "loss": "1"}]):
        with pytest.raises(ValueError, match="no row has an epoch"):
            draw_curves(rows, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    """Of a network that says "tram" everywhere."""
    network = Network(Architecture(model_type="lightweight", encoder="test_resnet", num_classes=3))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for name, parameter in network.named_parameters():
            if parameter.shape == (3,) and name.endswith("bias"):
                parameter.copy_(torch.tensor([0.0, 0.0, 1.0]))
    return Segmenter(PyTorchBackend(network), CLASSES)


def dataset_of(ids: Sequence[int], height: int = 120, width: int = 160, label_set: LabelSet = CLASSES) -> Dataset:
    """Images of one colour, each of one class."""
    items = {f"image {k}": value for k, value in enumerate(ids)}
    return Dataset(
        name="drawn",
        split="val",
        label_set=label_set,
        items=list(items),
        read_image=lambda item: np.full((height, width, 3), IMAGE, np.uint8),
        read_labels=lambda item: np.full((height, width), items[item], np.uint8),
    )


def box(picture: RGB, colour: Sequence[int], column: int) -> tuple[int, int, int]:
    """First row, height and width of a colour within one of the sheet's three columns."""
    third = picture.shape[1] // 3
    places = np.argwhere((picture[:, column * third : (column + 1) * third] == colour).all(axis=2))
    places = places[places[:, 0] < 400]  # the legend is below
    assert len(places)
    (height, width) = np.ptp(places, axis=0) + 1
    return int(places[:, 0].min()), int(height), int(width)


def test_a_sample_stands_beside_its_truth_and_its_prediction(segmenter: Segmenter, tmp_path: Path) -> None:
    picture = pixels(draw_samples(dataset_of([1]), segmenter, [0], tmp_path / "samples" / "a.png", "Epoch 3"))
    image, truth = box(picture, IMAGE, 0), box(picture, CLASSES.colours[1], 1)
    assert image == truth == box(picture, CLASSES.colours[2], 2)
    assert image[1:] == (240, 320)
    assert all(count(picture, colour) > 100 for colour in CLASSES.colours), "the legend lists all three"


def test_each_sample_adds_a_row_and_keeps_its_proportions(segmenter: Segmenter, tmp_path: Path) -> None:
    def sheet(ids: Sequence[int], height: int, width: int) -> RGB:
        return pixels(draw_samples(dataset_of(ids, height, width), segmenter, range(len(ids)), tmp_path / "a.png"))

    heights = [sheet([1] * rows, 40, 40).shape[0] for rows in (1, 2, 3)]
    assert heights[2] - heights[1] == heights[1] - heights[0] >= 240
    assert box(sheet([1], 40, 40), IMAGE, 0)[1:] == (240, 240)
    assert box(sheet([1], 20, 160), CLASSES.colours[1], 1)[1:] == (40, 320)
    assert box(sheet([0], 1, 1), IMAGE, 0)[1:] == (240, 240)


def test_pixels_without_a_class_are_striped_and_a_legend_of_many_lists_what_occurs(
    segmenter: Segmenter, tmp_path: Path
) -> None:
    picture = pixels(draw_samples(dataset_of([255]), segmenter, [0], tmp_path / "a.png"))
    assert box(picture, (64, 64, 64), 1)[1:] == (240, 320)
    names = tuple(f"class {k}" for k in range(50))
    many = LabelSet(names=names, colours=tuple((k, 0, 0) for k in range(50)))
    listed = pixels(draw_samples(dataset_of([7], label_set=many), segmenter, [0], tmp_path / "b.png"))
    legend = listed[-46:]  # it has one line
    assert [k for k in range(1, 50) if count(legend, (k, 0, 0)) > 100] == [2, 7]


def test_the_same_images_are_chosen_so_that_all_classes_show() -> None:
    dataset = dataset_of([0] * 30 + [1] + [0] * 30 + [2])
    chosen = choose_samples(dataset, 3)
    assert chosen == choose_samples(dataset, 3)
    assert len(chosen) == 3
    assert {30, 61} <= set(chosen)
    assert choose_samples(dataset_of([0, 1]), 5) == [0, 1]
    with pytest.raises(ValueError, match="no images in its split 'val'"):
        choose_samples(dataset_of([]), 3)


def figures(folder: Path, name: str) -> list[tuple[int, float]]:
    """What TensorBoard itself reads."""
    module = import_module("tensorboard.backend.event_processing.event_accumulator")  # it has no types
    accumulator = module.EventAccumulator(str(folder / "tensorboard"))
    accumulator.Reload()
    return [(event.step, round(event.value, 4)) for event in accumulator.Scalars(name)]


def test_tensorboard_gets_what_was_measured_and_goes_on_after_a_stop(tmp_path: Path) -> None:
    loggers = open_loggers(("tensorboard",), tmp_path, {"epochs": 4}, first_step=1)
    for step, miou in ((1, ""), (2, "0.5"), (3, None)):
        loggers.log({"loss": str(1 / step), "val_miou": miou, "note": "hot"}, step)
    loggers.close()
    again = open_loggers(("tensorboard",), tmp_path, {"epochs": 4}, first_step=3)
    again.log({"loss": 7.0}, 3)
    assert figures(tmp_path, "val_miou") == [(2, 0.5)]
    assert figures(tmp_path, "loss") == [(1, 1.0), (2, 0.5), (3, 7.0)]
    again.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_a_full_disk_is_told_and_over_when_there_is_room_again(tmp_path: Path) -> None:
    """A limit on the size of files, in a process of its own, stands in for the full disk."""
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom refinenet.training.loggers import open_loggers\n"
        "loggers = open_loggers(('tensorboard',), Path(sys.argv[1]), {}, first_step=1)\n"
        "def limit(size):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))\n"
        "loggers.log({'loss': 1}, 1)\nlimit(8)\n"
        "try:\n    loggers.log({'loss': 2}, 2)\n"
        "except OSError as error:\n    told = error\n"
        "limit(resource.RLIM_INFINITY)\nloggers.log({'loss': 3}, 3)\nloggers.close()\nprint(told.errno)"
    )
    ran = warm_start.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "27", ran.stderr
    assert figures(tmp_path, "loss") == [(1, 1.0), (3, 3.0)]


@pytest.mark.parametrize("names", [("csv",), ("tensorboard", "tensorboard"), "tensorboard", ["wandb"], (3,), None])
def test_loggers_are_named_rightly(names: Any) -> None:
    with pytest.raises(ValueError, match="loggers must be some of tensorboard, wandb, mlflow, each once, not "):
        LoggerConfig(loggers=names)
    assert LoggerConfig(loggers=()).loggers == ()


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_logger_that_is_not_installed_is_told_before_anything_is_written(name: Logger, tmp_path: Path) -> None:
    if find_spec(name) is not None:
        pytest.skip(f"{name} is installed")
    with pytest.raises(ValueError, match=f"The logger {name} needs {name}.*pip install {name}"):
        open_loggers(("tensorboard", name), tmp_path, {})
    assert not list(tmp_path.iterdir())


def test_weights_and_biases_gets_the_figures_of_a_run_in_two_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for step in (1, 2):
        loggers = open_loggers(("wandb",), tmp_path, {"epochs": 2}, first_step=step)
        loggers.log({"loss": "0.5", "val_miou": ""}, step)
        loggers.close()
    identity = json.loads((tmp_path / "loggers.json").read_text())["wandb"]
    assert len(list(tmp_path.glob(f"wandb/offline-run-*/run-{identity}.wandb"))) == 2


def test_mlflow_gets_the_figures_of_a_run_in_two_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = pytest.importorskip("mlflow").MlflowClient
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for step in (1, 2):
        loggers = open_loggers(("mlflow",), tmp_path, {"epochs": 2}, first_step=step)
        loggers.log({"loss": str(1 / step), f"{CLASS_IOU}Fußweg": 0.25}, step)
        loggers.close()
    identity = json.loads((tmp_path / "loggers.json").read_text())["mlflow"]
    store = client(f"sqlite:///{tmp_path}{os.sep}mlflow.db")
    assert store.get_run(identity).data.params == {"epochs": "2"}
    assert [(m.step, m.value) for m in store.get_metric_history(identity, "loss")] == [(1, 1.0), (2, 0.5)]
    assert store.get_metric_history(identity, f"{CLASS_IOU}Fu_weg")[0].value == 0.25


def test_damaged_notes_of_the_loggers_are_named(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    (tmp_path / "loggers.json").write_text("[")
    with pytest.raises(ValueError, match=r"loggers\.json is damaged"):
        open_loggers(("wandb",), tmp_path, {})
