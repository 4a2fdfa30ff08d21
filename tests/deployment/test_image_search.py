"""Images that a user names, and the paths of their results: files, folders, patterns, lists, standard input."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import warm_start
from conftest import CommandLine
from PIL import Image
from street_files import SIZE, files, labels_of, read

from refinenet import RefineNet


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
    call_refinenet: CommandLine, here: Path, camvid_model: RefineNet, sources: list[str], results: list[str]
) -> None:
    (here / "list.txt").write_bytes(b"\xef\xbb\xbfin/a.jpg\r\n\nin/deep/a.jpg\n")
    result = call_refinenet("deploy", *sources, "-o", "out", "--json")
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
    call_refinenet: CommandLine, here: Path, arguments: list[str], code: int, words: str
) -> None:
    (here / "empty").mkdir()
    shutil.copytree(here / "in", here / "above" / "in")
    (here / "empty.txt").write_text("\n")
    (here / "above" / "deploy").mkdir()
    shutil.copy(here / "in" / "a.jpg", here / "above" / "deploy" / "deploy.jpg")
    before = {path: path.read_bytes() for path in (here / "in").rglob("*.*")}
    result = call_refinenet("deploy", *arguments)
    assert result.returncode == code, result.stderr
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert {path: path.read_bytes() for path in (here / "in").rglob("*.*")} == before


def test_default_outputs_replace_no_file(call_refinenet: CommandLine, here: Path) -> None:
    (here / "in" / "a_labels.png").write_bytes(b"a mask drawn by hand")
    refused = call_refinenet("deploy", "in/a.jpg")
    assert refused.returncode == 1
    assert "a_labels.png already exists" in refused.stderr
    assert "--overwrite" in refused.stderr
    assert (here / "in" / "a_labels.png").read_bytes() == b"a mask drawn by hand"
    assert call_refinenet("deploy", "in/a.jpg", "--overwrite").returncode == 0
    assert read(here / "in" / "a_labels.png").shape == SIZE


def test_a_name_without_a_suffix_is_a_folder(call_refinenet: CommandLine, here: Path) -> None:
    result = call_refinenet("deploy", "in/a.jpg", "-o", "new/labels", "-k", "overlay")
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
