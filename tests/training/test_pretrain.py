"""Pre-training of encoders: they learn, lose nothing when they are stopped, and a RefineNet takes them."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import warm_start
from class_folders import DIRECTIONS, SMALL, draw_stripes, write_class_folders
from conftest import CommandLine
from held_files import held, wait_until
from PIL import Image
from ranks import run_ranks
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from refinenet import RefineNet
from refinenet.training.loading.loader import draw_order
from refinenet.training.pretraining.classifier import ImageClassifier
from refinenet.training.pretraining.config import PretrainConfig
from refinenet.training.pretraining.image_folder import open_image_folder
from refinenet.training.pretraining.run import PretrainResult, pretrain_encoder

ENCODER = "test_resnet"
STEPS = 6
"""Of the stopped runs below: two epochs of three steps."""


def pretrain(folder: Path | None = None, output: Path | None = None, **more: Any) -> PretrainResult:
    settings = {**SMALL, "workers": 0, **more} if folder is not None else more
    encoder = None if folder is None else ENCODER
    return pretrain_encoder(folder, encoder=encoder, output=output, device="cpu", progress=False, **settings)


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "refinenet", "pretrain", *map(str, arguments)]


def options(**more: Any) -> list[str]:
    settings = {**SMALL, "workers": 0, "loggers": [], **more}
    return [part for name, value in settings.items() for part in ("--set", f"{name}={json.dumps(value)}")]


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes, four images of each to learn from and one to measure on."""
    return write_class_folders(tmp_path_factory.mktemp("few"), 5)


