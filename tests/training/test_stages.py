"""Training in stages: each starts from the best model of the one before, and none is lost."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import png_miniatures
import pytest
import safetensors.torch
import torch
import warm_start
from model_parts import SMALL_DECODER
from small_runs import write_pictures

from refinenet import RefineNet
from refinenet.training.stages import read_stages

SMALL: dict[str, Any] = {"crop_size": [32, 32], "batch_size": 2, "workers": 0, "epochs": 1, "loggers": []}
START = (
    "import torch; from refinenet import RefineNet; torch.manual_seed(5);"
    f"r = RefineNet(encoder='test_resnet', decoder={SMALL_DECODER})\n"
)


def write_plan(path: Path, folder: Path) -> Path:
    """Streets, then a folder with three other classes; JSON is YAML, too."""
    stages = [{"dataset": "streets:2:48x32", **SMALL}, {"dataset": str(folder), **SMALL, "epochs": 2}]
    path.write_text(json.dumps({"stages": stages}), "utf-8")
    return path


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "best.safetensors")


def test_a_stage_begins_with_the_best_model_of_the_one_before(drawn_folder: Path, tmp_path: Path) -> None:
    network = RefineNet(encoder="test_resnet", decoder=SMALL_DECODER, device="cpu")
    out = tmp_path / "out"
    result = network.train(
        stages=write_plan(tmp_path / "plan.yaml", drawn_folder), output=out, progress=False, check=False
    )
    assert [path.name for path in sorted(out.iterdir())] == [
        "1-streets-2-48x32",
        f"2-{drawn_folder.name}",
        "stages.json",
        "start.safetensors",
    ]
    assert (result.folder, result.epochs) == (out / f"2-{drawn_folder.name}", 2)
    assert network.label_set.names == ("other", "sky", "road")
    recipe = network.card.recipe
    first = RefineNet(model=out / "1-streets-2-48x32" / "best.safetensors", device="cpu").card
    assert recipe["started_from"]["weights_sha256"] == first.weights_sha256
    assert recipe["started_from"]["dataset"] == "streets"


def test_without_a_learning_rate_that_moves_anything_the_weights_pass_through(tmp_path: Path) -> None:
    """Rates of 1e-12 do not visibly change any weight: the last stage ends where the first started."""
    torch.manual_seed(1)
    network = RefineNet(encoder="test_resnet", decoder=SMALL_DECODER, num_classes=11, device="cpu")
    before = network.network.classifier.weight.detach().clone()
    stage = {"dataset": "streets:2:48x32", **SMALL, "learning_rate": 1e-12, "weight_decay": 0.0}
    network.train(stages=[stage, stage, stage], output=tmp_path / "out", progress=False, check=False)
    assert sorted(path.name[:2] for path in (tmp_path / "out").glob("?-*")) == ["1-", "2-", "3-"]
    torch.testing.assert_close(network.network.classifier.weight, before, atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stages of one step and of two."""
    folder = tmp_path_factory.mktemp("plan")
    few, more = (write_pictures(folder / str(count), train=count, val=1) for count in (2, 4))
    stages = [{"dataset": str(few), **SMALL}, {"dataset": str(more), **SMALL}]
    (folder / "plan.yaml").write_text(json.dumps({"stages": stages}), "utf-8")
    return folder / "plan.yaml"


