"""Splitting a folder's images: related ones together, identical on every machine, nothing overwritten."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from refinenet.datasets.folder.folder import open_split
from refinenet.datasets.folder.layouts import find_layout
from refinenet.datasets.split import split_folder


def make(root: Path, stems: Iterable[str], masks: str = "masks", ending: str = "") -> Path:
    """Create a folder of empty files: only their names matter."""
    for stem in stems:
        for path in (root / "images" / f"{stem}.jpg", root / masks / f"{stem}{ending}.png"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return root


def clips(*lengths: int) -> list[str]:
    return [f"clip{chr(97 + clip)}_{frame:05}" for clip, length in enumerate(lengths) for frame in range(length)]


def clips_of(splits: Mapping[str, tuple[str, ...]]) -> dict[str, set[str]]:
    return {name: {stem.partition("_")[0] for stem in stems} for name, stems in splits.items()}


def test_lists_are_written_and_opened(tmp_path: Path) -> None:
    stems = clips(3, 3, 3, 3, 3)
    splits = split_folder(make(tmp_path, stems))
    assert list(splits) == ["train", "val"]
    assert (len(splits["train"]), len(splits["val"])) == (12, 3)
    assert sorted(splits["train"] + splits["val"]) == stems
    for name, expected in splits.items():
        assert list(expected) == sorted(expected)
        assert (tmp_path / f"{name}.txt").read_bytes() == "".join(f"{stem}\n" for stem in expected).encode()
    (tmp_path / "classes.yaml").write_text("names: [a]")
    assert find_layout(tmp_path).description == "images/ and masks/ with the lists train.txt, val.txt"
    assert open_split(tmp_path, "val").items == list(splits["val"])


def test_frames_of_a_video_stay_together(tmp_path: Path) -> None:
    splits = split_folder(make(tmp_path, clips(*[7, 11, 13, 5, 9, 8, 6, 12, 10, 19])), val=0.25, test=0.15)
    parts = clips_of(splits)
    assert sum(map(len, parts.values())) == len(set().union(*parts.values())) == 10
    assert {name: len(stems) for name, stems in splits.items()} == {"train": 60, "val": 25, "test": 15}


@pytest.mark.parametrize(
    ("lengths", "val", "expected"),
    [
        ((90, 10), 0.2, 10),  # the nearest that whole groups allow
        ((50, 50), 0.2, 50),
        ((6, 6, 6), 0.01, 6),  # never none
        ((40, 1, 1, 1), 0.99, 42),  # never all
        ((8, 7, 5), 0.6, 12),
        ((3, 5), 0.5, 3),  # as near as 5, and less is taken from training
    ],
)
def test_shares_are_reached_as_nearly_as_whole_groups_allow(
    lengths: tuple[int, ...], val: float, expected: int, tmp_path: Path
) -> None:
    for seed in range(5):
        root = make(tmp_path / str(seed), clips(*lengths))
        assert len(split_folder(root, val=val, seed=seed)["val"]) == expected


def test_each_split_gets_a_group(tmp_path: Path) -> None:
    for seed in range(10):
        parts = clips_of(split_folder(make(tmp_path / str(seed), clips(30, 1, 1)), val=0.45, test=0.45, seed=seed))
        assert [len(parts[name]) for name in ("train", "val", "test")] == [1, 1, 1]


def test_a_split_is_the_same_everywhere(tmp_path: Path) -> None:
    """Validation gets the first three names in the order of `printf 0:NAME | sha256sum`."""
    names = ["apple", "pear", "plum", "fig", "lime", "kiwi", "date", "nut", "corn", "pea"]
    splits = split_folder(make(tmp_path / "here", names), val=0.3)
    assert splits["val"] == ("nut", "pea", "pear")
    there = split_folder(make(tmp_path / "there", reversed(names)), val=0.3)
    assert there == splits
    assert split_folder(make(tmp_path / "other", names), val=0.3, seed=1) != splits


@pytest.mark.parametrize(
    ("stems", "expected"),
    [
        (["0016E5_07959", "0016E5_07961", "Seq05VD_f00000", "Seq05VD_f00030"], 2),
        (["a-1 left", "a-2 left", "b-1 left"], 2),
        (["one/001", "one/002", "two/001"], 2),
        (["apple", "pear", "plum"], 3),
        (["x 1.5", "x 1.6", "y"], 2),
        (["clip_1", "clip-2", "other_1"], 2),
    ],
)
def test_groups_are_told_by_names(stems: list[str], expected: int, tmp_path: Path) -> None:
    """The error counts the groups if there are fewer than splits."""
    root = make(tmp_path, stems)
    if expected == 3:
        assert {len(part) for part in split_folder(root, val=0.3, test=0.3).values()} == {1}
        return
    with pytest.raises(ValueError, match=rf"form {expected} groups \(.*too few for train, test and val"):
        split_folder(root, test=0.2)
    assert not (root / "train.txt").exists()


def test_groups_by_a_regular_expression(tmp_path: Path) -> None:
    stems = [f"{patient}-{shot}-{eye}" for patient in ("p1", "p2", "p3") for shot in "xyz" for eye in "lr"]
    splits = split_folder(make(tmp_path, stems), val=0.3, group="^(p[0-9]+)")
    patients = {name: {stem[:2] for stem in part} for name, part in splits.items()}
    assert (len(patients["train"]), len(patients["val"])) == (2, 1)
    assert not patients["train"] & patients["val"]


@pytest.mark.parametrize(
    ("group", "pattern"),
    [
        ("(", r"group='\(' is not a valid regular expression"),
        ("clip", "no group in brackets"),
        ("(clipa)", r"group='\(clipa\)' does not match 'clipb_00000'"),
        ("clip(a)?", "does not match 'clipb_00000'"),
    ],
)
def test_regular_expressions_that_do_not_fit_are_refused(group: str, pattern: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=pattern):
        split_folder(make(tmp_path, clips(2, 2)), group=group)


def test_one_video_is_cut_into_stretches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Frames are in numerical, not alphabetical, order."""
    splits = split_folder(make(tmp_path, [f"frame_{number}" for number in range(20)]), val=0.2, test=0.1)
    assert set(splits["val"]) == {"frame_16", "frame_17", "frame_18", "frame_19"}
    assert set(splits["test"]) == {"frame_14", "frame_15"}
    assert set(splits["train"]) == {f"frame_{number}" for number in range(14)}
    assert "all 20 images" in (said := capsys.readouterr().err)
    assert "--group" in said


