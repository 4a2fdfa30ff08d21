"""Encoders of the papers against timm's networks: the same names and values, without importing timm."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections import OrderedDict
from functools import lru_cache

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn import functional
from translations import translated

from refinenet import RefineNet
from refinenet.models.encoders.encoder import FEATURE_INFO, Encoder, name_in_features

PUBLISHED = ["resnet50", "resnet101", "resnet152", "mobilenetv2_100"]


def timm_network(name: str) -> nn.Module:
    """With the expand convolution that MobileNetV2 was published with."""
    network: nn.Module = timm.create_model(name)
    if name == "mobilenetv2_100":
        expand = nn.Conv2d(32, 32, kernel_size=1, bias=False)
        parts = {"conv_expand": expand, "bn_expand": BatchNormAct2d(32, act_layer=nn.ReLU6)}
        first = network.get_submodule("blocks.0.0")
        network.set_submodule("blocks.0.0", nn.Sequential(OrderedDict(parts, block=first)))
    return network


def trained(network: nn.Module) -> nn.Module:
    """Weights and statistics that are those of no new network."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.get_buffer("running_mean"), std=0.2)
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 1.5)
    return network


def by_our_names(oracle: nn.Module, features: nn.Module) -> dict[str, Tensor]:
    """The oracle's tensors without those of its classifier, in its order."""
    ours = features.state_dict()
    renamed = {name_in_features(name, ours): tensor for name, tensor in oracle.state_dict(keep_vars=True).items()}
    # The batch norm behind timm's last convolution is named as one of a block.
    heads = ("fc.", "classifier.", "conv_head.", *(("bn2.",) if "conv_stem.weight" in ours else ()))
    return {name: tensor for name, tensor in renamed.items() if not name.startswith(heads)}


def tapped(name: str, oracle: nn.Module, images: Tensor) -> list[Tensor]:
    """What timm's own modules put out at the published places."""
    maps: list[Tensor] = []
    hooks = [
        oracle.get_submodule(tap.module).register_forward_hook(lambda *call: maps.append(call[2]))
        for tap in FEATURE_INFO[name]
    ]
    oracle(images)
    for hook in hooks:
        hook.remove()
    return maps


@lru_cache(maxsize=1)  # the tests of a name follow each other, and drawing the weights takes longer than each of them
def equal_networks(name: str) -> tuple[nn.Module, Encoder]:
    """timm's network and ours, with the same weights."""
    oracle, encoder = trained(timm_network(name)), Encoder(name)
    encoder.features.load_state_dict(by_our_names(oracle, encoder.features))
    return oracle, encoder


@pytest.mark.parametrize("size", [(64, 64), (33, 97)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", PUBLISHED)
def test_maps_gradients_and_statistics_are_those_of_timm_to_the_bit(
    name: str, training: bool, size: tuple[int, int]
) -> None:
    oracle, encoder = copy.deepcopy(equal_networks(name))
    oracle.train(training)
    encoder.train(training)
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    copies = images.clone().requires_grad_(), images.clone().requires_grad_()
    expected = tapped(name, oracle, copies[0])
    found = [map_ for group in encoder(copies[1]) for map_ in group]
    torch.autograd.backward([map_.square().mean() for map_ in expected])
    torch.autograd.backward([map_.square().mean() for map_ in found])
    assert len(found) == len(expected)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert same(copies[1].grad, copies[0].grad)
    theirs = by_our_names(oracle, encoder.features)
    for key, tensor in encoder.features.state_dict(keep_vars=True).items():
        assert torch.equal(tensor, theirs[key]), key
        assert same(tensor.grad, theirs[key].grad) if isinstance(tensor, nn.Parameter) else True, key


def same(found: Tensor | None, expected: Tensor | None) -> bool:
    return found is not None and expected is not None and torch.equal(found, expected)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_seed_gives_the_weights_that_it_gives_in_timm(name: str) -> None:
    torch.manual_seed(7)
    theirs, their_next = timm_network(name), torch.rand(4)
    torch.manual_seed(7)
    features, our_next = Encoder(name).features, torch.rand(4)
    expected, found = by_our_names(theirs, features), features.state_dict()
    assert list(found) == list(expected)
    for key in found:
        if "_expand." not in key:
            assert torch.equal(found[key], expected[key]), key
    assert torch.equal(our_next, their_next)  # so that the decoder's weights are the same, too


def test_the_expand_convolution_starts_as_the_identity() -> None:
    first = Encoder("mobilenetv2_100").eval().get_submodule("features.blocks_0.0")
    features = functional.relu6(torch.randn(1, 32, 9, 7, generator=torch.Generator().manual_seed(1)) * 4)
    with torch.no_grad():
        torch.testing.assert_close(first(features), first.get_submodule("block")(features), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet50", "mobilenetv2_100.ra_in1k"])
def test_fetched_weights_arrive_in_their_places(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What timm would fetch is put into its place here: there is no network."""
    base = name.partition(".")[0]
    oracle = trained(timm.create_model(base)).eval()
    torch.manual_seed(3)
    expected = (Encoder(base), torch.rand(4))[1]
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: (oracle, torch.rand(5))[0])
    torch.manual_seed(3)
    encoder = Encoder(name, pretrained=True).eval()
    assert torch.equal(torch.rand(4), expected)  # which the decoder's weights are drawn from
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        found = [map_ for group in encoder(images) for map_ in group]
        for map_, reference in zip(found, tapped(base, oracle, images), strict=True):
            torch.testing.assert_close(map_, reference, rtol=1e-4, atol=1e-4)


def test_images_are_normalised_as_timm_says() -> None:
    for name in PUBLISHED:
        config = timm.get_pretrained_cfg(name)
        assert config is not None
        assert (Encoder(name).mean, Encoder(name).std) == (config.mean, config.std)


def test_a_name_with_the_tag_of_its_weights_is_the_same_network() -> None:
    tagged = Encoder("resnet50.tv_in1k")
    assert list(tagged.features.state_dict()) == list(Encoder("resnet50").features.state_dict())
    with pytest.raises(ValueError, match=r"no weights 'nobody' for the encoder 'resnet50'. It has .*resnet50\.tv_in1k"):
        Encoder("resnet50.nobody")


@pytest.mark.parametrize("backend", ["pytorch", "openvino"])
def test_a_published_network_segments_without_what_only_training_needs(backend: str, camvid_model: RefineNet) -> None:
    code = (
        "import sys, numpy as np; from refinenet import RefineNet;"
        f"r = RefineNet(model='camvid', device='cpu', backend='{backend}');"
        "r.segment(np.zeros((64, 96, 3), np.uint8));"
        "unwanted = 'timm', 'torchvision', 'torch._dynamo', 'sympy', 'lightning', 'ray', 'matplotlib';"
        "print([name for name in unwanted if name in sys.modules])"
    )
    if backend == "openvino":  # the first process may translate the network, for which much is imported
        translated(camvid_model.network)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
