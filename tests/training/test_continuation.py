"""`train --continue`: a new, shorter run from the last model of another one, on a dataset that has grown."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CommandLine
from PIL import Image
from safetensors.torch import load_file
from small_runs import SETTINGS, new_network, train, write_pictures

from refinenet import RefineNet
from refinenet.evaluation import compare
from refinenet.models import load

RATE = 0.002


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A dataset, and the folder of a run of eight epochs on it."""
    root = tmp_path_factory.mktemp("first")
    mine = write_pictures(root / "mine", train=4)
    run = train(mine, root / "run", epochs=8, learning_rate=RATE, encoder_learning_rate=RATE / 2, patience=7)
    return mine, run.folder


def grow(mine: Path, target: Path, added: int) -> Path:
    """Copy a dataset, and add images to its training split."""
    if target != mine:
        shutil.copytree(mine, target)
    random = np.random.default_rng(9)
    for number in range(added):
        image = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(image).save(target / "images" / "train" / f"new-{number}.png")
        Image.fromarray(random.integers(0, 3, (40, 40), dtype=np.uint8)).save(
            target / "masks" / "train" / f"new-{number}.png"
        )
    return target


def proceed(run: Path, output: Path, dataset: Any = None, **more: Any) -> Any:
    return RefineNet(encoder="test_resnet", device="cpu").train(
        dataset, continue_from=run, output=output, progress=False, check=False, **more
    )


def test_the_new_run_starts_from_the_last_model_with_a_shorter_schedule_at_lower_rates(
    first: tuple[Path, Path], tmp_path: Path
) -> None:
    mine, run = first
    grown = grow(mine, tmp_path / "grown", 4)
    result = proceed(run, tmp_path / "new", grown)
    assert (result.is_over, result.epochs, result.folder) == (True, 2, tmp_path / "new")
    described = json.loads((tmp_path / "new" / "run.json").read_text())
    config = described["config"]
    assert (config["epochs"], config["schedule"], config["patience"]) == (2, "cosine", None)
    assert np.isclose([config["learning_rate"], config["encoder_learning_rate"]], [0.3 * RATE, 0.15 * RATE]).all()
    assert (config["crop_size"], config["batch_size"]) == (SETTINGS["crop_size"], SETTINGS["batch_size"])
    assert described["fingerprints"]["train"]["images"] == 8
    start, last = load_file(tmp_path / "new" / "start.safetensors"), load_file(run / "last.safetensors")
    assert all(torch.equal(start[name], last[name]) for name in last)
    assert described["recipe"]["started_from"]["weights_sha256"] == load(run / "last.safetensors")[1].weights_sha256
    # Nothing of the old run was changed: it still resumes, and says that there is nothing to do.
    assert json.loads((run / "run.json").read_text())["config"]["epochs"] == 8


def test_both_models_are_compared_on_the_validation_split(first: tuple[Path, Path], tmp_path: Path) -> None:
    mine, run = first
    result = proceed(run, tmp_path / "new", grow(mine, tmp_path / "grown", 2), epochs=1)
    found = json.loads((tmp_path / "new" / "comparison.json").read_text())
    assert result.comparison.to_dict() == found
    assert found["images"] == 2
    evaluations = []
    for name, model in (("before", run / "last.safetensors"), ("after", tmp_path / "new" / "last.safetensors")):
        target = tmp_path / f"{name}.json"
        RefineNet(model=model, device="cpu", backend="pytorch").eval(
            mine, output_file=target, progress=False, check=False
        )
        evaluations.append(target)
    expected = compare(*evaluations).to_dict()
    assert found["miou"] == expected["miou"]
    assert found["class_iou"] == expected["class_iou"]


