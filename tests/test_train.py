"""Training: what it leaves, what it refuses, and that nothing is lost when it is stopped."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from refinenet import RefineNet
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
    assert torch.__version__.startswith(described["packages"]["torch"])
    left = {path.relative_to(tmp_path / "run").as_posix() for path in (tmp_path / "run").rglob("*")}
    shown = {"curves.png", "last.safetensors", "recipe.toml", "samples/epoch-001.png", "samples/epoch-002.png"}
    assert shown <= left
    assert any(name.startswith("tensorboard/events") for name in left)


def test_training_learns(tmp_path: Path) -> None:
    """On eight pictures the loss of a few epochs falls well below that of chance over eleven classes."""
    r = small_network()
    settings = {**SMALL, "epochs": 8, "scale": [1.0, 1.0], "colour_jitter": 0.0, "dice_weight": 0.0, "class_crops": 0.0}
    r.train(dataset="streets:8:96x72", output=tmp_path / "run", progress=False, **settings)
    losses = [float(row["loss"]) for row in csv.DictReader((tmp_path / "run" / "log.csv").open())]
    assert losses[-1] < 0.6 * losses[0]
    assert losses[-1] < np.log(11) * 0.75


def test_a_run_can_be_repeated_from_the_recipe_that_it_leaves(tmp_path: Path) -> None:
    first = small_network()
    first.train(dataset="streets:4:64x64", output=tmp_path / "a", progress=False, **{**SMALL, "epochs": 1})
    again = small_network()
    again.train(recipe=tmp_path / "a" / "recipe.toml", output=tmp_path / "b", progress=False)
    assert all(torch.equal(a, weights(again)[name]) for name, a in weights(first).items())


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


def test_early_stopping_ends_a_run_that_gets_no_better(tmp_path: Path) -> None:
    settings = {**SMALL, "epochs": 9, "patience": 2, "learning_rate": 1e-12, "batch_norm": "frozen"}
    result = small_network().train(dataset="streets:4:64x64", output=tmp_path, progress=False, **settings)
    assert (result.epochs, result.is_over) == (3, True)
    assert small_network().train(resume=tmp_path, progress=False).epochs == 3


def test_the_average_of_the_weights_is_what_is_measured_and_kept(tmp_path: Path) -> None:
    """With a decay of almost 1 and no warm-up left, hardly anything of the last steps is in the average."""
    r = small_network()
    r.train(dataset="streets:8:64x64", output=tmp_path, progress=False, **SMALL, ema_decay=0.9)
    checkpoint = max((tmp_path / "checkpoints").glob("step-*"))
    average, trained = (load_file(checkpoint / f"{name}.safetensors") for name in ("average", "weights"))
    last = RefineNet(model=tmp_path / "last.safetensors", device="cpu")
    assert all(torch.equal(tensor, weights(last)[name]) for name, tensor in average.items())
    assert not torch.equal(average["classifier.weight"], trained["classifier.weight"])


def test_a_teacher_of_other_classes_is_refused(drawn_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="11 classes apart"):
        small_network().train(dataset=drawn_folder, output=tmp_path / "run", progress=False, **SMALL, teacher="camvid")


def test_a_student_is_drawn_to_its_teacher(tmp_path: Path) -> None:
    """Taught by nothing else, a network comes nearer to the teacher's probabilities."""
    settings = {**SMALL, "epochs": 8, "scale": [1.0, 1.0], "flip": False, "colour_jitter": 0.0, "class_crops": 0.0}
    settings |= {"cross_entropy_weight": 0.0, "dice_weight": 0.0, "teacher": "camvid", "teacher_weight": 1.0}
    small_network().train(dataset="streets:4:64x64", output=tmp_path, progress=False, **settings)
    divergences = [float(row["loss"]) for row in csv.DictReader((tmp_path / "log.csv").open())]
    assert 0 < divergences[-1] < 0.75 * divergences[0]


def test_deep_supervision_trains_and_leaves_an_ordinary_model(tmp_path: Path) -> None:
    r = small_network()
    r.train(dataset="streets:4:64x64", output=tmp_path, progress=False, **SMALL, deep_supervision=0.4)
    saved = RefineNet(model=tmp_path / "best.safetensors", device="cpu")
    assert set(weights(saved)) == set(weights(small_network()))


def test_a_learning_rate_and_a_batch_size_are_found(tmp_path: Path) -> None:
    settings = {**SMALL, "epochs": 1, "learning_rate": "auto", "batch_size": "auto"}
    small_network().train(dataset="streets:8:64x64", output=tmp_path, progress=False, **settings)
    config = json.loads((tmp_path / "run.json").read_text())["config"]
    assert 1e-6 < config["learning_rate"] < 1
    assert config["batch_size"] == 8


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