def test_a_short_video_leaves_an_image_to_each_split(tmp_path: Path) -> None:
    splits = split_folder(make(tmp_path, ["1", "2", "3"]), val=0.5, test=0.45)
    assert splits == {"train": ("1",), "val": ("3",), "test": ("2",)}


def test_lists_are_never_overwritten_unasked(tmp_path: Path) -> None:
    root = make(tmp_path, clips(2, 2, 2))
    (root / "val.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"already has the lists val\.txt: pass replace"):
        split_folder(root)
    assert (root / "val.txt").read_text() == "mine"
    assert not (root / "train.txt").exists()
    first = split_folder(root, replace=True)
    assert split_folder(root, replace=True) == first
    (root / "test.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"has test\.txt, which would not match"):
        split_folder(root, replace=True)
    assert set(split_folder(root, val=0.3, test=0.3, replace=True)) == {"train", "val", "test"}


def test_names_as_macos_spells_them(tmp_path: Path) -> None:
    composed = split_folder(make(tmp_path / "a", ["é_1", "b_1", "c_1", "d_1"]), val=0.5)
    assert split_folder(make(tmp_path / "b", ["e\u0301_1", "b_1", "c_1", "d_1"]), val=0.5) == composed


def test_masks_elsewhere_and_with_an_ending(tmp_path: Path) -> None:
    splits = split_folder(make(tmp_path, clips(2, 2), masks="labels", ending="_mask"), val=0.5)
    assert sorted(splits["train"] + splits["val"]) == clips(2, 2)


def test_what_cannot_be_split_is_refused(tmp_path: Path) -> None:
    for split in ("train", "val"):
        make(tmp_path / "done" / split, ["a"])
    with pytest.raises(
        ValueError, match=r"without splits, but its layout is SPLIT/images and SPLIT/masks, with train, val\."
    ):
        split_folder(tmp_path / "done")
    for number in range(3):
        make(tmp_path / "flat", [])
        (tmp_path / "flat").mkdir(exist_ok=True)
        (tmp_path / "flat" / f"{number}.jpg").touch()
        (tmp_path / "flat" / f"{number}_mask.png").touch()
    with pytest.raises(ValueError, match="cannot be split: it must contain images/ and masks/"):
        split_folder(tmp_path / "flat")
    with pytest.raises(ValueError, match="has 1 images, too few for train, val"):
        split_folder(make(tmp_path / "one", ["a"]))
    odd = make(tmp_path / "odd", ["a", "b"])
    (odd / "masks" / "b.png").unlink()
    with pytest.raises(ValueError, match=r"b \(no mask\)"):
        split_folder(odd)
    with pytest.raises(FileNotFoundError, match="neither a folder nor"):
        split_folder(tmp_path / "nowhere")


@pytest.mark.parametrize(("val", "test"), [(0.0, 0.0), (1.0, 0.0), (-0.1, 0.0), (0.6, 0.4), (0.5, -0.1), (2, 0)])
def test_shares_that_cannot_be_are_refused(val: float, test: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"not val={val} and test={test}"):
        split_folder(make(tmp_path, clips(2, 2)), val=val, test=test)
