"""Many images in one run: bad and changing files, kinds of results; by the command line and by `RefineNet`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import warm_start
from conftest import CommandLine
from PIL import Image
from street_files import SIZE, files, read

from refinenet import RefineNet
from refinenet.datasets.street_scenes import draw_street
from refinenet.deployment.file_results import DeployOptions
from refinenet.deployment.files import segment_files
from refinenet.deployment.inputs import plan_work
from refinenet.inference.backends import open_backend
from refinenet.inference.prediction import Prediction
from refinenet.inference.segmenter import Segmenter


def test_a_bad_file_in_the_middle_is_reported_in_order_and_skipped(
    call_refinenet: CommandLine, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call_refinenet("deploy", pictures, "-r", "-o", "out", "--json-lines", "lines.jsonl")
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
def test_system_errors_are_reported_without_their_number(call_refinenet: CommandLine, here: Path) -> None:
    (here / "in" / "gone.png").symlink_to("/nowhere/gone.png")
    result = call_refinenet("deploy", "in", "-o", "out", "--json")
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


def test_json_lines_replace_no_file_of_the_command(call_refinenet: CommandLine, here: Path) -> None:
    for clash in ("out/a.json", "out/deploy.jsonl"):
        result = call_refinenet("deploy", "in", "-o", "out", "-k", "coco", "--json-lines", clash)
        assert result.returncode == 1
        assert f"--json-lines {clash}: this file is an input or output of the command" in result.stderr
        assert not (here / "out").exists()


def test_windows_and_a_latency_budget_are_refused_together(call_refinenet: CommandLine, here: Path) -> None:
    result = call_refinenet("deploy", "in/c.png", "-o", "c.tif", "--max-latency", "1000")
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
    with pytest.raises(ValueError, match="made with another model for the same classes"):
        r.deploy_files("in/c.png", "out/", progress=False)
    (second,) = r.deploy_files("in/c.png", "out/", overwrite=True, progress=False)
    assert second.areas["Road"] == 1
    assert first.areas != second.areas
    r.save("changed.safetensors")
    assert r.card.weights_sha256 not in ("", before)


def test_uncertain_pixels_are_void_on_request(call_refinenet: CommandLine, here: Path, camvid_model: RefineNet) -> None:
    result = call_refinenet("deploy", "in/a.jpg", "-o", "out/a.png", "--abstain-below", "0.7", "--window", "64x64")
    assert result.returncode == 0, result.stderr
    in_windows = read(here / "out" / "a.png")
    result = call_refinenet("deploy", "in/a.jpg", "in/c.png", "-o", "out2", "--abstain-below", "0.7")
    assert result.returncode == 0, result.stderr
    found = camvid_model.segment(here / "in" / "a.jpg")
    expected = np.where(found.confidence < 0.7, found.label_set.ignore_index, found.labels)
    assert 0 < (expected == found.label_set.ignore_index).mean() < 1
    assert (read(here / "out2" / "a.png") == expected).all()
    assert (in_windows == found.label_set.ignore_index).any()
    with pytest.raises(ValueError, match=r"made with --abstain-below 0\.7 instead of without"):
        camvid_model.deploy_files("in", "out2", progress=False)
    with pytest.raises(ValueError, match="a confidence from 0 to 1, not 'much'"):
        camvid_model.segment(here / "in" / "a.jpg", abstain_below="much")  # type: ignore[call-overload]
    result = call_refinenet("deploy", "in/a.jpg", "--abstain-below", "70")
    assert result.returncode == 1
    assert "abstain_below must be a confidence from 0 to 1, not 70" in result.stderr


def test_several_kinds_get_a_folder_each(call_refinenet: CommandLine, here: Path, camvid_model: RefineNet) -> None:
    kinds = ("labels", "overlay", "colour", "confidence", "probabilities", "polygons")
    options = [option for kind in kinds for option in ("--kind", kind)]
    result = call_refinenet("deploy", "in", "--recursive", "-o", "out", *options)
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


def test_results_in_a_folder_may_have_another_suffix(call_refinenet: CommandLine, here: Path) -> None:
    usual = ("deploy", "in", "-o", "out", "--kind", "overlay")
    assert call_refinenet(*usual, "--suffix", ".jpg").returncode == 0
    assert files(here / "out") == ["a.jpg", "c.jpg"]
    with Image.open(here / "out" / "a.jpg") as image:
        assert (image.format, image.size) == ("JPEG", SIZE[::-1])
    for arguments, message in (
        (("deploy", "in", "-o", "new", "--suffix", ".jpg", "--kind", "labels"), "JPEG would change labels"),
        (("deploy", "in", "-o", "new", "--suffix", "jpg"), "A suffix must begin with a dot"),
        (("deploy", "in/a.jpg", "-o", "new.png", "--suffix", ".png"), "name the file instead"),
        (("deploy", "in", "-o", "new.tif"), "name the folder and the suffix (--suffix .tif)"),
    ):
        refused = call_refinenet(*arguments)
        assert refused.returncode == 1
        assert message in " ".join(refused.stderr.split())
    assert not (here / "new").exists()
