"""Training of networks with several outputs: losses where there is truth, the run folder, resuming, evaluation."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CommandLine
from small_runs import different, state

from refinenet import RefineNet
from refinenet.outputs import read_outputs
from refinenet.training.config import TrainConfig
from refinenet.training.losses import LossConfig, Objective
from refinenet.training.losses.dense_objective import DenseObjective, OutputLossConfig, choose_losses
from refinenet.training.records.recipes import read_recipe

OUTPUTS = "classes,depth:0.5:300,normals"
SMALL: dict[str, Any] = {"epochs": 2, "batch_size": 4, "crop_size": [48, 64], "workers": 0, "loggers": []}
STREETS = "streets:8:48x64"


def new_network(outputs: str = OUTPUTS) -> RefineNet:
    return RefineNet(encoder="test_resnet", outputs=outputs, device="cpu", backend="pytorch", seed=5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on drawn streets."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    new_network().train(STREETS, output=folder, check=False, progress=False, **SMALL)
    return folder


def test_a_run_measures_all_outputs_and_its_model_has_them(run: Path) -> None:
    rows = list(csv.DictReader((run / "log.csv").read_text().splitlines()))
    assert len(rows) == 2
    for column in ("val_miou", "val_depth_rmse", "val_depth_delta_1", "val_normals_mean_angle"):
        assert all(np.isfinite(float(row[column])) for row in rows)
    model = RefineNet(model=run / "best.safetensors", device="cpu", backend="pytorch")
    assert [spec.name for spec in model.card.architecture.outputs] == ["classes", "depth", "normals"]
    assert model.card.scores["outputs"].keys() == {"depth", "normals"}
    # The head starts from the mean and the deviation of the depths of streets, which are tens of metres.
    offset, scale = (float(model.network.get_buffer(f"heads.depth.{name}")) for name in ("offset", "scale"))
    assert 5 < offset < 100
    assert 5 < scale < 200


def test_a_stopped_run_ends_bit_for_bit_where_it_would_have(run: Path, tmp_path: Path) -> None:
    new_network().train(STREETS, output=tmp_path / "cut", check=False, progress=False, stop_after=3, **SMALL)
    RefineNet(device="cpu").train(resume=tmp_path / "cut", progress=False)
    assert different(state(run), state(tmp_path / "cut")) == []


def test_the_recipe_of_a_run_names_its_outputs(run: Path, run_refinenet: CommandLine, tmp_path: Path) -> None:
    assert read_outputs(read_recipe(run / "recipe.toml").network["outputs"]) == read_outputs(OUTPUTS)
    options = ("--set", "epochs=1", "--stop-after", "1", "--no-check", "--output", tmp_path / "again")
    result = run_refinenet("train", "--recipe", run / "recipe.toml", *options, timeout=300)
    assert result.returncode == 0, result.stderr


def test_the_command_line_trains_and_evaluates_all_outputs(run_refinenet: CommandLine, tmp_path: Path) -> None:
    options = ("--encoder", "test_resnet", "--outputs", OUTPUTS, "--epochs", "1", "--batch-size", "4", "--no-check")
    small = ("--set", "crop_size=[48,64]", "--set", "workers=0", "--set", "loggers=[]")
    told = run_refinenet("train", "-d", STREETS, *options, *small, "--output", tmp_path / "run", timeout=300)
    assert told.returncode == 0, told.stderr
    assert "The output depth starts from the mean of the training data" in " ".join(told.stderr.split())
    model = ("--model", tmp_path / "run" / "best.safetensors", "--backend", "pytorch")
    result = run_refinenet("eval", "-d", STREETS, *model, "--output", tmp_path / "results.json", timeout=300)
    assert result.returncode == 0, result.stderr
    for words in ("mIoU over", "depth: pixels with a true depth", "rmse", "delta_1", "normals: angles", "median angle"):
        assert words in result.stdout
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["outputs"]["depth"]["pooled"]["rmse"] > 0
    assert 0 <= found["outputs"]["normals"]["within_30"] <= 1
    assert found["output_rules"]["depth"]["abs_rel"] == "mean of |p - t| / t"


def objective(config: OutputLossConfig | None = None) -> DenseObjective:
    specs = read_outputs("classes,depth,normals,soil=regression[height:m,moisture:%]")
    classes = Objective(config=LossConfig(dice_weight=0), ignore_index=255)
    deviations = {"depth": torch.tensor([4.0]), "soil": torch.tensor([2.0, 10.0])}
    return DenseObjective(classes, specs, 3, config or OutputLossConfig(), deviations)


def batch(seed: int, images: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return maps of nine channels, labels and six channels of targets, a third of which are missing."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(images, 9, 6, 7, generator=generator)
    labels = torch.randint(0, 3, (images, 6, 7), generator=generator)
    targets = torch.randn(images, 6, 6, 7, generator=generator)
    targets[torch.rand(images, 6, 6, 7, generator=generator) < 1 / 3] = torch.nan
    return maps, labels, targets


def test_parts_add_up_to_the_batch() -> None:
    """For losses whose parts do; the limit of the inverse Huber loss is that of a part."""
    dense = objective(OutputLossConfig(output_losses=("depth=l1",), output_weights=("soil=0.5", "classes=2")))
    maps, labels, targets = batch(1)
    counts = dense.count(labels, targets)
    whole = dense.loss([maps], labels, counts, targets=targets)
    parts = [
        dense.loss([maps[part]], labels[part], counts, targets=targets[part]) for part in (slice(0, 1), slice(1, 4))
    ]
    torch.testing.assert_close(torch.stack(parts).sum(), whole)


def test_an_output_without_truth_adds_nothing_and_has_no_gradient() -> None:
    dense = objective()
    maps, labels, targets = batch(2)
    targets[:, 0] = torch.nan
    maps.requires_grad_()
    loss = dense.loss([maps], labels, dense.count(labels, targets), targets=targets)
    torch.autograd.backward(loss)
    assert loss.isfinite()
    assert maps.grad is not None
    assert maps.grad.isfinite().all()
    assert not maps.grad[:, 3].any()
    assert maps.grad[:, 4:7].any()


def test_weights_of_outputs_are_those_of_their_losses() -> None:
    maps, labels, targets = batch(3)

    def loss(*weights: str) -> float:
        dense = objective(OutputLossConfig(output_weights=weights))
        return float(dense.loss([maps], labels, dense.count(labels, targets), targets=targets))

    alone = [
        loss(*(f"{name}={int(name == chosen)}" for name in ("classes", "depth", "normals", "soil")))
        for chosen in ("classes", "depth", "normals", "soil")
    ]
    assert loss() == pytest.approx(sum(alone), rel=1e-5)
    assert loss("depth=3") == pytest.approx(sum(alone) + 2 * alone[1], rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"output_losses": ("depth=",)}, "output_losses must be like depth=silog"),
        ({"output_losses": ("depth=1..5*l1",)}, "output_losses must be like depth=silog"),
        ({"output_losses": ("height=l1",)}, "output_losses has 'height=l1', "),
        ({"output_losses": ("depth=cosine",)}, "losses of depth are inverse_huber, l1, "),
        ({"output_losses": ("depth=laplace",)}, "need a predicted scale"),
        ({"output_weights": ("depth",)}, "output_weights must be like depth=0.5"),
        ({"output_weights": ("depth=-1",)}, "output_weights must be like depth=0.5"),
        ({"output_weights": ("soil=1",)}, "output_weights has 'soil=1', "),
    ],
)
def test_settings_that_name_nothing_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        choose_losses(TrainConfig(**settings), read_outputs(OUTPUTS))


def test_what_has_no_effect_is_refused(tmp_path: Path) -> None:
    network = RefineNet(encoder="test_resnet", device="cpu", backend="pytorch")
    settings = {**SMALL, "output_weights": ("depth=1",)}
    with pytest.raises(ValueError, match="output_weights has no effect for a network that predicts classes alone"):
        network.train(STREETS, output=tmp_path / "run", check=False, progress=False, **settings)


def test_data_without_ground_truth_for_an_output_are_refused(drawn_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no ground truth for 'depth', 'normals': it has only classes"):
        new_network().train(drawn_folder, output=tmp_path / "run", check=False, progress=False, **SMALL)
    with pytest.raises(ValueError, match="The network predicts no classes; such networks can predict, but not be tra"):
        new_network("depth").train(STREETS, output=tmp_path / "run", check=False, progress=False, **SMALL)
    assert not (tmp_path / "run").exists()
