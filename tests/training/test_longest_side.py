"""Large photographs are reduced in training, and alike wherever the model is used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import SETTINGS, new_network, train, write_pictures
from torch.nn import functional

from refinenet import RefineNet
from refinenet.datasets.catalog import open_training_datasets
from refinenet.io.images.shrinking import shrink_image


def _record(run: Path) -> dict[str, object]:
    config: dict[str, object] = json.loads((run / "run.json").read_text())["config"]
    return config


def test_a_model_reduces_images_as_it_was_trained(tmp_path: Path) -> None:
    folder, run = write_pictures(tmp_path / "data"), tmp_path / "run"
    train(folder, run, longest_side=24, epochs=1, crop_size=[16, 16])
    r = RefineNet(model=run / "last.safetensors", device="cpu", backend="pytorch")
    assert (_record(run)["longest_side"], r.card.longest_side) == (24, 24)
    image = np.asarray(Image.open(folder / "images" / "val" / "0.png"))
    network = r.network.eval()
    with torch.no_grad():
        small = torch.from_numpy(shrink_image(image, 24 / 40)).permute(2, 0, 1)[None] / 255
        logits = functional.interpolate(network(small), (40, 40), mode="bilinear", align_corners=False)
    assert small.shape[-2:] == (24, 24)
    assert (r.segment(image).labels == logits[0].argmax(0).numpy()).mean() > 0.99  # batch norms are folded there
    assert r.segment(image[:20, :20]).labels.shape == (20, 20)  # smaller images keep their size
    evaluation = r.eval(dataset=str(folder), progress=False)
    assert sum(int(each.regions[1].sum()) for each in evaluation.metrics.images) == 2 * 40 * 40  # true pixels
    assert "the longer side of images reduced to 24 pixels" in evaluation.protocol
    again = tmp_path / "again"
    RefineNet(model=run / "last.safetensors", device="cpu").train(
        dataset=str(folder), output=str(again), stop_after=1, epochs=1, workers=0, loggers=[], progress=False
    )
    assert _record(again)["longest_side"] == 24  # that of the model from which training starts


def test_ground_truth_is_reduced_with_the_image(tmp_path: Path) -> None:
    train_set, _ = open_training_datasets(str(write_pictures(tmp_path)))
    sample, reduced = train_set[0], type(train_set)(**{**vars(train_set), "longest_side": 20})[0]
    assert reduced.image.shape == (20, 20, 3)
    np.testing.assert_array_equal(reduced.labels, sample.labels[1::2, 1::2])


@pytest.mark.parametrize(
    ("suffix", "side", "chosen"), [("png", 2100, 1024), ("png", 2000, "none"), ("tif", 2100, "none")]
)
def test_large_photographs_are_reduced_by_default(
    suffix: str, side: int, chosen: int | str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = write_pictures(tmp_path / "data", train=2, val=1)
    random = np.random.default_rng(0)
    for path in [*folder.glob("*/*/*.png")]:
        path.unlink()
        is_image = path.parent.parent.name == "images"
        pixels = random.integers(0, 256 if is_image else 3, (40, side, 3)[: 3 if is_image else 2], dtype=np.uint8)
        Image.fromarray(pixels).save(path.with_suffix(f".{suffix}" if is_image else ".png"))
    settings = {**SETTINGS, "epochs": 1, "batch_size": 2}
    new_network().train(dataset=str(folder), output=str(tmp_path / "run"), stop_after=1, **settings)
    assert _record(tmp_path / "run")["longest_side"] == chosen
    said = " ".join(capfd.readouterr().err.split())
    assert (f"reduced to 1024 pixels on their longer side (of up to {side})" in said) == (chosen == 1024)
