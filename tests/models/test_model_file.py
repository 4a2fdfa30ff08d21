"""Model files: round trips, an independent reader, and no need for anything else."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_parts import CARD, LABELS, small_network
from safetensors import safe_open
from torch import Tensor

from refinenet import RefineNet, __version__
from refinenet.labels import LabelSet
from refinenet.models.architecture import Architecture
from refinenet.models.files.model_file import load, save
from refinenet.models.files.tensor_files import check_tensors
from refinenet.models.network import Network

IMAGES = torch.rand(1, 3, 45, 70, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A small model, saved in float32."""
    path = tmp_path / "model.safetensors"
    save(path, small_network(), CARD, "float32")
    return path


def answer(network: Network) -> Tensor:
    with torch.no_grad():
        return network.logits(IMAGES)


def test_float32_round_trip_is_exact(saved: Path) -> None:
    network, card = load(saved)
    torch.testing.assert_close(answer(network), answer(small_network()), rtol=0, atol=0)
    assert card == replace(CARD, weights_sha256=card.weights_sha256)
    assert not network.training
    assert all(tensor.dtype == torch.float32 for tensor in network.parameters())


def test_round_trip_through_the_class(saved: Path, tmp_path: Path) -> None:
    first = RefineNet(model=saved, device="cpu")
    copy = first.save(tmp_path / "new" / "folder" / "copy.safetensors")
    second = RefineNet(model=str(copy), device="cpu")
    torch.testing.assert_close(answer(second.network), answer(small_network()), rtol=1e-4, atol=1e-5)
    assert second.card == first.card
    assert second.label_set == LABELS
    assert copy.read_bytes() == saved.read_bytes()


@pytest.mark.parametrize("encoder", ["test_resnet", "swin_tiny_patch4_window7_224", "mobilenetv2_100"])
def test_float16_halves_the_file_and_hardly_changes_the_answer(encoder: str, tmp_path: Path) -> None:
    torch.manual_seed(6)
    architecture = Architecture(model_type="lightweight", encoder=encoder, num_classes=3)
    network, card = Network(architecture).eval(), replace(CARD, architecture=architecture)
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    save(whole, network, card, "float32")
    save(half, network, card, "float16")
    assert half.stat().st_size < 0.53 * whole.stat().st_size
    loaded = load(half)[0]
    assert all(tensor.dtype == torch.float32 for tensor in loaded.parameters())
    expected = answer(network)
    assert (answer(loaded) - expected).abs().max() <= 0.01 * expected.abs().max()


