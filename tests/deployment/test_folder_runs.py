"""Many images in one run: inputs, kinds of results, resuming; by the command line and by `RefineNet`."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
import warm_start
from PIL import Image
from pycocotools import mask as coco_mask

from refinenet import RefineNet
from refinenet.cli import main
from refinenet.datasets.street_scenes import draw_street
from refinenet.deployment.file_results import DeployOptions
from refinenet.deployment.files import segment_files
from refinenet.deployment.inputs import plan_work
from refinenet.deployment.regions import find_regions, to_geojson
from refinenet.inference.backends import open_backend
from refinenet.inference.prediction import Prediction
from refinenet.inference.segmenter import Segmenter
from refinenet.labels import LabelSet

SIZE = (48, 64)
MANY = 24


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `a.jpg`, `b.png` (not an image), `c.png`, `deep/a.jpg`, `deep/er/d.jpg`."""
    root = tmp_path_factory.mktemp("pictures") / "in"
    for number, name in enumerate(("a.jpg", "c.png", "deep/a.jpg", "deep/er/d.jpg")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_street(number, *SIZE)[0]).save(root / name)
    (root / "b.png").write_bytes(b"no image")
    return root


class Ended(NamedTuple):
    """Exit code and output of a command."""

    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Ended]


@pytest.fixture
def run_refinenet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `refinenet ARGUMENTS` in this process, which saves importing PyTorch each time."""

    def run(*arguments: str | Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["refinenet", *map(str, arguments)])
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        with pytest.raises(SystemExit) as ending:
            main()
        return Ended(int(ending.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def here(tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a copy of the pictures but for the bad one."""
    shutil.copytree(pictures, tmp_path / "in")
    (tmp_path / "in" / "b.png").unlink()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path) -> list[str]:
    """Return the files below a folder, without the journal."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name not in ("deploy.json", "deploy.jsonl"))


def read(path: Path) -> npt.NDArray[Any]:
    return np.asarray(Image.open(path))


def labels_of(model: RefineNet, image: Path) -> npt.NDArray[Any]:
    return model.segment(image).labels


@pytest.mark.parametrize(
    ("sources", "results"),
    [
        (["in"], ["a.png", "c.png"]),
        (["in", "--recursive"], ["a.png", "c.png", "deep/a.png", "deep/er/d.png"]),
        (["in/**/*.jpg"], ["a.png", "deep/a.png", "deep/er/d.png"]),
        (["in/*/?.jpg"], ["deep/a.png"]),
        (["in/c.png", "in/deep/a.jpg"], ["a.png", "c.png"]),
        (["in/c.png", "in/deep/er"], ["c.png", "d.png"]),
        (["@list.txt"], ["in/a.png", "in/deep/a.png"]),
    ],
)
def test_inputs_on_the_command_line(
    run_refinenet: Command, here: Path, camvid_model: RefineNet, sources: list[str], results: list[str]
) -> None:
    (here / "list.txt").write_bytes(b"\xef\xbb\xbfin/a.jpg\r\n\nin/deep/a.jpg\n")
    result = run_refinenet("deploy", *sources, "-o", "out", "--json")
    assert result.returncode == 0, result.stderr
    assert files(here / "out") == results
    reports = json.loads(result.stdout)
    assert sorted(Path(report["outputs"]["labels"]).relative_to("out").as_posix() for report in reports) == results
    for report in reports:
        expected = labels_of(camvid_model, here / report["image"])
        assert (read(here / report["outputs"]["labels"]) == expected).all()
        assert (report["height"], report["width"]) == SIZE
        assert report["areas"]["Sky"] == pytest.approx((expected == 0).mean())
        assert report["seconds"] > 0


def test_a_bad_file_in_the_middle_is_reported_in_order_and_skipped(
    run_refinenet: Command, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run_refinenet("deploy", pictures, "-r", "-o", "out", "--json-lines", "lines.jsonl")
    assert result.returncode == 1
    assert "b.png is not a JPEG" in result.stderr
    assert "1 of 5 images" in result.stderr
    assert files(tmp_path / "out") == ["a.png", "c.png", "deep/a.png", "deep/er/d.png"]
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert [Path(line["image"]).relative_to(pictures).as_posix() for line in lines] == [
        *("a.jpg", "b.png", "c.png", "deep/a.jpg", "deep/er/d.jpg")
    ]
    assert ["error" in line for line in lines] == [False, True, False, False, False]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows lets few users make links")
def test_system_errors_are_reported_without_their_number(run_refinenet: Command, here: Path) -> None:
    (here / "in" / "gone.png").symlink_to("/nowhere/gone.png")
    result = run_refinenet("deploy", "in", "-o", "out", "--json")
    told = "Cannot read in/gone.png: No such file or directory"
    assert result.stderr.splitlines()[0] == f"Error: {told}"
    assert [report["error"] for report in json.loads(result.stdout) if "error" in report] == [told]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's names of files are any bytes")
def test_a_name_that_is_not_text_is_shown_by_its_bytes(here: Path) -> None:
    (here / "in" / "a.jpg").rename(here / "in" / os.fsdecode(b"m\xe9tro.jpg"))
    command = [sys.executable, "-m", "refinenet", "deploy", "in", "-o", "out", "-k", "coco", "-k", "labels"]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = warm_start.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert rb"in/m\udce9tro.jpg -> out/" in done.stdout
    regions = json.loads((here / "out" / "coco" / os.fsdecode(b"m\xe9tro.json")).read_text())
    assert regions["images"][0]["file_name"] == os.fsdecode(b"m\xe9tro.jpg")


def test_json_lines_replace_no_file_of_the_command(run_refinenet: Command, here: Path) -> None:
    for clash in ("out/a.json", "out/deploy.jsonl"):
        result = run_refinenet("deploy", "in", "-o", "out", "-k", "coco", "--json-lines", clash)
        assert result.returncode == 1
        assert f"--json-lines {clash}: this file is an input or output of the command" in result.stderr
        assert not (here / "out").exists()


def test_windows_and_a_latency_budget_are_refused_together(run_refinenet: Command, here: Path) -> None:
    result = run_refinenet("deploy", "in/c.png", "-o", "c.tif", "--max-latency", "1000")
    assert result.returncode == 1
    assert "in/c.png is too large for memory" in result.stderr
    assert not (here / "c.tif").exists()


def test_an_image_that_is_replaced_meanwhile_is_redone(here: Path, camvid_model: RefineNet) -> None:
    """The image is replaced between reading and writing."""

    class ReplacingSegmenter(Segmenter):
        def predict_outputs(self, *arguments: Any) -> Prediction:
            found = super().predict_outputs(*arguments)
            Image.fromarray(draw_street(9, 40, 50)[0]).save(here / "in" / "c.png")
            return found

    backend, label_set = open_backend(camvid_model.network, "pytorch", "float32"), camvid_model.label_set
    work = plan_work([here / "in" / "c.png"], here / "out")
    (first,) = segment_files(ReplacingSegmenter(backend, label_set), work, DeployOptions())
    assert (first.width, first.height) == (64, 48)
    (second,) = segment_files(Segmenter(backend, label_set), work, DeployOptions())
    assert not second.was_there
    assert (second.width, second.height) == (50, 40)


def test_weights_changed_by_hand_are_another_model(here: Path) -> None:
    r = RefineNet(model="camvid", device="cpu")
    assert r.card.scores
    before = r.card.weights_sha256
    (first,) = r.deploy_files("in/c.png", "out/", progress=False)
    with torch.no_grad():
        assert r.network.classifier.bias is not None
        r.network.classifier.bias[3] += 1000
    assert (r.card.scores, r.card.weights_sha256) == ({}, "")
    with pytest.raises(ValueError, match="model_sha256"):
        r.deploy_files("in/c.png", "out/", progress=False)
    (second,) = r.deploy_files("in/c.png", "out/", overwrite=True, progress=False)
    assert second.areas["Road"] == 1
    assert first.areas != second.areas
    r.save("changed.safetensors")
    assert r.card.weights_sha256 not in ("", before)


def test_uncertain_pixels_are_void_on_request(run_refinenet: Command, here: Path, camvid_model: RefineNet) -> None:
    result = run_refinenet("deploy", "in/a.jpg", "-o", "out/a.png", "--abstain-below", "0.7", "--window", "64x64")
    assert result.returncode == 0, result.stderr
    in_windows = read(here / "out" / "a.png")
    result = run_refinenet("deploy", "in/a.jpg", "in/c.png", "-o", "out2", "--abstain-below", "0.7")
    assert result.returncode == 0, result.stderr
    found = camvid_model.segment(here / "in" / "a.jpg")
    expected = np.where(found.confidence < 0.7, found.label_set.ignore_index, found.labels)
    assert 0 < (expected == found.label_set.ignore_index).mean() < 1
    assert (read(here / "out2" / "a.png") == expected).all()
    assert (in_windows == found.label_set.ignore_index).any()
    with pytest.raises(ValueError, match="abstain_below"):
        camvid_model.deploy_files("in", "out2", progress=False)
    with pytest.raises(ValueError, match="a confidence from 0 to 1, not 'much'"):
        camvid_model.segment(here / "in" / "a.jpg", abstain_below="much")  # type: ignore[arg-type]
    result = run_refinenet("deploy", "in/a.jpg", "--abstain-below", "70")
    assert result.returncode == 1
    assert "abstain_below must be a confidence from 0 to 1, not 70" in result.stderr


def test_several_kinds_get_a_folder_each(run_refinenet: Command, here: Path, camvid_model: RefineNet) -> None:
    kinds = ("labels", "overlay", "colour", "confidence", "probabilities", "polygons")
    options = [option for kind in kinds for option in ("--kind", kind)]
    result = run_refinenet("deploy", "in", "--recursive", "-o", "out", *options)
    assert result.returncode == 0, result.stderr
    assert files(here / "out" / "overlay") == ["a.png", "c.png", "deep/a.png", "deep/er/d.png"]
    found = camvid_model.segment(here / "in" / "deep" / "a.jpg")
    for kind in ("labels", "overlay", "colour", "confidence"):
        assert (read(here / "out" / kind / "deep" / "a.png") == found.render(kind)).all()
    assert files(here / "out" / "geojson") == ["a.geojson", "c.geojson", "deep/a.geojson", "deep/er/d.geojson"]
    with np.load(here / "out" / "probabilities" / "deep" / "a.npz") as archive:
        shares, names = archive["probabilities"], archive["names"]
    assert (shares.dtype, shares.shape) == (np.float16, (11, *SIZE))
    assert (shares.argmax(0) == found.labels).all()
    assert np.abs(shares.astype(np.float64).sum(0) - 1).max() < 0.01
    assert np.abs(shares.max(0) - found.confidence).max() < 1e-3
    assert tuple(names) == camvid_model.label_set.names


def test_run_lengths_are_those_of_pycocotools(run_refinenet: Command, here: Path, camvid_model: RefineNet) -> None:
    result = run_refinenet("deploy", "in/a.jpg", "-o", "a.json")
    assert result.returncode == 0, result.stderr
    document = json.loads((here / "a.json").read_text())
    labels = labels_of(camvid_model, here / "in" / "a.jpg")
    names = {category["id"]: category["name"] for category in document["categories"]}
    assert names == dict(enumerate(camvid_model.label_set.names))
    assert document["images"] == [{"id": 1, "file_name": "a.jpg", "width": SIZE[1], "height": SIZE[0]}]
    decoded = np.full(SIZE, 255, np.uint8)
    for annotation in document["annotations"]:
        region = annotation["segmentation"]
        inside = coco_mask.decode(region).astype(bool)
        assert (decoded[inside] == 255).all()
        decoded[inside] = annotation["category_id"]
        assert coco_mask.area(region) == annotation["area"]
        assert coco_mask.toBbox(region).tolist() == annotation["bbox"]
        theirs = coco_mask.encode(np.asfortranarray(inside.astype(np.uint8)))
        assert theirs["counts"].decode() == region["counts"]
    assert (decoded == labels).all()


def test_polygons_cover_the_label_map_with_their_holes(
    run_refinenet: Command, here: Path, camvid_model: RefineNet
) -> None:
    result = run_refinenet("deploy", "in/a.jpg", "-o", "a.geojson")
    assert result.returncode == 0, result.stderr
    features = json.loads((here / "a.geojson").read_text())["features"]
    labels = labels_of(camvid_model, here / "in" / "a.jpg")
    assert (draw(features, SIZE, 255) == labels).all()
    assert all(camvid_model.label_set.names[one["properties"]["id"]] == one["properties"]["class"] for one in features)


class CloseCalls:
    """A network whose class probabilities are all equal in float16."""

    device = torch.device("cpu")

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return 1e-5 * torch.rand(1, 4, *images.shape[-2:], generator=torch.Generator().manual_seed(1))


def test_the_label_has_the_greatest_probability_even_where_float16_rounds_it_away() -> None:
    segmenter = Segmenter(CloseCalls(), LabelSet.numbered(4))
    found = segmenter.segment(np.zeros((*SIZE, 3), np.uint8))
    assert len(np.unique(found.labels)) == 4
    assert (found.probabilities.argmax(0) == found.labels).all()
    assert np.abs(found.probabilities.astype(float) - 0.25).max() < 1e-3


@pytest.mark.parametrize("classes", [3, 300])
def test_holes_islands_and_void_come_back_from_polygons_and_run_lengths(classes: int) -> None:
    label_set = LabelSet.numbered(classes)
    random = np.random.default_rng(classes)
    coarse = label_set.cast(random.integers(0, classes, (9, 14)))
    coarse[random.random((9, 14)) < 0.2] = label_set.ignore_index
    labels = coarse.repeat(3, 0).repeat(2, 1)[1:, 1:]
    labels[12:17, 4:9], labels[14, 6] = 1, 2
    features = to_geojson(labels, label_set)["features"]
    assert (draw(features, labels.shape, label_set.ignore_index) == labels).all()
    assert any(len(feature["geometry"]["coordinates"]) > 1 for feature in features)
    decoded = np.full_like(labels, label_set.ignore_index)
    for region in find_regions(labels, label_set.ignore_index):
        decoded[coco_mask.decode(region.to_coco(labels.shape)).astype(bool)] = region.label
        assert list(region.box) == coco_mask.toBbox(region.to_coco(labels.shape)).tolist()
    assert (decoded == labels).all()


def draw(features: list[dict[str, Any]], size: tuple[int, int], void: int) -> npt.NDArray[Any]:
    """Draw a label map from polygons, which must not overlap."""
    drawn = np.full(size, void, np.uint16)
    for feature in features:
        inside = np.zeros(size, bool)
        for ring in feature["geometry"]["coordinates"]:
            inside ^= inside_ring(ring, size)
        assert inside.sum() == feature["properties"]["area"]
        assert (drawn[inside] == void).all()
        drawn[inside] = feature["properties"]["id"]
    return drawn


def inside_ring(ring: list[list[int]], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return which pixels lie in a ring along pixel edges: those with an odd number of vertical edges to their left."""
    crossings = np.zeros((size[0], size[1] + 1), int)
    for (x, y), (next_x, next_y) in itertools.pairwise(ring):
        if x == next_x:
            crossings[min(y, next_y) : max(y, next_y), x] += 1
    odd: npt.NDArray[np.bool_] = crossings.cumsum(1)[:, :-1] % 2 == 1
    return odd


