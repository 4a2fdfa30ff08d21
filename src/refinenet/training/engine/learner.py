"""A network in training, with everything that updates its weights, one step at a time.

Shape letters: N batch, K classes, h and w height and width of the crop.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from safetensors.torch import load as unpack
from safetensors.torch import save as pack
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from refinenet.distributed import Engine
from refinenet.io.console import print_note
from refinenet.models.batch_norm import apply_batch_norm
from refinenet.models.finishing import split_maps
from refinenet.models.network import Network
from refinenet.outputs import class_output
from refinenet.training.config import TrainConfig
from refinenet.training.loading.loader import Part
from refinenet.training.losses import Objective
from refinenet.training.losses.deep_supervision import DeepSupervision
from refinenet.training.losses.dense_objective import DenseObjective
from refinenet.training.losses.task_weights import TaskWeights
from refinenet.training.optimisation import build_optimiser

WEIGHTS, AVERAGE, OTHERS = "weights.safetensors", "average.safetensors", "learning.pt"
"""Files of a checkpoint."""

LEAST_SCALE = 1.0
"""Least scale of losses in float16: gradients that are not finite even without scaling are wrong, not too large."""

Trained = TypeVar("Trained", bound=nn.Module)
"""Kind of network that is trained; its submodule `encoder` has a learning rate of its own."""
Piece = tuple[Tensor, Tensor, Tensor | None]
"""Images `(n, B, h, w)` float32 in [0, 1], labels `(n, h, w)` int64, and targets `(n, D, h, w)` float32 if any."""
Maps = dict[str, Tensor]
"""Maps of a network by output, at the size of the images."""


class WithTaskWeights(nn.Module):
    """A network with the learnt weights of its outputs, so that one optimiser and one checkpoint have both.

    Args:
        trained: The network, or `DeepSupervision` of it.
        weights: Weights of its outputs, which the loss uses.
    """

    def __init__(self, trained: nn.Module, weights: TaskWeights) -> None:
        super().__init__()
        self.trained, self.weights = trained, weights

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return what the network returns."""
        maps: Tensor | tuple[Tensor, ...] = self.trained(images)
        return maps


