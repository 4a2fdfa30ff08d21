"""Segmentation with Ray: two workers in separate processes, compared bit for bit with a single process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import ray
from conftest import CommandLine
from dense_network import new_network
from PIL import Image
from small_store import running_store

from refinenet import RefineNet
from refinenet.datasets.street_scenes import draw_street
from refinenet.deployment.ray.engine import segment_with_ray, share_out
from refinenet.deployment.ray.journal import RayResult
from refinenet.deployment.ray.reading import Deaths, as_table, read_row
from refinenet.deployment.ray.storage import list_names, pair_places, read_content, write_content
from refinenet.deployment.ray.tasks import Worker, WorkerSettings
from refinenet.io.images.sample_values import AS_DECLARED
from refinenet.models.factory import open_model

BAD = "07.jpg"


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """The URI of a bucket."""
    with running_store("pictures") as bucket:
        yield bucket


@pytest.fixture(scope="module")
def cluster(store: str) -> Iterator[str]:
    """The address of a Ray instance with two cores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
        patch.setenv("RAY_worker_register_timeout_seconds", "600")
        start_ray()
        try:
            yield ray.get_runtime_context().gcs_address
        finally:
            ray.shutdown()


def start_ray(attempts: int = 6) -> None:
    """Start Ray with two cores. Its processes wait 15 and 30 seconds for each other, which a busy machine may miss."""
    for attempt in range(1, attempts + 1):
        try:
            ray.init(
                address="local",
                num_cpus=2,
                object_store_memory=200_000_000,
                include_dashboard=False,
                log_to_driver=False,
            )
        except Exception:  # Ray raises Exception itself
            ray.shutdown()
            if attempt == attempts:
                raise
        else:
            return


