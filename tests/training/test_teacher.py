"""Knowledge distillation: valid teachers, what is learned, and that a resumed run keeps its teacher."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest
from small_runs import CLASSES, SETTINGS, new_network, resume, train, write_pictures

from refinenet import RefineNet
from refinenet.models.files.model_card import bundled_path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


def test_a_teacher_of_other_classes_is_refused(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="11 classes"):
        train(pictures, tmp_path / "run", teacher="camvid")


def test_a_folder_of_its_name_does_not_hide_the_bundled_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "camvid").mkdir()
    r = RefineNet(encoder="test_resnet", device="cpu")
    settings = {**SETTINGS, "teacher": "camvid"}
    r.train("streets:4:48x32", output="run", progress=False, check=False, stop_after=1, **settings)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["config"]["teacher"] == "camvid"
    assert record["teacher_sha256"] == RefineNet(model=bundled_path("camvid"), device="cpu").card.weights_sha256


def test_teachers_of_stages_lie_beside_their_file_and_are_looked_for_at_once(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tmp_path / "plans" / "plan.yaml"
    plan.parent.mkdir()
    stage = {"dataset": str(pictures), **SETTINGS, "epochs": 1}
    plan.write_text(json.dumps({"stages": [stage, {**stage, "teacher": "teacher.safetensors"}]}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"plans/teacher\.safetensors"):
        new_network().train(stages=plan, output="out", progress=False, check=False)
    assert not Path("out").exists()
    new_network().save(tmp_path / "plans" / "teacher.safetensors")
    new_network().train(stages=plan, output="out", progress=False, check=False, stop_after=1)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert resume(tmp_path / "out").is_over
    last = json.loads(next((tmp_path / "out").glob("2-*/run.json")).read_text())
    assert last["config"]["teacher"] == str(tmp_path / "plans" / "teacher.safetensors")


def test_a_student_is_drawn_to_its_teacher(tmp_path: Path) -> None:
    """With no other loss, a network approaches the teacher's probabilities."""
    settings: dict[str, Any] = {**SETTINGS, "epochs": 8, "scale": [1.0, 1.0], "flip": False, "colour_jitter": 0.0}
    settings |= {"class_crops": 0.0, "batch_size": 2, "validate_every": 8}
    settings |= {"cross_entropy_weight": 0.0, "dice_weight": 0.0, "teacher": "camvid", "teacher_weight": 1.0}
    student = RefineNet(encoder="test_resnet", device="cpu")
    student.train(dataset="streets:4:48x32", output=tmp_path, progress=False, check=False, **settings)
    divergences = [float(row["loss"]) for row in csv.DictReader((tmp_path / "log.csv").open())]
    assert 0 < divergences[-1] < 0.75 * divergences[0]


def test_a_run_goes_on_with_the_teacher_that_it_had(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given relative to one folder, found from another; with other weights in its file it is rejected."""
    monkeypatch.chdir(tmp_path)
    new_network().save("teacher.safetensors")
    train(pictures, tmp_path / "run", teacher="teacher.safetensors", stop_after=1)
    (tmp_path / "elsewhere").mkdir()
    os.chdir(tmp_path / "elsewhere")
    RefineNet(encoder="test_resnet", device="cpu", num_classes=CLASSES, seed=1).save("other.safetensors")
    original = (tmp_path / "teacher.safetensors").read_bytes()
    (tmp_path / "teacher.safetensors").write_bytes(Path("other.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"teacher\.safetensors, the teacher of the run .*has different weights"):
        resume(tmp_path / "run")
    (tmp_path / "teacher.safetensors").write_bytes(original)
    assert resume(tmp_path / "run").is_over