def test_normalisation_and_biases_stay_float32_in_float16_files(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    save(path, small_network(), CARD, "float16")
    with safe_open(path, framework="np") as reader:
        types = {name: reader.get_tensor(name).dtype for name in list(reader.keys())}
    assert {types["mean"], types["std"], types["classifier.bias"]} == {np.dtype("float32")}
    assert types["classifier.weight"] == np.dtype("float16")


def test_saving_a_loaded_float16_model_again_keeps_its_weights(tmp_path: Path) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    save(first, small_network(), CARD, "float16")
    RefineNet(model=first, device="cpu").save(second, dtype="float16")
    assert second.read_bytes() == first.read_bytes()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_header_by_an_independent_reader(dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    network = small_network()
    save(path, network, CARD, "float16" if dtype == "float16" else "float32")
    with safe_open(path, framework="np") as reader:
        header = json.loads(reader.metadata()["refinenet"])
        arrays = {name: reader.get_tensor(name) for name in list(reader.keys())}
    assert header["format_version"] == 2
    assert header["architecture"] == {"model_type": "lightweight", "encoder": "test_resnet", "num_classes": 3}
    assert header["label_set"] == {
        "names": ["road", "sky", "Straße"],
        "colours": [[128, 64, 128], [70, 130, 180], [1, 2, 3]],
        "ignore_index": 255,
    }
    assert header["preprocessing"] == {
        "channel_order": "RGB",
        "range": [0.0, 1.0],
        "mean": [0.5, 0.5, 0.5],  # timm says so of this encoder
        "std": [0.5, 0.5, 0.5],
    }
    assert (header["scores"], header["recipe"]) == (CARD.scores, CARD.recipe)
    assert (header["licence"], header["package_version"]) == ("BSD-3-Clause", __version__)
    assert set(arrays) == set(network.state_dict())
    # As documented: name, type, shape and little-endian bytes, ordered by name.
    documented = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        documented.update(f"{name} torch.{array.dtype} {array.shape}\n".encode())
        documented.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    assert header["weights_sha256"] == documented.hexdigest()


def test_digest_tells_weights_apart_and_not_their_layout(tmp_path: Path) -> None:
    network = small_network()
    first = save(tmp_path / "first.safetensors", network, CARD, "float32").weights_sha256
    network.to(memory_format=torch.channels_last)
    assert save(tmp_path / "second.safetensors", network, CARD, "float32").weights_sha256 == first
    with torch.no_grad():
        network.mean[0] += 1e-3
    assert save(tmp_path / "third.safetensors", network, CARD, "float32").weights_sha256 != first


@pytest.mark.parametrize("encoder", ["resnet50", "mobilenetv2_100"])
def test_loading_a_published_network_draws_nothing_and_shares_nothing(encoder: str, tmp_path: Path) -> None:
    architecture = Architecture(model_type="lightweight", encoder=encoder, num_classes=3)
    network, path = Network(architecture).eval(), tmp_path / "model.safetensors"
    save(path, network, replace(CARD, architecture=architecture), "float32")
    before = torch.get_rng_state()
    loaded, _ = load(path)
    assert torch.equal(torch.get_rng_state(), before)
    tensors = loaded.state_dict()
    assert list(tensors) == list(network.state_dict())
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors.values()}) == len(tensors)
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    torch.testing.assert_close(answer(loaded), answer(network), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_found_in_every_type(dtype: torch.dtype, value: float) -> None:
    whole = {"weight": torch.full((3, 2), 6e4 if dtype == torch.float16 else 3e38).to(dtype)}
    check_tensors(whole, whole, "a file")
    broken = {"weight": whole["weight"].clone().index_fill_(0, torch.tensor([1]), value)}
    with pytest.raises(ValueError, match="1 with values that are not finite numbers: weight"):
        check_tensors(broken, whole, "a file")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_weights_that_cannot_be_stored_are_refused(value: float, tmp_path: Path) -> None:
    network, path = small_network(), tmp_path / "model.safetensors"
    path.write_text("what was there before")
    with torch.no_grad():
        network.classifier.weight[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match=r"1 with values that are not finite numbers: classifier\.weight"):
        save(path, network, CARD, "float16")
    assert path.read_text() == "what was there before"
    assert list(tmp_path.iterdir()) == [path]


def test_scores_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(ValueError, match="JSON"):
        save(path, small_network(), replace(CARD, scores={"miou": float("nan")}), "float32")
    assert not path.exists()


def test_unknown_type_is_refused(saved: Path) -> None:
    kind: Any = "int8"
    with pytest.raises(ValueError, match="float32 or float16, not 'int8'"):
        RefineNet(model=saved).save(saved, dtype=kind)


def test_card_whose_parts_contradict_each_other_is_refused() -> None:
    with pytest.raises(ValueError, match="names 4 classes, but the network has 3"):
        replace(CARD, label_set=LabelSet.numbered(4))


@pytest.mark.parametrize(
    ("argument", "value"),
    [("num_classes", 4), ("model_type", "full"), ("encoder", "mobilenetv2_100"), ("num_layers", 50)],
)
def test_contradicting_arguments_are_refused(argument: str, value: Any, saved: Path) -> None:
    arguments: dict[str, Any] = {"model": saved, argument: value}
    with pytest.raises(ValueError, match=r"model\.safetensors has .*Leave .* out: the file determines it"):
        RefineNet(**arguments)


def test_agreeing_arguments_are_accepted(saved: Path) -> None:
    model = RefineNet(model=saved, model_type="lightweight", encoder="test_resnet", num_classes=3)
    assert model.card.architecture == CARD.architecture


def test_encoder_weights_for_a_saved_model_are_refused(saved: Path) -> None:
    with pytest.raises(ValueError, match="not both"):
        RefineNet(model=saved, encoder_weights=saved)


@pytest.mark.parametrize("damage", ["truncated", "overwritten", "deleted"])
def test_what_happens_to_the_file_later_changes_nothing(damage: str, saved: Path) -> None:
    model = RefineNet(model=saved, device="cpu")
    size = saved.stat().st_size
    with saved.open("r+b") as stream:
        if damage == "truncated":
            stream.truncate(100)
        else:
            stream.write(b"\xff" * size)
    if damage == "deleted":
        saved.unlink()
    torch.testing.assert_close(answer(model.network), answer(small_network()), rtol=1e-4, atol=1e-5)
