"""The training-only classifiers on the decoder's coarser stages."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from refinenet.models.architecture import Architecture, ModelType
from refinenet.models.network import Network
from refinenet.training.losses import LossConfig, Objective
from refinenet.training.losses.deep_supervision import DeepSupervision


def build(model_type: ModelType = "lightweight", encoder: str = "test_resnet") -> DeepSupervision:
    torch.manual_seed(0)
    return DeepSupervision(Network(Architecture(model_type=model_type, encoder=encoder, num_classes=4)))


@pytest.mark.parametrize("model_type", ["full", "lightweight"])
@pytest.mark.parametrize("size", [(65, 96), (33, 40)])
def test_the_first_logits_are_the_network_s_own_and_all_have_its_size(
    model_type: ModelType, size: tuple[int, int]
) -> None:
    model = build(model_type, "test_resnet").eval()
    images = torch.rand(2, 3, *size)
    with torch.no_grad():
        stages = model(images)
        alone = model.network(images)
    assert torch.equal(stages[0], alone)
    assert [tuple(stage.shape) for stage in stages] == [(2, 4, *size)] * 4


def test_published_mobile_decoder_has_its_widths() -> None:
    assert len(build(encoder="mobilenetv2_100")(torch.rand(2, 3, 32, 32))) == 4


def test_coarser_logits_are_a_1x1_convolution_of_each_block() -> None:
    model = build().eval()
    outputs: list[Tensor] = []
    for block in model.network.decoder.blocks:
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    images = torch.rand(1, 3, 96, 64)
    with torch.no_grad():
        _, *coarser = model(images)
    outputs, places = outputs[:3][::-1], (2, 1, 0)
    assert [tuple(output.shape[-2:]) for output in outputs] == [(12, 8), (6, 4), (3, 2)]
    for logits, output, place in zip(coarser, outputs, places, strict=True):
        weight, bias = model.classifiers[place].parameters()
        small = torch.einsum("kc,nchw->nkhw", weight[:, :, 0, 0], output) + bias[:, None, None]
        expected = functional.interpolate(small, (96, 64), mode="bilinear", align_corners=False)
        torch.testing.assert_close(logits, expected.detach())


def test_the_network_keeps_its_weights_names_and_answer() -> None:
    model = build()
    network = Network(model.network.architecture)
    network.load_state_dict(model.network.state_dict())
    assert {name.split(".")[0] for name in model.state_dict()} == {"network", "classifiers"}
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(network.eval()(images), model.network.eval()(images))


def test_a_step_on_the_wrapper_reaches_every_weight() -> None:
    model = build().train()
    images, labels = torch.rand(2, 3, 64, 64), torch.randint(0, 4, (2, 64, 64))
    labels[:, :20] = 255
    objective = Objective(config=LossConfig(deep_supervision=0.4), ignore_index=255)
    loss = objective.loss(model(images), labels, objective.count(labels))
    names, parameters = zip(*model.named_parameters(), strict=True)
    for name, gradient in zip(names, torch.autograd.grad(loss, parameters), strict=True):
        assert gradient.isfinite().all(), name
        assert not name.startswith("classifiers.") or gradient.abs().sum() > 0, name


def test_void_alone_gives_no_gradient() -> None:
    model = build().train()
    labels = torch.full((2, 32, 32), 255)
    config = LossConfig(deep_supervision=1, dice_weight=1, lovasz_weight=1)
    objective = Objective(config=config, ignore_index=255)
    loss = objective.loss(model(torch.rand(2, 3, 32, 32)), labels, objective.count(labels))
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    assert loss.item() == 0
    assert all(gradient.abs().max() == 0 for gradient in gradients)
