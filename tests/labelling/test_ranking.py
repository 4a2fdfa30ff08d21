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


def test_results_of_another_model_are_refused(tmp_path: Path, camvid_model: RefineNet) -> None:
    photos, out = write_photos(tmp_path / "photos", 2), tmp_path / "todo"
    rank_images(camvid_model, photos, out, count=1, progress=False)
    other = RefineNet(encoder="test_resnet", decoder=SMALL_DECODER, num_classes=3, device="cpu")
    with pytest.raises(ValueError, match=r"settings: --model is another model\. Choose"):
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
