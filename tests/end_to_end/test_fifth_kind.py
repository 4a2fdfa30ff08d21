"""A kind of outputs is a row in a few tables: one that the package lacks is trained, evaluated and predicted."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from refinenet import RefineNet
from refinenet.datasets.catalog import Dataset, open_dataset
from refinenet.evaluation.metrics.regression import RegressionAccumulator
from refinenet.evaluation.metrics.targets import TARGET_METRICS
from refinenet.evaluation.report.targets import TARGET_PICTURES
from refinenet.io.arrays import library
from refinenet.models import finishing
from refinenet.outputs import KINDS, KindInfo, OutputSpec, read_outputs
from refinenet.training.losses import regression
from refinenet.training.losses.targets import TARGET_LOSSES

SMALL: dict[str, Any] = {"epochs": 1, "batch_size": 4, "crop_size": [32, 48], "workers": 0, "loggers": []}
NAME = "share"


def brightness(read: Any, item: str) -> npt.NDArray[np.float32]:
    """The grey value of each pixel in [0, 1], a share that a network can learn."""
    image: npt.NDArray[np.uint8] = read(item)
    share: npt.NDArray[np.float32] = (image.mean(2)[np.newaxis] / 255).astype(np.float32)
    return share


def with_shares(split: str) -> Dataset:
    """Drawn streets with the share beside their classes."""
    dataset = open_dataset("streets:4:48x32")(split)
    return replace(
        dataset,
        target_specs=(OutputSpec(name=NAME, kind=NAME),),
        target_readers={NAME: partial(brightness, dataset.read_image)},
        target_files={},
    )


class ShareAccumulator(RegressionAccumulator):
    """Errors of shares."""

    @classmethod
    def for_output(cls, spec: OutputSpec) -> ShareAccumulator:
        """Return an accumulator of one quantity without a unit."""
        return cls((spec.name,), ("",))


@pytest.fixture
def fifth(monkeypatch: pytest.MonkeyPatch) -> None:
    """A share of each pixel, from 0 to 1: one channel, which the logistic function brings into its range."""
    monkeypatch.setitem(KINDS, NAME, KindInfo(meaning="shares from 0 to 1", channels=1))
    monkeypatch.setitem(finishing.FINISH, NAME, lambda values, spec: 1 / (1 + library(values).exp(-values)))
    monkeypatch.setitem(TARGET_LOSSES, NAME, {"huber": regression.LOSSES["huber"]})
    monkeypatch.setitem(TARGET_METRICS, NAME, ShareAccumulator)
    monkeypatch.setitem(TARGET_PICTURES, NAME, TARGET_PICTURES["regression"])


@pytest.mark.usefixtures("fifth")
def test_a_fifth_kind_is_a_row_in_each_table(tmp_path: Path) -> None:
    network = RefineNet(encoder="test_resnet", outputs=f"classes,{NAME}", device="cpu", backend="pytorch", seed=1)
    result = network.train(with_shares, output=tmp_path / "run", check=False, progress=False, **SMALL)
    assert 0 <= (result.best_score or 0) <= 1
    model = RefineNet(model=result.model, device="cpu", backend="pytorch")
    assert model.card.architecture.outputs == read_outputs(f"classes,{NAME}")
    found = model.eval(with_shares, output_file=tmp_path / "r.json", report=tmp_path / "report", progress=False)
    measured = json.loads((tmp_path / "r.json").read_text())["outputs"][NAME]["quantities"][0]
    assert measured["pixels"] == 4 * 32 * 48
    assert f'<section id="output-{NAME}">' in (tmp_path / "report" / "report.html").read_text()
    sample = with_shares("val")[0]
    values = model.predict(sample.image)[NAME]
    assert values.shape == (1, 32, 48)
    assert ((values > 0) & (values < 1)).all()
    assert found.targets[NAME].summary()[f"{NAME}_rmse"] == pytest.approx(measured["rmse"])
