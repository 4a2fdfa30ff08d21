"""The encoders of the papers against timm's networks: the same names, the same numbers; and without timm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from refinenet.encoder import PUBLISHED_TAPS, Encoder, added_tensors, name_in_features

PUBLISHED = ["resnet50", "resnet101", "resnet152", "mobilenetv2_100"]


def timm_network(name: str) -> nn.Module:
    """With weights and statistics that are those of no new network."""
    torch.manual_seed(0)
    network: nn.Module = timm.create_model(name)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.2)
                module.get_buffer("running_mean").normal_(std=0.2)
                module.get_buffer("running_var").uniform_(0.5, 1.5)
    return network


def with_weights_of(name: str, oracle: nn.Module) -> Encoder:
    encoder = Encoder(name)
    expected = encoder.features.state_dict()
    given = {name_in_features(key, expected): tensor for key, tensor in oracle.state_dict().items()}
    kept = {key: tensor for key, tensor in given.items() if key in expected}
    encoder.features.load_state_dict(added_tensors(expected) | kept)
    return encoder


def tapped(name: str, oracle: nn.Module, images: Tensor) -> list[Tensor]:
    """What timm's own modules put out at the published places."""
    maps: list[Tensor] = []
    hooks = [
        oracle.get_submodule(tap.module).register_forward_hook(lambda *call: maps.append(call[2]))
        for tap in PUBLISHED_TAPS[name]
    ]
    oracle(images)
    for hook in hooks:
        hook.remove()
    return maps


@pytest.mark.parametrize("name", ["resnet50", "mobilenetv2_100"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [(64, 64), (33, 97)])
def test_maps_and_gradients_are_those_of_timm(name: str, training: bool, size: tuple[int, int]) -> None:
    oracle = timm_network(name).train(training)
    encoder = with_weights_of(name, oracle).train(training)
    for key, module in encoder.named_modules():
        if key.endswith("bn_expand"):
            module.eval()  # the added convolution is the identity as long as its statistics stay
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    expected = tapped(name, oracle, images)
    found = [map_ for group in encoder(images) for map_ in group]
    for map_, reference in zip(found, expected, strict=True):
        if name == "resnet50":  # the expand convolution of the other one is the identity to rounding
            assert torch.equal(map_, reference)
        torch.testing.assert_close(map_, reference, rtol=1e-4, atol=1e-4)
    sum(map_.square().mean() for map_ in expected).backward()  # type: ignore[union-attr]
    sum(map_.square().mean() for map_ in found).backward()
    names = encoder.features.state_dict()
    gradients = dict(encoder.features.named_parameters())
    compared = 0
    for key, parameter in oracle.named_parameters():
        own = name_in_features(key, names)
        if own in gradients and parameter.grad is not None:
            torch.testing.assert_close(gradients[own].grad, parameter.grad, rtol=1e-3, atol=1e-5)
            compared += 1
    added = [key for key in gradients if "_expand." in key]
    assert compared == len(gradients) - len(added)


@pytest.mark.parametrize("name", PUBLISHED)
def test_weights_have_the_names_shapes_and_spread_of_timm(name: str) -> None:
    oracle, features = timm.create_model(name), Encoder(name).features
    state = features.state_dict()
    expected = {name_in_features(key, state): tensor for key, tensor in oracle.state_dict().items()}
    heads = {key for key in expected if key.startswith(("fc.", "classifier.", "conv_head.", "bn2."))}
    added = {key for key in state if "_expand." in key}
    assert set(expected) - heads == set(state) - added
    for key in set(expected) - heads:
        assert state[key].shape == expected[key].shape
        if state[key].ndim == 4:
            allowed = 0.1 if state[key].numel() > 5000 else 0.35
            assert state[key].std().item() == pytest.approx(expected[key].std().item(), rel=allowed), key
        elif state[key].ndim == 1:
            assert torch.equal(state[key], expected[key]), key


@pytest.mark.parametrize("name", ["resnet50", "mobilenetv2_100.ra_in1k"])
def test_fetched_weights_arrive_in_their_places(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What timm would fetch is put into its place here: there is no network."""
    base = name.partition(".")[0]
    oracle = timm_network(base).eval()
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: oracle)
    encoder = Encoder(name, pretrained=True).eval()
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
def test_a_published_network_segments_without_what_only_training_needs(backend: str, tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np; from refinenet import RefineNet;"
        f"r = RefineNet(model='camvid', device='cpu', backend='{backend}');"
        "r.segment(np.zeros((64, 96, 3), np.uint8));"
        "print([name for name in ('timm', 'torchvision', 'lightning', 'ray', 'matplotlib') if name in sys.modules])"
    )
    # The first process may translate the network, for which much is imported; the next one finds the translation.
    environment = {**os.environ, "REFINENET_CACHE": str(tmp_path)}
    for _ in range(1 if backend == "pytorch" else 2):
        run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