def test_standard_input_to_standard_output_and_to_a_file(here: Path, camvid_model: RefineNet) -> None:
    image = here / "in" / "c.png"
    command = [sys.executable, "-m", "refinenet", "deploy", "-", "--output"]
    piped = warm_start.run([*command, "-"], input=image.read_bytes(), capture_output=True, timeout=600, check=False)
    assert piped.returncode == 0, piped.stderr
    assert (np.asarray(Image.open(io.BytesIO(piped.stdout))) == labels_of(camvid_model, image)).all()
    written = warm_start.run(
        [*command, "out.png", "--json"], input=image.read_bytes(), capture_output=True, timeout=600, check=False
    )
    assert written.returncode == 0, written.stderr
    assert (here / "out.png").read_bytes() == piped.stdout
    assert json.loads(written.stdout)[0]["outputs"] == {"labels": "out.png"}
    broken = warm_start.run([*command, "-"], input=b"no image", capture_output=True, timeout=600, check=False)
    assert broken.returncode == 1
    assert broken.stdout == b""


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["-"], 2, "--output"),
        (["-", "in/a.jpg", "-o", "-"], 2, "a single image"),
        (["in/a.jpg", "-o", "-", "--json"], 2, "--output"),
        (["in/a.jpg", "-o", "-", "-k", "polygons"], 1, "one kind"),
        (["in/a.jpg", "-o", "a.png", "-k", "labels", "-k", "colour"], 1, "several files"),
        (["in/a.jpg", "-o", "a.png", "-k", "probabilities"], 1, ".npz"),
        (["in/a.jpg", "in/deep/a.jpg", "-o", "out"], 1, "'a'"),
        (["in", "-r", "-o", "in"], 1, "input images"),
        (["in/deep", "-o", "in/deep"], 1, "input images"),
        (["in/*.webp"], 1, "No image matches"),
        (["empty"], 1, "holds no images"),
        (["above"], 1, "--recursive"),
        (["@no.txt"], 1, "no.txt"),
        (["@empty.txt"], 1, "contains no images"),
        (["in", "-o", "out", "--json-lines", "in/a.jpg"], 2, "must end in .jsonl"),
        (["above/deploy", "-o", "out", "-k", "coco"], 1, "the settings of the folder"),
    ],
)
def test_invalid_commands_are_refused(
    run_refinenet: Command, here: Path, arguments: list[str], code: int, words: str
) -> None:
    (here / "empty").mkdir()
    shutil.copytree(here / "in", here / "above" / "in")
    (here / "empty.txt").write_text("\n")
    (here / "above" / "deploy").mkdir()
    shutil.copy(here / "in" / "a.jpg", here / "above" / "deploy" / "deploy.jpg")
    before = {path: path.read_bytes() for path in (here / "in").rglob("*.*")}
    result = run_refinenet("deploy", *arguments)
    assert result.returncode == code, result.stderr
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert {path: path.read_bytes() for path in (here / "in").rglob("*.*")} == before


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
    with pytest.raises(ValueError, match=r"made with other settings: model_sha256 .*overwrite=True"):
        other.deploy_files("in", "out", progress=False)
    with pytest.raises(ValueError, match="kinds"):
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