@pytest.fixture(scope="module")
def whole(plan: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights that the uninterrupted training ends with."""
    out = tmp_path_factory.mktemp("whole") / "out"
    warm_start.run(
        [sys.executable, "-c", f"{START}r.train(stages={str(plan)!r}, output={str(out)!r}, check=False)"], check=True
    )
    return weights(next(out.glob("2-*")))


@pytest.mark.parametrize("awaited", ["1-*/run.json", "stages.json", "1-*/log.csv", "2-*/run.json", "2-*/log.csv"])
def test_a_training_killed_at_any_point_goes_on_to_the_same_end(
    awaited: str, plan: Path, whole: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    cut = tmp_path / "cut"
    process = warm_start.Process(
        [sys.executable, "-c", f"{START}r.train(stages={str(plan)!r}, output={str(cut)!r}, check=False)"]
    )
    deadline = time.monotonic() + 120
    while not list(cut.glob(awaited)) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert list(cut.glob(awaited))
    network = RefineNet(encoder="test_resnet", decoder=SMALL_DECODER, device="cpu")
    found = weights(network.train(resume=cut, progress=False, check=False).folder)
    assert found.keys() == whole.keys()
    assert all(torch.equal(found[name], whole[name]) for name in found)


def test_a_training_that_is_over_is_answered_with_its_result(tmp_path: Path) -> None:
    stages = [{"dataset": "streets:2:48x32", **SMALL}] * 2
    out = tmp_path / "out"
    first = RefineNet(encoder="test_resnet", decoder=SMALL_DECODER, device="cpu").train(
        stages=stages, output=out, progress=False, check=False
    )
    log = (first.folder / "log.csv").read_text()
    again = RefineNet(encoder="test_resnet", decoder=SMALL_DECODER, device="cpu").train(
        resume=out, progress=False, check=False
    )
    assert again == first
    assert (first.folder / "log.csv").read_text() == log


@pytest.mark.parametrize(("plan", "words"), [
    ("stages: []", "at least one stage"),
    ("stages: [{epochs: 3}]", "Stage 1: it needs the key 'dataset'"),
    ("stages: [{dataset: 'streets:2', epochs: 0}]", "Stage 1: epochs must be a whole number of at least 1, not 0"),
    ("stages: [{dataset: 'streets:2'}, {dataset: 'streets:2', colour: 1}]", "Stage 2: Unknown training settings: col"),
    ("stages: [{dataset: [3]}]", r"Stage 1: its dataset must be a name, a folder or a list of these, not \[3\]"),
    ("stages: [{dataset: voc, root: [5]}]", r"Stage 1: root must be a folder, not \[5\]"),
    ("stages: 3", "must hold one key, 'stages'"),
    ("stage: []", "must hold one key, 'stages'"),
    ("a: [", "is not a YAML file"),
])  # fmt: skip
def test_a_plan_that_cannot_be_followed_is_refused_with_its_stage(plan: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(plan, "utf-8")
    with pytest.raises(ValueError, match=words):
        RefineNet(encoder="test_resnet", decoder=SMALL_DECODER, device="cpu").train(
            stages=path, output=tmp_path / "out", progress=False, check=False
        )
    assert not (tmp_path / "out").exists()


def test_data_of_a_later_stage_that_are_absent_are_missed_before_the_first_begins(tmp_path: Path) -> None:
    stages = [{"dataset": "streets:2:48x32", **SMALL}, {"dataset": "voc", "root": str(tmp_path / "none"), **SMALL}]
    with pytest.raises(FileNotFoundError, match="VOCtrainval"):
        RefineNet(encoder="test_resnet", decoder=SMALL_DECODER, device="cpu").train(
            stages=stages, output=tmp_path / "out", progress=False, check=False
        )
    assert not (tmp_path / "out").exists()


def test_ways_to_say_what_to_train_on_exclude_each_other(tmp_path: Path) -> None:
    network = RefineNet(encoder="test_resnet", decoder=SMALL_DECODER, device="cpu")
    stages = [{"dataset": "streets:2"}]
    with pytest.raises(ValueError, match="Pass one of dataset"):
        network.train(dataset="streets:2", stages=stages)
    with pytest.raises(ValueError, match="Pass one of dataset"):
        network.train(stages=stages, resume=tmp_path)
    with pytest.raises(ValueError, match="each stage has its own root"):
        network.train(stages=stages, root=tmp_path)
    with pytest.raises(ValueError, match=r"classes='stuff' needs dataset="):
        network.train(stages=stages, classes="stuff")


def test_the_data_of_a_stage_that_is_over_may_be_gone(drawn_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    network = RefineNet(encoder="test_resnet", decoder=SMALL_DECODER, device="cpu")
    stages = [{"dataset": str(drawn_folder), **SMALL}, {"dataset": "streets:2:48x32", **SMALL}]
    network.train(stages=stages, output=out, progress=False, check=False)
    shutil.rmtree(next(out.glob("2-*")))
    shutil.rmtree(drawn_folder)
    result = RefineNet(encoder="test_resnet", decoder=SMALL_DECODER, device="cpu").train(
        resume=out, progress=False, check=False
    )
    assert result.folder == next(out.glob("2-*"))


def test_a_single_stage_is_not_resumed_alone(tmp_path: Path) -> None:
    """Otherwise the stages after it would never be trained, without a message."""
    network = RefineNet(encoder="test_resnet", decoder=SMALL_DECODER, device="cpu")
    out = tmp_path / "out"
    result = network.train(stages=[{"dataset": "streets:2:48x32", **SMALL}], output=out, progress=False, check=False)
    with pytest.raises(ValueError, match=f"continue it with --resume {out}"):
        network.train(resume=result.folder, progress=False, check=False)


def test_paths_in_a_plan_start_at_it(drawn_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plan(tmp_path / "plan.yaml", Path(drawn_folder.name))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    result = RefineNet(encoder="test_resnet", decoder=SMALL_DECODER, device="cpu").train(
        stages=tmp_path / "plan.yaml", output=tmp_path / "out", progress=False
    )
    assert result.epochs == 2


def test_a_run_is_taken_up_from_any_folder_and_past_one_of_its_dataset_s_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    png_miniatures.write_camvid(tmp_path / "camvid")
    monkeypatch.chdir(tmp_path)
    network = RefineNet(encoder="test_resnet", decoder=SMALL_DECODER, device="cpu")
    network.train(dataset="camvid", root="camvid", output=tmp_path / "run", progress=False, **SMALL)
    (tmp_path / "elsewhere").mkdir()
    for folder in (tmp_path, tmp_path / "elsewhere"):
        monkeypatch.chdir(folder)
        assert network.train(resume=tmp_path / "run", progress=False, check=False).epochs == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"# later\n", "is empty"),
        (b"---\n", "is empty"),
        (b"[]\n", "a list"),
        (b"stages\n", "a str"),
        (b"7\n", "a int"),
        (b"stages:\n", "'stages' with None"),
        (b"stages: camvid\n", "'stages' with 'camvid'"),
        (b"stage: []\n", "the keys 'stage'"),
        (b"stages: []\n", "at least one stage"),
        ("stages: []\n".encode("utf-8-sig"), "at least one stage"),
        ("stages: []\n".encode("utf-16"), "not a YAML file"),
        (b"stages: [\n", "not a YAML file"),
        (b"stages:\n- 3\n", "Stage 1: it needs the key 'dataset'"),
    ],
)
def test_a_degenerate_file_is_called_what_it_is(content: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "stages.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=told):
        read_stages(path, {})
