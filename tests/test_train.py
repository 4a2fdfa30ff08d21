"""Training: what it leaves, what it refuses, and that nothing is lost when it is stopped."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from refinenet import RefineNet
from refinenet.network import Architecture, Network
from refinenet.optimisation import build_optimiser, schedule
from refinenet.train_config import TrainConfig

SMALL: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 4,
    "crop_size": [64, 64],
    "workers": 0,
    "precision": "float32",
    "warm_up": 0.1,
}


def small_network(num_classes: int | None = None) -> RefineNet:
    """An untrained network that trains in seconds; the same each time."""
    torch.manual_seed(0)
    return RefineNet(encoder="mobilenetv2_100", device="cpu", num_classes=num_classes)


def weights(r: RefineNet) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in r.network.state_dict().items()}


def test_a_run_leaves_recipe_log_checkpoint_and_the_best_model(tmp_path: Path) -> None:
    r = small_network()
    result = r.train(dataset="streets:8:96x72", output=tmp_path / "run", progress=False, **SMALL)
    assert (result.folder, result.epochs) == (tmp_path / "run", 2)
    rows = list(csv.DictReader((tmp_path / "run" / "log.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert result.best_miou == pytest.approx(max(float(row["val_miou"]) for row in rows), abs=1e-4)
    saved = RefineNet(model=result.model, device="cpu")
    assert saved.label_set.names[3] == "Road"
    assert saved.card.scores["miou"] == pytest.approx(result.best_miou)
    assert saved.card.recipe["learning_rate"] == 1e-3
    assert all(torch.equal(a, weights(saved)[name]) for name, a in weights(r).items())
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert described["source"] == {"dataset": "streets:8:96x72", "root": None}


def test_training_learns(tmp_path: Path) -> None:
    """On eight pictures the loss of a few epochs falls well below that of chance over eleven classes."""
    r = small_network()
    settings = {**SMALL, "epochs": 8, "scale": [1.0, 1.0], "colour_jitter": 0.0, "class_weights": "none"}
    r.train(dataset="streets:8:96x72", output=tmp_path / "run", progress=False, **settings)
    losses = [float(row["loss"]) for row in csv.DictReader((tmp_path / "run" / "log.csv").open())]
    assert losses[-1] < 0.6 * losses[0]
    assert losses[-1] < np.log(11) * 0.75


@pytest.mark.parametrize("awaited", ["run.json", "log.csv"])
def test_a_run_killed_and_resumed_ends_where_an_uninterrupted_one_does(awaited: str, tmp_path: Path) -> None:
    """Killed before its first epoch is over (run.json is there), or after (log.csv is there, too)."""
    settings = {**SMALL, "epochs": 3}
    whole = small_network()
    whole.train(dataset="streets:8:96x72", output=tmp_path / "whole", progress=False, **settings)

    script = (
        "import torch; torch.manual_seed(0); from refinenet import RefineNet\n"
        "r = RefineNet(encoder='mobilenetv2_100', device='cpu')\n"
        f"r.train(dataset='streets:8:96x72', output={str(tmp_path / 'cut')!r}, progress=False, **{settings!r})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 100
    while not (tmp_path / "cut" / awaited).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (tmp_path / "cut" / awaited).exists()

    resumed = RefineNet(encoder="mobilenetv2_100", device="cpu")
    result = resumed.train(resume=tmp_path / "cut", progress=False)
    assert result.epochs == 3
    assert all(torch.equal(a, weights(resumed)[name]) for name, a in weights(whole).items())
    assert len((tmp_path / "cut" / "log.csv").read_text().splitlines()) == 4


def test_a_run_whose_dataset_has_changed_is_not_taken_up(drawn_folder: Path, tmp_path: Path) -> None:
    small_network().train(dataset=drawn_folder, output=tmp_path / "run", progress=False, **{**SMALL, "epochs": 1})
    (drawn_folder / "classes.yaml").write_text("names: [sky, other, road]\n")
    with pytest.raises(ValueError, match=r"has changed.*other, sky, road.*sky, other, road"):
        small_network().train(resume=tmp_path / "run", progress=False)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_mask_that_cannot_be_used_is_named(workers: int, drawn_folder: Path, tmp_path: Path) -> None:
    mask = drawn_folder / "masks" / "3.png"
    labels = np.asarray(Image.open(mask)).copy()
    labels[5, 7] = 9
    Image.fromarray(labels).save(mask)
    settings = {**SMALL, "workers": workers, "class_weights": "none"}
    with pytest.raises(ValueError, match=r"(?s)cannot be trained on as it is.*ids-outside: 1 \(masks/3\.png\)"):
        small_network().train(dataset=drawn_folder, output=tmp_path / "run", progress=False, **settings)
    assert not (tmp_path / "run").exists()
    settings["check"] = False
    with pytest.raises(ValueError, match=r"^\S*masks/3\.png: the mask has the id 9 at row 5, column 7") as caught:
        small_network().train(dataset=drawn_folder, output=tmp_path / "run", progress=False, **settings)
    assert "Traceback" not in str(caught.value)


def test_a_damaged_checkpoint_is_refused_and_kept(tmp_path: Path) -> None:
    small_network().train(dataset="streets:4:64x64", output=tmp_path, progress=False, **{**SMALL, "epochs": 1})
    checkpoint = tmp_path / "checkpoint.pt"
    damaged = checkpoint.read_bytes()[:1000]
    checkpoint.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"checkpoint\.pt is damaged"):
        RefineNet(device="cpu").train(resume=tmp_path, progress=False)
    assert checkpoint.read_bytes() == damaged


def test_a_new_network_takes_the_classes_of_a_folder(drawn_folder: Path, tmp_path: Path) -> None:
    r = small_network()
    r.train(dataset=drawn_folder, output=tmp_path / "run", progress=False, **{**SMALL, "epochs": 1})
    assert r.label_set.names == ("other", "sky", "road")
    assert r.network(torch.zeros(1, 3, 8, 8)).shape == (1, 3, 8, 8)


def test_a_trained_network_keeps_the_classes_that_it_knows_by_name(tmp_path: Path) -> None:
    """A learning rate of nearly nothing shows what the classifier starts from."""
    first = small_network()
    first.train(dataset="streets:4:64x64", output=tmp_path / "a", progress=False, **{**SMALL, "epochs": 1})
    root = tmp_path / "two"
    write_two_class_folder(root)
    second = RefineNet(model=tmp_path / "a" / "best.safetensors", device="cpu")
    rate = {"learning_rate": 1e-9, "weight_decay": 0.0}
    second.train(dataset=root, output=tmp_path / "b", progress=False, **{**SMALL, "epochs": 1, **rate})
    assert second.label_set.names == ("kerb", "Road")
    torch.testing.assert_close(
        second.network.classifier.weight[1], first.network.classifier.weight[3], rtol=0, atol=1e-6
    )


def write_two_class_folder(root: Path) -> None:
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for number in range(4):
        Image.fromarray(np.full((64, 64, 3), 40 * number, np.uint8)).save(root / "images" / f"{number}.png")
        Image.fromarray(np.arange(64, dtype=np.uint8)[None].repeat(64, 0) // 32).save(root / "masks" / f"{number}.png")
    (root / "classes.yaml").write_text("names: [kerb, Road]\n")


def test_several_datasets_are_trained_on_together(tmp_path: Path) -> None:
    r = small_network()
    r.train(dataset=["streets:4:64x64", "streets:3:80x60"], output=tmp_path, progress=False, **{**SMALL, "epochs": 1})
    assert r.card.recipe["train_images"] == 7
    assert r.card.scores["images"] == 4


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"learning_rat": 1}, "learning_rat"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"optimiser": "adam"}, "adamw, sgd"),
        ({"crop_size": [0, 5]}, "crop_size"),
        ({"scale": [2.0, 1.0]}, "scale"),
        ({"colour_jitter": 1.0}, "colour_jitter"),
        ({"precision": "half"}, "precision"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        small_network().train(dataset="streets:4:64x64", output=tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_all_problems_of_the_settings_are_reported_together() -> None:
    with pytest.raises(ValueError, match="crop_size") as caught:
        TrainConfig(epochs=0, crop_size=(0, 1), learning_rate=math.nan, seed=-1)
    assert all(name in str(caught.value) for name in ("epochs", "learning_rate", "seed"))


def test_a_number_of_classes_that_does_not_match_is_refused() -> None:
    with pytest.raises(ValueError, match=r"num_classes=5.*has 11"):
        small_network(num_classes=5).train(dataset="streets:4:64x64")


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="already holds a run"):
        small_network().train(dataset="streets:4:64x64", output=tmp_path)


def test_divergence_stops_with_advice(tmp_path: Path) -> None:
    settings = {**SMALL, "epochs": 5, "learning_rate": 99.0, "optimiser": "sgd", "warm_up": 0.0}
    with pytest.raises(ValueError, match=r"diverged.*smaller learning_rate"):
        small_network().train(dataset="streets:8:96x72", output=tmp_path, progress=False, **settings)


def test_the_schedule_rises_then_falls_to_zero() -> None:
    config = TrainConfig(warm_up=0.1, polynomial_power=0.9)
    factors = [schedule(step, 100, config) for step in range(100)]
    assert factors[:3] == pytest.approx([1 / 11, 2 / 11, 3 / 11])
    assert factors[10] == 1.0
    assert factors[55] == pytest.approx(0.5**0.9)
    assert 0 < factors[99] < 0.02


def test_the_optimiser_has_rates_for_encoder_and_rest_and_decays_kernels_only() -> None:
    network = Network(Architecture(model_type="lightweight", encoder="mobilenetv2_100", num_classes=3))
    config = TrainConfig(learning_rate=1e-2, encoder_learning_rate=1e-3, weight_decay=0.5, optimiser="sgd")
    rates = {}
    for group in build_optimiser(network, config).param_groups:
        for parameter in group["params"]:
            rates[parameter] = (group["lr"], group["weight_decay"])
    for name, parameter in network.named_parameters():
        expected = 1e-3 if name.startswith("encoder.") else 1e-2, 0.5 if parameter.ndim == 4 else 0.0
        assert rates.pop(parameter) == expected, name
    assert not rates