class Learner(Generic[Trained]):
    """A network with its optimiser and the moving average of its weights.

    Args:
        network: Network to train, in place.
        config: Settings of the training.
        engine: Spreads the work over devices and processes.
        objective: Loss to minimise, by the same settings.
        teacher: Network whose probabilities are soft targets.
    """

    def __init__(
        self,
        network: Trained,
        config: TrainConfig,
        engine: Engine,
        objective: Objective | DenseObjective,
        *,
        teacher: Network | None = None,
    ) -> None:
        self.network, self.config, self.engine, self.processes = network, config, engine, engine.processes
        self._device = next(network.parameters()).device
        self._objective, self._teacher = objective, teacher
        network.to(memory_format=torch.channels_last)
        apply_batch_norm(network, config, self.processes.count)
        encoder = network.get_submodule("encoder")
        self._trained: nn.Module = network
        if config.deep_supervision:
            assert isinstance(network, Network)
            self._trained = DeepSupervision(network)
        if isinstance(objective, DenseObjective) and objective.task_weights is not None:
            self._trained = WithTaskWeights(self._trained, objective.task_weights.to(self._device))
        self._average = ModelEmaV3(network, decay=config.ema_decay, use_warmup=True) if config.ema_decay else None
        self._optimiser = build_optimiser(self._trained, config, encoder=encoder)
        self._spread, self._spread_optimiser = engine.fabric.setup(self._trained, self._optimiser)
        self._model = torch.compile(self._spread) if config.compile else self._spread
        self.splits = 1
        """Pieces in which each part of a batch is computed; more if memory did not suffice."""
        self.may_split = self.processes.count == 1  # other processes would not split, and wait in vain
        """Whether a step that does not fit into memory is tried again in halves."""

    @property
    def highest_rates(self) -> tuple[float, float]:
        """Highest learning rates of the encoder and of the rest."""
        first, *_, last = self._optimiser.param_groups
        return float(first["highest_rate"]), float(last["highest_rate"])

    @property
    def measured(self) -> Trained:
        """Network to measure and save: with the average of the weights, if there is one."""
        if self._average is None:
            return self.network
        averaged: Trained = self._average.module
        return averaged

    def step(self, parts: Sequence[Part], rate_factor: float, number: int) -> float:
        """Do one step of training.

        Args:
            parts: This process's share of the batch, computed one after the other.
            rate_factor: Share of their highest values that the learning rates have.
            number: Number of steps done before this one, over all epochs.

        Returns:
            The loss of the whole batch, over all processes. If it or its gradients are not finite, nothing changes and
            it is nan; except for gradients that float16's scaler may have made too large, and now scales less.

        Raises:
            RuntimeError, MemoryError: Memory does not suffice, not even for halves.
        """
        self._spread.train()
        for group in self._optimiser.param_groups:
            group["lr"] = rate_factor * group["highest_rate"]
        # The forward pass updates these before it is known whether the step counts.
        statistics = [buffer.clone() for buffer in self.network.buffers()]
        loss = self._backward_if_it_fits(parts)
        if loss is None:
            self._restore(statistics)
            self._split_in_halves()
            loss = self._backward(parts)
        norm = self._clip() if math.isfinite(loss) else math.nan
        if not math.isfinite(norm):
            self._restore(statistics)
            return loss if math.isfinite(loss) and self._scale_less() else math.nan
        self._spread_optimiser.step()
        if self._average is not None:
            self._average.update(self.network, number)
        return loss

    def _scale_less(self) -> bool:
        """Let float16's scaler, if there is one, skip the step and scale less; return whether that can help."""
        scaler = self.engine.scaler
        if scaler is None:
            return False
        self._spread_optimiser.step()
        return float(scaler.get_scale()) >= LEAST_SCALE

    def _clip(self) -> float:
        """Clip the gradients, and return their norm before."""
        longest = self.config.gradient_clipping or math.inf
        fabric = self.engine.fabric
        norm = fabric.clip_gradients(self._spread, self._spread_optimiser, max_norm=longest, error_if_nonfinite=False)
        return math.nan if norm is None else float(norm)

    def _restore(self, statistics: Sequence[Tensor]) -> None:
        """Undo the effect of a forward pass on the statistics of batch norms."""
        for buffer, value in zip(self.network.buffers(), statistics, strict=True):
            buffer.copy_(value)

    def _split_in_halves(self) -> None:
        print_note("Out of memory: from now on, each batch is computed in halves, one after the other.")
        self.splits = 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _backward_if_it_fits(self, parts: Sequence[Part]) -> float | None:
        """As `_backward`; None if memory did not suffice, but may for halves.

        The caller tries again outside this `except` block: until the error is released, its traceback keeps all tensors
        of the failed attempt alive.
        """
        try:
            return self._backward(parts)
        except (RuntimeError, MemoryError) as error:
            can_split = self.may_split and self.splits == 1 and max(len(part.images) for part in parts) > 1
            if not is_out_of_memory(error) or not can_split:
                raise
            return None

    def _backward(self, parts: Sequence[Part]) -> float:
        """Compute the gradients of the loss of a whole batch, and return the loss."""
        self._spread_optimiser.zero_grad()
        pieces = [self._fill_missing(*piece) for part in parts for piece in _split(part, self.splits)]
        counted = torch.stack([self._objective.count(labels, targets) for (_, labels, targets), _ in pieces])
        counts = self.processes.add_up(counted.sum(0))
        total = torch.zeros((), device=counts.device)
        for number, (piece, taught) in enumerate(pieces, start=1):
            with self.engine.fabric.no_backward_sync(self._spread, enabled=number < len(pieces)):
                loss = self._loss(*piece, counts, taught)
                # DDP averages gradients over processes, but these losses are shares of one sum: undo its division.
                self.engine.fabric.backward(loss * self.processes.count)
            total += loss.detach()
        return float(self.processes.add_up(total))

    def _loss(
        self, images: Tensor, labels: Tensor, targets: Tensor | None, counts: Tensor, taught: Maps | None
    ) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        output = self._model(images)
        stages = output if isinstance(output, tuple) else (output,)
        return self._objective.loss(stages, labels, counts, self._soft_targets(images, taught), targets)

    def _soft_targets(self, images: Tensor, taught: Maps | None) -> Tensor | None:
        """Return the teacher's logits; None without a teacher whose classes the loss compares."""
        if self._teacher is None or not self.config.teacher_weight:
            return None
        classes = class_output(self._teacher.architecture.outputs)
        if classes is None:
            return None
        return (self._ask_teacher(images) if taught is None else taught)[classes.name]

    def _ask_teacher(self, images: Tensor) -> Maps:
        assert self._teacher is not None
        architecture = self._teacher.architecture
        with torch.no_grad(), self.engine.fabric.autocast():
            maps: Tensor = self._teacher.eval()(images)
            return split_maps(maps, architecture.outputs, architecture.num_classes)

    def _fill_missing(self, images: Tensor, labels: Tensor, targets: Tensor | None) -> tuple[Piece, Maps | None]:
        """Replace the ground truth that images lack by the teacher's predictions, if that is configured.

        Returns:
            The piece, and the teacher's maps if it was asked.
        """
        if not self.config.fill_missing or not isinstance(self._objective, DenseObjective):
            return (images, labels, targets), None
        assert self._teacher is not None
        assert targets is not None
        if not self._objective.lacks_truth(labels, targets):
            return (images, labels, targets), None
        taught = self._ask_teacher(images)
        outputs = self._teacher.architecture.outputs
        return (images, *self._objective.fill_missing(taught, outputs, labels, targets)), taught

    def share_buffers(self) -> None:
        """Copy the first process's buffers to all, so that all measure the same network."""
        self.processes.take_from_first([*self.network.buffers(), *self.measured.buffers()])

    def state(self) -> dict[str, bytes]:
        """Return all that the next steps depend on, as the contents of files; to be called on all processes at once.

        Only the first process gets the files, to write them; the others get none.
        """
        scaler, device = self.engine.scaler, self._device
        random = self.processes.gather(torch.get_rng_state())
        device_random = self.processes.gather(torch.cuda.get_rng_state(device)) if device.type == "cuda" else []
        if not self.processes.is_first:
            return {}
        others = {
            "optimiser": self._optimiser.state_dict(),
            "scaler": {} if scaler is None else scaler.state_dict(),
            "random": random,
            "device_random": device_random,
            "splits": self.splits,
        }
        content = io.BytesIO()
        torch.save(others, content)
        files = {WEIGHTS: pack(_tensors(self._trained)), OTHERS: content.getvalue()}
        if self._average is not None:
            files[AVERAGE] = pack(_tensors(self._average.module))
        return files

    def load_state(self, files: Mapping[str, bytes]) -> None:
        """Restore what `state` returned.

        Raises:
            KeyError, RuntimeError, ValueError, TypeError: The files are of another network or training.
        """
        device = self._device
        self._trained.load_state_dict(unpack(files[WEIGHTS]))
        if self._average is not None:
            self._average.module.load_state_dict(unpack(files[AVERAGE]))
        others: dict[str, Any] = torch.load(io.BytesIO(files[OTHERS]), map_location="cpu", weights_only=True)
        self._optimiser.load_state_dict(others["optimiser"])
        if self.engine.scaler is not None:
            self.engine.scaler.load_state_dict(others["scaler"])
        self.splits, rank = others["splits"], self.processes.rank
        # With another number of processes no generator has a successor: those of a new run are as good.
        if len(others["random"]) == self.processes.count:
            torch.set_rng_state(others["random"][rank])
            if device.type == "cuda" and others["device_random"]:
                torch.cuda.set_rng_state(others["device_random"][rank], device)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}


def _split(part: Part, pieces: int) -> list[Piece]:
    images, labels = part.images.chunk(pieces), part.labels.chunk(pieces)
    targets = [None] * len(images) if part.targets is None else part.targets.chunk(pieces)
    return list(zip(images, labels, targets, strict=True))


_OUT_OF_MEMORY_MESSAGES = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA error: out of memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the memory of a device or of the machine is full."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY_MESSAGES)
