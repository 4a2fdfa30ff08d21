"""Encoders from timm: those that a RefineNet can use, and the errors for others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from torch.nn import functional

from refinenet import RefineNet
from refinenet.models.architecture import Architecture
from refinenet.models.encoders.encoder import Encoder, feature_info
from refinenet.models.network import Network


@pytest.mark.parametrize(
    "encoder",
    ["convnext_atto", "efficientnet_b0", "swin_tiny_patch4_window7_224", "test_vit", "eva02_tiny_patch14_224"],
)
def test_any_encoder_runs_and_trains(encoder: str) -> None:
    torch.manual_seed(0)  # stochastic depth leaves out a block for both images now and then, which then has no gradient
    network = Network(Architecture(model_type="lightweight", encoder=encoder, num_classes=3)).eval()
    with torch.no_grad():
        for height, width in [(1, 1), (33, 50)]:
            images = torch.rand(2, 3, height, width)
            assert network.logits(images).shape == (2, 3, -(-height // 4), -(-width // 4))
            assert network(images).shape == (2, 3, height, width)
    network.train()
    loss = functional.cross_entropy(network(torch.rand(2, 3, 33, 50)), torch.randint(3, (2, 33, 50)))
    parameters = dict(network.named_parameters())
    gradients = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
    assert [name for name, grad in gradients.items() if not grad.isfinite().all()] == []
    assert [name for name, grad in gradients.items() if not grad.any()] == []


@pytest.mark.parametrize(
    ("encoder", "channels"),
    [
        ("mobilenetv2_100", ((24,), (32,), (64, 96), (160, 320))),
        ("resnet50", ((256,), (512,), (1024,), (2048,))),
        ("swin_tiny_patch4_window7_224", ((96,), (192,), (384,), (768,))),
    ],
)
def test_declared_channels_are_those_that_come_out(encoder: str, channels: tuple[tuple[int, ...], ...]) -> None:
    built = Encoder(encoder).eval()
    assert built.channels == channels
    with torch.no_grad():
        groups = built(torch.rand(1, 3, 70, 33))
    for group, expected, stride in zip(groups, channels, (4, 8, 16, 32), strict=True):
        assert [map_.shape for map_ in group] == [(1, c, -(-70 // stride), -(-33 // stride)) for c in expected]


def test_padding_is_seen_as_the_mean_colour() -> None:
    network = Network(Architecture(model_type="lightweight", encoder="test_convnext", num_classes=3)).eval()
    images = torch.rand(1, 3, 33, 50)
    padded = network.mean.expand(1, 3, 64, 64).clone()
    padded[..., :33, :50] = images
    with torch.no_grad():
        small = network.encoder((images - network.mean) / network.std)
        large = network.encoder((padded - network.mean) / network.std)
    for (found,), (whole,), stride in zip(small, large, (4, 8, 16, 32), strict=True):
        expected = whole[..., : -(-33 // stride), : -(-50 // stride)]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_encoder_without_the_strides_is_refused_with_the_reason() -> None:
    wanted = (
        r"'vit_base_patch32_224' does not fit.* strides \[32\], none at \[4, 8, 16\].* such as convnext_tiny, swin_"
    )
    with pytest.raises(ValueError, match=wanted):
        RefineNet(encoder="vit_base_patch32_224")


def test_windows_of_a_fixed_size_are_padded_to_whole_ones() -> None:
    """MaxViT's windows divide its maps only if the image is a multiple of the size that it was made for."""
    torch.manual_seed(2)
    encoder = Encoder("maxvit_rmlp_pico_rw_256").eval()
    plain = timm.create_model("maxvit_rmlp_pico_rw_256", features_only=True, out_indices=(1, 2, 3, 4)).eval()
    plain.load_state_dict(encoder.features.state_dict())
    images = torch.rand(1, 3, 70, 257)
    padded = torch.zeros(1, 3, 256, 512)
    padded[..., :70, :257] = images
    with torch.no_grad():
        found, expected = encoder(images), plain(padded)
    for (one,), whole, stride in zip(found, expected, (4, 8, 16, 32), strict=True):
        assert one.shape[2:] == (-(-70 // stride), -(-257 // stride))
        torch.testing.assert_close(one, whole[..., : one.shape[2], : one.shape[3]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("encoder", "suggested"),
    [("resnet5O", "resnet50"), ("mobilnetv2_100", "mobilenetv2_100"), ("swin_t", "swin_tiny_")],
)
def test_misspelt_encoder_is_refused_with_suggestions(encoder: str, suggested: str) -> None:
    with pytest.raises(ValueError, match=rf"no encoder named '{encoder}'.* Did you mean .*{suggested}"):
        RefineNet(encoder=encoder)


@pytest.mark.parametrize("encoder", ["", "hf-hub:someone/model", "../resnet50", "https://example.org/x", "\x1b[31m"])
def test_what_is_no_name_of_timm_is_refused(encoder: str) -> None:
    with pytest.raises(ValueError, match="timm has no encoder named") as refused:
        feature_info(encoder)
    assert str(refused.value).isprintable()


def test_imagenet_weights_without_a_network_are_a_clear_error(tmp_path: Path) -> None:
    code = "from refinenet import RefineNet; RefineNet(encoder='mobilenetv2_100', encoder_weights='imagenet')"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "TORCH_HOME": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    last_error = run.stderr[run.stderr.rindex("\nValueError: ") :]
    assert "ImageNet weights of 'mobilenetv2_100' could not be downloaded" in last_error
    assert "encoder_weights=FILE" in last_error


@pytest.mark.parametrize(
    "name", ["hiera_tiny_224", "beit_base_patch16_224", "vit_base_patch32_224", "coatnet_0_rw_224", "mixer_s16_224"]
)
def test_encoders_that_take_one_size_only_are_refused_in_words(name: str) -> None:
    with pytest.raises(ValueError, match=rf"The encoder '{name}' ") as caught, torch.device("meta"):
        Encoder(name)
    assert "argument" not in str(caught.value)
    assert "Choose another, such as convnext_tiny" in str(caught.value)
