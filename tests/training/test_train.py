"""Training: its results, its errors, and that nothing is lost when it is stopped."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_parts import SMALL_DECODER
from PIL import Image
from safetensors.torch import load_file
from small_runs import settled_network

from refinenet import RefineNet
from refinenet.datasets.catalog import open_dataset
from refinenet.datasets.street_scenes import draw_street
from refinenet.training import run
from refinenet.training.config import TrainConfig
from refinenet.training.engine import auto_settings
from refinenet.training.records.recipes import read_recipe

SMALL: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 4,
    "crop_size": [32, 32],
    "workers": 0,
    "precision": "float32",
    "warm_up": 0.1,
    "loggers": [],
    "check": False,
}


def small_network(num_classes: int | None = None) -> RefineNet:
    """An untrained network that trains in seconds; the same each time."""
    return RefineNet(encoder="test_resnet", decoder=SMALL_DECODER, device="cpu", num_classes=num_classes, seed=0)


def weights(r: RefineNet) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in r.network.state_dict().items()}


def test_a_run_leaves_recipe_log_checkpoint_and_the_best_model(tmp_path: Path) -> None:
    r = small_network()
    settings = {**SMALL, "loggers": ["tensorboard"], "check": True}
    result = r.train(dataset="streets:8:48x32", output=tmp_path / "run", progress=False, **settings)
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
    assert described["source"] == {"dataset": "streets:8:48x32", "root": None}
    assert torch.__version__.startswith(described["packages"]["torch"])
    left = {path.relative_to(tmp_path / "run").as_posix() for path in (tmp_path / "run").rglob("*")}
    shown = {"curves.png", "last.safetensors", "recipe.toml", "samples/epoch-001.png", "samples/epoch-002.png"}
    assert shown <= left
    assert any(name.startswith("tensorboard/events") for name in left)


def test_training_learns(tmp_path: Path) -> None:
    """On a few pictures the loss of a few epochs falls well below that of chance over eleven classes."""
    r = RefineNet(encoder="test_resnet", device="cpu", seed=0)
    settings = {**SMALL, "epochs": 6, "scale": [1.0, 1.0], "colour_jitter": 0.0, "dice_weight": 0.0, "class_crops": 0.0}
    settings |= {"learning_rate": 0.003, "validate_every": 6}
    r.train(dataset="streets:8:48x32", output=tmp_path / "run", progress=False, **settings)
    losses = [float(row["loss"]) for row in csv.DictReader((tmp_path / "run" / "log.csv").open())]
    assert losses[-1] < 0.6 * losses[0]
    assert losses[-1] < np.log(11) * 0.75


def test_a_run_can_be_repeated_from_the_recipe_that_it_leaves(tmp_path: Path) -> None:
    first = small_network()
    first.train(dataset="streets:4:48x32", output=tmp_path / "a", progress=False, **{**SMALL, "epochs": 1})
    again = small_network()
    again.train(recipe=tmp_path / "a" / "recipe.toml", output=tmp_path / "b", progress=False)
    assert all(torch.equal(a, weights(again)[name]) for name, a in weights(first).items())


def test_a_run_whose_dataset_has_changed_is_not_taken_up(drawn_folder: Path, tmp_path: Path) -> None:
    small_network().train(dataset=drawn_folder, output=tmp_path / "run", progress=False, stop_after=1, **SMALL)
    (drawn_folder / "classes.yaml").write_text("names: [sky, other, road]\n")
    with pytest.raises(ValueError, match=r"has changed.*other, sky, road.*sky, other, road"):
        small_network().train(resume=tmp_path / "run", progress=False)


def repaint(path: Path) -> None:
    """Other pixels in the same place."""
    with Image.open(path) as picture:
        size = picture.size
    noise = np.random.default_rng(1).integers(0, 3, size[::-1]).astype(np.uint8)
    Image.fromarray(noise).save(path)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 5 + 2 images, `data`, and a run on it that was stopped after a step, `run`."""
    place = tmp_path_factory.mktemp("begun")
    for split, seeds in (("train", range(5)), ("val", range(5, 7))):
        for kind in ("images", "masks"):
            (place / "data" / kind / split).mkdir(parents=True)
        for seed in seeds:
            image, labels = draw_street(seed, 48, 48)
            Image.fromarray(image).save(place / "data" / "images" / split / f"{seed}.png")
            ids = np.select([labels == 0, labels == 3], [1, 2], 0).astype(np.uint8)
            Image.fromarray(ids).save(place / "data" / "masks" / split / f"{seed}.png")
    (place / "data" / "classes.yaml").write_text("names: [other, sky, road]\n")
    settings = {**SMALL, "batch_size": 2}
    small_network().train(dataset=place / "data", output=place / "run", progress=False, stop_after=1, **settings)
    return place


