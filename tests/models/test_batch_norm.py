"""Batch norm that is frozen or synchronised, against PyTorch's own and against values computed by hand."""

from __future__ import annotations

import copy
import multiprocessing
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.layers import BatchNormAct2d, SplitBatchNorm2d
from torch import Tensor, distributed, nn

from refinenet.models.architecture import Architecture
from refinenet.models.batch_norm import apply_batch_norm
from refinenet.models.batch_norm_config import BatchNormConfig, BatchNormMode
from refinenet.models.network import Network

ENCODERS = ["mobilenetv2_050", "resnet18"]  # with timm's batch norm that holds an activation, and with PyTorch's


def build(encoder: str) -> Network:
    return copy.deepcopy(template(encoder))


@cache
def template(encoder: str) -> Network:
    """A network whose batch norms all have statistics, factors and offsets of their own."""
    torch.manual_seed(0)
    network = Network(Architecture(model_type="lightweight", encoder=encoder, num_classes=3))
    for name, tensor in network.state_dict().items():
        if "running_var" in name:
            tensor.uniform_(0.5, 2)
        elif "running_mean" in name:
            tensor.normal_(0, 0.1)
    return network


def statistics(network: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in network.named_buffers() if "running" in name or "tracked" in name}


def is_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def apply(network: nn.Module, mode: BatchNormMode, processes: int = 1) -> Any:
    return apply_batch_norm(network, BatchNormConfig(batch_norm=mode), processes)


