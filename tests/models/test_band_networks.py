"""Networks for images of named bands, and the rule by which weights for RGB become theirs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from refinenet import RefineNet
from refinenet.io.images.bands import read_bands
from refinenet.models import Architecture, Network, load
from refinenet.models.encoders.band_weights import inflate_kernel
from refinenet.models.encoders.encoder import Encoder, find_image_kernels

BANDS = "red,green,blue,nir:0:4095,height:-5:60"


@pytest.fixture(scope="module")
def plain() -> RefineNet:
    return RefineNet(encoder="test_resnet", num_classes=3, device="cpu")


def test_kernels_by_hand() -> None:
    kernel = torch.tensor([1.0, 2.0, 6.0]).view(1, 3, 1, 1)
    rgb = ("red", "green", "blue")
    assert inflate_kernel(kernel, rgb, rgb) is kernel
    # blue, red and the mean of all, 3, three quarters of each
    found = inflate_kernel(kernel, rgb, ("blue", "nir", "red", "green"))
    assert found.flatten().tolist() == [4.5, 2.25, 0.75, 1.5]
    assert inflate_kernel(kernel, rgb, ("grey",)).flatten().tolist() == [9]
    # From other bands: nir, 5, stays, the mean of 1 and 5 is 3; twice the two thirds.
    other = inflate_kernel(torch.tensor([1.0, 5.0]).view(1, 2, 1, 1), ("red", "nir"), ("nir", "swir", "tir"))
    assert other.flatten().tolist() == pytest.approx([10 / 3, 2, 2])


def test_a_grey_image_means_the_same_to_the_encoder(plain: RefineNet) -> None:
    network = plain.network.with_bands(read_bands(BANDS))
    grey = torch.rand(1, 1, 33, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = plain.network.encoder(grey.expand(1, 3, 33, 40))
        after = network.encoder(grey.expand(1, 5, 33, 40))
        back = network.with_bands(()).state_dict()
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one[0], other[0])
    for name, tensor in plain.network.state_dict().items():
        torch.testing.assert_close(back[name], tensor)


@pytest.mark.parametrize(
    ("encoder", "kernel"),
    [
        ("resnet50", "conv1.weight"),
        ("mobilenetv2_100", "conv_stem.weight"),
        ("test_resnet", "conv1.0.weight"),
        ("test_vit", "transformer.patch_embed.proj.weight"),
    ],
)
def test_encoders_take_any_number_of_bands(encoder: str, kernel: str) -> None:
    assert find_image_kernels(encoder) == (kernel,)
    with torch.device("meta"):
        built = Encoder(encoder, bands=read_bands("nir,swir"))
    assert built.features.state_dict()[kernel].shape[1] == 2
    assert (built.mean, built.std) == ((0, 0), (1, 1))


def test_a_network_of_bands_is_saved_and_loaded(tmp_path: Path) -> None:
    made = RefineNet(encoder="test_resnet", num_classes=3, bands=BANDS, device="cpu")
    made.save(tmp_path / "bands.safetensors")
    network, card = load(tmp_path / "bands.safetensors")
    assert card.architecture.bands == read_bands(BANDS)
    images = torch.rand(2, 5, 20, 30)
    with torch.no_grad():
        assert torch.equal(network(images), made.network(images))
    with pytest.raises(ValueError, match=r"5 bands: red, green, blue, nir, height, not a tensor of shape \(1, 3"):
        network(torch.rand(1, 3, 8, 8))
    again = RefineNet(model=tmp_path / "bands.safetensors", bands=BANDS, device="cpu")
    assert torch.equal(again.network(images), network(images))


def test_plain_networks_have_the_header_of_before() -> None:
    architecture = Architecture(model_type="lightweight", encoder="test_resnet", num_classes=3)
    assert architecture.is_plain
    assert architecture.band_names == ("red", "green", "blue")
    assert not Architecture(**{**architecture.to_dict(), "bands": [{"name": "grey"}]}).is_plain


def test_a_trained_model_takes_further_bands(plain: RefineNet, tmp_path: Path) -> None:
    plain.save(tmp_path / "rgb.safetensors", licence="CC0-1.0")
    model = RefineNet(model=tmp_path / "rgb.safetensors", bands="nir:0:4095,red,green,blue", device="cpu")
    assert model.card.licence == "CC0-1.0"
    assert model.network.mean.flatten().tolist() == [0, *plain.network.mean.flatten().tolist()]
    (kernel,) = find_image_kernels("test_resnet")
    name = f"encoder.features.{kernel}"
    own, new = plain.network.state_dict()[name], model.network.state_dict()[name]
    torch.testing.assert_close(new[:, 1:], own * 3 / 4)
    torch.testing.assert_close(new[:, 0], own.mean(1) * 3 / 4)
    # The encoder of a new network starts from the same weights by the same rule.
    started = RefineNet(
        encoder="test_resnet", encoder_weights=tmp_path / "rgb.safetensors", bands="nir,red,green,blue", device="cpu"
    )
    assert torch.equal(started.network.state_dict()[name], new)


def test_bands_of_equal_number_are_told_apart_by_name() -> None:
    architecture = Architecture(model_type="lightweight", encoder="test_resnet", num_classes=2)
    network = Network(architecture)
    turned = network.with_bands(read_bands("blue,green,red"))
    images = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(turned.eval()(images.flip(1)), network.eval()(images))