@pytest.fixture(scope="module")
def whole(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on them that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    pretrain(few, folder)
    return folder


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was long enough to learn."""
    root = tmp_path_factory.mktemp("learned")
    write_class_folders(root / "set" / "train", 36)
    write_class_folders(root / "set" / "val", 8, first=100)
    more = {"epochs": 5, "batch_size": 12, "accumulation": 1, "learning_rate": 0.01, "ema_decay": 0.0}
    result = pretrain(root / "set", root / "run", crop_area=(0.5, 1.0), colour_jitter=0.0, **more)
    assert result.best_accuracy is not None
    assert result.best_accuracy > 0.9
    assert (result.folder, result.encoder) == (root / "run", root / "run" / "encoder.safetensors")
    assert (result.epochs, result.is_over) == (5, True)
    return root


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "log.csv").open() as stream:
        return list(csv.DictReader(stream))


def newest(run: Path) -> Path:
    return max((run / "checkpoints").glob("step-*"))


def measure(weights: Path, root: Path, most: int) -> float:
    """Return the share of images below `root`, CLASS/IMAGE, whose class is among the most probable, read by Pillow."""
    classes = sorted(path.name for path in root.iterdir())
    classifier = ImageClassifier(ENCODER, len(classes))
    classifier.load_state_dict(load_file(weights))
    classifier.eval()
    found = []
    for label, name in enumerate(classes):
        for path in (root / name).iterdir():
            image: Image.Image = Image.open(path)
            width, height = image.size
            image = image.resize((round(37 * width / height), 37), Image.Resampling.BILINEAR)
            left, top = (image.width - 32) // 2, (37 - 32) // 2
            pixels = torch.from_numpy(np.array(image.crop((left, top, left + 32, top + 32)))).permute(2, 0, 1) / 255
            with torch.no_grad():
                likeliest = classifier(pixels[None]).flatten().topk(most).indices
            found.append(label in likeliest)
    return sum(found) / len(found)


def test_it_learns_and_says_how_well(learned: Path) -> None:
    log = rows(learned / "run")
    assert [row["epoch"] for row in log] == ["1", "2", "3", "4", "5"]
    assert float(log[-1]["loss"]) < 0.7 * float(log[0]["loss"])
    assert all(row["val_top5"] == "" for row in log), "there are no more than five classes"
    assert float(log[-1]["learning_rate"]) < 0.01 * float(log[0]["learning_rate"])
    recomputed = measure(newest(learned / "run") / "weights.safetensors", learned / "set" / "val", 1)
    assert abs(recomputed - float(log[-1]["val_top1"])) < 0.05  # one image of 24, as Pillow rounds what it resizes


def test_the_second_accuracy_is_of_five_guesses(tmp_path: Path) -> None:
    for number, (name, place) in enumerate((name, place) for name in DIRECTIONS for place in (1, 2)):
        for part, first in (("train", 0), ("val", 50)):
            (tmp_path / "set" / part / f"{name}{place}").mkdir(parents=True)
            for seed in range(2):
                pixels = draw_stripes(name, 100 * number + first + seed) // place
                Image.fromarray(pixels).save(tmp_path / "set" / part / f"{name}{place}" / f"{seed}.png")
    pretrain(tmp_path / "set", tmp_path / "run", epochs=1, ema_decay=0.0)
    row = rows(tmp_path / "run")[0]
    weights = newest(tmp_path / "run") / "weights.safetensors"
    for most, name in ((1, "val_top1"), (5, "val_top5")):
        assert abs(measure(weights, tmp_path / "set" / "val", most) - float(row[name])) < 0.09  # one image of twelve
    assert float(row["val_top1"]) <= float(row["val_top5"]) <= 1


def test_a_refinenet_starts_with_the_encoder_as_it_was_trained(learned: Path) -> None:
    encoder = learned / "run" / "encoder.safetensors"
    best = max(rows(learned / "run"), key=lambda row: float(row["val_top1"]))
    with safe_open(encoder, "pt") as file:
        header = json.loads(file.metadata()["refinenet_encoder"])
    assert (header["encoder"], header["classes"]) == (ENCODER, sorted(DIRECTIONS))
    assert header["epoch"] == int(best["epoch"])
    assert header["accuracy"]["top1"] == pytest.approx(float(best["val_top1"]), abs=1e-4)
    for model_type in ("full", "lightweight"):
        network = RefineNet(model_type, encoder=ENCODER, encoder_weights=encoder, device="cpu").network
        assert header["preprocessing"]["mean"] == pytest.approx(network.mean.flatten().tolist())
        assert header["preprocessing"]["std"] == pytest.approx(network.std.flatten().tolist())
    last = RefineNet(encoder=ENCODER, encoder_weights=learned / "run" / "last.safetensors", device="cpu").network
    trained = load_file(newest(learned / "run") / "weights.safetensors")
    ours = {f"encoder.features.{name}": tensor for name, tensor in last.encoder.features.state_dict().items()}
    assert ours.keys() == {name for name in trained if name.startswith("encoder.")}
    assert [name for name in ours if not torch.equal(ours[name], trained[name])] == []


def state(run: Path) -> dict[str, Tensor]:
    """Every tensor of the last checkpoint."""
    checkpoint = newest(run)
    assert checkpoint.name.startswith(f"step-{STEPS:06d}")  # ".2" where the same step was saved again
    found = {
        f"{kind} {name}": tensor
        for kind in ("weights", "average")
        for name, tensor in load_file(checkpoint / f"{kind}.safetensors").items()
    }
    for number, values in torch.load(checkpoint / "learning.pt", weights_only=True)["optimiser"]["state"].items():
        found |= {f"optimiser {number} {name}": value for name, value in values.items()}
    return found


def assert_equal(run: Path, whole: Path) -> None:
    ours, expected = state(run), state(whole)
    assert ours.keys() == expected.keys()
    assert [name for name in ours if not torch.equal(ours[name], expected[name])] == []
    kept = ("epoch", "loss", "learning_rate", "val_top1")
    assert [[row[key] for key in kept] for row in rows(run)] == [[row[key] for key in kept] for row in rows(whole)]
    best, expected = load_file(run / "encoder.safetensors"), load_file(whole / "encoder.safetensors")
    assert [name for name in expected if not torch.equal(best[name], expected[name])] == []


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_a_run_that_was_stopped_ends_bit_for_bit_where_it_would_have(
    steps: int, few: Path, whole: Path, tmp_path: Path
) -> None:
    stopped = pretrain(few, tmp_path, stop_after=steps)
    assert not stopped.is_over
    assert (stopped.encoder is None) == (stopped.best_accuracy is None) == (steps <= 3)
    assert max(path.name for path in (tmp_path / "checkpoints").glob("step-*")) == f"step-{steps:06d}"
    resumed = pretrain(resume=tmp_path)
    assert (resumed.is_over, resumed.epochs) == (True, 2)
    assert_equal(tmp_path, whole)


@pytest.mark.skipif(sys.platform != "linux", reason="a file is held by a lease")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_process_that_is_ended_keeps_its_run(
    number: int, code: int, few: Path, whole: Path, run_refinenet: CommandLine, tmp_path: Path
) -> None:
    """For real: kill and kill -9, in the middle of the training."""
    begun = command(few, "--encoder", ENCODER, "--output", tmp_path, "--device", "cpu")
    images = open_image_folder(few).train
    in_second_step = images[draw_order(PretrainConfig.seed, 0, len(images))[SMALL["batch_size"]]].file
    # It waits for an image, so that the signal arrives in the middle of the run, however busy the machine is.
    with held(in_second_step) as somebody_waits:
        process = warm_start.Process([*begun, *options(checkpoint_minutes=1e-6)], stderr=subprocess.PIPE, text=True)
        wait_until(lambda: somebody_waits() or process.poll() is not None, "no image is read", 200)
        os.kill(process.pid, number)
    said = process.communicate(timeout=200)[1]
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert max(path.name for path in (tmp_path / "checkpoints").glob("step-*")) in ("step-000001", "step-000002")
    result = run_refinenet("pretrain", "--resume", tmp_path, "--device", "cpu", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["is_over"] is True
    assert_equal(tmp_path, whole)


def test_two_processes_do_what_one_does(few: Path, tmp_path: Path) -> None:
    """One step on all twelve images; three are left to measure on, which two processes cannot share evenly.

    What the classifier learns is compared: an untrained network magnifies differences of the last digit on their long
    way back to its first layers.
    """
    more = {"epochs": 1, "batch_size": 12, "accumulation": 1, "ema_decay": 0.0, "learning_rate": 0.01}
    settings = options(batch_norm="synchronised", optimiser="sgd", **more)
    arguments: list[str | Path] = [few, "--encoder", ENCODER, "--device", "cpu", *settings]
    alone = warm_start.run(
        command(*arguments, "--output", tmp_path / "one"), capture_output=True, text=True, timeout=300
    )
    assert alone.returncode == 0, alone.stderr
    run_ranks(command(*arguments, "--output", tmp_path / "two"))
    weights = {name: newest(tmp_path / name) / "weights.safetensors" for name in ("one", "two")}
    begun = load_file(tmp_path / "one" / "checkpoints" / "step-000000" / "weights.safetensors")
    expected, ours = load_file(weights["one"]), load_file(weights["two"])
    for name in expected:
        if name.startswith(("classifier", "norms")):
            learned = float((expected[name] - begun[name]).norm())
            assert float((ours[name] - expected[name]).norm()) < 0.01 * learned
    assert abs(float(rows(tmp_path / "two")[0]["loss"]) - float(rows(tmp_path / "one")[0]["loss"])) < 1e-3
    held_out = tmp_path / "held-out"
    for image in open_image_folder(few).val:
        (held_out / image.file.parent.name).mkdir(parents=True)
        shutil.copy(image.file, held_out / image.file.parent.name)
    assert float(rows(tmp_path / "two")[0]["val_top1"]) == pytest.approx(measure(weights["two"], held_out, 1), abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 0, "crop_size": 8}, "epochs must be a whole number of at least 1, not 0; crop_size must be"),
        ({"crop_area": (0.5, 2)}, "crop_area must be a range within 0.001 to 1, lower end first"),
        ({"crop_shape": 1}, "crop_shape must be a range"),
        ({"flip": 1}, "flip must be True or False, not 1"),
        ({"label_smoothing": 1}, "label_smoothing must be a number from 0 to 0.99, not 1"),
        ({"learning_rate": "auto"}, 'learning_rate must be a number: "auto" is for'),
        ({"schedule": "steps", "step_epochs": (100,)}, "step_epochs has 100, but the run ends after 2 epochs"),
        ({"batch_norm": "frozen"}, "a new one has no statistics to keep"),
        (
            {"dice_weight": 1},
            "Unknown pre-training settings: dice_weight.*`refinenet pretrain --show-settings` lists them all",
        ),
        ({"batch_size": 5}, "must be a multiple of 2"),
        ({"batch_size": 14, "accumulation": 14}, "batch_size=14 of 12 training images"),
        ({"stop_after": 0}, "stop_after must be a whole number"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], words: str, few: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        pretrain(few, tmp_path / "run", **settings)
    assert not (tmp_path / "run" / "run.json").exists()


def test_unknown_encoders_and_contradictions_are_refused(few: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no encoder named 'mobilenetv2_05'. Did you mean mobilenetv2_050"):
        pretrain_encoder(few, encoder="mobilenetv2_05", output=tmp_path)
    with pytest.raises(ValueError, match="does not fit RefineNet"):
        pretrain_encoder(few, encoder="mixer_s32_224", output=tmp_path)
    with pytest.raises(ValueError, match="Pass a folder of images and an encoder"):
        pretrain_encoder(few)
    with pytest.raises(ValueError, match="resumes with its original settings"):
        pretrain_encoder(few, resume=whole)
    with pytest.raises(ValueError, match="already holds a run"):
        pretrain(few, whole)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    for workers in (0, 2):
        folder = write_class_folders(tmp_path / f"{workers}", 5)
        damaged = folder / "flat" / "003.png"
        damaged.write_bytes(damaged.read_bytes()[:300])
        with pytest.raises(ValueError, match=f"{damaged}"):
            pretrain(folder, tmp_path / f"run{workers}", workers=workers)


def test_runs_that_cannot_be_taken_up_say_why(few: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no training run"):
        pretrain(resume=tmp_path)
    (tmp_path / "run.json").write_text('{"source": {}}')
    with pytest.raises(ValueError, match=r"no pre-training run.*refinenet train --resume"):
        pretrain(resume=tmp_path)
    description = json.loads((whole / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**description, "config": {"epochs": -1}}))
    with pytest.raises(ValueError, match=r"run.json is damaged"):
        pretrain(resume=tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({**description, "train_images": 11}))
    with pytest.raises(ValueError, match=r"have changed: it was started with 11 for training and 3.*now holds 12"):
        pretrain(resume=tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({**description, "images": str(tmp_path / "moved")}))
    shutil.copytree(few, tmp_path / "moved")
    first = min((tmp_path / "moved").rglob("*.png"))
    first.rename(first.with_name("zz.png"))
    with pytest.raises(ValueError, match=r"holds as many as it was started with, but with other names"):
        pretrain(resume=tmp_path)


def test_a_broken_checkpoint_is_put_aside_and_the_one_before_taken(few: Path, whole: Path, tmp_path: Path) -> None:
    pretrain(few, tmp_path, stop_after=5)
    (newest(tmp_path) / "weights.safetensors").unlink()
    pretrain(resume=tmp_path)
    assert_equal(tmp_path, whole)
    assert [path.name for path in (tmp_path / "checkpoints").glob("*.corrupt")] == ["step-000005.corrupt"]


def test_the_command_trains_and_goes_on(few: Path, run_refinenet: CommandLine, tmp_path: Path) -> None:
    arguments = ["--encoder", ENCODER, "--batch-size", "4", "--set", "crop_size=32", "--set", "workers=0"]
    arguments += ["--set", "crop_area=[0.5,1]", "--epochs", "2", "--output", "run", "--device", "cpu"]
    begun = run_refinenet("pretrain", few, *arguments, "--stop-after", "2")
    assert begun.returncode == 0, begun.stderr
    assert "No epoch was finished. Folder: run" in begun.stdout
    assert "Stopped after 2 steps, as requested. Continue with --resume run" in begun.stderr
    assert (tmp_path / "run" / "tensorboard").is_dir()
    ended = run_refinenet("pretrain", "--resume", "run", "--device", "cpu")
    assert ended.returncode == 0, ended.stderr
    assert "Resuming the run in run from step 2, in epoch 1." in ended.stderr
    assert "Best validation accuracy: " in ended.stdout
    assert "Encoder: run/encoder.safetensors" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--encoder", ENCODER], 2, "pass a folder of images and --encoder"),
        (["nowhere", "--encoder", ENCODER], 1, "There is no folder nowhere."),
        (["nowhere", "--encoder", ENCODER, "--epochs", "2", "--set", "epochs=3"], 2, "epochs is given twice"),
        (["nowhere", "--resume", "run"], 1, "resumes with its original settings"),
    ],
)
def test_wrong_usage_is_told_in_a_line(
    arguments: list[str], code: int, words: str, call_refinenet: CommandLine
) -> None:
    result = call_refinenet("pretrain", *arguments)
    assert result.returncode == code
    assert words in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.stderr


def test_help_needs_no_torch() -> None:
    code = (
        "import sys\nfrom refinenet.cli import app\n"
        "app(['pretrain', '--help'], standalone_mode=False)\nsys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
