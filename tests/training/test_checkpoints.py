"""Checkpoints: saved as a whole, found again, and never lost without a message."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from refinenet.training.records.checkpoints import Checkpoint, Checkpoints

FILES = {"model.safetensors": bytes(range(256)) * 40, "state.pt": b"state", "empty": b""}


def saved(folder: Path, *steps: int, keep: int = 3) -> Checkpoints:
    """Checkpoints whose files contain their step."""
    checkpoints = Checkpoints(folder, keep)
    for step in steps:
        checkpoints.save(step, {**FILES, "state.pt": str(step).encode()})
    return checkpoints


def newest(checkpoints: Checkpoints) -> Checkpoint:
    found = checkpoints.load_newest()
    assert found is not None
    return found


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    assert checkpoints.load_newest() is None
    folder = checkpoints.save(123, FILES)
    assert folder == tmp_path / "run" / "checkpoints" / "step-000123"
    assert newest(checkpoints) == Checkpoint(123, FILES, folder, ())
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "meta.json"} == FILES
    assert names(folder.parent) == ["latest.json", "step-000123"]


def test_size_and_hash_of_each_file_are_written_down(tmp_path: Path) -> None:
    facts = json.loads((Checkpoints(tmp_path).save(7, FILES) / "meta.json").read_text())
    assert (facts["format"], facts["step"]) == (1, 7)
    assert facts["files"] == {
        name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in FILES.items()
    }
    assert json.loads((tmp_path / "latest.json").read_text()) == {"checkpoint": "step-000007"}


@pytest.mark.parametrize("keep", [1, 2, 3, 10])
def test_the_newest_are_kept(keep: int, tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, *range(8, 13), keep=keep)
    assert names(tmp_path)[1:] == [f"step-{step:06d}" for step in range(max(8, 13 - keep), 13)]
    assert newest(checkpoints).step == 12


def test_a_step_can_be_saved_again_and_again(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    for number in range(4):
        checkpoints.save(2, {"again": bytes([number])})
        found = newest(checkpoints)
        assert (found.step, found.files, found.quarantined) == (2, {"again": bytes([number])}, ())
        assert len(names(tmp_path)) == 3, "one before, the one saved again, and latest.json"
    assert newest(saved(tmp_path, 3)).step == 3
    assert names(tmp_path)[1] == "step-000001"


def test_what_was_just_saved_is_kept_whatever_its_step(tmp_path: Path) -> None:
    """Folders with higher steps may be broken: they have not been checked."""
    saved(tmp_path, 100, 200, 300)
    for step in (100, 200, 300):
        (tmp_path / f"step-{step:06d}" / "state.pt").write_bytes(b"rotten")
    saved(tmp_path, 50)
    found = newest(Checkpoints(tmp_path))
    assert found.step == 50
    assert len(found.quarantined) >= 2


def test_an_order_of_steps_beyond_six_digits_is_kept(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 999_999, 1_000_000, 10_000_000)
    assert newest(checkpoints).step == 10_000_000


def test_a_broken_one_is_put_aside_and_the_one_before_taken(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, 2, 3)
    path = tmp_path / "step-000003" / "state.pt"
    path.write_bytes(b"4")
    found = newest(checkpoints)
    assert (found.step, found.files["state.pt"]) == (2, b"2")
    assert found.quarantined[0] == (
        f"The checkpoint {tmp_path / 'step-000003'} is broken (the SHA-256 of state.pt differs); "
        "it is quarantined as step-000003.corrupt."
    )
    assert (tmp_path / "step-000003.corrupt" / "state.pt").read_bytes() == b"4", "nothing is removed"
    assert "which was quarantined as step-000003.corrupt" in newest(checkpoints).quarantined[0], "and nothing forgotten"
    assert newest(saved(tmp_path, 3)).quarantined == ()


def test_broken_ones_of_one_name_do_not_meet(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    for _ in range(3):
        (tmp_path / "step-000002" / "state.pt").unlink()
        assert newest(checkpoints).step == 1
        saved(tmp_path, 2)
    assert len([name for name in names(tmp_path) if name.endswith(".corrupt")]) == 3


def test_where_none_is_good_it_never_starts_anew(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    for step in (1, 2):
        shutil.rmtree(tmp_path / f"step-{step:06d}")
        (tmp_path / f"step-{step:06d}").mkdir()
    with pytest.raises(ValueError, match=r"no valid checkpoint left.*step-000002.*step-000001.*cannot be resumed"):
        checkpoints.load_newest()
    with pytest.raises(ValueError, match="no valid checkpoint left"):
        checkpoints.load_newest()
    (tmp_path / "latest.json").unlink()
    with pytest.raises(ValueError, match="quarantined"):
        checkpoints.load_newest()


def test_a_deleted_newest_is_missed(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    shutil.rmtree(tmp_path / "step-000002")
    for _ in range(2):
        found = newest(checkpoints)
        assert found.step == 1
        assert "names 'step-000002' as the newest checkpoint, which is missing" in found.quarantined[0]
    shutil.rmtree(tmp_path / "step-000001")
    with pytest.raises(ValueError, match="which is missing"):
        checkpoints.load_newest()


def test_what_a_folder_holds_counts_not_its_name(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, 2, 3)
    (tmp_path / "step-000003").rename(tmp_path / "x")
    (tmp_path / "step-000001").rename(tmp_path / "step-000003")
    (tmp_path / "x").rename(tmp_path / "step-000001")
    found = newest(checkpoints)
    assert (found.step, found.files["state.pt"], found.folder.name) == (3, b"3", "step-000001")
    assert found.quarantined == (f"{found.folder} holds the checkpoint of step 3: it was renamed.",)
    for step in (3, 4, 5):
        assert newest(saved(tmp_path, step)).step == step
    assert len(names(tmp_path)) == 4


def test_too_little_space_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = saved(tmp_path, 1)
    free = os.statvfs(tmp_path)
    little = os.statvfs_result((free.f_bsize, 1, 20_000, 20_000, 20_000, 9, 9, 9, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: little)
    assert newest(saved(tmp_path, 2)).step == 2, "12,300 bytes are needed"
    with pytest.raises(OSError, match="No space"):
        checkpoints.save(3, {"nearly": b"0" * 17_000})
    with pytest.raises(OSError, match=r"step 3 .*untouched: No space left on device \(1\.2 MB are needed and 0\.0 MB"):
        checkpoints.save(3, {"large": b"0" * 1_000_000})
    assert names(tmp_path) == ["latest.json", "step-000001", "step-000002"]


def test_of_the_first_one_it_is_not_said_that_others_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = os.statvfs(tmp_path)
    none = os.statvfs_result((free.f_bsize, 1, 20_000, 0, 0, 9, 9, 9, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: none)
    with pytest.raises(OSError, match=r"step 0 in .*, there is no earlier one: No space left on device") as caught:
        saved(tmp_path, 0)
    assert "untouched" not in str(caught.value)
    assert names(tmp_path) == []


def test_a_disk_that_lies_is_found_out_before_anything_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that reports success, and has lost the second half."""
    saved(tmp_path, 1, keep=1)
    really_write = os.write

    def write(file: int, content: bytes) -> int:
        really_write(file, content[: len(content) // 2])
        return len(content)

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match=r"step 2 .*untouched: the written files cannot be read back"):
        saved(tmp_path, 2, keep=1)
    assert names(tmp_path) == ["latest.json", "step-000001"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "meta.json", ".hidden", "a\0b", "ü", "x" * 101])