def test_images_of_the_old_run_that_the_new_dataset_lacks_are_mixed_in(
    first: tuple[Path, Path], tmp_path: Path, call_refinenet: CommandLine
) -> None:
    mine, run = first
    others = grow(mine, tmp_path / "others", 5)
    for kind in ("images", "masks"):
        for number in (0, 1, 2):
            (others / kind / "train" / f"{number}.png").unlink()
    words = ["train", "--continue", run, "--dataset", others, "-o", "new", "--epochs", "1", "--no-check"]
    result = call_refinenet(*words, "--device", "cpu")
    assert result.returncode == 0, result.stderr
    assert "lacks 3 of the 4 images of the old run" in result.stderr
    described = json.loads((tmp_path / "new" / "run.json").read_text())
    assert described["source"]["dataset"] == [str(others), str(mine)]
    assert described["fingerprints"]["train"]["images"] == 6 + 4
    assert "B - A" in result.stdout


def test_a_stopped_continuation_resumes_and_is_compared_at_its_end(first: tuple[Path, Path], tmp_path: Path) -> None:
    mine, run = first
    grown = grow(mine, tmp_path / "grown", 4)
    stopped = proceed(run, tmp_path / "new", grown, stop_after=1)
    assert not stopped.is_over
    assert stopped.comparison is None
    resumed = RefineNet(encoder="test_resnet", device="cpu").train(resume=tmp_path / "new", progress=False)
    assert resumed.is_over
    assert resumed.comparison is not None
    assert resumed.comparison.images == 2
    whole = proceed(run, tmp_path / "whole", grown)
    assert whole.comparison.to_dict()["miou"] == resumed.comparison.to_dict()["miou"]


def test_validation_images_that_the_old_run_learnt_are_reported(
    first: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    mine, run = first
    other = grow(mine, tmp_path / "other", 0)
    for kind in ("images", "masks"):
        shutil.copy(mine / kind / "train" / "1.png", other / kind / "val" / "learnt.png")
    RefineNet(encoder="test_resnet", device="cpu").train(
        other, continue_from=run, output=tmp_path / "new", check=False, epochs=1
    )
    assert "trained on 1 of the 3 validation images" in capfd.readouterr().err


@pytest.mark.parametrize(("added", "is_told"), [(0, True), (1, False)])
def test_a_dataset_that_has_not_grown_is_noted(
    first: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], *, added: int, is_told: bool
) -> None:
    mine, run = first
    for number, dataset in enumerate((grow(mine, tmp_path / "grown", added), *([None] if is_told else []))):
        new_network().train(
            dataset, continue_from=run, output=tmp_path / f"new-{number}", check=False, epochs=1, stop_after=1
        )
        noted = "the dataset has not grown: its images are those of the old run" in capsys.readouterr().err
        assert noted == is_told


@pytest.mark.parametrize("is_given", [True, False])
def test_growth_of_the_dataset_itself_is_noted(
    first: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], *, is_given: bool
) -> None:
    """As `label take --into` adds images to the dataset of the old run."""
    mine = grow(first[0], tmp_path / "mine", 0)
    run = train(mine, tmp_path / "run").folder
    grow(mine, mine, 1)
    for kind in ("images", "masks"):
        shutil.copy(mine / kind / "train" / "new-0.png", mine / kind / "val" / "new.png")
    capsys.readouterr()
    new_network().train(
        mine if is_given else None, continue_from=run, output=tmp_path / "new", check=False, epochs=1, stop_after=1
    )
    said = capsys.readouterr().err
    assert "has not grown" not in said
    assert "The training split of the old run had 4 images and has 5." in said
    assert "the old run was trained on" not in said
    assert ("may have been trained on 1 of the 3 validation images" in said) == is_given


def test_it_is_neither_resuming_nor_a_recipe(
    first: tuple[Path, Path], tmp_path: Path, call_refinenet: CommandLine
) -> None:
    run = first[1]
    for words in (["--resume", run], ["--recipe", "few_images"]):
        refused = call_refinenet("train", "--continue", run, *words)
        assert refused.returncode == 2
        assert "--resume continues an interrupted run" in " ".join(refused.stderr.replace("│", " ").split())
    assert call_refinenet("train", "--continue", run, "--model", "camvid").returncode == 2
    with pytest.raises(ValueError, match="do not combine it with resume"):
        new_network().train(continue_from=run, resume=run)
    with pytest.raises(FileNotFoundError, match="holds no training run"):
        new_network().train(continue_from=tmp_path)
