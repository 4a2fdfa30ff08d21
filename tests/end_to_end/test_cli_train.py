"""`refinenet train` with recipes, as users run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import CommandLine
from safetensors.torch import load_file

from refinenet.training.records.recipes import read_recipe, recipe_descriptions

SMALL = """
description = "A small network on drawn streets."
dataset = "streets:4:48x32"

[network]
model_type = "lightweight"
encoder = "test_resnet"

[train]
epochs = 3
batch_size = 2
crop_size = [32, 32]
workers = 0
seed = 7
loggers = []
"""


def test_recipes_are_listed_without_torch(run_refinenet: CommandLine) -> None:
    assert json.loads(run_refinenet("train", "--list-recipes", "--json").stdout) == recipe_descriptions()
    told = run_refinenet("train", "--list-recipes").stdout
    for name, description in recipe_descriptions().items():
        assert f"{name}\n    {description.split()[0]}" in told
    code = (
        "import sys\nfrom refinenet.cli import app\n"
        "app(['train', '--list-recipes'], standalone_mode=False)\nsys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_a_recipe_is_trained_by_and_the_run_is_repeated_to_the_last_bit_by_the_one_that_it_left(
    run_refinenet: CommandLine, tmp_path: Path
) -> None:
    """Options take the place of the recipe's words; the repetition is stopped in its middle and goes on."""
    (tmp_path / "my.toml").write_text(SMALL)
    options = ["--epochs", "1", "--set", "flip=false", "--set", "precision=float32", "--no-check", "--json"]
    first = run_refinenet("train", "--recipe", "my.toml", "-o", "first", *options, timeout=300)
    assert first.returncode == 0, first.stderr
    assert (json.loads(first.stdout)["epochs"], json.loads(first.stdout)["is_over"]) == (1, True)
    begun = json.loads((tmp_path / "first" / "run.json").read_text())
    assert (begun["architecture"]["encoder"], begun["source"]["dataset"]) == ("test_resnet", "streets:4:48x32")
    config = begun["config"]
    assert (config["epochs"], config["flip"], config["batch_size"], config["seed"]) == (1, False, 2, 7)
    repeat = ["--recipe", "first/recipe.toml", "-o", "second", "--stop-after", "1", "--no-check", "--json"]
    second = run_refinenet("train", *repeat, timeout=300)
    assert second.returncode == 0, second.stderr
    assert (json.loads(second.stdout)["epochs"], json.loads(second.stdout)["is_over"]) == (0, False)
    resumed = run_refinenet("train", "--resume", "second", "--json", timeout=300)
    assert resumed.returncode == 0, resumed.stderr
    weights = [load_file(tmp_path / run / "best.safetensors") for run in ("first", "second")]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    again = read_recipe(tmp_path / "second" / "recipe.toml")
    assert again.train == read_recipe(tmp_path / "first" / "recipe.toml").train


def test_settings_are_those_of_all_stages_and_the_dataset_that_of_stages_without_one(
    run_refinenet: CommandLine, drawn_folder: Path, tmp_path: Path
) -> None:
    stages = '[[stages]]\ndataset = "streets:3:48x32"\n\n[[stages]]\nlearning_rate = 0.01\n'
    (tmp_path / "my.toml").write_text(SMALL + stages)
    options = ["--epochs", "1", "-o", "out", "--no-check", "--json"]
    result = run_refinenet("train", "--recipe", "my.toml", "-d", drawn_folder, *options, timeout=300)
    assert result.returncode == 0, result.stderr
    begun = [json.loads(path.read_text()) for path in sorted((tmp_path / "out").glob("*/run.json"))]
    assert [run["config"]["epochs"] for run in begun] == [1, 1]
    assert [run["config"]["learning_rate"] for run in begun] == [0.001, 0.01]
    assert [run["source"]["dataset"] for run in begun] == ["streets:3:48x32", str(drawn_folder)]


def test_what_stages_share_need_not_do_without_them(run_refinenet: CommandLine, tmp_path: Path) -> None:
    """Rates fall after epoch 60, which the default of 50 epochs has not; the stages have."""
    shared = SMALL.replace("[train]", '[train]\nschedule = "steps"\nstep_epochs = [60]')
    assert shared != SMALL
    (tmp_path / "my.toml").write_text(shared + '[[stages]]\ndataset = "streets:3:48x32"\nepochs = 100\n')
    options = ["-o", "out", "--no-check", "--json", "--stop-after", "1"]
    result = run_refinenet("train", "--recipe", "my.toml", *options)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (
            ["--recipe", "modem"],
            1,
            "There is no recipe 'modem'. There are camvid, camvid_scratch, few_images, full_nyu",
        ),
        (["--recipe", "none.toml"], 1, "none.toml"),
        (["--recipe", "bad.toml"], 1, "bad.toml cannot be used: colour is not one of its keys"),
        (["--recipe", "modern", "--resume", "run"], 2, "--recipe"),
        (["--resume", "run", "--no-check"], 2, "--no-check"),
        (["--recipe", "modern", "--stages", "stages.yaml"], 2, "--recipe"),
        (["--recipe", "few_images", "--show-settings"], 2, "--list-recipes"),
        (["--recipe", "modern", "-d", "streets:4:48x32", "--set", "epoch=3"], 1, "epoch"),
        (["--recipe", "lightweight_voc", "--model", "camvid", "-d", "camvid"], 1, "lightweight_voc has its own"),
        (["-d", "streets:4:48x32", "--stop-after", "0"], 2, "--stop-after"),
    ],
)
def test_wrong_use_is_told_without_a_traceback(
    call_refinenet: CommandLine, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    (tmp_path / "bad.toml").write_text('description = "d"\ncolour = 1\n')
    result = call_refinenet("train", *arguments)
    assert result.returncode == code, result.stderr
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
