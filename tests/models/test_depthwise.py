"""Strided depthwise convolutions against those of PyTorch, and their replacement in a network."""

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from refinenet.models.encoders.mobilenetv2 import StridedDepthwiseConvolution, replace_strided_depthwise


def make_features(dtype: torch.dtype = torch.float32) -> Tensor:
    """Feature maps of 6 channels, of an odd height and an even width."""
    return torch.randn((2, 6, 9, 12), generator=torch.Generator().manual_seed(1)).to(dtype)


def make_convolution() -> StridedDepthwiseConvolution:
    """A convolution with a bias, whose weights bfloat16 has to round."""
    torch.manual_seed(0)
    return StridedDepthwiseConvolution(6, 6, kernel_size=3, stride=2, padding=1, groups=6)


def by_hand(convolution: nn.Conv2d, features: Tensor) -> Tensor:
    """A sum over the kernel's nine places of shifted channels times weights, in float64."""
    padded = functional.pad(features.double(), (1, 1, 1, 1))
    assert convolution.bias is not None
    total = convolution.bias.double()[:, None, None].expand(2, -1, 5, 6)
    for row in range(3):
        for column in range(3):
            shifted = padded[:, :, row : row + 9 : 2, column : column + 12 : 2]
            total = total + shifted * convolution.weight.double()[:, 0, row, column, None, None]
    return total


def test_it_convolves_each_channel_with_its_kernel() -> None:
    convolution, features = make_convolution(), make_features()
    torch.testing.assert_close(convolution(features).double(), by_hand(convolution, features), rtol=1e-5, atol=1e-6)


def test_under_autocast_training_rounds_only_what_goes_out() -> None:
    convolution, features = make_convolution(), make_features(torch.bfloat16).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        convolved = convolution(features)
    exact = by_hand(convolution, features)
    assert convolved.dtype == torch.bfloat16
    torch.testing.assert_close(convolved.double(), exact, rtol=2**-8, atol=1e-6)
    arriving = torch.randn(exact.shape, generator=torch.Generator().manual_seed(2)).bfloat16()
    weights = [features, convolution.weight]
    found = torch.autograd.grad(convolved, weights, arriving)
    expected = torch.autograd.grad(exact, weights, arriving.double())
    assert [gradient.dtype for gradient in found] == [torch.bfloat16, torch.float32]
    torch.testing.assert_close(found[0], expected[0], rtol=2**-8, atol=1e-6)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-5, atol=1e-5)


def test_without_gradients_it_is_pytorchs_own_convolution() -> None:
    convolution, features = make_convolution(), make_features()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        own = functional.conv2d(features, convolution.weight, convolution.bias, stride=2, padding=1, groups=6)
        torch.testing.assert_close(convolution(features), own, rtol=0, atol=0)


def test_only_strided_depthwise_convolutions_are_replaced() -> None:
    class Padded(nn.Conv2d):
        """A kind of its own, which may pad in another way."""

    network = nn.Sequential(
        nn.Conv2d(4, 4, 3, stride=2, groups=4, padding=1, bias=False),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv2d(4, 4, 3, stride=2),
        nn.Conv2d(4, 4, 3, stride=2, groups=2),
        nn.Conv2d(1, 4, 3, stride=2),
        Padded(4, 4, 3, stride=2, groups=4),
        nn.Sequential(nn.Conv2d(4, 8, (3, 5), stride=(1, 2), padding=(1, 2), dilation=2, groups=4)),
    ).eval()
    before = dict(network.named_modules())
    replace_strided_depthwise(network)
    changed = {name: module for name, module in network.named_modules() if module is not before[name]}
    assert set(changed) == {"0", "6.0"}
    for name, module in changed.items():
        assert isinstance(module, StridedDepthwiseConvolution)
        assert repr(module).partition("(")[2] == repr(before[name]).partition("(")[2]
        assert not module.training


def test_a_replaced_network_has_the_same_weights_and_answers() -> None:
    torch.manual_seed(0)
    network = timm.create_model("mobilenetv2_050", num_classes=3).eval()
    images = torch.rand(1, 3, 40, 56)
    before, answer = dict(network.named_parameters()), network(images)
    state, random_state = network.state_dict(), torch.get_rng_state()
    replace_strided_depthwise(network)
    assert sum(isinstance(module, StridedDepthwiseConvolution) for module in network.modules()) == 4
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(parameter is before[name] for name, parameter in network.named_parameters())
    assert list(network.state_dict()) == list(state)
    torch.testing.assert_close(network(images), answer, rtol=0, atol=0)
