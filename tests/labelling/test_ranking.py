"""Ranking of images by a model: the list, the sheet and the drafts; a killed pass goes on where it was."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import CommandLine
from model_parts import SMALL_DECODER
from PIL import Image

from refinenet import RefineNet
from refinenet.datasets.street_scenes import draw_street
from refinenet.labelling import rank_images
from refinenet.labelling.ranking.measures import Gauge
from refinenet.labelling.ranking.sheet import draw_cell, draw_sheet


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "todo.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def write_photos(folder: Path, count: int) -> Path:
    """Write drawn streets, of which each third is a copy of the first, as frames of a standing camera are."""
    folder.mkdir()
    for number in range(count):
        image = draw_street(0 if number % 3 == 0 else number, 48, 64)[0]
        Image.fromarray(image).save(folder / f"{number:03d}.png")
    return folder


def test_the_list_the_sheet_and_the_drafts_show_the_same_images(tmp_path: Path, camvid_model: RefineNet) -> None:
    photos, out = write_photos(tmp_path / "photos", 9), tmp_path / "todo"
    (photos / "broken.png").write_bytes(b"no image")
    found = rank_images(camvid_model, photos, out, count=4, progress=False, file_format="png", min_area=0)
    rows = rows_of(out)
    assert [row["image"] for row in rows] == [str(each.file) for each in found.chosen]
    assert (out / "todo.txt").read_text().splitlines() == [row["image"] for row in rows]
    assert json.loads((out / "todo.json").read_text())["images"][0]["reasons"] == rows[0]["reasons"]
    assert (found.images, len(rows)) == (9, 4)
    assert len(found.failed) == 1
    assert "broken.png" in found.failed[0]
    copies = {str(photos / f"{number:03d}.png") for number in (0, 3, 6)}
    assert len(copies & {row["image"] for row in rows}) <= 1  # of equal images one is enough
    for row in rows:
        labels = camvid_model.segment(row["image"]).labels
        assert np.array_equal(np.asarray(Image.open(out / row["draft"])), labels)
        assert Path(row["draft"]).is_relative_to("drafts/png/masks")  # what a person corrects and `label take` reads
    assert found.drafts.files == out / "drafts" / "png"
    sheet = Image.open(out / "sheet.jpg")
    assert sheet.width > 2 * 3 * 200
    assert np.asarray(sheet).std() > 20


def test_the_sheet_has_whole_reasons_and_a_legend_of_the_predicted_classes(camvid_model: RefineNet) -> None:
    """Each class that is predicted has a box of its colour below the pictures, and no other one has."""
    gauge = Gauge(camvid_model.network, camvid_model.card)
    street = draw_street(3, 96, 128)[0]
    maps, label_set = gauge.measure(street)[1], camvid_model.label_set
    sheets = []
    for reasons in (
        "3.2 times the average amount of Pedestrian",
        "; ".join(["1.6 times the average amount of Car"] * 8),
    ):
        cell = draw_cell(street, maps, label_set, "1. 000", reasons)
        sheets.append(draw_sheet("1 of 9 images", [cell], label_set))
    short, long = sheets
    assert long.shape[0] > short.shape[0]  # further lines, instead of an end that is cut off
    grey = (long[250:, :, 0] < 200).any(axis=1)  # below the pictures: lines of text, then the legend
    assert grey.sum() > (short[250:, :, 0] < 200).any(axis=1).sum()
    below = {tuple(colour) for colour in long[-120:].reshape(-1, 3).tolist()}
    predicted = {label_set.colours[k] for k in np.unique(maps.labels)}
    assert predicted <= below
    assert not below & (set(label_set.colours) - predicted)


def test_images_like_the_labelled_ones_are_not_asked_for(tmp_path: Path, camvid_model: RefineNet) -> None:
    photos, mine = write_photos(tmp_path / "photos", 6), tmp_path / "mine"
    for split, seeds in (("train", (0, 0)), ("val", (9,))):
        for place, seed in enumerate(seeds):
            image, labels = draw_street(seed, 48, 64)
            for kind, picture in (("images", image), ("masks", labels)):
                (mine / kind / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(mine / kind / split / f"{place}.png")
    names = ", ".join(f'"{name}"' for name in camvid_model.label_set.names)
    (mine / "classes.yaml").write_text(f"names: [{names}]\n")
    found = rank_images(camvid_model, photos, tmp_path / "todo", count=4, labelled=mine, progress=False)
    # 000 and 003 show the scene that has labels twice.
    assert sorted(each.file.name for each in found.chosen) == ["001.png", "002.png", "004.png", "005.png"]
    all_of_them = rank_images(camvid_model, photos, tmp_path / "todo", count=6, labelled=mine, progress=False)
    assert [each.chosen.novelty < 0.01 for each in all_of_them.chosen] == [False] * 4 + [True] * 2


def test_measures_say_what_they_say() -> None:
    """A mirrored image has the same measures but for its features; noise is more doubtful."""
    model = RefineNet(model="camvid_256", device="cpu")
    gauge = Gauge(model.network, model.card)
    street = draw_street(3, 96, 128)[0]
    found, maps = gauge.measure(street)
    mirrored = gauge.measure(np.ascontiguousarray(street[:, ::-1]))[0]
    assert np.isclose(found.doubt, mirrored.doubt, rtol=0.1)
    assert np.isclose(found.disagreement, mirrored.disagreement, rtol=0.3)
    assert np.isclose(sum(found.shares), 1, atol=1e-3)
    assert all(0 <= value <= 1 for value in (found.doubt, found.outlines, found.disagreement))
    assert maps.labels.shape == maps.entropy.shape == (24, 32)
    noise = np.random.default_rng(0).integers(0, 256, street.shape, dtype=np.uint8)
    assert gauge.measure(noise)[0].doubt > found.doubt
    assert type(found).from_dict(json.loads(json.dumps(found.to_dict()))).features.tolist() == found.features.tolist()
    reduced = Gauge(model.network, model.card, longest_side=64).measure(street)[1]
    assert reduced.entropy.shape == (12, 16)


def test_a_killed_ranking_goes_on_where_it_was_and_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 40)
    RefineNet(encoder="test_resnet", decoder=SMALL_DECODER, num_classes=3, device="cpu").save(
        tmp_path / "m.safetensors"
    )
    words = ["label", "next", "photos", "-m", "m.safetensors", "--count", "5", "--device", "cpu"]
    command = [sys.executable, "-m", "refinenet", *words]
    journal = tmp_path / "killed" / "measured.jsonl"
    process = subprocess.Popen([*command, "-o", "killed"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") >= 4):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = journal.read_bytes()
    assert 4 <= kept.count(b"\n") < 40
    assert not (tmp_path / "killed" / "todo.csv").exists()
    for folder in ("killed", "whole"):
        subprocess.run([*command, "-o", folder], cwd=tmp_path, check=True, capture_output=True)
    assert journal.read_bytes().startswith(kept[: kept.rindex(b"\n") + 1])
    assert journal.read_bytes().count(b"\n") == 40
    assert rows_of(tmp_path / "killed") == rows_of(tmp_path / "whole")


@pytest.mark.parametrize("grew_before", [False, True], ids=["now", "by an earlier version"])
def test_new_images_join_the_others_and_not_a_folder_of_their_own(
    tmp_path: Path, call_refinenet: CommandLine, grew_before: bool
) -> None:
    """Earlier versions put them into images/photos; they are recognised there."""
    write_photos(tmp_path / "photos", 2)
    model = RefineNet(encoder="test_resnet", decoder=SMALL_DECODER, num_classes=3, device="cpu")
    model.save(tmp_path / "m.safetensors")
    names = ", ".join(model.label_set.names)
    place = "photos/" if grew_before else ""
    for name, stem in (("old_1", "old_1"), ("old_2", "old_2"), *([("000", "photos/000")] if grew_before else [])):
        image = (tmp_path / "photos" / "000.png").read_bytes() if name == "000" else None
        for kind in ("images", "masks"):
            path = tmp_path / "mine" / kind / f"{stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((48, 64, 3)[: 3 if kind == "images" else 2], len(stem), np.uint8) % 3).save(path)
            if image is not None and kind == "images":
                path.write_bytes(image)
    (tmp_path / "mine" / "classes.yaml").write_text(f"names: [{names}]\n")
    (tmp_path / "mine" / "train.txt").write_text("old_1\n" + (f"{place}000\n" if grew_before else ""))
    (tmp_path / "mine" / "val.txt").write_text("old_2\n")
    words = ("-m", "m.safetensors", "-n", "2", "--device", "cpu", "--format", "png", "--min-area", "0")
    assert call_refinenet("label", "next", "photos", *words).returncode == 0
    drafts = "todo" if grew_before else "todo/drafts"
    taken = call_refinenet(
        *("label", "take", "todo/drafts/png", "--drafts", drafts, "--into", "mine", "--no-check", "--json")
    )
    assert taken.returncode == 0, taken.stderr
    actions = {image["image"]: image["action"] for image in json.loads(taken.stdout)["images"]}
    images = {path.relative_to(tmp_path / "mine" / "images").as_posix() for path in (tmp_path / "mine").rglob("*.png")
              if path.is_relative_to(tmp_path / "mine" / "images")}  # fmt: skip
    assert images == {"old_1.png", "old_2.png", f"{place}000.png", "001.png"}
    assert actions.keys() == {f"{place}000", "001"}
    assert actions["001"] == "new"
    assert actions[f"{place}000"] != "left out"


@pytest.mark.parametrize("is_recorded", [False, True], ids=["now", "by an earlier version"])
def test_an_image_that_could_not_be_read_is_tried_again(tmp_path: Path, is_recorded: bool) -> None:
    """What was missing may be outside of the file, such as a package: the file itself is the same."""
    model = RefineNet(encoder="test_resnet", decoder=SMALL_DECODER, num_classes=3, device="cpu")
    photos, out = write_photos(tmp_path / "photos", 3), tmp_path / "todo"
    path = photos / "001.png"
    content, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.write_bytes(bytes(len(content)))
    os.utime(path, ns=times)
    first = rank_images(model, photos, out, count=1, progress=False)
    assert (first.images, len(first.failed)) == (2, 1)
    journal = out / "measured.jsonl"
    assert [json.loads(line)["name"] for line in journal.read_text().splitlines()] == ["000", "002"]
    if is_recorded:
        entry = {"name": "001", "bytes": len(content), "mtime_ns": times[1], "problem": "pip install ..."}
        with journal.open("a") as stream:
            stream.write(json.dumps(entry) + "\n")
    path.write_bytes(content)
    os.utime(path, ns=times)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (len(content), times[1])
    again = rank_images(model, photos, out, count=1, progress=False)
    assert (again.images, again.failed) == (3, ())


def test_results_of_another_model_are_refused(tmp_path: Path, camvid_model: RefineNet) -> None:
    photos, out = write_photos(tmp_path / "photos", 2), tmp_path / "todo"
    rank_images(camvid_model, photos, out, count=1, progress=False)
    other = RefineNet(encoder="test_resnet", decoder=SMALL_DECODER, num_classes=3, device="cpu")
    with pytest.raises(ValueError, match=r"were made with another model\. Choose"):
        rank_images(other, photos, out, count=1, progress=False)


def test_a_model_without_classes_ranks_nothing(tmp_path: Path) -> None:
    depths = RefineNet(encoder="test_resnet", decoder=SMALL_DECODER, outputs="depth:0.5:80", device="cpu")
    with pytest.raises(ValueError, match="predicts none"):
        rank_images(depths, write_photos(tmp_path / "photos", 2), tmp_path / "todo", progress=False)


def test_the_command_prints_where_to_go_on(tmp_path: Path, call_refinenet: CommandLine) -> None:
    write_photos(tmp_path / "photos", 3)
    RefineNet(encoder="test_resnet", decoder=SMALL_DECODER, num_classes=3, device="cpu").save(
        tmp_path / "m.safetensors"
    )
    words = ("label", "next", "photos", "-m", "m.safetensors", "-n", "2", "--device", "cpu")
    assert "2 of 3 images" in call_refinenet(*words).stdout
    found = json.loads(call_refinenet(*words, "--json").stdout)
    assert found["chosen"] == [row["image"] for row in rows_of(tmp_path / "todo")]
