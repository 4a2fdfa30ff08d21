"""The command line as users run it: a process of its own, its exit code, what it prints and writes."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import warm_start
from conftest import CommandLine
from PIL import Image

from refinenet import RefineNet


def test_help_names_the_verbs_and_imports_no_torch(run_refinenet: CommandLine) -> None:
    result = run_refinenet("--help")
    assert result.returncode == 0
    assert all(verb in result.stdout for verb in ("train", "eval", "deploy", "convert", "demo", "info"))
    code = (
        "import sys\nfrom refinenet.cli import app\n"
        "for arguments in ([], ['train'], ['eval'], ['deploy'], ['export'], ['convert'], ['demo'], ['info']):\n"
        "    app([*arguments, '--help'], standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules or 'PIL' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_demo_writes_three_panels_and_prints_areas(run_refinenet: CommandLine, tmp_path: Path) -> None:
    result = run_refinenet("demo")
    assert result.returncode == 0, result.stderr
    picture = Image.open(tmp_path / "demo.png")
    assert picture.width == 3 * 480
    assert picture.height > 360
    assert "Road" in result.stdout
    assert "refinenet deploy" in result.stdout


def test_deploy_writes_the_picture(run_refinenet: CommandLine, street_file: Path, tmp_path: Path) -> None:
    result = run_refinenet("deploy", street_file, "--output", "out/labels.png", "--json")
    assert result.returncode == 0, result.stderr
    (report,) = json.loads(result.stdout)
    labels = np.asarray(Image.open(tmp_path / "out" / "labels.png"))
    assert report["areas"]["Sky"] == pytest.approx((labels == 0).mean())


def test_deploy_of_a_folder_goes_on_past_a_bad_file(
    run_refinenet: CommandLine, street: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "c"):
        Image.fromarray(street).save(tmp_path / "in" / f"{name}.png")
    (tmp_path / "in" / "b.jpg").write_bytes(b"no image")
    result = run_refinenet("deploy", "in", "--output", "out", "--kind", "overlay")
    assert result.returncode == 1
    assert "b.jpg" in result.stderr
    assert "1 of 3 images" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["a.png", "c.png"]
    assert Image.open(tmp_path / "out" / "a.png").mode == "RGB"


def test_train_evaluate_and_deploy_ones_own_folder(
    run_refinenet: CommandLine, drawn_folder: Path, street_file: Path, tmp_path: Path
) -> None:
    options = ["--epochs", "1", "--batch-size", "2", "--set", "crop_size=[48,48]", "--set", "workers=0", "--json"]
    trained = run_refinenet("train", "-d", drawn_folder, "--encoder", "test_resnet", "-o", "run", *options)
    assert trained.returncode == 0, trained.stderr
    model = json.loads(trained.stdout)["model"]
    measured = run_refinenet("eval", "-d", drawn_folder, "--model", model, "--output", "results.json", "--json")
    assert measured.returncode == 0, measured.stderr
    assert json.loads(measured.stdout) == json.loads((tmp_path / "results.json").read_text())
    assert set(json.loads(measured.stdout)["class_iou"]) == {"other", "sky", "road"}
    deployed = run_refinenet("deploy", street_file, "--model", model, "--output", "out.png")
    assert deployed.returncode == 0, deployed.stderr
    assert np.asarray(Image.open(tmp_path / "out.png")).max() <= 2
    again = run_refinenet("train", "--resume", "run", "--json")
    assert json.loads(again.stdout) == json.loads(trained.stdout)
    shown = run_refinenet("train", "--resume", "run").stderr
    assert "The run in run is already finished. To train its model further, start another run with --continue" in shown


def test_convert_and_info(run_refinenet: CommandLine, tmp_path: Path) -> None:
    network = RefineNet(encoder="mobilenetv2_100", num_classes=4, device="cpu")
    network.save(tmp_path / "a.safetensors")
    result = run_refinenet("convert", "a.safetensors", "b.safetensors", "--half")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "b.safetensors").stat().st_size < 0.6 * (tmp_path / "a.safetensors").stat().st_size
    facts = json.loads(run_refinenet("info", "b.safetensors", "--json").stdout)
    assert (facts["encoder"], facts["num_classes"]) == ("mobilenetv2_100", 4)
    assert facts["parameters"] == sum(p.numel() for p in network.network.parameters())
    assert "mobilenetv2_100" in run_refinenet("info", "b.safetensors").stdout
    network.save(tmp_path / "rude.safetensors", licence="free\x1b]0;owned\x07")
    assert r"free\x1b]0;owned\x07" in run_refinenet("info", "rude.safetensors").stdout
    (tmp_path / "classes.yaml").write_text("names: [a, b, c, d]\n")
    named = run_refinenet("convert", "a.safetensors", "c.safetensors", "--classes", "classes.yaml", "--json")
    assert json.loads(named.stdout)["num_classes"] == 4
    assert RefineNet(model=tmp_path / "c.safetensors", device="cpu").label_set.names == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["deploy", "missing.jpg"], 1, "missing.jpg"),
        (["deploy", "text.jpg"], 1, "text.jpg"),
        (["deploy", "empty.png"], 1, "empty.png"),
        (["deploy", "."], 1, "text.jpg"),
        (["deploy"], 2, "images"),
        (["deploy", "text.jpg", "--kind", "mask"], 2, "--kind"),
        (["eval"], 2, "--dataset"),
        (["eval", "-d", "nowhere"], 1, "nowhere"),
        (["eval", "-d", "nyu"], 1, "nyu_depth_v2_labeled.mat"),
        (["train", "-d", "streets:4:64x64", "--set", "epoch=3"], 1, "epoch"),
        (["train", "-d", "streets:4:64x64", "--set", "epochs"], 2, "KEY=VALUE"),
        (["train", "-d", "streets:4:64x64", "--epochs", "2", "--set", "epochs=3"], 2, "given twice"),
        (["train", "--resume", "run", "--encoder", "mobilenetv2_100"], 2, "--resume"),
        (["train", "--resume", "nowhere"], 1, "nowhere"),
        (["train"], 2, "--dataset"),
        (["deploy", "text.jpg", "text.jpg"], 1, "text.jpg"),
        (["deploy", ".", "--output", "."], 1, "input images"),
        (["deploy", "text.jpg", "--output", "a.webp"], 1, ".png, .jpg"),
        (["info", "text.jpg"], 1, "text.jpg"),
        (["convert", "text.jpg", "new.safetensors"], 1, "text.jpg"),
        (["fly"], 2, "fly"),
    ],
)
def test_failures_are_told_without_a_traceback(
    call_refinenet: CommandLine, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    (tmp_path / "text.jpg").write_text("this is no image")
    (tmp_path / "empty.png").write_bytes(b"")
    result = call_refinenet(*arguments)
    assert result.returncode == code, result.stderr
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_debug_shows_the_traceback(run_refinenet: CommandLine) -> None:
    result = run_refinenet("--debug", "deploy", "missing.jpg")
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_a_pickle_as_model_file_is_refused_and_not_run(
    run_refinenet: CommandLine, tmp_path: Path, street_file: Path
) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'canary'}",)

    torch.save({"state_dict": Payload()}, tmp_path / "model.pth")
    result = run_refinenet("deploy", street_file, "--model", "model.pth")
    assert result.returncode == 1
    assert "never run" in result.stderr
    assert not (tmp_path / "canary").exists()


def test_interrupted_training_says_how_to_go_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "refinenet", "train", "-d", "streets:4:48x32", "--encoder", "test_resnet"]
    options = ["--epochs", "500", "--set", "crop_size=[32,32]", "--set", "workers=0", "--no-check", "-o", "run"]
    process = warm_start.Process([*command, *options], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 100
    while not (tmp_path / "run" / "run.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume run" in errors
    assert "Interrupted." in errors
    assert "Traceback" not in errors


def _shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command line of a shell, in which `refinenet` is this package's."""
    words = shlex.join(warm_start.words_for_a_shell([sys.executable, "-m", "refinenet"]))
    line = f'refinenet() {{ {words} "$@"; }}; set -o pipefail; {command}'
    return subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.skipif(sys.platform == "win32", reason="closes streams by the words of bash")
