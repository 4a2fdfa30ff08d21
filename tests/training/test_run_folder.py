"""The folder of a run: one training at a time, a log without gaps or duplicates, and writes that may fail."""

from __future__ import annotations

import csv
import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from refinenet.io.processes.locks import only_one
from refinenet.training.records.folder import RunFolder

HOLD = """
import os, sys, time
from pathlib import Path
from refinenet.training.records.folder import RunFolder
with RunFolder(Path(sys.argv[1])).lock():
    if len(sys.argv) > 2 and os.fork() == 0:
        os.close(1)
        time.sleep(60)
    print("locked", flush=True)
    time.sleep(60)
"""


def holder(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A process that trains in a folder, as far as the lock is concerned."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), *arguments], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process


def rows(folder: RunFolder) -> list[dict[str, str]]:
    with (folder.path / "log.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_second_training_is_refused_at_once_and_the_first_is_named(tmp_path: Path) -> None:
    process = holder(tmp_path / "run")
    try:
        with pytest.raises(ValueError, match=rf"{tmp_path / 'run'} is being trained by process {process.pid} on "):
            RunFolder(tmp_path / "run").lock().__enter__()
        with RunFolder(tmp_path / "other").lock():
            pass
    finally:
        process.kill()
        process.communicate()
    with RunFolder(tmp_path / "run").lock():
        assert (tmp_path / "run" / ".lock").exists()
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are not forked here")
def test_a_worker_that_outlives_its_killed_parent_holds_no_lock(tmp_path: Path) -> None:
    process = holder(tmp_path, "with a forked worker")
    process.kill()
    process.communicate()
    try:
        os.killpg(process.pid, 0)  # the worker lives
        with RunFolder(tmp_path).lock():
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def test_the_lock_holds_within_one_process_and_is_free_after_an_error(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.lock(), pytest.raises(ValueError, match=f"process {os.getpid()} "):
        folder.lock().__enter__()
    with pytest.raises(KeyError), folder.lock():
        raise KeyError
    with folder.lock():
        pass


def test_a_lock_that_is_waited_for_is_had_in_the_end(tmp_path: Path) -> None:
    """Of ten threads that add one to a number in a file, none overwrites another's."""
    number, told = tmp_path / "number", []
    number.write_text("0")

    def add() -> None:
        with only_one(tmp_path / "lock", lambda: told.append(1)):
            before = int(number.read_text())
            threading.Event().wait(0.01)
            number.write_text(str(before + 1))

    threads = [threading.Thread(target=add) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert number.read_text() == "10"
    assert 1 <= len(told) <= 9
    assert not (tmp_path / "lock").exists()


def test_leftovers_of_killed_processes_are_swept_by_the_owner_of_the_lock(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    kept = [folder.write("best.safetensors", b"x"), folder.write("samples/epoch-1.png", b"x")]
    kept.append(folder.checkpoints.save(1, {"state.pt": b"x"}) / "state.pt")
    kept.append(folder.write(".mine.tmp", b"x"))
    left = [tmp_path / ".log.csv.0a1b2c3d.tmp", tmp_path / "samples" / ".epoch-1.png.0a1b2c3d.tmp"]
    left.append(tmp_path / "checkpoints" / "step-000002.tmp-1-0a1b2c3d" / "state.pt")
    left[-1].parent.mkdir()
    for path in left:
        path.write_bytes(b"half")
    with folder.lock():
        assert not any(path.exists() for path in left)
        assert all(path.exists() for path in kept)


def test_the_newest_checkpoint_is_found_or_missed_aloud(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(ValueError, match=r"holds no checkpoint: the run cannot be resumed"):
        folder.newest_checkpoint()
    (tmp_path / "checkpoint.pt").write_bytes(b"of an earlier version")
    with pytest.raises(ValueError, match=r"earlier version, whose checkpoint\.pt .* Start a new run from its model"):
        folder.newest_checkpoint()
    folder.checkpoints.save(5, {"state.pt": b"x"})
    assert folder.newest_checkpoint().files == {"state.pt": b"x"}


def test_no_run_is_begun_among_the_checkpoints_of_another(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert not folder.is_started
    folder.checkpoints.save(0, {"state.pt": b"x"})
    assert not folder.is_started, "killed before it was written down how it is begun, and before it learned anything"
    folder.checkpoints.save(1, {"state.pt": b"x"})
    assert folder.is_started
    with pytest.raises(FileNotFoundError, match=r"run\.json is missing"):
        folder.read_description()


def test_the_log_drops_the_epochs_that_are_trained_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for epoch in (1, 2, 3, 4):
        folder.log({"epoch": str(epoch), "loss": f"0.{epoch}"}, epoch)
    folder.log({"epoch": "3", "loss": "0.9"}, 3)
    assert [(row["epoch"], row["loss"]) for row in rows(folder)] == [("1", "0.1"), ("2", "0.2"), ("3", "0.9")]


def test_a_row_that_a_full_disk_swallowed_moves_no_other(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for epoch in (1, 2, 4, 5, 4):
        folder.log({"loss": str(epoch)}, epoch)
    assert [row["epoch"] for row in rows(folder)] == ["1", "2", "4"]


def test_the_log_takes_new_columns_commas_and_damage(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.log({"loss": "0.1"}, 1)
    folder.log({"loss": "0.2", "note": 'best, "so far"'}, 2)
    assert rows(folder) == [
        {"epoch": "1", "loss": "0.1", "note": ""},
        {"epoch": "2", "loss": "0.2", "note": 'best, "so far"'},
    ]
    with (tmp_path / "log.csv").open("ab") as stream:
        stream.write(b"\xff\xfe\x00,,,,,,\nx\n")
    folder.log({"loss": "0.3"}, 3)
    assert [row["epoch"] for row in rows(folder)] == ["1", "2", "3"]
    (tmp_path / "log.csv").write_bytes(b"\x00\xff")
    folder.log({"loss": "0.4"}, 4)
    assert rows(folder) == [{"epoch": "4", "loss": "0.4"}]


def fail() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_failing_write_is_said_once_until_it_works_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder(tmp_path)
    assert folder.attempt("log.csv", lambda: folder.log({}, 1))
    assert capsys.readouterr().err == ""
    assert not folder.attempt("log.csv", fail)
    assert "log.csv could not be written: No space left on device. Training continues" in capsys.readouterr().err
    assert not folder.attempt("log.csv", fail)
    assert capsys.readouterr().err == ""
    assert not folder.attempt("a checkpoint", fail)
    assert "a checkpoint could not be written" in capsys.readouterr().err
    assert folder.attempt("log.csv", lambda: folder.log({}, 2))
    assert capsys.readouterr().err == "Writing log.csv succeeded again.\n"
    assert not folder.attempt("log.csv", fail)
    assert "log.csv could not" in capsys.readouterr().err


def test_other_errors_are_not_held_back(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        RunFolder(tmp_path).attempt("log.csv", lambda: 1 / 0)


def test_the_models_lie_beside_each_other(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.best_model == tmp_path / "best.safetensors"
    assert folder.last_model == tmp_path / "last.safetensors"
    assert folder.checkpoints.folder == tmp_path / "checkpoints"
