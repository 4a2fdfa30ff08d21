"""Segmentation with Ray: two workers in processes of their own, held against the single process, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from conftest import CommandLine
from PIL import Image
from small_store import running_store

from refinenet import RefineNet
from refinenet.datasets.street_scenes import draw_street
from refinenet.deployment.ray.engine import segment_with_ray, share_out
from refinenet.deployment.ray.journal import RayResult
from refinenet.deployment.ray.storage import list_names, pair_places, read_content, write_content
from refinenet.deployment.ray.tasks import Deaths, as_table, read_image

BAD = "07.jpg"


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """A bucket, as its URI."""
    with running_store("pictures") as bucket:
        yield bucket


@pytest.fixture(scope="module")
def cluster(store: str) -> Iterator[str]:
    """Two cores of Ray, and its address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
        ray.init(
            address="local", num_cpus=2, object_store_memory=200_000_000, include_dashboard=False, log_to_driver=False
        )
        try:
            yield ray.get_runtime_context().gcs_address
        finally:
            ray.shutdown()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen streets of several sizes, and a text that is called an image."""
    folder = tmp_path_factory.mktemp("ray") / "images"
    folder.mkdir()
    for seed in range(15):
        picture = Image.fromarray(draw_street(seed, 60 + 4 * seed, 97)[0])
        picture.save(folder / f"{seed:02}.jpg")
    (folder / BAD).write_text("no image")
    return folder


@pytest.fixture(scope="module")
def run(cluster: str, images: Path) -> tuple[list[RayResult], Path]:
    """What is told of the images, and where results go, by a run of which a worker is killed after four of them."""
    output, told = images.parent / "output", []
    for result in segment_with_ray(pair_places([str(images)], str(output))[0], workers=2, record=output):
        told.append(result)
        if len(told) == 4:
            workers = worker_processes()
            assert len(workers) == 2
            os.kill(workers[0], signal.SIGKILL)
    return told, output


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def worker_processes() -> list[int]:
    """The processes that hold the network, of the Ray that this process has started."""
    lines = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in lines.splitlines()[1:]]
    own = {row[0] for row in rows if row[1] == str(os.getpid())}
    return [int(row[0]) for row in rows if row[1] in own and "MapWorker(MapBatches(Worker))" in row[2]]


def test_every_image_once_though_a_worker_is_killed(
    run: tuple[list[RayResult], Path], images: Path, tmp_path: Path, camvid_model: RefineNet
) -> None:
    told, output = run
    for image in sorted(images.iterdir()):
        if image.name != BAD:
            camvid_model.deploy(image_file=image, output_file=tmp_path / f"{image.stem}.png")
    expected = contents(tmp_path)
    assert sorted(result.image for result in told) == sorted(map(str, images.iterdir()))
    failed = [result for result in told if result.error is not None]
    assert [Path(result.image).name for result in failed] == [BAD]
    assert f"{images / BAD} is not a JPEG, PNG" in str(failed[0].error)
    assert len(expected) == 14
    assert contents(output) == expected
    for result in told:
        if result.areas is not None:
            assert result.areas == camvid_model.segment(result.image).areas


def test_a_finished_job_is_left_as_it_is(
    run: tuple[list[RayResult], Path], images: Path, run_refinenet: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, output = run
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in output.glob("*.png")}
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # where no Ray is: a finished job asks for none
    good = sorted(path for path in images.iterdir() if path.name != BAD)
    again = run_refinenet("deploy", *good, "--output", output, "--engine", "ray", "--model", "camvid")
    assert again.stderr == ""
    assert again.returncode == 0
    assert again.stdout == f"0 of 14 images segmented, 14 were done before, by the same model and settings: {output}.\n"
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in output.glob("*.png")} == before
    areas = {result.image: result.areas for result in told}
    pairs = [(image, output / f"{image.stem}.png") for image in good]
    for result in segment_with_ray(pairs, record=output):
        assert not result.is_new
        assert result.areas == areas[result.image]


def test_from_a_folder_and_a_store_into_a_store(
    cluster: str,
    store: str,
    images: Path,
    run_refinenet: CommandLine,
    camvid_model: RefineNet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sources = {f"{store}/in/day one/a.jpg": images / "00.jpg", str(images / "01.jpg"): images / "01.jpg"}
    damaged = f"{store}/in/damaged.png"
    write_content(next(iter(sources)), (images / "00.jpg").read_bytes())
    write_content(damaged, b"no image")
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    options = ("--output", f"{store}/out", "--engine", "ray", "--workers", "1", "--kind", "colour")
    result = run_refinenet("deploy", f"{store}/in", images / "01.jpg", *options, "--recursive", "--json", timeout=400)
    assert result.returncode == 1
    assert f"Error: {damaged}: " in result.stderr
    assert result.stderr.endswith("Error: 1 of 3 images could not be segmented.\n")
    told = {report["image"]: report for report in json.loads(result.stdout)}
    assert "is not a JPEG" in told.pop(damaged)["error"]
    assert list_names(f"{store}/out", (".png",)) == ["01.png", "day one/a.png"]
    assert told.keys() == sources.keys()
    for image, file in sources.items():
        segmentation = camvid_model.segment(file)
        assert read_content(told[image]["output"]) == segmentation.encode("x.png", "colour")
        assert told[image]["areas"] == segmentation.areas
    pairs = [(image, told[image]["output"]) for image in sources]
    again = segment_with_ray(pairs, kind="colour", record=f"{store}/out")
    assert [result.is_new for result in again] == [False, False]


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


def test_an_image_over_which_three_processes_died_is_given_up(cluster: str, images: Path) -> None:
    deaths: Any = ray.remote(num_cpus=0)(Deaths).remote()
    for process in ("one", "two", "three"):
        ray.get(deaths.begin.remote(process, "read 4"))
    rows = [{"index": index, "image": str(images / f"0{index}.jpg"), "output": "x.png"} for index in (4, 5)]
    errors = [read_image(as_table(row), deaths).to_pylist()[0]["error"] for row in rows]
    assert f"{images / '04.jpg'} is given up: 3 processes died over it" in errors[0]
    assert errors[1] is None


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
    skipped = next(segment_with_ray([pair, (tmp_path / "other.jpg", pair[1])]))
    assert skipped.error is not None
    assert f"its result would be {pair[1]}, as that of {street_file}" in str(skipped.error)
    with pytest.raises(ValueError, match="JPEG would change labels"):
        segment_with_ray([(street_file, tmp_path / "one.jpg")], kind="labels")
    with pytest.raises(ValueError, match="ftp://there/x"):
        segment_with_ray([("ftp://there/x", tmp_path / "one.png")])
    result = run_refinenet("deploy", street_file, "--workers", "2")
    assert result.returncode == 2
    assert "--engine" in result.stderr
