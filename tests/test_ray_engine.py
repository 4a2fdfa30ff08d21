"""Segmentation with Ray: two workers in processes of their own, held against the single process, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from conftest import CommandLine
from PIL import Image

from refinenet import RefineNet
from refinenet.batch import pair_outputs, segment_files
from refinenet.ray_engine import segment_with_ray, share_out
from refinenet.ray_worker import Deaths
from refinenet.street_scene import draw_street

BAD = "07.jpg"


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Two cores of Ray, and its address."""
    environment = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    with pytest.MonkeyPatch.context() as patch:
        for key, value in environment.items():
            patch.setenv(key, value)
        ray.init(
            address="local",
            num_cpus=2,
            object_store_memory=200_000_000,
            include_dashboard=False,
            log_to_driver=False,
            runtime_env={"env_vars": {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}},
        )
        try:
            yield ray.get_runtime_context().gcs_address
        finally:
            ray.shutdown()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Fourteen streets of several sizes, and a text that is called an image."""
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in range(15):
        picture = Image.fromarray(draw_street(seed, 60 + 4 * seed, 97)[0])
        picture.save(folder / f"{seed:02}.jpg")
    (folder / BAD).write_text("no image")
    return folder


def alone(images: Path, output: Path, camvid_model: RefineNet) -> dict[str, bytes]:
    """The results of the single process."""
    list(segment_files(camvid_model.segment, pair_outputs([images], output, None), None))
    return contents(output)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def worker_processes() -> list[int]:
    """The processes that hold the network, of the Ray that this process has started."""
    lines = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in lines.splitlines()[1:]]
    own = {row[0] for row in rows if row[1] == str(os.getpid())}
    return [int(row[0]) for row in rows if row[1] in own and "MapWorker(MapBatches(Worker))" in row[2]]


def test_every_image_once_though_a_worker_is_killed(
    cluster: str, images: Path, tmp_path: Path, camvid_model: RefineNet
) -> None:
    expected = alone(images, tmp_path / "alone", camvid_model)
    output = tmp_path / "output"
    pairs = pair_outputs([images], output, None)
    told = []
    killed: list[int] = []
    for result in segment_with_ray(pairs, workers=2, record=output):
        told.append(result)
        if len(told) == 4:
            killed = worker_processes()
            os.kill(killed[0], signal.SIGKILL)
    assert len(killed) == 2
    assert sorted(result.image for result in told) == [str(image) for image, _ in pairs]
    failed = [result for result in told if result.error is not None]
    assert [Path(result.image).name for result in failed] == [BAD]
    assert "not a JPEG, PNG" in str(failed[0].error)
    assert BAD in str(failed[0].error)
    assert len(expected) == 14
    assert contents(output) == expected
    for result in told:
        if result.areas is not None:
            assert result.areas == camvid_model.segment(result.image).areas


def test_what_is_done_is_left_and_what_changed_is_made_anew(
    cluster: str, images: Path, tmp_path: Path, run_refinenet: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    command = ("deploy", images, "--output", tmp_path / "output", "--engine", "ray", "--workers", "2")
    first = run_refinenet(*command, "--json")
    assert first.returncode == 1
    reports = json.loads(first.stdout)
    assert len(reports) == 15
    assert f"{images / BAD} is not a JPEG" in first.stderr
    assert "1 of 15 images could not be segmented" in first.stderr
    before = contents(tmp_path / "output")
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "output").glob("*.png")}

    (images / BAD).unlink()
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # where no Ray is: a finished job asks none
    second = run_refinenet(*command)
    assert second.returncode == 0, second.stderr
    assert "0 of 14 images segmented, 14 were done before" in second.stdout
    assert second.stderr == ""
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "output").glob("*.png")} == times

    Image.fromarray(draw_street(99, 50, 50)[0]).save(images / "03.jpg")
    (tmp_path / "output" / "05.png").unlink()
    pairs = pair_outputs([images], tmp_path / "output", None)
    told = list(segment_with_ray(pairs, record=tmp_path / "output"))
    assert sorted(Path(result.image).name for result in told if result.is_new) == ["03.jpg", "05.jpg"]
    assert len(told) == 14
    after = contents(tmp_path / "output")
    assert [name for name in after if after[name] != before[name]] == ["03.png"]
    areas = {report["image"]: report.get("areas") for report in reports}
    assert all(result.areas == areas[result.image] for result in told if not result.is_new)


def test_an_image_over_which_processes_die_is_counted_and_no_other() -> None:
    deaths = Deaths()
    assert deaths.begin("reader", "read 1") == 0
    assert deaths.begin("one", "segment 1") == 0
    assert deaths.begin("one", "segment 2") == 0  # is killed over it
    assert deaths.begin("two", "segment 1") == 0  # done before, once more
    assert deaths.begin("two", "segment 2") == 1
    assert deaths.begin("three", "segment 2") == 2
    assert deaths.begin("three", "segment 3") == 0
    assert deaths.begin("two", "read 1") == 1


def test_each_worker_has_its_share() -> None:
    def shares(workers: int | None, *cores: int, gpus: int = 0) -> tuple[int, int, float]:
        found = share_out([{"CPU": count, "GPU": gpus} for count in cores], workers, None)
        return found.workers, found.cores, found.gpus

    assert shares(None, 16) == (8, 2, 0)
    assert shares(None, 1) == (1, 1, 0)
    assert shares(2, 2) == (2, 1, 0)
    assert shares(3, 4, 4) == (3, 2, 0)
    assert shares(2, 4, 16) == (2, 8, 0)
    assert shares(1, 4, 16) == (1, 16, 0)
    assert shares(None, 16, gpus=4) == (4, 1, 1)
    assert shares(8, 16, gpus=4) == (8, 1, 0.5)
    assert shares(5, 16, gpus=4) == (5, 1, 0.5)
    assert share_out([{"CPU": 4, "GPU": 1}], 4, "cpu").gpus == 0
    with pytest.raises(ValueError, match="3 workers need as many cores, and Ray's cluster has 2"):
        shares(3, 1, 1)
    with pytest.raises(ValueError, match="no GPU"):
        share_out([{"CPU": 4}], 1, "cuda")


def test_what_cannot_be_done_is_refused_at_once(tmp_path: Path, street_file: Path, run_refinenet: CommandLine) -> None:
    pair = (street_file, tmp_path / "one.png")
    with pytest.raises(ValueError, match="from 1 up, not 0"):
        segment_with_ray([pair], workers=0)
    with pytest.raises(ValueError, match=r"one\.png is to hold the results of both"):
        segment_with_ray([pair, pair])
    with pytest.raises(ValueError, match="JPEG would change labels"):
        segment_with_ray([(street_file, tmp_path / "one.jpg")], kind="labels")
    with pytest.raises(ValueError, match="ftp://there/x"):
        segment_with_ray([("ftp://there/x", tmp_path / "one.png")])
    result = run_refinenet("deploy", street_file, "--workers", "2")
    assert result.returncode == 2
    assert "--engine ray" in result.stderr