def test_default_outputs_replace_no_file(run_refinenet: Command, here: Path) -> None:
    (here / "in" / "a_labels.png").write_bytes(b"a mask drawn by hand")
    refused = run_refinenet("deploy", "in/a.jpg")
    assert refused.returncode == 1
    assert "a_labels.png already exists" in refused.stderr
    assert "--overwrite" in refused.stderr
    assert (here / "in" / "a_labels.png").read_bytes() == b"a mask drawn by hand"
    assert run_refinenet("deploy", "in/a.jpg", "--overwrite").returncode == 0
    assert read(here / "in" / "a_labels.png").shape == SIZE


def test_a_name_without_a_suffix_is_a_folder(run_refinenet: Command, here: Path) -> None:
    result = run_refinenet("deploy", "in/a.jpg", "-o", "new/labels", "-k", "overlay")
    assert result.returncode == 0, result.stderr
    assert files(here / "new" / "labels") == ["a.png"]


@pytest.mark.parametrize(
    ("images", "output", "words"),
    [
        ([""], "out", "is empty"),
        ([], "out", "No input given"),
        (["in"], "list.txt", "list.txt is a file"),
    ],
)
def test_invalid_inputs_and_outputs(
    images: list[str], output: str, words: str, here: Path, camvid_model: RefineNet
) -> None:
    (here / "list.txt").write_text("in/a.jpg")
    with pytest.raises(ValueError, match=re.escape(words)):
        camvid_model.deploy_files(images, output, progress=False)
    assert not (here / "out").exists()


def test_a_single_named_file_is_replaced(here: Path, camvid_model: RefineNet) -> None:
    for source in ("in/a.jpg", "in/c.png"):
        (result,) = camvid_model.deploy_files(source, "out.png", progress=False)
        assert (read(here / "out.png") == labels_of(camvid_model, here / source)).all()
        assert result.outputs == {"labels": Path("out.png")}
    (result,) = camvid_model.deploy_files("in/a.jpg", kinds=["overlay", "coco"], progress=False)
    assert set(result.outputs.values()) == {Path("in/a_overlay.png"), Path("in/a_coco.json")}


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
