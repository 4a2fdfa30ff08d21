"""Training of networks with several outputs: losses where there is truth, the run folder, resuming, evaluation."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CommandLine
from model_parts import SMALL_DECODER
from PIL import Image
from small_runs import different, state
from target_folders import SPLITS, draw, write_folder

from refinenet import RefineNet
from refinenet.datasets.catalog import Dataset, open_dataset
from refinenet.evaluation.results import read_results
from refinenet.outputs import read_outputs
from refinenet.training.config import TrainConfig
from refinenet.training.losses import LossConfig, Objective
from refinenet.training.losses.dense_objective import DenseObjective, choose_losses
from refinenet.training.losses.output_config import OutputLossConfig
from refinenet.training.records.recipes import read_recipe

OUTPUTS = "classes,depth:0.5:300,normals"
SMALL: dict[str, Any] = {"epochs": 2, "batch_size": 2, "crop_size": [32, 32], "workers": 0, "loggers": []}
STREETS = "streets:4:32x48"
SPECS = "classes,depth,normals,soil=regression[height:m,moisture:%]"


def new_network(outputs: str = OUTPUTS) -> RefineNet:
    return RefineNet(
        encoder="test_resnet", decoder=SMALL_DECODER, outputs=outputs, device="cpu", backend="pytorch", seed=5
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on drawn streets, with weights of the outputs that are learnt."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    new_network().train(STREETS, output=folder, check=False, progress=False, learn_output_weights=True, **SMALL)
    return folder


def test_a_run_measures_all_outputs_and_its_model_has_them(run: Path) -> None:
    rows = list(csv.DictReader((run / "log.csv").read_text().splitlines()))
    assert len(rows) == 2
    for column in ("val_miou", "val_depth_rmse", "val_depth_delta_1", "val_normals_mean_angle"):
        assert all(np.isfinite(float(row[column])) for row in rows)
    names = {f"epoch-{epoch:03d}{what}.png" for epoch in (1, 2) for what in ("", "-outputs")}
    assert {path.name for path in (run / "samples").iterdir()} == names
    with Image.open(run / "samples" / "epoch-002-outputs.png") as picture:
        assert picture.getcolors(1000) is None  # more colours than text has
    model = RefineNet(model=run / "best.safetensors", device="cpu", backend="pytorch")
    assert [spec.name for spec in model.card.architecture.outputs] == ["classes", "depth", "normals"]
    assert model.card.scores["outputs"].keys() == {"depth", "normals"}
    # The head starts from the mean and the deviation of the depths of streets, which are tens of metres.
    offset, scale = (float(model.network.get_buffer(f"heads.depth.{name}")) for name in ("offset", "scale"))
    assert 5 < offset < 100
    assert 5 < scale < 200


def test_a_stopped_run_ends_bit_for_bit_where_it_would_have(run: Path, tmp_path: Path) -> None:
    settings = {**SMALL, "learn_output_weights": True}
    new_network().train(STREETS, output=tmp_path / "cut", check=False, progress=False, stop_after=3, **settings)
    RefineNet(encoder="test_resnet", device="cpu").train(resume=tmp_path / "cut", progress=False)
    reached = state(run)
    assert different(reached, state(tmp_path / "cut")) == []
    learnt = [tensor for name, tensor in reached.items() if name.endswith("log_variances")]
    assert len(learnt) == 1
    assert all(value != 0 for value in learnt[0].tolist())


def test_the_recipe_of_a_run_names_its_outputs(run: Path, call_refinenet: CommandLine, tmp_path: Path) -> None:
    assert read_outputs(read_recipe(run / "recipe.toml").network["outputs"]) == read_outputs(OUTPUTS)
    options = ("--set", "epochs=1", "--stop-after", "1", "--no-check", "--output", tmp_path / "again")
    result = call_refinenet("train", "--recipe", run / "recipe.toml", *options)
    assert result.returncode == 0, result.stderr


def test_the_command_line_trains_and_evaluates_all_outputs(call_refinenet: CommandLine, tmp_path: Path) -> None:
    options = ("--encoder", "test_resnet", "--outputs", OUTPUTS, "--epochs", "1", "--batch-size", "2", "--no-check")
    small = ("--set", "crop_size=[32,32]", "--set", "workers=0", "--set", "loggers=[]")
    told = call_refinenet("train", "-d", STREETS, *options, *small, "--output", tmp_path / "run")
    assert told.returncode == 0, told.stderr
    assert "The output depth starts from the mean of the training data" in " ".join(told.stderr.split())
    assert re.search(
        r"val_depth_rmse [\d.]+ m, .*val_normals_mean_angle [\d.]+ degrees, ", " ".join(told.stderr.split())
    )
    model = ("--model", tmp_path / "run" / "best.safetensors", "--backend", "pytorch")
    result = call_refinenet("eval", "-d", STREETS, *model, "--output", tmp_path / "results.json")
    assert result.returncode == 0, result.stderr
    for words in ("mIoU over", "depth: pixels with a true depth", "rmse", "delta_1", "normals: angles", "median angle"):
        assert words in result.stdout
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["outputs"]["depth"]["pooled"]["rmse"] > 0
    assert 0 <= found["outputs"]["normals"]["within_30"] <= 1
    assert found["output_rules"]["depth"]["abs_rel"] == "mean of |p - t| / t"


def objective(config: OutputLossConfig | None = None) -> DenseObjective:
    specs = read_outputs(SPECS)
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
        ({"output_losses": ("depth=laplace",)}, r"create a network with the output depth~laplace:0\.5:300"),
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
    with pytest.raises(ValueError, match="output_weights has no effect for a network that predicts only classes"):
        network.train(STREETS, output=tmp_path / "run", check=False, progress=False, **settings)


def test_data_without_ground_truth_for_an_output_are_refused(drawn_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no ground truth for 'depth', 'normals': it has only classes"):
        new_network().train(drawn_folder, output=tmp_path / "run", check=False, progress=False, **SMALL)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"output_losses": ("depth=l1",)}, r"must include the likelihood of its head, laplace, .* unlike l1"),
        ({"output_losses": ("depth=laplace+gaussian",)}, r"laplace, and no other, unlike laplace\+gaussian"),
        ({"learn_output_weights": True}, "learn_output_weights is not for outputs with a likelihood"),
    ],
)
def test_the_loss_of_an_output_has_the_likelihood_of_its_head(settings: dict[str, Any], words: str) -> None:
    outputs = read_outputs("depth~laplace:0.5:80,normals")
    assert choose_losses(TrainConfig(), outputs)["depth"].losses == ("laplace",)
    chosen = choose_losses(TrainConfig(output_losses=("depth=laplace+0.5*gradient",)), outputs)["depth"]
    assert (chosen.losses, chosen.weights) == (("laplace", "gradient"), (1.0, 0.5))
    with pytest.raises(ValueError, match=words):
        choose_losses(TrainConfig(**settings), outputs)


def test_networks_without_classes_are_trained_and_evaluated(run_refinenet: CommandLine, tmp_path: Path) -> None:
    network, folder = new_network("depth~laplace:0.5:300,normals"), tmp_path / "run"
    result = network.train(STREETS, output=folder, check=False, progress=False, **{**SMALL, "epochs": 1})
    assert (result.goal, result.best_miou) == ("mean score of the outputs", None)
    (row,) = csv.DictReader((folder / "log.csv").read_text().splitlines())
    assert not [column for column in row if "iou" in column or "accuracy" in column]
    assert np.isfinite(float(row["val_depth_rmse"]))
    results = tmp_path / "results.json"
    model = ("--model", folder / "best.safetensors", "--backend", "pytorch")
    told = run_refinenet("eval", "-d", STREETS, *model, "--output", results, timeout=300)
    assert told.returncode == 0, told.stderr
    assert "rmse" in told.stdout
    assert "IoU" not in told.stdout
    found = json.loads(results.read_text())
    assert (found["miou"], found["class_iou"]) == (None, {})
    assert found["outputs"]["depth"]["pooled"]["rmse"] == pytest.approx(float(row["val_depth_rmse"]), abs=1e-3)
    with pytest.raises(ValueError, match="it has no classes: only metrics of classes are compared"):
        read_results(results)


def test_settings_of_classes_are_refused_without_classes(tmp_path: Path) -> None:
    for settings in ({"dice_weight": 0.5}, {"class_weights": "log"}, {"deep_supervision": 0.4}):
        with pytest.raises(ValueError, match="has no effect for a network that predicts no classes: leave it out"):
            new_network("depth").train(
                STREETS, output=tmp_path / "run", check=False, progress=False, **{**SMALL, **settings}
            )
    assert not (tmp_path / "run").exists()


def test_a_dataset_without_masks_leaves_the_classes_as_they_are(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(1)
    for split, count in (("train", 4), ("val", 2)):
        for name in ("images", "depth"):
            (tmp_path / "data" / name / split).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 256, (48, 64, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / "images" / split / f"{number}.png")
            depths = random.uniform(1, 9, (48, 64)).astype(np.float32)
            np.save(tmp_path / "data" / "depth" / split / f"{number}.npy", depths)
    network = RefineNet(encoder="test_resnet", num_classes=300, outputs="classes,depth:0.5:300", device="cpu", seed=5)
    before = network.network.classifier.weight.clone()
    settings = {**SMALL, "epochs": 1, "weight_decay": 0.0}
    result = network.train(tmp_path / "data", output=tmp_path / "run", check=False, progress=True, **settings)
    assert "data has no masks: it does not train the classes of the network" in " ".join(capfd.readouterr().err.split())
    trained = RefineNet(model=result.model, device="cpu", backend="pytorch")
    assert trained.label_set.names == network.label_set.names
    assert torch.equal(trained.network.classifier.weight, before)
    found = trained.eval(tmp_path / "data", progress=False)
    assert found.label_set.names == ()
    assert found.outputs()["depth"]["pixels"] == 2 * 48 * 64


def test_a_teacher_stands_for_the_truth_that_an_image_lacks_altogether() -> None:
    dense = objective()
    maps, labels, targets = batch(4)
    given = labels.clone(), targets.clone()
    labels[1], labels[2, 0] = 255, 255
    targets[3, 0] = torch.nan
    targets[0, 1:4] = torch.nan
    teacher = dict(zip(("classes", "depth", "normals", "soil"), torch.split(maps, [3, 1, 3, 2], dim=1), strict=True))
    assert dense.lacks_truth(labels, targets)
    assert not dense.lacks_truth(*given)
    outputs = read_outputs(SPECS)
    filled_labels, filled = dense.fill_missing(teacher, outputs, labels, targets)
    assert torch.equal(filled_labels[1], maps[1, :3].argmax(0))
    assert torch.equal(filled_labels[2], labels[2])  # an image with some labels keeps its gaps
    assert torch.equal(filled_labels[[0, 3]], given[0][[0, 3]])
    torch.testing.assert_close(filled[3, 0], maps[3, 3].abs())  # within the range of depths
    torch.testing.assert_close(filled[0, 1:4], maps[0, 4:7] / maps[0, 4:7].norm(dim=0))
    torch.testing.assert_close(filled[1:3], given[1][1:3], equal_nan=True)


def test_a_teacher_without_an_output_cannot_stand_for_its_truth(run: Path, tmp_path: Path) -> None:
    settings = {**SMALL, "teacher": str(new_network("classes").save(tmp_path / "teacher.safetensors"))}
    with pytest.raises(ValueError, match=r"fill_missing needs a teacher with the outputs .* it lacks depth: its o"):
        new_network("classes,depth").train(
            STREETS, output=tmp_path / "run", check=False, progress=False, fill_missing=True, **settings
        )
    settings["teacher"] = str(run / "best.safetensors")
    with pytest.raises(ValueError, match="A teacher has no effect on a network that predicts no classes, unless fill"):
        new_network("depth").train(STREETS, output=tmp_path / "run", check=False, progress=False, **settings)


@pytest.mark.parametrize(("teacher", "student"), [("depth", "depth~laplace"), ("depth~laplace", "depth")])
def test_a_teacher_may_or_may_not_predict_the_scale_of_its_errors(teacher: str, student: str) -> None:
    dense = DenseObjective(
        Objective(config=LossConfig(dice_weight=0), ignore_index=255),
        read_outputs(student),
        0,
        OutputLossConfig(),
        {"depth": torch.ones(1)},
    )
    maps = torch.full((1, 1 + ("~" in teacher), 4, 4), 2.5)
    labels, missing = torch.full((1, 4, 4), 255), torch.full((1, 1, 4, 4), torch.nan)
    _, filled = dense.fill_missing({"depth": maps}, read_outputs(teacher), labels, missing)
    assert torch.equal(filled, torch.full((1, 1, 4, 4), 2.5))


def test_the_classes_of_a_teacher_are_those_of_the_network_where_the_data_have_none(run: Path, tmp_path: Path) -> None:
    """Its predictions would become labels of other classes."""
    settings = {**SMALL, "teacher": str(run / "best.safetensors"), "fill_missing": True, "epochs": 1}
    other = RefineNet(encoder="test_resnet", outputs=OUTPUTS, num_classes=5, device="cpu", backend="pytorch", seed=5)
    with pytest.raises(ValueError, match="The model has 11 classes"):
        other.train(without_masks, output=tmp_path / "run", check=False, progress=False, **settings)
    assert not (tmp_path / "run").exists()


def without_masks(split: str) -> Dataset:
    return open_dataset(STREETS)(split).without_classes()


def test_a_new_network_is_not_given_classes_that_no_mask_teaches(tmp_path: Path) -> None:
    for split, count in (("train", 2), ("val", 1)):
        for name in ("images", "depth"):
            (tmp_path / "data" / name / split).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(
                tmp_path / "data" / "images" / split / f"{number}.png"
            )
            np.save(tmp_path / "data" / "depth" / split / f"{number}.npy", np.ones((48, 64), np.float32))
    for outputs in ("classes", "classes,depth:0.5:300"):
        network = RefineNet(encoder="test_resnet", outputs=outputs, device="cpu")
        with pytest.raises(ValueError, match=r"no masks, .* pass --outputs depth:0.0:1000.0 \(outputs='depth:"):
            network.train(tmp_path / "data", output=tmp_path / "run", check=False, progress=False, **SMALL)
    assert not (tmp_path / "run").exists()


def test_one_of_several_quantities_of_a_folder_is_trained_and_evaluated_by_its_name(tmp_path: Path) -> None:
    """The new head starts from the mean of the quantity in the training data, and so read the right channel."""
    root = write_folder(tmp_path / "fields", has_masks=False)
    network = new_network("moisture=regression[moisture:%]")
    network.train(root, output=tmp_path / "run", progress=False, **{**SMALL, "epochs": 1, "crop_size": [64, 64]})
    moistures = np.stack([draw(seed).values[..., 1] for seed in SPLITS["train"]])
    assert float(network.network.get_buffer("heads.moisture.offset")) == pytest.approx(np.nanmean(moistures), rel=1e-4)
    found = network.eval(root, progress=False).targets["moisture"].result().quantities
    assert [(one.name, one.unit) for one in found] == [("moisture", "%")]
    assert found[0].pixels == sum(np.isfinite(draw(seed).values[..., 1]).sum() for seed in SPLITS["val"])
