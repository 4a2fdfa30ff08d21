"""How training handles full memory, losses that are not finite, unlabelled images and a lack of progress."""

from __future__ import annotations

import re
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import command, different, new_network, resume, settled_network, state, train, write_pictures
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from refinenet import RefineNet, cli
from refinenet.datasets.catalog import open_dataset
from refinenet.distributed import launch
from refinenet.models.network import Network
from refinenet.training.config import TrainConfig
from refinenet.training.engine.auto_settings import fits_into_memory

FROZEN: dict[str, Any] = {"batch_norm": "frozen", "learning_rate": 1e-12}
"""Nothing is learned."""
EACH_STEP = 1e-6
"""Minutes between checkpoints."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


def fill_memory(network: Network, images: int) -> tuple[list[int], list[int]]:
    """Let a network's last layer ask for more memory than there is, when it trains on more than so many images.

    Returns:
        How many images it was asked to train on, and how many outputs of the encoder were in memory each time.
    """
    sizes: list[int] = []
    kept: list[int] = []
    features: list[weakref.ref[Tensor]] = []

    def remember(module: nn.Module, inputs: Any, outputs: Any) -> None:
        kept.append(sum(reference() is not None for reference in features))
        features.extend(weakref.ref(output) for group in outputs for output in group)

    def refuse(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if module.training:
            sizes.append(len(inputs[0]))
            if sizes[-1] > images:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    network.encoder.register_forward_hook(remember)
    network.classifier.register_forward_pre_hook(refuse)
    return sizes, kept


def test_the_largest_batch_is_one_that_fits_in_one_go(pictures: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A step in halves would fit with twice the images."""
    network = new_network().network
    fill_memory(network, 3)
    config, data = TrainConfig(crop_size=(32, 32)), open_dataset(pictures)("train")
    engine = launch(torch.device("cpu"))
    assert [fits_into_memory(network, config, data, engine, size) for size in (2, 3, 4, 6, 7)] == [True] * 2 + [
        False
    ] * 3
    parts = replace(config, accumulation=2)
    assert [fits_into_memory(network, parts, data, engine, size) for size in (6, 8)] == [True, False]
    assert "halves" not in capfd.readouterr().err


def gradients(network: Network) -> dict[str, Tensor]:
    return {name: weights.grad for name, weights in network.named_parameters() if weights.grad is not None}


