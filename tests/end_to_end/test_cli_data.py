"""`refinenet data`, run as users run it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import matlab_miniatures
import numpy as np
import png_miniatures
import pytest
from conftest import CommandLine
from PIL import Image

from refinenet import RefineNet
from refinenet.datasets.street_scenes import draw_street


def write_binary_set(root: Path, count: int = 10) -> None:
    """Road or not, as 255 and 0, and nothing that says so."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for seed in range(count):
        image, labels = draw_street(seed, 60, 80)
        Image.fromarray(image).save(root / "images" / f"{seed}.png")
        Image.fromarray(np.where(labels == 3, 255, 0).astype(np.uint8)).save(root / "masks" / f"{seed}.png")


def test_the_list_names_every_dataset_and_what_is_here(
    call_refinenet: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    png_miniatures.write_ade20k(tmp_path / "ade")
    monkeypatch.setenv("REFINENET_ADE20K", str(tmp_path / "ade"))
    found = {row["name"]: row for row in json.loads(call_refinenet("data", "list", "--json").stdout)}
    assert (found["ade20k"]["state"], found["nyu"]["state"]) == ("there", "absent")
    assert found["voc_aug"]["images"] == {"train": 10582, "val": 1449}
    assert found["context:59"]["classes"] == 59
    told = call_refinenet("data", "list").stdout
    for name, row in found.items():
        assert all(str(row[key]) in told for key in ("title", "size", "licence", "page", "root")), name


def test_info_counts_and_draws(call_refinenet: CommandLine, drawn_folder: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    result = call_refinenet("data", "info", str(drawn_folder), "--sheet", str(sheet), "--json")
    told = json.loads(result.stdout)
    assert {split: values["images"] for split, values in told["splits"].items()} == {"train": 4, "val": 2}
    assert set(told["class_weights"]) == {"median_frequency", "log"}
    assert min(Image.open(sheet).size) > 200
    result = call_refinenet("data", "info", str(drawn_folder), "--sheet", str(tmp_path / "sheet.gif"))
    assert result.returncode
    assert "road" in result.stdout  # a sheet that cannot be drawn does not take the tables away


def test_a_clean_folder_has_exit_code_0(call_refinenet: CommandLine, drawn_folder: Path) -> None:
    result = call_refinenet("data", "check", str(drawn_folder))
    assert (result.returncode, "Clean" in result.stdout) == (0, True), result.stdout


def test_what_stops_training_has_exit_code_1_and_train_refuses_with_the_same_words(
    call_refinenet: CommandLine, tmp_path: Path
) -> None:
    root = tmp_path / "binary"
    write_binary_set(root)
    checked = call_refinenet("data", "check", str(root))
    assert checked.returncode == 1
    advice = "names: [background, object]\n    values: [0, 255]"
    assert advice in checked.stdout
    refused = call_refinenet("train", "--dataset", str(root), "--output", str(tmp_path / "run"))
    assert (refused.returncode, advice in refused.stderr) == (1, True)
    assert not (tmp_path / "run").exists()
    told = json.loads(call_refinenet("data", "check", str(root), "--json", "--quick").stdout)
    assert told["stops_training"] is True
    assert [finding["kind"] for finding in told["findings"]] == ["no-classes"]


def test_the_repaired_copy_is_clean_and_trains(call_refinenet: CommandLine, tmp_path: Path) -> None:
    root, copy = tmp_path / "binary", tmp_path / "copy"
    write_binary_set(root)
    shutil.copy(root / "images" / "3.png", root / "images" / "lonely.png")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    fixed = call_refinenet("data", "check", str(root), "--fix", str(copy))
    assert (fixed.returncode, f"Training can start on {copy}." in fixed.stdout) == (0, True)
    assert before == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert "lonely" in (copy / "changes.json").read_text("utf-8")
    assert call_refinenet("data", "check", str(copy)).returncode == 0
    trained = call_refinenet(
        *("train", "--dataset", str(copy), "--encoder", "test_resnet", "--output", str(tmp_path / "run")),
        *("--epochs", "1", "--batch-size", "2", "--set", "crop_size=[32,32]", "--set", "workers=0"),
    )
    assert trained.returncode == 0, trained.stderr


def test_a_copy_that_cannot_be_trained_on_has_exit_code_1(call_refinenet: CommandLine, tmp_path: Path) -> None:
    """The masks can be repaired, but there is nothing to validate on."""
    root, copy = tmp_path / "binary", tmp_path / "copy"
    write_binary_set(root)
    for name in ("images", "masks"):
        (root / name).rename(tmp_path / name)
        (root / name).mkdir()
        (tmp_path / name).rename(root / name / "train")
    (root / "classes.yaml").write_text("names: [other, road]\nvalues: [0, 255]\n")
    (root / "images" / "train" / "0.png").write_bytes(b"")
    fixed = call_refinenet("data", "check", str(root), "--fix", str(copy))
    assert (fixed.returncode, "Missing splits [split-missing]: 1 (val)" in fixed.stdout.rpartition("Written")[2]) == (
        1,
        True,
    )
    assert not (copy / "images" / "train" / "0.png").exists()
    told = json.loads(call_refinenet("data", "check", str(root), "--fix", str(tmp_path / "two"), "--json").stdout)
    assert told["copy"]["stops_training"] is True


def test_splitting_is_reproducible_and_never_overwrites(call_refinenet: CommandLine, tmp_path: Path) -> None:
    root = tmp_path / "binary"
    write_binary_set(root)
    (root / "classes.yaml").write_text("names: [other, road]\nvalues: [0, 255]\n", "utf-8")
    first = call_refinenet("data", "split", str(root), "--val", "0.3", "--group", "(.*)", "--json")
    parts = json.loads(first.stdout)
    assert (len(parts["train"]), len(parts["val"])) == (7, 3)
    assert sorted(parts["train"] + parts["val"]) == sorted(str(k) for k in range(10))
    assert (root / "val.txt").read_text("utf-8").split() == parts["val"]
    refused = call_refinenet("data", "split", str(root))
    assert (refused.returncode, "--replace" in refused.stderr) == (1, True)
    told = json.loads(call_refinenet("data", "info", str(root), "--json").stdout)
    assert {split: values["images"] for split, values in told["splits"].items()} == {"train": 7, "val": 3}


def test_what_cannot_be_fetched_says_how_one_gets_it(call_refinenet: CommandLine, tmp_path: Path) -> None:
    result = call_refinenet("data", "prepare", "cityscapes", "--root", str(tmp_path / "city"))
    assert result.returncode == 1
    assert "leftImg8bit_trainvaltest.zip" in result.stderr
    assert "https://www.cityscapes-dataset.com" in result.stderr
    unknown = call_refinenet("data", "prepare", "vocc", "--root", str(tmp_path))
    assert (unknown.returncode, "voc_aug" in unknown.stderr) == (1, True)


def test_nyu_is_evaluated_with_its_classes_and_its_depth(run_refinenet: CommandLine, tmp_path: Path) -> None:
    matlab_miniatures.write_nyu(tmp_path / "nyu")
    network = RefineNet(encoder="test_resnet", num_classes=40, outputs="classes,depth:0.5:10", device="cpu")
    network.save(tmp_path / "model.safetensors")
    options = ("--root", "nyu", "--model", "model.safetensors", "--backend", "pytorch", "--output", "results.json")
    done = run_refinenet("eval", "--dataset", "nyu", *options)
    assert done.returncode == 0, done.stderr
    assert "refridgerator" in done.stdout
    assert "mIoU over" in done.stdout
    assert "depth: pixels with a true depth" in done.stdout
    assert "abs_rel" in done.stdout
    told = json.loads((tmp_path / "results.json").read_text())
    assert told["images"] == 2
    # Images 1 and 2 of 32x40 pixels within the border; every depth lies in the range.
    assert told["outputs"]["depth"]["pixels"] == 2 * 32 * 40


def test_two_quantities_of_a_folder_of_one_s_own_need_no_code(run_refinenet: CommandLine, tmp_path: Path) -> None:
    """Without masks, as the README describes it: data, check, train, eval."""
    dice = np.random.default_rng(0)
    for number in range(10):
        height, moisture = dice.uniform(0, 20, (48, 64)), number * 5 + np.linspace(0, 4, 64)[np.newaxis].repeat(48, 0)
        image = np.stack([height * 10, moisture * 4, moisture], 2).astype(np.uint8)
        png_miniatures.save(tmp_path / "fields" / "images" / f"{number}.png", image)
        (tmp_path / "fields" / "values").mkdir(exist_ok=True)
        height[:3] = -9999
        np.save(tmp_path / "fields" / "values" / f"{number}.npy", np.stack([height, moisture * 10], 2).astype(np.int16))
    declared = "[{name: height, unit: m, scale: 1%s}, {name: moisture, unit: '%%', scale: 10}]"
    (tmp_path / "fields" / "targets.yaml").write_text(f"values: {{name: soil, quantities: {declared % ''}}}")
    options = ("--encoder", "test_resnet", "--epochs", "1", "--batch-size", "4", "--set", "crop_size=[32,32]")
    outputs = ("--outputs", "soil=regression[height:m,moisture:%]", "--output", "runs/soil", "--set", "workers=0")
    refused = run_refinenet("train", "-d", "fields", *options, *outputs)
    assert (refused.returncode, "[target-marker]: 10" in refused.stderr) == (1, True), refused.stderr
    (tmp_path / "fields" / "targets.yaml").write_text(
        f"values: {{name: soil, quantities: {declared % ', missing: -9999'}}}"
    )
    checked = run_refinenet("data", "check", "fields")
    assert (checked.returncode, "Clean" in checked.stdout) == (0, True), checked.stdout
    trained = run_refinenet("train", "-d", "fields", *options, *outputs)
    assert trained.returncode == 0, trained.stderr
    model = ("--model", "runs/soil/best.safetensors", "--backend", "pytorch")
    done = run_refinenet("eval", "-d", "fields", *model, "--output", "results.json")
    assert done.returncode == 0, done.stderr
    assert "moisture" in done.stdout
    # Images 0 and 5 of every fifth, without three rows of heights each.
    told = json.loads((tmp_path / "results.json").read_text())["outputs"]["soil"]
    assert [one["pixels"] for one in told["quantities"]] == [2 * 45 * 64, 2 * 48 * 64]