@pytest.mark.parametrize(
    ("streams", "code"),
    [(">&-", 0), ("2>&-", 0), (">&- 2>&-", 0), ("<&- >&- 2>&-", 0), ("| head -c 1", 0), (">/dev/full", 1)],
)
def test_the_work_is_done_whatever_the_standard_streams_are(streams: str, code: int, tmp_path: Path) -> None:
    if "/dev/full" in streams and not Path("/dev/full").exists():
        pytest.skip("/dev/full is Linux's")
    Image.new("RGB", (32, 32)).save(tmp_path / "in.png")
    done = _shell(f"refinenet deploy in.png --output out.png {streams}", tmp_path)
    assert done.returncode == code, done.stderr
    with Image.open(tmp_path / "out.png") as image:
        image.load()
    assert "Traceback" not in done.stderr
    if code:
        assert "Standard output cannot be written: No space left on device" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="closes streams by the words of bash")
def test_a_result_that_finds_no_standard_output_is_an_error(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "in.png")
    done = _shell("refinenet deploy in.png --backend pytorch --output - >&-", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Standard output is closed" in done.stderr


STEERING = ["\x1b]0;owned\x07", "\r", "\n", "\x9b31m", "\u202e", "\u2066", "\u200b", "\u2028", "\udcff", "\x7f"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets the names of files be any bytes")
@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_nothing_in_a_file_name_steers_the_terminal(locale: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number, text in enumerate(STEERING):
        (tmp_path / "in" / os.fsdecode(f"{number}{text}.jpg".encode("utf-8", "surrogateescape"))).write_bytes(b"x")
    Image.new("RGB", (32, 32)).save(tmp_path / "in" / "good\x1b[31m[red].png")
    command = [sys.executable, "-m", "refinenet", "deploy", "in", "--output", "out", "--backend", "pytorch"]
    environment = {**os.environ, "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    run = warm_start.run if locale == "C.UTF-8" else subprocess.run  # a warm process has the encoding of this one
    done = run(command, cwd=tmp_path, capture_output=True, env=environment, check=False, timeout=120)
    shown = (done.stdout + done.stderr).decode("utf-8")
    assert done.returncode == 1
    assert "Traceback" not in shown
    assert not [text for text in STEERING if text != "\n" and text in shown]
    assert "\x1b" not in shown
    assert "good\\x1b[31m[red].png" in shown
    lines = [line for line in shown.splitlines() if "is not a JPEG" in line]
    assert len(lines) == len(STEERING)
    assert "in/2\\n.jpg" in shown


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets the names of files be any bytes")
def test_a_name_on_the_command_line_keeps_to_its_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "refinenet", "deploy", "new\nline\x1bc.png", "--output", "out.png"]
    done = warm_start.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "new\\nline\\x1bc.png" in done.stderr
    assert "\x1b" not in done.stderr
