"""Fused networks: the same results in fewer operations, without changes to the original."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from refinenet import RefineNet
from refinenet.inference.backends.pytorch import PyTorchBackend
from refinenet.models.architecture import Architecture, ModelType
from refinenet.models.inference_graph import fuse, network_to_deploy
from refinenet.models.model_spec import SIZES
from refinenet.models.network import Network


def picture(height: int = 65, width: int = 97) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def make(encoder: str, model_type: ModelType = "lightweight", decoder: Mapping[str, Any] | None = None) -> Network:
    """A network whose batch norms do something."""
    torch.manual_seed(0)
    network = Network(
        Architecture(model_type=model_type, encoder=encoder, num_classes=3, decoder_options=decoder or {})
    ).eval()
    for norm in norms(network):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        nn.init.normal_(norm.running_mean, std=0.1)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.1)
    return network


def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def convolutions(network: nn.Module) -> int:
    return sum(isinstance(module, nn.Conv2d) for module in network.modules())


def difference(network: Network, fused: nn.Module, size: tuple[int, int] = (65, 97)) -> float:
    """The largest difference of logits, as a share of the largest."""
    with torch.no_grad():
        expected, found = network(picture(*size)), fused(picture(*size))
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(
    ("encoder", "model_type", "norms_left", "convolutions_less"),
    [
        ("mobilenetv2_100", "lightweight", 0, 0),
        ("test_resnet", "lightweight", 0, 3),  # of the adaptations at strides 4, 8 and 16, two convolutions are one
        ("test_resnet", "full", 0, 0),
        ("test_convnext", "lightweight", 0, 3),
    ],
)
def test_a_fused_network_answers_as_the_network(
    encoder: str, model_type: ModelType, norms_left: int, convolutions_less: int
) -> None:
    network = make(encoder, model_type)
    fused = fuse(network)
    assert difference(network, fused) < 1e-5
    assert len(norms(fused)) == norms_left
    assert convolutions(network) - convolutions(fused) == convolutions_less


def test_a_network_to_be_traced_changes_no_tensor_in_place() -> None:
    """To rewrite changes in place, PyTorch takes longer than for all the rest of an export of MobileNetV2 to ONNX."""
    network = make("mobilenetv2_100")
    traced = network_to_deploy(network).network
    assert not any(getattr(module, "inplace", False) for module in traced.modules())
    assert any(getattr(module, "inplace", False) for module in network.modules())
    with torch.no_grad():
        assert torch.equal(traced(picture()), fuse(network)(picture()))


def test_batch_norms_of_the_decoder_are_fused() -> None:
    network = make("test_resnet", decoder=SIZES["medium"].decoder)
    fused = fuse(network)
    assert len(norms(network.decoder)) == 4 + 16 + 3 + 4
    assert not norms(fused)
    assert difference(network, fused) < 1e-5


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (31, 32), (33, 66), (65, 97), (64, 64)])
def test_same_padding_is_that_of_tensorflow_for_any_size(size: tuple[int, int]) -> None:
    network = make("tf_efficientnet_lite0")
    assert difference(network, fuse(network), size) < 1e-4


def test_networks_with_same_padding_are_traced() -> None:
    """With timm's own convolutions, tracing sizes that are free does not end within minutes."""
    network = RefineNet(size="small", num_classes=3, encoder_weights="random", backend="openvino", device="cpu", seed=1)
    plain = RefineNet(size="small", num_classes=3, encoder_weights="random", backend="pytorch", device="cpu", seed=1)
    for height, width in ((65, 97), (64, 33)):
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        labels = network.segment(image).labels
        assert (labels == plain.segment(image).labels).mean() > 0.99


def test_fusing_changes_nothing_of_the_network() -> None:
    network = make("test_resnet").train()
    generator = torch.get_rng_state()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fused = fuse(network)
    assert torch.equal(torch.get_rng_state(), generator)
    assert network.training
    assert not fused.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in fused.modules())


class UsedTwice(nn.Module):
    """A convolution whose output is wanted before and after its batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(256, 3, 1)
        self.norm = nn.BatchNorm2d(3)
        nn.init.constant_(self.norm.bias, 5.0)

    def forward(self, features: Tensor) -> Tensor:
        convolved: Tensor = self.convolution(features)
        normalised: Tensor = self.norm(convolved)
        return convolved + normalised


class RunsTwice(UsedTwice):
    """A batch norm that serves at two places."""

    def forward(self, features: Tensor) -> Tensor:
        twice: Tensor = self.norm(self.norm(self.convolution(features)))
        return twice


@pytest.mark.parametrize("head", [UsedTwice, RunsTwice])
def test_what_cannot_be_fused_is_left(head: type[UsedTwice]) -> None:
    network = make("test_resnet")
    network.set_submodule("classifier", head().eval())
    assert difference(network, fuse(network)) < 1e-5


def test_a_changed_weight_is_seen_by_the_backend() -> None:
    network = make("test_resnet")
    backend = PyTorchBackend(network)
    backend(picture())
    with torch.no_grad():
        norms(network)[0].weight.mul_(2)
        expected = network.logits(picture())
    torch.testing.assert_close(backend(picture()), expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_says_nearly_the_same_and_float16_is_for_gpus() -> None:
    network = make("test_resnet")
    rough, exact = PyTorchBackend(network, "bfloat16")(picture()), PyTorchBackend(network)(picture())
    assert rough.dtype == torch.float32
    assert 0 < float((rough - exact).abs().max() / (exact.max() - exact.min())) < 0.05
    with pytest.raises(ValueError, match="float16 on GPUs"):
        PyTorchBackend(network, "float16")
