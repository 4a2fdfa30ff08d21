"""Recipes: packaged ones, custom ones, and how users override them."""

from __future__ import annotations

import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from refinenet.training.config import TrainConfig
from refinenet.training.records.recipes import (
    Recipe,
    merge,
    read_recipe,
    recipe_descriptions,
    recipe_names,
    write_recipe,
)

OF_THE_MACHINE = {"workers", "cache", "augment_on", "compile"}
NAMES = [
    "camvid",
    "camvid_scratch",
    "few_images",
    "full_nyu",
    "full_voc",
    "lightweight_nyu",
    "lightweight_voc",
    "modern",
]
WHOLE = """
description = "All that a recipe can say."
dataset = ["mine", "camvid", "/data/theirs"]
root = "where/camvid/lies"

[network]
model_type = "lightweight"
encoder = "mobilenetv2_050"
encoder_weights = "weights/encoder.safetensors"

[train]
epochs = 3
crop_size = [32, 48]
teacher = "teacher.safetensors"

[[stages]]
dataset = "streets:4:64x64"
epochs = 2

[[stages]]
dataset = "voc"
root = "voc"

[[stages]]
learning_rate = 0.01
"""


def write(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "my.toml"
    path.write_text(text, "utf-8")
    return path


def configs(recipe: Recipe) -> list[TrainConfig]:
    """Return the configuration of each training of a recipe."""
    stages: list[dict[str, Any]] = recipe.whole_stages or [dict(recipe.train)]
    settings = [{k: v for k, v in stage.items() if k not in ("dataset", "root")} for stage in stages]
    return [TrainConfig.from_dict(values) for values in settings]


def test_the_packaged_recipes_are_known_by_name_and_described() -> None:
    assert recipe_names() == NAMES
    assert list(recipe_descriptions()) == NAMES
    assert all(len(description) > 60 for description in recipe_descriptions().values())


@pytest.mark.parametrize("name", NAMES)
def test_a_packaged_recipe_can_be_trained_by(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.name == name
    assert recipe.dataset or all("dataset" in stage for stage in recipe.stages) or name in ("few_images", "modern")
    assert all(config.epochs > 1 for config in configs(recipe))


def test_modern_spells_out_all_defaults() -> None:
    settings = read_recipe("modern").train
    assert TrainConfig.from_dict(settings) == TrainConfig()
    unset = {field.name for field in fields(TrainConfig) if getattr(TrainConfig(), field.name) is None}
    assert set(settings) == {field.name for field in fields(TrainConfig)} - OF_THE_MACHINE - unset


@pytest.mark.parametrize(("name", "dataset"), [("full_nyu", "nyu"), ("full_voc", "voc_aug")])
def test_the_full_recipes_are_those_of_the_paper(name: str, dataset: str) -> None:
    recipe = read_recipe(name)
    (config,) = configs(recipe)
    assert recipe.dataset == dataset
    assert recipe.network == {"model_type": "full", "num_layers": 101, "encoder_weights": "imagenet"}
    assert (config.optimiser, config.momentum, config.weight_decay) == ("sgd", 0.9, 5e-4)
    assert (config.encoder_learning_rate, config.learning_rate) == (5e-5, 5e-4)
    assert (config.schedule, config.step_factor, config.warm_up) == ("steps", 0.1, 0)
    assert (config.batch_size, config.batch_norm, config.precision) == (1, "frozen_statistics", "float32")
    assert (config.crop_size, config.scale, config.class_crops, config.flip) == ((400, 400), (0.7, 1.3), 1, True)
    assert (config.colour_jitter, config.class_weights) == (0, "none")


@pytest.mark.parametrize(
    ("name", "epochs", "datasets"),
    [
        ("lightweight_nyu", [100, 100, 100], ["nyu", "nyu", "nyu"]),
        ("lightweight_voc", [20, 50, 200], ["coco", "sbd", "voc"]),
    ],
)
def test_the_lightweight_recipes_are_those_of_the_paper(name: str, epochs: list[int], datasets: list[str]) -> None:
    recipe = read_recipe(name)
    stages = configs(recipe)
    assert [stage["dataset"] for stage in recipe.whole_stages] == datasets
    assert [config.epochs for config in stages] == epochs
    assert [config.learning_rate for config in stages] == [5e-3, 2.5e-3, 1.25e-3]
    assert [config.encoder_learning_rate for config in stages] == [5e-4, 2.5e-4, 1.25e-4]
    for config in stages:
        assert (config.optimiser, config.momentum, config.weight_decay) == ("sgd", 0.9, 1e-5)
        assert (config.schedule, config.warm_up, config.batch_size) == ("constant", 0, 6)
        assert (config.batch_norm, config.precision) == ("frozen_statistics", "float32")
        assert (config.crop_size, config.scale, config.flip) == ((500, 500), (0.5, 2.0), True)
        assert (config.colour_jitter, config.class_weights) == (0, "none")


def test_all_that_a_file_says_is_read_and_its_paths_start_at_it(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path / "recipes", WHOLE))
    here = str(tmp_path / "recipes")
    assert recipe.name == f"{here}/my.toml"
    assert recipe.description == "All that a recipe can say."
    assert recipe.dataset == [f"{here}/mine", "camvid", "/data/theirs"]
    assert recipe.root == f"{here}/where/camvid/lies"
    assert recipe.network == {
        "model_type": "lightweight",
        "encoder": "mobilenetv2_050",
        "encoder_weights": f"{here}/weights/encoder.safetensors",
    }
    common = {"epochs": 3, "crop_size": [32, 48], "teacher": f"{here}/teacher.safetensors"}
    assert recipe.train == common
    assert recipe.whole_stages == [
        {**common, "dataset": "streets:4:64x64", "epochs": 2},
        {**common, "dataset": "voc", "root": f"{here}/voc"},
        {**common, "dataset": recipe.dataset, "root": recipe.root, "learning_rate": 0.01},
    ]


def test_names_are_not_taken_for_paths(tmp_path: Path) -> None:
    text = 'description = "d"\ndataset = "context:59"\n[network]\nencoder_weights = "imagenet"\n'
    recipe = read_recipe(write(tmp_path, text))
    assert (recipe.dataset, recipe.network) == ("context:59", {"encoder_weights": "imagenet"})
    assert read_recipe(write(tmp_path, 'description = "d"\n[network]\nmodel = "camvid"')).network == {"model": "camvid"}


@pytest.mark.parametrize("name", NAMES)
def test_a_packaged_recipe_written_and_read_again_is_the_same(name: str, tmp_path: Path) -> None:
    recipe = read_recipe(name)
    again = read_recipe(write(tmp_path, write_recipe(recipe)))
    assert replace(again, name=name, train={}, stages=()) == replace(recipe, train={}, stages=())
    assert configs(again) == configs(recipe)
    assert again.whole_stages == recipe.whole_stages


def test_what_is_written_holds_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = read_recipe(write(tmp_path / "one", WHOLE))
    again = read_recipe(write(tmp_path / "two", write_recipe(recipe)))
    assert again.whole_stages == recipe.whole_stages
    assert (again.dataset, again.root, again.network) == (recipe.dataset, recipe.root, recipe.network)
    monkeypatch.chdir(tmp_path)
    relative = replace(recipe, dataset=Path("mine"), root=None, network={"model": "a.safetensors", "encoder": None})
    again = read_recipe(write(tmp_path / "two", write_recipe(relative)))
    assert (again.dataset, again.root) == (f"{tmp_path}/mine", None)
    assert again.network == {"model": f"{tmp_path}/a.safetensors"}


def test_settings_that_toml_has_no_word_for_survive_being_written(tmp_path: Path) -> None:
    """None is left out, even if it overrides a common setting; tuples become lists; functions cannot be saved."""
    recipe = Recipe(
        name="run",
        description='Quotes " and \\ and\nlines',
        dataset=lambda split: pytest.fail("nobody opens it"),
        train={"patience": 3, "crop_size": (32, 48), "encoder_learning_rate": None, "seed": 7},
        stages=({"patience": None, "epochs": 2}, {"dataset": "camvid", "seed": 8}),
    )
    again = read_recipe(write(tmp_path, write_recipe(recipe)))
    assert (again.description, again.dataset) == (recipe.description, None)
    assert configs(merge(again, dataset="streets")) == configs(recipe)
    assert [config.patience for config in configs(merge(again, dataset="streets"))] == [None, 3]
    alone = replace(recipe, stages=(), dataset=["camvid", lambda split: pytest.fail("nobody opens it")])
    again = read_recipe(write(tmp_path, write_recipe(alone)))
    assert (configs(again), again.dataset) == (configs(alone), None)


def test_settings_of_a_user_take_the_place_of_the_recipe_s_in_every_stage() -> None:
    merged = merge(read_recipe("lightweight_nyu"), train={"epochs": 1, "seed": 7}, dataset="mine", root=None)
    assert [(stage["epochs"], stage["seed"], stage["dataset"]) for stage in merged.whole_stages] == [(1, 7, "mine")] * 3
    assert [config.learning_rate for config in configs(merged)] == [5e-3, 2.5e-3, 1.25e-3]
    assert merge(merged) == merged
    shortened = merge(read_recipe("lightweight_voc"), train={"epochs": 1})  # there each stage has epochs of its own
    assert [config.epochs for config in configs(shortened)] == [1, 1, 1]


def test_a_dataset_of_a_user_takes_the_place_of_the_recipe_s_and_its_root() -> None:
    recipe = Recipe(name="r", description="d", dataset="camvid", root="/data/camvid")
    assert (merge(recipe).dataset, merge(recipe).root) == ("camvid", "/data/camvid")
    assert (merge(recipe, dataset="mine").dataset, merge(recipe, dataset="mine").root) == ("mine", None)
    assert (merge(recipe, root="/other").dataset, merge(recipe, root="/other").root) == ("camvid", "/other")
    scratch = merge(read_recipe("camvid_scratch"), dataset="mine", root="/data")
    assert [stage["dataset"] for stage in scratch.whole_stages] == ["streets:2000", "mine"]
    assert [stage.get("root") for stage in scratch.whole_stages] == [None, "/data"]


@pytest.mark.parametrize("data", [{"dataset": "mine"}, {"root": "/data"}])
def test_a_dataset_is_refused_where_each_stage_has_its_own(data: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Each stage of the recipe lightweight_voc has its own dataset"):
        merge(read_recipe("lightweight_voc"), **data)


def test_a_stage_without_a_dataset_is_told() -> None:
    recipe = Recipe(name="r", description="d", stages=({"dataset": "camvid"}, {"epochs": 3}))
    with pytest.raises(ValueError, match="Stage 2 of the recipe r has no dataset"):
        _ = recipe.whole_stages


@pytest.mark.parametrize(
    ("asked", "network"),
    [
        ({"encoder": "mobilenetv2_050"}, {"model_type": "full", "encoder": "mobilenetv2_050", "encoder_weights": "w"}),
        ({"num_layers": 152}, {"model_type": "full", "num_layers": 152, "encoder_weights": "w"}),
        ({"model": "camvid", "encoder": None}, {"model": "camvid"}),
        ({"encoder_weights": "imagenet"}, {"model_type": "full", "num_layers": 50, "encoder_weights": "imagenet"}),
        ({"model_type": "lightweight"}, {"model_type": "lightweight", "num_layers": 50, "encoder_weights": "w"}),
        ({}, {"model_type": "full", "num_layers": 50, "encoder_weights": "w"}),
    ],
)
def test_what_a_user_asks_of_the_network_puts_aside_what_contradicts_it(
    asked: dict[str, Any], network: dict[str, Any]
) -> None:
    written = {"model_type": "full", "num_layers": 50, "encoder_weights": "w"}
    assert merge(Recipe(name="r", description="d", network=written), network=asked).network == network
    from_model = Recipe(name="r", description="d", network={"model": "camvid"})
    assert "model" not in merge(from_model, network={"encoder": "mobilenetv2_050"}).network


NAMED = 'description = "d"\n'
BAD_RECIPES = [
    ("", "description must be a string that states the purpose of the recipe, not None"),
    ("description = 3", "not 3"),
    ('description = " "', "description must be a string"),
    (
        NAMED + "colour = 1",
        "colour is not one of its keys, which are description, dataset, root, network, train, stages",
    ),
    (NAMED + "dataset = 3", "dataset must be a name, a folder, or a list of these, not 3"),
    (NAMED + "dataset = []", "dataset must be a name, a folder, or a list of these, not "),
    (NAMED + 'dataset = ["camvid", 3]', "dataset must be a name, a folder, or a list of these, not "),
    (NAMED + "root = 3", "root must be a folder, not 3"),
    (NAMED + "network = 3", r"network must be written as \[network\], not as 3"),
    (NAMED + "[[network]]\nencoder = 3", r"network must be written as \[network\], not as \["),
    (NAMED + "[network]\ncolour = 1", r"\[network\] may have the keys model_type, num_layers, .* not colour"),
    (NAMED + '[network]\nmodel_type = "heavy"', "model_type must be one of full, lightweight, not 'heavy'"),
    (NAMED + "[network]\nnum_layers = 34", "num_layers must be one of 50, 101, 152, not 34"),
    (NAMED + "[network]\nnum_layers = [50]", "num_layers must be one of 50, 101, 152, not "),
    (NAMED + "[network]\nencoder = 3", "encoder must be a string, not 3"),
    (NAMED + '[network]\nencoder = "a"\nnum_layers = 50', "encoder cannot be combined with num_layers"),
    (NAMED + '[network]\nmodel = "a"\nencoder_weights = "b"', "model cannot be combined with encoder_weights"),
    (
        NAMED + "[train]\nepoch = 3",
        r"\[train\]: Unknown training settings: epoch\. Did you mean epochs\? `refinenet train --show-settings` lists",
    ),
    (NAMED + '[train]\nepochs = "three"', r"\[train\]: epochs must be a whole number of at least 1, not 'three'"),
    (NAMED + '[train]\ndataset = "camvid"', r"\[train\]: Unknown training settings: dataset"),
    (NAMED + "[train]\nteacher = 3", r"\[train\]: teacher must be .* not 3"),
    (NAMED + "[train]\nlearning_rate = nan", r"\[train\]: learning_rate .* not nan"),
    (NAMED + "[train]\nseed = 2026-01-01", r"\[train\]: seed must be a whole number"),
    (NAMED + "train = [1]", r"train must be written as \[train\], not as \[1\]"),
    (NAMED + "[stages]\nepochs = 3", r"stages must be written as \[\[stages\]\], not as {'epochs': 3}"),
    (NAMED + "stages = [3]", r"stage 1 must be written as \[\[stages\]\], not as 3"),
    (NAMED + "[[stages]]\nepochs = 0", "stage 1: epochs must be a whole number of at least 1, not 0"),
    (NAMED + "[[stages]]\n[[stages]]\ndataset = 3", "in stage 2, dataset must be a name"),
    (NAMED + "[[stages]]\nroot = 3", "in stage 1, root must be a folder, not 3"),
    (NAMED + "[[stages]]\nnetwork = 3", "stage 1: Unknown training settings: network"),
    (NAMED + "[[stages]]\nlearning_rate = -1\n[train]\nlearning_rate = 1", "stage 1: learning_rate must be a number"),
    ("description", "is not a TOML file"),
    (NAMED + NAMED, "is not a TOML file"),
    ("description = " + "[" * 100_000, "is not a TOML file"),
    (NAMED + "#" * (1 << 20), "larger than 1,048,576 bytes"),
]


@pytest.mark.parametrize(("text", "words"), BAD_RECIPES)
def test_a_bad_recipe_is_refused_with_its_file_key_and_value(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"(?s)my.toml.*{words}"):
        read_recipe(write(tmp_path, text))


def test_all_problems_of_a_file_are_told_together(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"colour.*description.*num_layers"):
        read_recipe(write(tmp_path, "colour = 1\n[network]\nnum_layers = 3"))


def test_a_file_that_is_no_text_or_not_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_bytes(b"description = '\xff'")
    with pytest.raises(ValueError, match=r"my.toml is not a TOML file"):
        read_recipe(tmp_path / "my.toml")
    with pytest.raises(FileNotFoundError, match=r"Cannot read the recipe .*none.toml"):
        read_recipe(tmp_path / "none.toml")
    with pytest.raises(IsADirectoryError, match="Cannot read the recipe"):
        read_recipe(tmp_path)
    with pytest.raises(ValueError, match=f"There is no recipe 'modem'. There are {', '.join(NAMES)}"):
        read_recipe("modem")


def test_what_is_written_holds_a_stage_s_own_settings_only() -> None:
    written = tomllib.loads(write_recipe(merge(read_recipe("lightweight_nyu"), dataset="voc", root="/data")))
    assert set(written) == {"description", "dataset", "root", "network", "train", "stages"}
    assert written["stages"][1] == {"learning_rate": 0.0025, "encoder_learning_rate": 0.00025}