CHANGES = [
    ("an image more", "train had 5 images and has 6"),
    ("another name", "train has 5 images as before, but different ones, or in a different order"),
    ("another picture", "train has image files whose sizes have changed"),
    ("another mask", "val has label files whose sizes have changed"),
]


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_a_run_is_not_taken_up_with_other_data(change: str, words: str, begun: Path, tmp_path: Path) -> None:
    """Put the run beside its data, at their recorded path, so that it finds them."""
    shutil.copytree(begun, tmp_path / "kept")
    images, masks = begun / "data" / "images", begun / "data" / "masks"
    try:
        if change == "an image more":
            for kind in (images, masks):
                shutil.copy(kind / "train" / "0.png", kind / "train" / "9.png")
        elif change == "another name":
            for kind in (images, masks):
                (kind / "train" / "0.png").rename(kind / "train" / "9.png")
        else:
            repaint(images / "train" / "0.png" if change == "another picture" else masks / "val" / "5.png")
        model = re.escape(str(begun / "run" / "last.safetensors"))
        with pytest.raises(ValueError, match=rf"has changed since.*: {words}\. Restore .* --model {model}\.$"):
            small_network().train(resume=begun / "run", progress=False)
    finally:
        shutil.rmtree(begun / "data")
        shutil.copytree(tmp_path / "kept" / "data", begun / "data")


def test_a_run_is_taken_up_when_its_data_have_moved_and_it_finds_them(begun: Path, tmp_path: Path) -> None:
    """Behind a link at their recorded path, or at a path edited into its description; times do not count."""
    shutil.copytree(begun / "run", tmp_path / "run")
    shutil.copytree(begun / "data", tmp_path / "elsewhere", copy_function=shutil.copyfile)
    path = tmp_path / "run" / "run.json"
    described = json.loads(path.read_text())
    described["source"]["dataset"] = str(tmp_path / "link")
    path.write_text(json.dumps(described))
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert small_network().train(resume=tmp_path / "run", progress=False).is_over


def test_drawn_streets_are_the_same_streets_when_a_run_is_taken_up(tmp_path: Path) -> None:
    settings = {**SMALL, "batch_size": 2, "epochs": 1}
    small_network().train(dataset="streets:4:48x32", output=tmp_path / "run", progress=False, stop_after=1, **settings)
    assert small_network().train(resume=tmp_path / "run", progress=False).is_over


def test_weights_and_training_follow_from_seeds_and_the_user_s_generator_stays_as_it_was(tmp_path: Path) -> None:
    settings = {**SMALL, "epochs": 1, "progress": False}

    def run(state: int, output: str) -> tuple[RefineNet, torch.Tensor]:
        torch.manual_seed(state)
        r = RefineNet(encoder="test_resnet", device="cpu")
        r.train(dataset="streets:4:48x32", output=tmp_path / output, **settings)
        return r, torch.rand(4)

    first, drawn = run(1, "a")
    second, drawn_next = run(2, "b")
    assert all(torch.equal(tensor, weights(second)[name]) for name, tensor in weights(first).items())
    for state, found in ((1, drawn), (2, drawn_next)):
        torch.manual_seed(state)
        torch.testing.assert_close(found, torch.rand(4), rtol=0, atol=0)
    assert read_recipe(tmp_path / "a" / "recipe.toml").network["seed"] == 42


def test_another_seed_makes_another_network_and_a_model_needs_none() -> None:
    ours, same, other = (weights(RefineNet(encoder="test_resnet", seed=seed)) for seed in (None, 42, 7))
    assert all(torch.equal(tensor, same[name]) for name, tensor in ours.items())
    assert not torch.equal(ours["classifier.weight"], other["classifier.weight"])
    with pytest.raises(ValueError, match="pass model or seed, not both"):
        RefineNet(model="camvid", seed=7)
    with pytest.raises(ValueError, match=r"seed must be a whole number from 0 to 2\^63 - 1, not -1"):
        RefineNet(encoder="test_resnet", seed=-1)


