"""Proposals of `label errors` change no label unless a person has touched, accepted or reviewed them."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pytest
from chromium import needs_chromium, open_chromium
from conftest import CommandLine
from PIL import Image
from planted_labels import CAR, PLANTED, SKY, write_streets

from refinenet import RefineNet

ERRORS = ((slice(0, 14), slice(30, 50)), (slice(0, 14), slice(60, 80)))
"""Rows and columns of two cars in the sky."""
ROAD = 3
TAKE = ("--drafts", "out", "--into", "mine", "--no-check")
Ids = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, camvid_model: RefineNet) -> Path:
    """A folder with a dataset `mine`, and the results `out` of a search for its two errors."""
    from refinenet.labelling import find_label_errors

    root = tmp_path_factory.mktemp("searched")
    mine = write_streets(root / "mine", camvid_model, ERRORS)
    found = find_label_errors(
        mine, root / "out", models=["camvid"], first=2, file_format="png", device="cpu", progress=False
    )
    assert [(each.suspect.label, each.suspect.prediction) for each in found.suspects[:2]] == [(CAR, SKY)] * 2
    return root


@pytest.fixture
def folder(searched: Path, tmp_path: Path) -> Path:
    """A copy of it, in the folder in which commands run."""
    shutil.copytree(searched, tmp_path, dirs_exist_ok=True)
    return tmp_path


def read(path: Path) -> Ids:
    return np.array(Image.open(path))


def labels_of(folder: Path) -> Ids:
    return read(folder / "mine" / "masks" / f"{PLANTED}.png")


def draft_of(folder: Path) -> Path:
    return folder / "out" / "png" / "masks" / f"{PLANTED}.png"


def edit(folder: Path, place: tuple[slice, slice], label: int) -> None:
    """Paint on the proposal, as a person does in a tool."""
    ids = read(draft_of(folder))
    ids[place] = label
    Image.fromarray(ids).save(draft_of(folder))


def save_decisions(folder: Path, decisions: Sequence[str]) -> list[dict[str, str]]:
    """Write the table that the page saves, from the table of suspects; return the suspects."""
    with (folder / "out" / "suspects.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    columns = ("rank", "split", "image", "number", "label", "prediction", "pixels")
    with (folder / "decisions.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow((*columns, "decision"))
        writer.writerows([*(row[key] for key in columns), word] for row, word in zip(rows, decisions, strict=False))
    return rows


def test_proposals_that_nobody_touched_change_nothing(folder: Path, call_refinenet: CommandLine) -> None:
    before = labels_of(folder)
    found = call_refinenet("label", "take", "out/png", *TAKE)
    assert found.returncode == 0, found.stderr
    assert "2 proposals came back exactly as proposed and were not taken: the old labels stay" in found.stdout
    assert np.array_equal(labels_of(folder), before)
    found = call_refinenet("label", "take", "out/png", *TAKE, "--reviewed")
    assert found.returncode == 0, found.stderr
    assert "exactly as proposed" not in found.stdout
    assert np.array_equal(labels_of(folder), read(draft_of(folder)))
    assert all((labels_of(folder)[place] == SKY).mean() > 0.9 for place in ERRORS)


@pytest.mark.parametrize(
    ("place", "label"),
    [((slice(2, 6), slice(32, 40)), ROAD), ((slice(0, 14), slice(50, 52)), SKY)],
    ids=["painted in it", "extended"],
)
def test_a_proposal_that_a_person_edited_is_taken_as_it_came_back_and_the_other_is_not(
    folder: Path, call_refinenet: CommandLine, place: tuple[slice, slice], label: int
) -> None:
    if label == SKY:  # beside the region, as a person who finds it too small does
        for root in (folder / "mine" / "masks", folder / "out" / "labels" / "train", folder / "out" / "png" / "masks"):
            ids = read(root / f"{PLANTED}.png")
            ids[place] = ROAD
            Image.fromarray(ids).save(root / f"{PLANTED}.png")
        proposal = folder / "out" / "proposals" / "train" / f"{PLANTED}.png"
        ids = read(proposal)
        ids[place] = ROAD
        Image.fromarray(ids).save(proposal)
    before = labels_of(folder)
    edit(folder, place, label)
    found = call_refinenet("label", "take", "out/png", *TAKE)
    assert found.returncode == 0, found.stderr
    assert "1 proposals came back exactly as proposed and were not taken" in found.stdout
    after, returned = labels_of(folder), read(draft_of(folder))
    first = np.s_[:, :55]
    assert np.array_equal(after[first], returned[first])
    assert not np.array_equal(after[first], before[first])
    assert np.array_equal(after[:, 55:], before[:, 55:])


def test_a_label_that_a_person_put_back_stays(folder: Path, call_refinenet: CommandLine) -> None:
    before = labels_of(folder)
    edit(folder, np.s_[:, :], 0)
    Image.fromarray(before).save(draft_of(folder))
    found = call_refinenet("label", "take", "out/png", *TAKE)
    assert found.returncode == 0, found.stderr
    assert "exactly as proposed" not in found.stdout
    assert np.array_equal(labels_of(folder), before)


def test_decisions_of_the_page_take_the_accepted_proposals(folder: Path, call_refinenet: CommandLine) -> None:
    before = labels_of(folder)
    rows = save_decisions(folder, ["neither", "proposal"])
    found = call_refinenet("label", "take", "decisions.csv", *TAKE)
    assert found.returncode == 0, found.stderr
    accepted = read(folder / "out" / rows[1]["region"]) == int(rows[1]["number"])
    assert accepted.sum() == int(rows[1]["pixels"])
    assert np.array_equal(labels_of(folder), np.where(accepted, SKY, before))
    assert f"1 changed ({accepted.sum():,} pixels)" in found.stdout
    # What was accepted there is no longer pending, and what was corrected in a tool joins it.
    edit(folder, ERRORS[0], ROAD)
    edit(folder, ERRORS[1], ROAD)
    assert call_refinenet("label", "take", "out/png", *TAKE).returncode == 0
    assert all((labels_of(folder)[place] == ROAD).all() for place in ERRORS)


def test_proposals_with_renamed_classes(folder: Path, call_refinenet: CommandLine) -> None:
    """What nobody touched stays, and what was touched or accepted is taken, under the new names of the dataset."""
    classes = folder / "mine" / "classes.yaml"
    assert '"Car"' in classes.read_text()
    before = labels_of(folder)
    merged = call_refinenet("label", "take", "out/png", *TAKE, "--rename", "Car=Sky")
    assert merged.returncode == 0, merged.stderr  # what is one class proposes nothing
    assert "exactly as proposed" not in merged.stdout
    assert np.array_equal(labels_of(folder), before)
    classes.write_text(classes.read_text().replace('"Car"', '"Vehicle"'))
    assert "has the label 'Car'" in call_refinenet("label", "take", "out/png", *TAKE).stderr
    renamed = (*TAKE, "--rename", "Car=Vehicle")
    untouched = call_refinenet("label", "take", "out/png", *renamed)
    assert untouched.returncode == 0, untouched.stderr
    assert "2 proposals came back exactly as proposed" in untouched.stdout
    assert np.array_equal(labels_of(folder), before)
    edit(folder, ERRORS[0], ROAD)
    found = call_refinenet("label", "take", "out/png", *renamed)
    assert "1 proposals came back exactly as proposed" in found.stdout
    assert (labels_of(folder)[ERRORS[0]] == ROAD).all()
    assert np.array_equal(labels_of(folder)[:, 55:], before[:, 55:])
    rows = save_decisions(folder, ["proposal", "proposal"])
    second = next(row for row in rows if int(row["left"]) >= 55)
    found = call_refinenet("label", "take", "decisions.csv", *renamed)
    assert found.returncode == 0, found.stderr
    accepted = read(folder / "out" / second["region"]) == int(second["number"])
    assert np.array_equal(labels_of(folder)[:, 55:], np.where(accepted, SKY, before)[:, 55:])


def test_decisions_about_another_search_are_refused(folder: Path, call_refinenet: CommandLine) -> None:
    before = labels_of(folder)
    save_decisions(folder, ["proposal", "proposal"])
    regions = next((folder / "out" / "regions").rglob("*.png"))
    numbers = read(regions)
    numbers[: numbers.shape[0] // 2, ::2] = 0  # as a later search may have divided the regions
    Image.fromarray(numbers).save(regions)
    found = call_refinenet("label", "take", "decisions.csv", *TAKE)
    assert found.returncode == 1
    assert "has decisions about other suspects than those of the folder now" in found.stderr
    assert np.array_equal(labels_of(folder), before)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rank,decision\n1,proposal\n", "it lacks the columns image"),
        (
            "rank,split,image,number,label,prediction,pixels,decision\n1,train,3,1,Car,Sky,9,error\n",
            "a decision must be one of proposal, label, neither, not 'error'",
        ),
    ],
)
def test_other_tables_are_no_decisions(folder: Path, call_refinenet: CommandLine, text: str, message: str) -> None:
    (folder / "decisions.csv").write_text(text)
    found = call_refinenet("label", "take", "decisions.csv", *TAKE)
    assert found.returncode == 1
    assert message in found.stderr
    found = call_refinenet("label", "take", "decisions.csv", "--into", "mine")
    assert "pass the folder that `refinenet label errors` wrote (--drafts)" in found.stderr


def test_a_task_that_was_submitted_in_label_studio_counts_as_reviewed(
    folder: Path, call_refinenet: CommandLine
) -> None:
    words = ("label", "errors", "mine", "-m", "camvid", "-n", "2", "-o", "out", "--device", "cpu")
    assert call_refinenet(*words, "--format", "label-studio").returncode == 0
    path = folder / "out" / "label-studio" / "label_studio.json"
    before = labels_of(folder)
    assert "were not taken" in call_refinenet("label", "take", path, *TAKE).stdout
    assert np.array_equal(labels_of(folder), before)
    tasks = json.loads(path.read_text())
    for task in tasks:
        task["annotations"] = [{"was_cancelled": False, **task["predictions"][0]}]
    path.write_text(json.dumps(tasks))
    found = call_refinenet("label", "take", path, *TAKE)
    assert found.returncode == 0, found.stderr
    assert all((labels_of(folder)[place] == SKY).mean() > 0.9 for place in ERRORS)


@needs_chromium
def test_what_the_page_saves_is_taken(folder: Path, call_refinenet: CommandLine) -> None:
    """With the keys and the button, as a person does."""
    before = labels_of(folder)
    with open_chromium() as browser:
        browser.get((folder / "out" / "suspects.html").as_uri())
        body = browser.find_element("css selector", "body")
        body.send_keys("t")
        body.send_keys("k")
        assert "2 of 2 decided, 1 proposals taken" in browser.find_element("css selector", "#count").text
        browser.execute_script(
            "HTMLAnchorElement.prototype.click = function () { window.saved = [this.download, this.href]; };"
        )
        browser.find_element("css selector", "#save").click()
        name, address = browser.execute_script("return window.saved")
    (folder / name).write_text(unquote(address.partition(",")[2]))
    found = call_refinenet("label", "take", "decisions.csv", *TAKE)
    assert found.returncode == 0, found.stderr
    with (folder / "out" / "suspects.csv").open(newline="") as stream:
        first = next(csv.DictReader(stream))
    accepted = read(folder / "out" / first["region"]) == int(first["number"])
    assert np.array_equal(labels_of(folder), np.where(accepted, SKY, before))