@pytest.fixture(scope="module")
def deaths(cluster: str) -> Any:
    """One counter for all tests, as its process takes seconds to start; each counts other images."""
    return ray.remote(num_cpus=0)(Deaths).remote()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen streets of several sizes, and a text file named like an image."""
    folder = tmp_path_factory.mktemp("ray") / "images"
    folder.mkdir()
    for seed in range(15):
        picture = Image.fromarray(draw_street(seed, 60 + 4 * seed, 97)[0])
        picture.save(folder / f"{seed:02}.jpg")
    (folder / BAD).write_text("no image")
    return folder


@pytest.fixture(scope="module")
def run(cluster: str, images: Path) -> tuple[list[RayResult], Path]:
    """Results and results folder of a run whose first worker is killed after four images."""
    output, results = images.parent / "output", []
    for result in segment_with_ray(pair_places([str(images)], str(output))[0], workers=2, record=output):
        results.append(result)
        if len(results) == 4:
            workers = worker_processes()
            assert len(workers) == 2
            os.kill(workers[0], signal.SIGKILL)
    return results, output


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def worker_processes() -> list[int]:
    """The worker processes of the Ray instance that this process has started."""
    lines = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in lines.splitlines()[1:]]
    own = {row[0] for row in rows if row[1] == str(os.getpid())}
    return [int(row[0]) for row in rows if row[1] in own and "MapWorker(MapBatches(Worker))" in row[2]]


def test_every_image_once_though_a_worker_is_killed(
    run: tuple[list[RayResult], Path], images: Path, tmp_path: Path, camvid_model: RefineNet
) -> None:
    results, output = run
    for image in sorted(images.iterdir()):
        if image.name != BAD:
            camvid_model.deploy(image_file=image, output_file=tmp_path / f"{image.stem}.png")
    expected = contents(tmp_path)
    assert sorted(result.image for result in results) == sorted(map(str, images.iterdir()))
    failed = [result for result in results if result.error is not None]
    assert [Path(result.image).name for result in failed] == [BAD]
    assert f"{images / BAD} is not a JPEG, PNG" in str(failed[0].error)
    assert len(expected) == 14
    assert contents(output) == expected
    for result in results:
        if result.areas is not None:
            assert result.areas == camvid_model.segment(result.image).areas


def test_a_finished_run_is_left_as_it_is(
    run: tuple[list[RayResult], Path], images: Path, run_refinenet: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, output = run
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in output.glob("*.png")}
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # no Ray there: a finished run needs none
    good = sorted(path for path in images.iterdir() if path.name != BAD)
    command = ("deploy", *good, "--output", output, "--engine", "ray", "--model", "camvid")
    again = run_refinenet(*command, timeout=600)  # most of it is importing PyTorch and Ray, slow on a busy machine
    # On a busy machine the line of progress may be due.
    assert not [line for line in again.stderr.splitlines() if not line.startswith("Segmenting: ")]
    assert again.returncode == 0
    assert (
        again.stdout == f"0 of 14 images segmented, 14 were already done, with the same model and settings: {output}.\n"
    )
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in output.glob("*.png")} == before
    areas = {result.image: result.areas for result in results}
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
    result = run_refinenet("deploy", f"{store}/in", images / "01.jpg", *options, "--recursive", "--json", timeout=600)
    assert result.returncode == 1
    assert f"Error: {damaged}: " in result.stderr
    assert result.stderr.endswith("Error: 1 of 3 images could not be segmented.\n")
    reports = {report["image"]: report for report in json.loads(result.stdout)}
    assert "is not a JPEG" in reports.pop(damaged)["error"]
    assert list_names(f"{store}/out", (".png",)) == ["01.png", "day one/a.png"]
    assert reports.keys() == sources.keys()
    for image, file in sources.items():
        segmentation = camvid_model.segment(file)
        assert read_content(reports[image]["output"]) == segmentation.encode("x.png", "colour")
        assert reports[image]["areas"] == segmentation.areas
    pairs = [(image, reports[image]["output"]) for image in sources]
    again = segment_with_ray(pairs, kind="colour", record=f"{store}/out")
    assert [result.is_new for result in again] == [False, False]


def test_images_are_read_as_on_one_machine(cluster: str, tmp_path: Path, camvid_model: RefineNet) -> None:
    """The same bands, value range, masks and notes: pixels above 200 are clipped, and a third of b.png has no data."""
    folder, street = tmp_path / "in", draw_street(5, 60, 97)[0]
    folder.mkdir()
    alpha = np.repeat(np.array([0, 255, 255], np.uint8), 20)[:, np.newaxis].repeat(97, axis=1)
    Image.fromarray(street).save(folder / "a.jpg")
    Image.fromarray(np.dstack([street, alpha])).save(folder / "b.png")
    assert cv2.imwrite(str(folder / "c.png"), street[..., ::-1].astype(np.uint16) * 2)
    reading: dict[str, Any] = {"bands": (3, 2, 1), "value_range": (0, 200)}
    with pytest.warns(UserWarning, match="clipped") as expected_notes:
        expected = camvid_model.deploy_files(folder, tmp_path / "one", progress=False, **reading)
    pairs, output = pair_places([str(folder)], str(tmp_path / "ray"))
    with pytest.warns(UserWarning, match="clipped") as notes:
        results = list(segment_with_ray(pairs, workers=1, record=output, **reading))
    assert len(_clipping_notes(notes)) == len(_clipping_notes(expected_notes)) == 1
    assert "This is reported for the first such image only." in _clipping_notes(notes)[0]
    assert contents(tmp_path / "ray") == {
        name: content for name, content in contents(tmp_path / "one").items() if name.endswith(".png")
    }
    found = {result.image: (result.areas, result.no_data) for result in results}
    assert found == {str(result.image): (result.areas, result.no_data) for result in expected}
    assert found[str(folder / "b.png")][1] == pytest.approx(1 / 3)
    again = {result.image: result for result in segment_with_ray(pairs, record=output, **reading)}
    assert {image: (result.areas, result.no_data) for image, result in again.items()} == found
    assert not any(result.is_new for result in again.values())
    reading["value_range"] = (0, 256)  # other pixels, so the results above do not count
    assert [result.is_new for result in segment_with_ray(pairs[:1], workers=1, record=output, **reading)] == [True]


def _clipping_notes(caught: pytest.WarningsRecorder) -> list[str]:
    """Return the notes of clipped values; Ray itself may warn of other things."""
    return [str(warning.message) for warning in caught if "clipped" in str(warning.message)]


def test_deaths_are_counted_by_image() -> None:
    deaths = Deaths()
    assert deaths.begin("reader", "read 1") == 0
    assert deaths.begin("one", "segment 1") == 0
    assert deaths.begin("one", "segment 2") == 0  # killed over it
    assert deaths.begin("two", "segment 1") == 0  # repeated
    assert deaths.begin("two", "segment 2") == 1
    assert deaths.begin("three", "segment 2") == 2
    assert deaths.begin("three", "segment 3") == 0
    assert deaths.begin("two", "read 1") == 1


def test_processes_that_only_read_or_count_import_no_pytorch() -> None:
    """It would take seconds and half a gigabyte in each of them."""
    code = "import sys; import refinenet.deployment.ray.reading; print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"


def test_an_image_over_which_three_processes_died_is_given_up(deaths: Any, images: Path) -> None:
    for process in ("one", "two", "three"):
        ray.get(deaths.begin.remote(process, "read 4"))
    rows = [{"index": index, "image": str(images / f"0{index}.jpg"), "output": "x.png"} for index in (4, 5)]
    errors = [read_row(as_table(row), deaths, AS_DECLARED).to_pylist()[0]["error"] for row in rows]
    assert f"{images / '04.jpg'} is skipped: 3 processes died while processing it" in errors[0]
    assert errors[1] is None


def test_repeated_work_leaves_a_written_result_as_it_is(
    deaths: Any, images: Path, tmp_path: Path, camvid_model: RefineNet
) -> None:
    """Its stamp is in the journal already, so that a second writing would make the next run repeat it."""
    row: dict[str, Any] = {"index": 0, "image": str(images / "00.jpg"), "output": str(tmp_path / "00.png")}
    network, card = open_model("camvid")
    job: dict[str, Any] = {"network": network, "card": card, "backend": "pytorch", "precision": "float32", "kind": None}
    worker = Worker(ray.put(WorkerSettings(**job, device="cpu", threads=1)), deaths)

    def segment() -> str:
        outcome = json.loads(worker(read_row(as_table(row), deaths, AS_DECLARED)).to_pylist()[0]["outcome"])
        return str(outcome["made"])

    first = segment()
    assert segment() == first
    ray.get(deaths.begin.remote("killed", "segment 0"))
    assert segment() == first
    (tmp_path / "00.png").write_bytes(b"half")
    assert segment() != first
    assert np.array_equal(np.asarray(Image.open(row["output"])), camvid_model.segment(row["image"]).labels)


@pytest.mark.parametrize(
    ("index", "kind", "name"), [(10, "depth", "a.png"), (11, "normals", "a.png"), (12, "values", "a.npz")]
)
def test_a_worker_writes_values_as_one_process_does(
    deaths: Any, images: Path, tmp_path: Path, index: int, kind: str, name: str
) -> None:
    model = new_network()
    row: dict[str, Any] = {"index": index, "image": str(images / "00.jpg"), "output": str(tmp_path / name)}
    job: dict[str, Any] = {"network": model.network, "card": model.card, "backend": "pytorch", "precision": "float32"}
    worker = Worker(ray.put(WorkerSettings(**job, kind=kind, device="cpu", threads=1)), deaths)
    worker(read_row(as_table(row), deaths, AS_DECLARED))
    (alone,) = model.deploy_files(images / "00.jpg", tmp_path / f"alone{Path(name).suffix}", kind, progress=False)
    assert alone.error is None
    assert (tmp_path / name).read_bytes() == alone.outputs[kind].read_bytes()
    with pytest.raises(ValueError, match=r"With Ray, depth cannot be written as \.tif"):
        segment_with_ray([(images / "00.jpg", tmp_path / "a.tif")], model=model.save(tmp_path / "m"), kind="depth")


def test_an_address_without_ray_is_reported_at_once(
    images: Path, tmp_path: Path, run_refinenet: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    result = run_refinenet("deploy", images / "00.jpg", images / "01.jpg", "--output", "out", "--engine", "ray")
    assert result.returncode == 1
    assert "Ray could not be started or reached at RAY_ADDRESS=127.0.0.1:1: " in result.stderr
    assert "Connection refused" in result.stderr


def test_the_machines_are_shared_among_the_workers() -> None:
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
    with pytest.raises(ValueError, match="3 workers need as many cores, but the Ray cluster has 2"):
        shares(3, 1, 1)
    with pytest.raises(ValueError, match="no GPU"):
        share_out([{"CPU": 4}], 1, "cuda")


def test_invalid_arguments_are_refused_at_once(tmp_path: Path, street_file: Path, run_refinenet: CommandLine) -> None:
    pair = (street_file, tmp_path / "one.png")
    with pytest.raises(ValueError, match="at least 1, not 0"):
        segment_with_ray([pair], workers=0)
    skipped = next(segment_with_ray([pair, (tmp_path / "other.jpg", pair[1])]))
    assert skipped.error is not None
    assert f"its result would be {pair[1]}, which is also that of {street_file}" in str(skipped.error)
    with pytest.raises(ValueError, match="JPEG would change labels"):
        segment_with_ray([(street_file, tmp_path / "one.jpg")], kind="labels")
    # What no model writes is refused before one is read.
    for kind, name, words in (
        ("depth", "one.jpg", "depth is written as .png, .tif, .npz"),
        ("depth", "one.tif", "With Ray, depth cannot be written as .tif"),
        (None, "one.txt", "Pictures are written as .png"),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            segment_with_ray([(street_file, tmp_path / name)], kind=kind, model=tmp_path / "missing.safetensors")
    with pytest.raises(ValueError, match=r"With Ray, probabilities cannot be written; labels, .* can"):
        segment_with_ray([(street_file, tmp_path / "one.npz")])
    with pytest.raises(ValueError, match=r"limits \(--limits\) has no effect on labels \(\.png\)"):
        segment_with_ray([pair], limits=(0, 5))
    with pytest.raises(ValueError, match="ftp://there/x"):
        segment_with_ray([("ftp://there/x", tmp_path / "one.png")])
    result = run_refinenet("deploy", street_file, "--workers", "2")
    assert result.returncode == 2
    assert "--engine" in result.stderr