def test_a_step_that_memory_does_not_suffice_for_is_computed_in_halves(
    pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = []
    for images in (4, 2):
        r = settled_network()
        network = r.network
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        sizes, kept = fill_memory(network, images)
        train(pictures, tmp_path / str(images), r, stop_after=2, **FROZEN)
        found.append(gradients(network))
    assert sizes == [4, 2, 2, 2, 2]
    assert kept[:2] == [0, 0]
    assert capfd.readouterr().err.count("from now on, each batch is computed in halves") == 1
    whole, halved = found
    assert len(whole) == 28  # all weights but those of the batch norms
    assert halved.keys() == whole.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(halved[name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))


def test_a_second_lack_of_memory_ends_the_run_with_advice(pictures: Path, tmp_path: Path) -> None:
    r = new_network()
    sizes, _ = fill_memory(r.network, 1)
    with pytest.raises(ValueError, match=r"batch of 4 in 1 parts.*smaller batch_size or crop_size.*accumulation"):
        train(pictures, tmp_path, r)
    assert sizes == [4, 2]


@contextmanager
def spoiled(spoil: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
    """Change the output of networks in training, by step, counted from 1."""
    steps = 0

    def hook(module: nn.Module, inputs: Any, logits: Any) -> Any:
        nonlocal steps
        if not isinstance(module, Network) or not module.training:
            return None
        steps += 1
        return spoil(steps, logits)

    handle = register_module_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def spoil_gradient(logits: Tensor) -> Tensor:
    """Return the same logits with a gradient that overflows."""
    return logits + 1e38 * (logits - logits.detach())


SPOILS: dict[str, Callable[[Tensor], Tensor]] = {"loss": lambda logits: logits * torch.nan, "gradient": spoil_gradient}


@pytest.mark.parametrize("what", SPOILS)
def test_a_step_that_is_not_finite_changes_nothing(
    what: str, pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with spoiled(lambda step, logits: SPOILS[what](logits) if step in (2, 3) else logits):
        train(pictures, tmp_path, batch_size=2, checkpoint_minutes=EACH_STEP, stop_after=4)
    told = re.findall(
        r"Warning: the loss became nan; this step is skipped\. Its batch: (.*)\.\n", capfd.readouterr().err
    )
    assert different(state(tmp_path, 3), state(tmp_path, 2)) == ["random 0"]  # of which dropout has taken some
    names = [name for batch in told for name in batch.split(", ")]
    assert (len(told), len(set(names))) == (2, 4)
    assert all((pictures / "images" / "train" / Path(name).name) == Path(name) for name in names)
    assert len(different(state(tmp_path, 4), state(tmp_path, 3))) > 100


def run_command(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of the command line, run in this process."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert isinstance(end.value.code, int)
    return end.value.code


def test_three_steps_in_a_row_that_are_not_finite_end_the_run(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["refinenet", *command(pictures, tmp_path, batch_size=2)[3:]]
    with spoiled(lambda step, logits: logits * torch.nan if step > 4 else logits):
        assert run_command(arguments, monkeypatch) == cli.FAILED
    *_, first, second, last = capfd.readouterr().err.strip().splitlines()
    assert first.startswith("Warning: the loss became nan")
    assert second.startswith("Warning: the loss became nan")
    assert re.match(
        r"Error: Training diverged in epoch 2: the loss of 3 steps in a row was not finite; the last batch: "
        rf"{pictures}/images/train/\d\.png, {pictures}/images/train/\d\.png\. "
        rf"The last good model is {tmp_path / 'best.safetensors'}\. Start a new run with",
        last,
    )
    assert RefineNet(model=tmp_path / "best.safetensors", device="cpu").card.recipe["epoch"] == 1


def test_a_batch_without_labels_has_no_loss_and_moves_nothing_but_by_weight_decay(tmp_path: Path) -> None:
    """AdamW takes its share of kernels whatever the gradients; momentum, of which a first step has none, adds nothing.

    Statistics of batch norms are those of the images, labelled or not.
    """
    unlabelled = write_pictures(tmp_path / "pictures", label=255)
    r = new_network()
    network = r.network
    before = {name: weights.detach().clone() for name, weights in network.named_parameters()}
    settings = {"learning_rate": 0.1, "weight_decay": 0.5, "schedule": "constant", "warm_up": 0.0}
    train(unlabelled, tmp_path / "run", r, stop_after=1, **settings)
    for name, weights in network.named_parameters():
        expected = before[name] * (1 - 0.1 * 0.5) if weights.ndim > 1 else before[name]
        torch.testing.assert_close(weights.detach(), expected, rtol=1e-6, atol=0)
    position = (tmp_path / "run" / "checkpoints" / "step-000001" / "position.json").read_text()
    assert '"loss": 0.0, "bad_losses": 0,' in position


def test_patience_is_counted_in_epochs_and_ends_a_run_where_it_is_measured(pictures: Path, tmp_path: Path) -> None:
    """Of measurements in epochs 2, 4, 6 ..., all alike, the first is the best."""
    settings = {**FROZEN, "epochs": 9, "batch_size": 8, "validate_every": 2, "patience": 2}
    assert train(pictures, tmp_path, settled_network(), **settings, stop_after=3).epochs == 2
    result = resume(tmp_path)
    assert (result.epochs, result.is_over) == (4, True)
    assert RefineNet(model=result.model, device="cpu").card.recipe["epoch"] == 2
