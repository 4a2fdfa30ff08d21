"""The command `refinenet deploy` plans for the network that it opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from typer.testing import CliRunner

from refinenet import RefineNet
from refinenet.cli import app

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def run(model: RefineNet, folder: Path, *arguments: Any) -> str:
    path = model.save(folder / "model.safetensors")
    words = [*map(str, arguments), "--model", str(path), "--device", "cpu", "--backend", "pytorch"]
    result = CliRunner().invoke(app, ["deploy", *words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_a_folder_of_arrays(tmp_path: Path) -> None:
    r = RefineNet(encoder="test_resnet", num_classes=3, bands="red,nir", device="cpu")
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "scene.npy", np.zeros((20, 30, 2), np.uint8))
    run(r, tmp_path, tmp_path / "in", "-o", tmp_path / "out")
    with Image.open(tmp_path / "out" / "scene.png") as labels:
        assert labels.size == (30, 20)


def test_a_suffix_names_what_only_the_network_has(street: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    """Without --kind, a .ply file is a cloud of a network of depth alone."""
    Image.fromarray(street[:32, :48]).save(tmp_path / "a.png")
    r = RefineNet(encoder="test_resnet", outputs="depth", device="cpu")
    run(r, tmp_path, tmp_path / "a.png", "-o", tmp_path / "a.ply", "--intrinsics", "50,50,24,16")
    assert (tmp_path / "a.ply").read_bytes().startswith(b"ply")


def test_the_first_of_several_quantities_is_drawn(street: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    Image.fromarray(street[:32, :48]).save(tmp_path / "a.png")
    r = RefineNet(encoder="test_resnet", outputs="soil=regression[height:m,wet:%]", device="cpu")
    run(r, tmp_path, tmp_path / "a.png")
    assert (tmp_path / "a_values_colour_height.png").is_file()