def test_smaller_batches_than_asked_for_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {**SMALL, "batch_size": 8, "stop_after": 1}
    small_network().train(dataset="streets:5:48x32", output=tmp_path / "a", **settings)
    assert "Batches have 5 instead of 8 images: the 5 training images" in capsys.readouterr().err
    small_network().train(dataset="streets:5:48x32", output=tmp_path / "b", **settings, accumulation=2)
    assert "Batches have 4 instead of 8 images: the 5 training images" in capsys.readouterr().err
    small_network().train(dataset="streets:8:48x32", output=tmp_path / "c", **settings)
    assert "Batches have" not in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["frozen", "frozen_statistics"])
def test_statistics_that_were_never_learned_are_not_frozen(mode: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f'batch_norm="{mode}" keeps .*--encoder-weights imagenet'):
        small_network().train(
            dataset="streets:4:64x64", output=tmp_path / "run", progress=False, **{**SMALL, "batch_norm": mode}
        )
    assert not (tmp_path / "run").exists()


def test_a_folder_of_one_image_is_told_what_is_needed(drawn_folder: Path, tmp_path: Path) -> None:
    for path in [*drawn_folder.glob("images/*"), *drawn_folder.glob("masks/*")]:
        if path.stem != "0":
            path.unlink()
    assert len(list(drawn_folder.glob("images/*"))) == 1
    checked = r"The only image is used\s+for val: training\s+needs\s+at\s+least\s+two images"
    unchecked = "one image, which is used for validation: training needs two or more"
    for check, message in ((True, checked), (False, unchecked)):
        with pytest.raises(ValueError, match=message):
            small_network().train(dataset=drawn_folder, output=tmp_path / "run", progress=False, check=check)
    assert not (tmp_path / "run").exists()


def test_a_single_image_trains_unless_batch_norm_sees_one_value_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {**SMALL, "epochs": 1}
    with pytest.raises(ValueError, match=r"cropped to 32x32 pixels.* crop_size above 32, or two or more images"):
        small_network().train(dataset="streets:1:48x48", output=tmp_path / "a", **{**settings, "crop_size": [32, 32]})
    assert not (tmp_path / "a").exists()
    capsys.readouterr()
    result = small_network().train(
        dataset="streets:1:48x48", output=tmp_path / "b", **{**settings, "crop_size": [32, 33]}
    )
    assert (result.is_over, result.epochs) == (True, 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_mask_that_cannot_be_used_is_named(workers: int, drawn_folder: Path, tmp_path: Path) -> None:
    mask = drawn_folder / "masks" / "3.png"
    labels = np.asarray(Image.open(mask)).copy()
    labels[5, 7] = 9
    Image.fromarray(labels).save(mask)
    settings = {**SMALL, "workers": workers, "class_weights": "none", "check": True}
    with pytest.raises(ValueError, match=r"(?s)cannot be trained on as it is.*ids-outside\]: 1 \(masks/3\.png\)"):
        small_network().train(dataset=drawn_folder, output=tmp_path / "run", progress=False, **settings)
    assert not (tmp_path / "run").exists()
    settings["check"] = False
    with pytest.raises(ValueError, match=r"^\S*masks/3\.png: the mask has the id 9 at row 5, column 7") as caught:
        small_network().train(dataset=drawn_folder, output=tmp_path / "run", progress=False, **settings)
    assert "Traceback" not in str(caught.value)


def test_early_stopping_ends_a_run_that_gets_no_better(drawn_folder: Path, tmp_path: Path) -> None:
    settings = {**SMALL, "epochs": 9, "patience": 2, "learning_rate": 1e-12, "batch_norm": "frozen"}
    result = settled_network().train(dataset=drawn_folder, output=tmp_path / "run", progress=False, **settings)
    assert (result.epochs, result.is_over) == (3, True)
    assert small_network().train(resume=tmp_path / "run", progress=False).epochs == 3


def test_the_average_of_the_weights_is_what_is_measured_and_kept(tmp_path: Path) -> None:
    """With a decay of almost 1 and no warm-up left, the last steps hardly change the average."""
    r = small_network()
    r.train(dataset="streets:8:48x32", output=tmp_path, progress=False, **SMALL, ema_decay=0.9)
    checkpoint = max((tmp_path / "checkpoints").glob("step-*"))
    average, trained = (load_file(checkpoint / f"{name}.safetensors") for name in ("average", "weights"))
    last = RefineNet(model=tmp_path / "last.safetensors", device="cpu")
    assert all(torch.equal(tensor, weights(last)[name]) for name, tensor in average.items())
    assert not torch.equal(average["classifier.weight"], trained["classifier.weight"])


def test_deep_supervision_trains_and_leaves_an_ordinary_model(tmp_path: Path) -> None:
    r = small_network()
    settings = {**SMALL, "epochs": 1, "deep_supervision": 0.4}
    r.train(dataset="streets:4:48x32", output=tmp_path, progress=False, **settings)
    saved = RefineNet(model=tmp_path / "best.safetensors", device="cpu")
    assert set(weights(saved)) == set(weights(small_network()))


def test_a_learning_rate_and_a_batch_size_are_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto_settings, "TRIAL_STEPS", 30)
    settings = {**SMALL, "learning_rate": "auto", "batch_size": "auto"}
    small_network().train(dataset="streets:8:48x32", output=tmp_path, stop_after=1, **settings)
    assert "use each of the 8 images up to 30 times" in capsys.readouterr().err
    config = json.loads((tmp_path / "run.json").read_text())["config"]
    assert 1e-6 < config["learning_rate"] < 1
    assert config["batch_size"] == 8