def without_dropout(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.eval()


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_frozen_statistics_by_hand() -> None:
    """With mean 1, variance 4, factor 3 and offset -2, the values 1, 5, -3 become -2, 4, -8; behind ReLU 0, 4, 0."""
    for kind, expected in ((nn.BatchNorm2d, [-2.0, 4.0, -8.0]), (BatchNormAct2d, [0.0, 4.0, 0.0])):
        norm = kind(1, eps=0.0)
        norm.load_state_dict(
            {
                "weight": torch.tensor([3.0]),
                "bias": torch.tensor([-2.0]),
                "running_mean": torch.tensor([1.0]),
                "running_var": torch.tensor([4.0]),
                "num_batches_tracked": torch.tensor(7),
            }
        )
        network = apply(nn.Sequential(norm), "frozen_statistics").train()
        values = torch.tensor([1.0, 5.0, -3.0]).view(1, 1, 1, 3)
        assert network(values).flatten().tolist() == expected


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("mode", ["frozen_statistics", "frozen"])
def test_frozen_statistics_stay_and_are_used_whatever_the_mode(encoder: str, mode: BatchNormMode) -> None:
    network = build(encoder)
    before = statistics(network)
    expected = network.eval().logits(images())
    for frozen in (apply(network, mode), copy.deepcopy(network)):
        for is_training in (True, False, True):
            frozen.train(is_training)
            without_dropout(frozen)
            logits = frozen.logits(images())
            torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
        logits.sum().backward()
        assert is_equal(statistics(frozen), before)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_only_frozen_stops_the_training_of_factors_and_offsets(encoder: str) -> None:
    cases: list[tuple[BatchNormMode, bool]] = [("frozen_statistics", True), ("frozen", False)]
    for mode, is_trained in cases:
        network = build(encoder)
        of_norms = {name.replace("running_mean", "weight") for name in network.state_dict() if "running_mean" in name}
        of_norms |= {name.replace("weight", "bias") for name in of_norms}
        apply(network, mode).train()
        network(images()).sum().backward()
        for name, parameter in network.named_parameters():
            assert (parameter.grad is not None) == (is_trained or name not in of_norms), name
            assert parameter.requires_grad == (is_trained or name not in of_norms), name


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize(("mode", "processes"), [("frozen_statistics", 1), ("frozen", 1), ("synchronised", 2)])
def test_the_model_file_is_that_of_the_network_as_it_was(encoder: str, mode: BatchNormMode, processes: int) -> None:
    network, untouched = build(encoder), build(encoder)
    parameters = [id(parameter) for parameter in network.parameters()]
    assert apply(network, mode, processes) is network
    assert list(network.state_dict()) == list(untouched.state_dict())
    assert is_equal(dict(network.state_dict()), dict(untouched.state_dict()))
    assert [id(parameter) for parameter in network.parameters()] == parameters
    assert any(
        type(module) is not type(other) for module, other in zip(network.modules(), untouched.modules(), strict=True)
    )
    network.load_state_dict(untouched.state_dict())
    torch.testing.assert_close(network.eval()(images()), untouched.eval()(images()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("mode", ["frozen", "synchronised"])
def test_train_undoes_what_another_mode_did(encoder: str, mode: BatchNormMode) -> None:
    network, untouched = build(encoder), build(encoder)
    apply(apply(network, mode, 2), "train").train()
    apply(untouched, "train").train()
    for module in (network, untouched):
        without_dropout(module)
        module(images()).square().mean().backward()
    assert is_equal(statistics(network), statistics(untouched))
    for ours, theirs in zip(network.parameters(), untouched.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_alone_there_is_nothing_to_synchronise_and_nothing_is_touched() -> None:
    modes: list[BatchNormMode] = ["train", "synchronised"]
    for mode in modes:
        network = build("mobilenetv2_050")
        modules = list(network.modules())
        assert list(apply(network, mode, 1).modules()) == modules


def test_beside_the_cpu_pytorch_synchronises_and_activations_stay() -> None:
    network, untouched = build("mobilenetv2_050"), build("mobilenetv2_050")
    network = network.to("meta")
    apply(network, "synchronised", 2)
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in network.modules()) > 10
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    network.to_empty(device="cpu").load_state_dict(untouched.state_dict())
    torch.testing.assert_close(network.eval()(images()), untouched.eval()(images()))


def test_what_has_no_batch_norm_or_one_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match='has no batch norm: leave batch_norm="train", not "frozen"'):
        apply(nn.Sequential(nn.Conv2d(1, 1, 1)), "frozen")
    unknown = nn.Sequential(nn.Conv2d(1, 4, 1), SplitBatchNorm2d(4))
    with pytest.raises(
        ValueError, match=r"batch norm '1' is of a kind that supports only batch_norm='train': SplitBatch"
    ):
        apply(unknown, "frozen")
    assert [type(module) for module in apply(unknown, "train").children()] == [nn.Conv2d, SplitBatchNorm2d]
    wrong: Any = "sync"
    with pytest.raises(ValueError, match="must be one of train, frozen_statistics, frozen, synchronised, not"):
        BatchNormConfig(batch_norm=wrong)


def small_network() -> nn.Sequential:
    """Batch norms with and without an activation, on maps and on vectors; in float64, so that equal means equal."""
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Conv2d(2, 4, 3),
        BatchNormAct2d(4, act_layer=nn.ReLU6),
        nn.Conv2d(4, 3, 3),
        nn.BatchNorm2d(3, momentum=0.3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.BatchNorm1d(3, eps=0.1),
    )
    for parameter in network.parameters():
        nn.init.uniform_(parameter, -1, 1)
    return network.double()


def batch() -> tuple[Tensor, Tensor]:
    """Images far from zero, where sums of squares would lose digits, and what their outputs count in the loss."""
    torch.manual_seed(4)
    return torch.randn(4, 2, 7, 9).double() + 5, torch.randn(4, 3).double()


def pass_through(network: nn.Module, part: slice) -> dict[str, Any]:
    """Two passes of a part of the batch in training, and what comes of them."""
    inputs, factors = (whole[part] for whole in batch())
    inputs = inputs.clone().requires_grad_()
    network.train()
    outputs = [network(inputs), network(inputs * 2)]
    torch.autograd.backward([(output * factors).sum() for output in outputs])
    return {
        "outputs": torch.stack(outputs).detach(),
        "inputs": inputs.grad,
        "weights": [parameter.grad for parameter in network.parameters()],
        "state": dict(network.state_dict()),
    }


def take_part(rank: int, splits: list[int], folder: Path) -> None:
    """What one of two processes does: of the four images the first has as many as a split says, the other the rest."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    for split in splits:
        network = apply(small_network(), "synchronised", 2)
        result = pass_through(network, slice(split, 4) if rank else slice(0, split))
        if rank == 0:  # alone, so this would wait for ever if it were to ask the other
            result["measured"] = network.eval()(batch()[0]).detach()
        torch.save(result, folder / f"{split}-{rank}.pt")
    norm = apply(nn.Sequential(nn.BatchNorm2d(1)), "synchronised", 2)
    with pytest.raises(ValueError, match="needs more than 1 value per channel"):
        norm(torch.zeros(1 - rank, 1, 1, 1))
    assert norm(torch.full((2, 1, 2, 2), 3.0 + rank, dtype=torch.bfloat16)).dtype == torch.bfloat16
    distributed.destroy_process_group()


def test_two_processes_are_as_one_with_the_whole_batch(tmp_path: Path) -> None:
    alone = small_network()
    expected = pass_through(alone, slice(0, 4))
    measured = alone.eval()(batch()[0])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["timm"])
    parts = [context.Process(target=take_part, args=(rank, [2, 3, 4], tmp_path), daemon=True) for rank in (0, 1)]
    for part in parts:
        part.start()
    for part in parts:
        part.join(timeout=300)
    assert [part.exitcode for part in parts] == [0, 0]
    for split in (2, 3, 4):
        one, two = (torch.load(tmp_path / f"{split}-{rank}.pt", weights_only=True) for rank in (0, 1))
        assert_close(torch.cat([one["outputs"], two["outputs"]], dim=1), expected["outputs"])
        assert_close(torch.cat([one["inputs"], two["inputs"]]), expected["inputs"])
        for ours, theirs, all_of_it in zip(one["weights"], two["weights"], expected["weights"], strict=True):
            assert_close(ours + theirs, all_of_it)
        assert_close(one["state"], expected["state"])
        assert is_equal(one["state"], two["state"])
        assert_close(one["measured"], measured)


def assert_close(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0.0, atol=1e-9)
