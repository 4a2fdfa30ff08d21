"""Search for label errors: found where they were planted, by models that never saw the images."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CommandLine
from model_parts import SMALL_DECODER
from PIL import Image
from planted_labels import SKY, write_streets
from safetensors.torch import load_file
from small_runs import SETTINGS, train, write_pictures

from refinenet import RefineNet
from refinenet.labelling import Folds, find_label_errors
from refinenet.labelling.errors.fold_models import deal_folds, train_fold
from refinenet.labelling.labelled_images import open_labelled

SMALL = {"encoder": "test_resnet", "decoder": SMALL_DECODER}


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.fixture
def streets(tmp_path: Path, camvid_model: RefineNet) -> Path:
    """A folder of six streets, labelled as the bundled model sees them, but for a car in the sky of the third."""
    return write_streets(tmp_path / "mine", camvid_model, [(slice(0, 14), slice(40, 60))])


def test_the_planted_error_is_the_first_suspect_in_all_files(streets: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = find_label_errors(streets, out, models=["camvid"], device="cpu", progress=False)
    assert (found.judged, found.left_out) == (6, 0)
    with (out / "suspects.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows == [
        {key: str(value) for key, value in row.items()}
        for row in json.loads((out / "suspects.json").read_text())["suspects"]
    ]
    first = rows[0]
    assert (first["image"], first["label"], first["prediction"]) == ("3", "Car", "Sky")
    assert abs(int(first["left"]) - 40) <= 1
    assert abs(int(first["right"]) - 60) <= 1
    assert abs(int(first["bottom"]) - 14) <= 1
    region = read(out / first["region"]) == int(first["number"])
    before, after = read(streets / "masks" / "3.png"), read(out / "proposals" / first["split"] / "3.png")
    assert region.sum() == int(first["pixels"])
    assert np.array_equal(region, before != after)
    assert set(after[region].tolist()) == {SKY}
    page = (out / "suspects.html").read_text()
    assert page.count("<article") == len(rows)
    assert "Car or" in re.sub(r"<[^>]*>", "", page)
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)  # no request leaves the page


def test_a_search_goes_on_where_it_was_and_judges_changed_labels_again(
    streets: Path, tmp_path: Path, camvid_model: RefineNet
) -> None:
    out = tmp_path / "out"
    find_label_errors(streets, out, models=["camvid"], device="cpu", progress=False)
    whole = (out / "suspects.csv").read_bytes()
    lines = (out / "judged.jsonl").read_bytes().splitlines(keepends=True)
    # As a kill leaves it: a few whole lines, and half of one.
    (out / "judged.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:20])
    find_label_errors(streets, out, models=["camvid"], device="cpu", progress=False)
    assert (out / "suspects.csv").read_bytes() == whole
    assert sorted((out / "judged.jsonl").read_bytes().splitlines()) == sorted(b"".join(lines).splitlines())
    Image.fromarray(camvid_model.segment(streets / "images" / "3.png").labels).save(streets / "masks" / "3.png")
    found = find_label_errors(streets, out, models=["camvid"], device="cpu", progress=False)
    assert not found.suspects
    with pytest.raises(ValueError, match=r"made with --split train --split val instead of --split val\. Choose"):
        find_label_errors(streets, out, models=["camvid"], splits=["val"], device="cpu", progress=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A dataset of 8 and 2 images, and the folder of a run that was trained on it."""
    root = tmp_path_factory.mktemp("trained")
    mine = write_pictures(root / "mine")
    return mine, train(mine, root / "run", epochs=1).folder