def test_a_new_network_takes_the_classes_of_a_folder(drawn_folder: Path, tmp_path: Path) -> None:
    r = small_network()
    r.train(dataset=drawn_folder, output=tmp_path / "run", progress=False, stop_after=1, **SMALL)
    assert r.label_set.names == ("other", "sky", "road")
    assert r.network(torch.zeros(1, 3, 8, 8)).shape == (1, 3, 8, 8)


def test_a_trained_network_keeps_the_classes_that_it_knows_by_name(tmp_path: Path) -> None:
    """A learning rate near 0 shows the classifier's initial weights."""
    first = small_network()
    first.train(dataset="streets:4:48x32", output=tmp_path / "a", progress=False, stop_after=1, **SMALL)
    root = tmp_path / "two"
    write_two_class_folder(root)
    second = RefineNet(model=tmp_path / "a" / "last.safetensors", device="cpu")
    rate: dict[str, Any] = {"learning_rate": 1e-9, "weight_decay": 0.0}
    second.train(dataset=root, output=tmp_path / "b", progress=False, stop_after=1, **SMALL, **rate)
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
    r.train(dataset=["streets:4:48x32", "streets:3:40x48"], output=tmp_path, progress=False, **{**SMALL, "epochs": 1})
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
        ({"seed": 2**70}, r"seed must be a whole number from 0 to 2\^63 - 1"),
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


def test_a_run_on_a_function_is_not_told_to_be_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = small_network().train(open_dataset("streets:4:48x32"), output=tmp_path / "run", stop_after=1, **SMALL)
    assert not result.is_over
    said = capsys.readouterr().err
    assert f"The run in {tmp_path / 'run'} cannot be resumed, because its dataset is a function; " in said
    assert "--resume" not in said


def test_a_model_that_was_changed_by_hand_is_no_new_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    r = RefineNet(model="camvid", device="cpu")
    r.network.double().float()  # which changes no value
    assert r.card.scores
    with torch.no_grad():
        next(r.network.parameters()).add_(0.01)
    r.train("streets:4:48x32", output=tmp_path / "run", stop_after=1, **SMALL)
    assert (
        "The new model starts from the weights of another one and falls under its licence (Non-comm"
        in capsys.readouterr().err
    )
    noted = RefineNet(model=tmp_path / "run" / "last.safetensors", device="cpu").card
    assert noted.recipe["started_from"]["dataset"] == "camvid + streets"
    assert "Non-commercial" in noted.licence


def test_classes_that_a_count_of_some_images_has_not_met_weigh_most(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "FREQUENCY_SAMPLES", 2)
    settings = {**SMALL, "class_weights": "median"}
    small_network().train("streets:4:24x24", output=tmp_path / "run", stop_after=1, **settings)
    said = capsys.readouterr().err
    assert "of 4 images 2 were counted for class_weights, and none has " in said
    assert "they get the largest weight" in said


def test_divergence_stops_with_advice(tmp_path: Path) -> None:
    settings = {**SMALL, "epochs": 5, "learning_rate": 99.0, "optimiser": "sgd", "warm_up": 0.0}
    with pytest.raises(ValueError, match=r"diverged.*smaller learning_rate"):
        small_network().train(dataset="streets:8:48x32", output=tmp_path, progress=False, **settings)
