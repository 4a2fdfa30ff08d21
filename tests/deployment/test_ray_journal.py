"""The journal of Ray runs: when an image is done, and when it has to be redone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from refinenet.deployment.ray.journal import RayJournal
from refinenet.deployment.ray.storage import find_stamps

CLASSES = ("sky", "road", "tree")


def open_journal(folder: Path, settings: str = "one") -> RayJournal:
    return RayJournal(str(folder), settings, CLASSES)


@pytest.fixture
def pairs(tmp_path: Path) -> list[tuple[str, str]]:
    """Three images with their results."""
    (tmp_path / "out").mkdir()
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_text(f"image {number}")
        (tmp_path / "out" / f"{number}.png").write_text(f"result {number}")
    return [(f"{tmp_path}/{number}.jpg", f"{tmp_path}/out/{number}.png") for number in range(3)]


@pytest.fixture
def folder(tmp_path: Path, pairs: list[tuple[str, str]]) -> Path:
    """A folder whose journal says that the first two images are done and the third failed."""
    folder = tmp_path / "out"
    journal = open_journal(folder)
    with journal.locked():
        for image, output in pairs[:2]:
            stamps = find_stamps([image, output])
            journal.add(image, output, {"areas": {"road": 1.0}, "read": stamps[image], "made": stamps[output]})
        failed = journal.add(*pairs[2], {"error": "damaged"})
    assert failed.to_dict() == {"image": pairs[2][0], "error": "damaged"}
    return folder


def test_finished_images_keep_their_areas(folder: Path, pairs: list[tuple[str, str]]) -> None:
    one, two, three = open_journal(folder).find_done(pairs)
    assert three is None
    assert one is not None
    assert two is not None
    assert not two.is_new
    assert one.to_dict() == {
        "image": pairs[0][0],
        "output": pairs[0][1],
        "areas": {"sky": 0.0, "road": 1.0, "tree": 0.0},
        "was_there": True,
    }
    assert [path.name for path in folder.glob(".refinenet/*") if path.suffix != ".jsonl"] == []


def test_changed_images_are_not_done(folder: Path, pairs: list[tuple[str, str]]) -> None:
    def find_done(settings: str = "one") -> list[bool]:
        return [result is not None for result in open_journal(folder, settings).find_done(pairs)]

    assert find_done() == [True, True, False]
    assert find_done("two") == [False, False, False]
    Path(pairs[0][0]).write_text("another image")
    assert find_done() == [False, True, False]
    Path(pairs[1][1]).unlink()
    assert find_done() == [False, False, False]


def test_the_result_of_one_image_is_not_that_of_another(folder: Path, pairs: list[tuple[str, str]]) -> None:
    image, output = pairs[0]
    twin = shutil.copy2(image, f"{image}.jpg")
    assert find_stamps([image])[image] == find_stamps([twin])[twin]
    assert open_journal(folder).find_done([(twin, output)]) == [None]


def test_the_last_run_counts(folder: Path, pairs: list[tuple[str, str]]) -> None:
    journal = open_journal(folder)
    with journal.locked():
        journal.add(*pairs[0], {"error": "the disk is full"})
    assert [result is not None for result in open_journal(folder).find_done(pairs)] == [False, True, False]


def test_torn_lines_cost_only_their_images(folder: Path, pairs: list[tuple[str, str]]) -> None:
    (part,) = folder.glob(".refinenet/*.jsonl")
    first, rest = part.read_bytes().split(b"\n", 1)
    part.write_bytes(first[:-9] + b'\n[]\n{}\n\xff\n7\n{"output": 3}\n' + rest)
    assert [result is not None for result in open_journal(folder).find_done(pairs)] == [False, True, False]


def test_one_run_at_a_time(folder: Path) -> None:
    refusal = pytest.raises(ValueError, match=rf"{folder} is being written to by process")
    with open_journal(folder).locked(), refusal, open_journal(folder).locked():
        pass


def test_the_journal_of_an_interrupted_run_is_kept(folder: Path, pairs: list[tuple[str, str]]) -> None:
    def be_interrupted() -> None:
        journal = open_journal(folder)
        with journal.locked():
            journal.add(*pairs[0], {"error": "unlucky"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        be_interrupted()
    assert len(list(folder.glob(".refinenet/*.jsonl"))) == 2


def test_without_a_folder_nothing_is_written(tmp_path: Path) -> None:
    journal = RayJournal(None, "one", CLASSES)
    with journal.locked():
        journal.add("a.jpg", "b.png", {"error": "damaged"})
    assert journal.find_done([("a.jpg", "b.png")]) == [None]
    assert list(tmp_path.iterdir()) == []