def test_names_that_are_no_plain_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="plain names"):
        Checkpoints(tmp_path / "run").save(1, {name: b""})
    assert not (tmp_path / "run").exists()


def test_steps_and_numbers_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not -1"):
        Checkpoints(tmp_path).save(-1, FILES)
    with pytest.raises(ValueError, match="not 0"):
        Checkpoints(tmp_path, keep=0)


def test_leftovers_are_swept_and_nothing_else(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1)
    for name in ("step-000002.tmp-123-0a1b2c3d", "step-000002.2.tmp-9-ffffffff"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.pt").write_bytes(b"half")
    (tmp_path / ".latest.json.0a1b2c3d.tmp").write_bytes(b"half")
    others = ["step-000003.corrupt", "mine", "step-000004.tmp-notes", ".mine.tmp"]
    for name in others:
        (tmp_path / name).mkdir()
    assert newest(checkpoints).quarantined == ()
    checkpoints.sweep()
    assert names(tmp_path) == sorted(["latest.json", "step-000001", *others])
    Checkpoints(tmp_path / "nowhere").sweep()


def resealed(path: Path, **changes: object) -> None:
    """Write a meta.json with other content and a valid checksum: the SHA-256 of the sorted rest."""
    facts = {**json.loads(path.read_text()), **changes}
    del facts["sha256"]
    facts["sha256"] = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format 2"),
        ({"files": {"../../secret": {"size": 6, "sha256": ""}}}, "plain names"),
        ({"files": []}, "meta.json is damaged"),
        ({"files": {"state.pt": 3}}, "meta.json is damaged"),
        ({"step": None}, "meta.json is damaged"),
    ],
)
def test_a_sealed_but_wrong_meta_file_is_damage(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    (tmp_path.parent / "secret").write_bytes(b"secret")
    resealed(tmp_path / "step-000001" / "meta.json")
    resealed(tmp_path / "step-000002" / "meta.json", **changes)
    found = newest(checkpoints)
    assert found.step == 1, "the rule of the seal is known"
    assert message in found.quarantined[0]
