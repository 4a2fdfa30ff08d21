"""Runs that are stopped and resumed, and results of other settings."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import warm_start
from PIL import Image
from street_files import files

from refinenet import RefineNet
from refinenet.datasets.street_scenes import draw_street
from refinenet.deployment.inputs import plan_work

MANY = 24


def test_a_second_run_redoes_only_what_is_missing_or_changed(here: Path, camvid_model: RefineNet) -> None:
    def run(**options: Any) -> dict[str, bool]:
        found = camvid_model.deploy_files("in", "out", recursive=True, progress=False, **options)
        assert all(result.error is None for result in found)
        return {str(result.image.relative_to("in")): result.was_there for result in found}

    everything = ("a.jpg", "c.png", "deep/a.jpg", "deep/er/d.jpg")
    assert run() == dict.fromkeys(everything, False)
    made = {name: (here / "out" / name).stat().st_mtime_ns for name in files(here / "out")}
    assert run() == dict.fromkeys(everything, True)
    assert {name: (here / "out" / name).stat().st_mtime_ns for name in files(here / "out")} == made
    (here / "out" / "c.png").unlink()
    shutil.copy(here / "in" / "deep" / "er" / "d.jpg", here / "in" / "a.jpg")
    os.utime(here / "in" / "a.jpg", (1, 1))  # older, and still a change
    assert run() == {**dict.fromkeys(everything, True), "a.jpg": False, "c.png": False}
    assert (here / "out" / "a.png").read_bytes() == (here / "out" / "deep" / "er" / "d.png").read_bytes()
    shutil.copy(here / "in" / "c.png", here / "in" / "new.png")
    (here / "out" / "new.png").write_bytes(b"a file of somebody's own")
    os.utime(here / "out" / "new.png", (1, 1))
    with pytest.raises(ValueError, match=r"new\.png exists"):
        run()
    (here / "in" / "new.png").unlink()
    assert run(overwrite=True) == dict.fromkeys(everything, False)
    shutil.copy(here / "in" / "c.png", here / "in" / "new.png")
    with pytest.raises(ValueError, match=r"new\.png exists"):
        run()
    (here / "in" / "new.png").unlink()
    assert run() == dict.fromkeys(everything, True)


def test_results_of_another_model_kind_or_image_are_not_mixed_in(here: Path, camvid_model: RefineNet) -> None:
    camvid_model.deploy_files("in", "out", progress=False)
    other = RefineNet(encoder="mobilenetv2_100", num_classes=11, device="cpu")
    before = (here / "out" / "a.png").read_bytes()
    with pytest.raises(ValueError, match=r"another model, for 11 classes \(Sky, .* instead of 11 .*overwrite=True"):
        other.deploy_files("in", "out", progress=False)
    with pytest.raises(ValueError, match="made with --kind labels instead of --kind overlay"):
        camvid_model.deploy_files("in", "out", kinds="overlay", progress=False)
    with pytest.raises(ValueError, match=r"a\.png is the result of .*a\.jpg, not of"):
        camvid_model.deploy_files("in/deep", "out", progress=False)
    assert (here / "out" / "a.png").read_bytes() == before
    other.deploy_files("in", "out", overwrite=True, progress=False)
    assert (here / "out" / "a.png").read_bytes() != before
    (here / "mine").mkdir()
    (here / "mine" / "c.png").write_bytes(b"a file of somebody's own")
    with pytest.raises(ValueError, match=r"c\.png exists, but is not a result"):
        camvid_model.deploy_files("in", "mine", progress=False)
    assert files(here / "mine") == ["c.png"]
    assert (here / "mine" / "c.png").read_bytes() == b"a file of somebody's own"


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "refinenet", "deploy", "in", "-o", "out", "-k", "labels", "-k", "overlay"]
    return warm_start.Process(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 600
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    assert path.exists()


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A folder with `MANY` pictures in `in`."""
    (tmp_path / "in").mkdir()
    for number in range(MANY):
        Image.fromarray(draw_street(number, 96, 128)[0]).save(tmp_path / "in" / f"{number:02d}.jpg")
    return tmp_path


def test_a_run_resumed_after_kill_9_gives_the_results_of_one_run(many: Path) -> None:
    uninterrupted = start(many)
    _, errors = uninterrupted.communicate(timeout=600)
    assert uninterrupted.returncode == 0, errors
    expected = {name: (many / "out" / name).read_bytes() for name in files(many / "out")}
    assert len(expected) == 2 * MANY
    (many / "out").rename(many / "whole")
    for last in ("05", "12"):
        process = start(many)
        wait_for(many / "out" / "overlay" / f"{last}.png")
        process.kill()
        process.communicate(timeout=600)
        assert process.returncode == -signal.SIGKILL
    (many / "out" / "labels" / ".23.png.0123abcd.tmp").write_bytes(b"half")
    others = many / "out" / "labels" / ".huge.tif.0123abcd.tmp"  # another command may be writing it
    others.write_bytes(b"half")
    kept = {name: (many / "out" / name).stat().st_mtime_ns for name in files(many / "out") if name.endswith("0.png")}
    final = start(many)
    output, errors = final.communicate(timeout=600)
    assert final.returncode == 0, errors
    lines = output.splitlines()
    assert [line.split(" -> ")[0] for line in lines] == [f"in/{number:02d}.jpg" for number in range(MANY)]
    was_there = [number for number, line in enumerate(lines) if "(already done)" in line]
    assert was_there[:10] == list(range(10))
    assert len(was_there) < MANY
    assert others.read_bytes() == b"half"
    others.unlink()
    assert {name: (many / "out" / name).read_bytes() for name in files(many / "out")} == expected
    for number in was_there:
        name = f"labels/{number:02d}.png"
        assert kept.get(name, 0) in (0, (many / "out" / name).stat().st_mtime_ns)
    journal = [json.loads(line)["place"] for line in (many / "out" / "deploy.jsonl").read_text().splitlines()]
    assert sorted(journal) == [f"{number:02d}" for number in range(MANY)]


def test_ctrl_c_finishes_files_that_are_being_written(many: Path) -> None:
    process = start(many)
    wait_for(many / "out" / "overlay" / "03.png")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130, errors
    assert "Run the same command again to continue" in errors
    assert "Traceback" not in errors
    journal = {json.loads(line)["place"] for line in (many / "out" / "deploy.jsonl").read_text().splitlines()}
    for kind in ("labels", "overlay"):
        assert {path.stem for path in (many / "out" / kind).iterdir()} == journal
    assert 4 <= len(journal) < MANY


def test_only_one_run_writes_to_a_folder(many: Path, camvid_model: RefineNet) -> None:
    work = plan_work([many / "in"], many / "out")
    results = camvid_model.deploy_work(work)
    next(results)
    with pytest.raises(ValueError, match="being deployed into"):
        camvid_model.deploy_files([many / "in"], many / "out", progress=False)
    results.close()
    found = camvid_model.deploy_files([many / "in"], many / "out", progress=False)
    assert [result.image.name for result in found] == [f"{number:02d}.jpg" for number in range(MANY)]
    assert 1 <= sum(result.was_there for result in found) < MANY