def test_a_model_judges_no_image_that_it_was_trained_on_whatever_its_name(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    """The judged dataset is a copy whose images have other names and are in other splits."""
    mine, run = trained
    other = write_pictures(tmp_path / "other", train=3, val=0, label=1)
    shutil.copy(mine / "images" / "train" / "5.png", other / "images" / "train" / "1.png")
    shutil.copy(mine / "images" / "val" / "0.png", other / "images" / "train" / "2.png")
    Image.fromarray(read(other / "images" / "train" / "0.png")[::-1]).save(other / "images" / "train" / "0.png")
    found = find_label_errors(other, tmp_path / "out", models=[run], splits=["train"], device="cpu", progress=False)
    assert (found.judged, found.left_out) == (2, 1)
    judged = [json.loads(line)["name"] for line in (tmp_path / "out" / "judged.jsonl").read_text().splitlines()]
    assert judged == ["train/0", "train/2"]
    assert "1 images were not checked" in found.describe()


def test_a_model_that_was_trained_on_all_images_is_refused(trained: tuple[Path, Path], tmp_path: Path) -> None:
    mine, run = trained
    with pytest.raises(ValueError, match=r"trained on all 8 images.*--folds 5"):
        find_label_errors(mine, tmp_path / "out", models=[run], splits=["train"], device="cpu", progress=False)


def test_a_model_that_may_have_seen_the_images_is_refused_unless_its_owner_vouches_for_it(
    trained: tuple[Path, Path], tmp_path: Path, call_refinenet: CommandLine
) -> None:
    mine, run = trained
    moved = tmp_path / "moved.safetensors"
    shutil.copy(run / "best.safetensors", moved)
    refused = call_refinenet("label", "errors", mine, "-m", moved, "-o", "out", "--device", "cpu")
    assert refused.returncode == 1
    assert "a dataset of the name mine" in refused.stderr
    assert "--unseen" in refused.stderr
    assert not (tmp_path / "out").exists()
    taken = call_refinenet("label", "errors", mine, "-m", moved, "-o", "out", "--device", "cpu", "--unseen")
    assert taken.returncode == 0, taken.stderr
    assert "Warning" in taken.stderr
    assert "in 10 images" in taken.stdout


def test_a_run_whose_dataset_has_changed_since_is_refused(trained: tuple[Path, Path], tmp_path: Path) -> None:
    """Nobody can tell any more which images it learnt from."""
    mine = shutil.copytree(trained[0], tmp_path / "mine")
    run = train(mine, tmp_path / "run", epochs=1).folder
    (mine / "images" / "train" / "7.png").unlink()
    (mine / "masks" / "train" / "7.png").unlink()
    with pytest.raises(ValueError, match="has changed since: train had 8 images and has 7"):
        find_label_errors(mine, tmp_path / "out", models=[run], device="cpu", progress=False)


def test_folds_are_trained_once_and_judge_each_image_by_a_model_of_the_others(tmp_path: Path) -> None:
    mine, out = write_pictures(tmp_path / "mine", train=7, val=3), tmp_path / "out"
    folds = Folds(count=2, network=SMALL, settings={**SETTINGS, "epochs": 1, "batch_size": 2}, group="(.)")
    found = find_label_errors(mine, out, folds=folds, device="cpu", progress=False)
    assert (found.judged, found.left_out) == (10, 0)
    models = [out / f"fold-{number}" / "last.safetensors" for number in (1, 2)]
    images = [
        json.loads((out / f"fold-{n}" / "run.json").read_text())["fingerprints"]["train"]["images"] for n in (1, 2)
    ]
    assert sum(images) == 10
    times = [model.stat().st_mtime_ns for model in models]
    again = find_label_errors(mine, out, folds=folds, device="cpu", progress=False)
    assert [model.stat().st_mtime_ns for model in models] == times
    assert [each.score for each in again.suspects] == [each.score for each in found.suspects]
    # One more image deals the folds anew: the models have seen what they would judge.
    for kind in ("images", "masks"):
        shutil.copy(mine / kind / "train" / "0.png", mine / kind / "train" / "00.png")
    with pytest.raises(ValueError, match="not those that it was trained on, so it may have seen"):
        find_label_errors(mine, out, folds=folds, device="cpu", progress=False)


def test_folds_of_an_interrupted_search_are_not_mixed_with_others(tmp_path: Path) -> None:
    """The settings are written before the first fold is trained; a size is what it means, not only its name."""
    mine, out = write_pictures(tmp_path / "mine", train=7, val=3), tmp_path / "out"
    image = mine / "images" / "train" / "3.png"
    image.write_bytes(image.read_bytes()[:60])

    def search(epochs: int) -> None:
        settings = {**SETTINGS, "epochs": epochs, "batch_size": 2}
        folds = Folds(count=2, network={"size": "small"}, settings=settings, group="(.)")
        find_label_errors(mine, out, folds=folds, device="cpu", progress=False)

    with pytest.raises((ValueError, OSError), match=r"3\.png"):
        search(epochs=1)
    with pytest.raises(ValueError, match="made with --set epochs=1 instead of --set epochs=2"):
        search(epochs=2)
    described = json.loads((out / "judged.json").read_text())
    described["network"]["decoder"]["widths"] = [48, 48, 48, 48]  # as an earlier version may have built them
    (out / "judged.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match=r"with network\.decoder\.widths 48,48,48,48 instead of network\.decoder"):
        search(epochs=1)


def test_an_interrupted_fold_goes_on_and_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    mine = write_pictures(tmp_path / "mine", train=7, val=3)
    images = open_labelled(mine)
    fold = deal_folds(images, 2, "(.)")[0]
    settings = {**SETTINGS, "epochs": 2, "batch_size": 2}
    options: dict[str, Any] = {"network": SMALL, "device": "cpu", "settings": settings, "progress": False}
    whole = load_file(train_fold(images, fold, tmp_path / "whole", **options))
    # As a kill after the first epoch leaves it: without the checkpoint and the model of the second.
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    checkpoints = tmp_path / "killed" / "checkpoints"
    first, second = sorted(checkpoints.glob("step-*"))[-2:]
    shutil.rmtree(second)
    (checkpoints / "latest.json").write_text(json.dumps({"checkpoint": first.name}))
    (tmp_path / "killed" / "last.safetensors").unlink()
    resumed = load_file(train_fold(images, fold, tmp_path / "killed", **options))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_frames_of_a_video_are_in_one_fold_even_across_splits(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    for split, names in (("train", ("a_1", "a_2", "b_1", "b_2", "c_1", "c_2")), ("val", ("a_3", "d_1"))):
        for name in names:
            for kind in ("images", "masks"):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.zeros((8, 8), np.uint8)).save(root / kind / split / f"{name}.png")
    (root / "classes.yaml").write_text("names: [one, two]\n")
    images = open_labelled(root)
    folds = deal_folds(images, 3)
    named = [{images.names[index] for index in fold.images} for fold in folds]
    assert sorted(name for part in named for name in part) == sorted(images.names)
    videos = [{name.partition("/")[2][0] for name in part} for part in named]
    assert sorted(letter for part in videos for letter in part) == ["a", "b", "c", "d"]
    assert {"train/a_1", "train/a_2", "val/a_3"} in [{name for name in part if "/a" in name} for part in named]
    for fold in folds:
        assert set(fold.others) == set(range(8)) - set(fold.images)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "either models that have not seen the images"),
        (["--model", "camvid", "--folds", "2"], "either models that have not seen the images"),
        (["--model", "camvid", "--epochs", "3"], "no effect without"),
        (["--folds", "2", "--size", "small", "--start", "camvid"], "either a size or a model"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    call_refinenet: CommandLine, words: list[str], message: str
) -> None:
    refused = call_refinenet("label", "errors", "mine", *words)
    assert refused.returncode == 2
    assert message in " ".join(refused.stderr.replace("│", " ").split())
