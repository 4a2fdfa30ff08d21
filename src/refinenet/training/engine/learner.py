"""A network in training, with everything that moves its weights: one step at a time.

Shape letters: N batch, K classes, h and w height and width of the crop.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors.torch import load as unpack
from safetensors.torch import save as pack
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from refinenet.distributed import Engine
from refinenet.io.console import print_note
from refinenet.models.batch_norm import apply_batch_norm
from refinenet.models.network import Network
from refinenet.training.config import TrainConfig
from refinenet.training.loading.loader import Part
from refinenet.training.losses import count, supervised_loss
from refinenet.training.losses.deep_supervision import DeepSupervision
from refinenet.training.optimisation import build_optimiser

WEIGHTS, AVERAGE, OTHERS = "weights.safetensors", "average.safetensors", "learning.pt"
"""The files of a state."""

LEAST_SCALE = 1.0
"""Of losses in float16: gradients that are not finite without being scaled are wrong, not too large."""

Piece = tuple[Tensor, Tensor]
"""Images `(n, 3, h, w)` float32 in [0, 1] and labels `(n, h, w)` int64."""


class Learner:
    """A network, its optimiser and its average.

    Args:
        network: Trained in place.
        config: How.
        engine: Spreads it over devices and processes.
        ignore_index: The id of pixels that do not count.
        class_weights: `(K,)` float32, or None for equal weights.
        teacher: A network whose probabilities are soft targets.
    """

    def __init__(
        self,
        network: Network,
        config: TrainConfig,
        engine: Engine,
        *,
        ignore_index: int,
        class_weights: Tensor | None = None,
        teacher: Network | None = None,
    ) -> None:
        self.network, self.config, self.engine, self.processes = network, config, engine, engine.processes
        self._ignore_index, self._class_weights, self._teacher = ignore_index, class_weights, teacher
        network.to(memory_format=torch.channels_last)
        apply_batch_norm(network, config, self.processes.count)
        self._trained: nn.Module = DeepSupervision(network) if config.deep_supervision else network
        self._average = ModelEmaV3(network, decay=config.ema_decay, use_warmup=True) if config.ema_decay else None
        self._optimiser = build_optimiser(self._trained, config, encoder=network.encoder)
        self._spread, self._spread_optimiser = engine.fabric.setup(self._trained, self._optimiser)
        self._model = torch.compile(self._spread) if config.compile else self._spread
        self.splits = 1
        """In how many pieces a part of a batch is computed; more where memory did not suffice."""
        self.may_split = self.processes.count == 1  # the others would not know of it
        """Whether a step that memory does not suffice for is tried in halves."""

    @property
    def highest_rates(self) -> tuple[float, float]:
        """The highest learning rates of the encoder, and of the rest."""
        first, *_, last = self._optimiser.param_groups
        return float(first["highest_rate"]), float(last["highest_rate"])

    @property
    def measured(self) -> Network:
        """The network to measure and keep: the average of the weights, where there is one."""
        if self._average is None:
            return self.network
        averaged: Network = self._average.module
        return averaged

    def step(self, parts: Sequence[Part], rate_factor: float, number: int) -> float:
        """Learn from one batch.

        Args:
            parts: This process's share of the batch, computed one after the other.
            rate_factor: The share of their highest values that the learning rates have.
            number: Steps done before this one, over all epochs.

        Returns:
            The loss of the whole batch, over all processes. Where it or its gradients were not finite all stays as it
            was, and it is nan; but for gradients that float16's scaler may have made too large, and makes smaller.

        Raises:
            RuntimeError, MemoryError: memory does not suffice, not even for halves.
        """
        self._spread.train()
        for group in self._optimiser.param_groups:
            group["lr"] = rate_factor * group["highest_rate"]
        statistics = [buffer.clone() for buffer in self.network.buffers()]
        loss = self._backward_if_it_fits(parts)
        if loss is None:
            self._restore(statistics)
            self._split_from_now_on()
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
        """Let float16's scaler, if there is one, leave out the step and scale less; False where that does not help."""
        scaler = self.engine.scaler
        if scaler is None:
            return False
        self._spread_optimiser.step()
        return float(scaler.get_scale()) >= LEAST_SCALE

    def _clip(self) -> float:
        """Shorten gradients that are too long; returns their length before."""
        longest = self.config.gradient_clipping or math.inf
        fabric = self.engine.fabric
        norm = fabric.clip_gradients(self._spread, self._spread_optimiser, max_norm=longest, error_if_nonfinite=False)
        return math.nan if norm is None else float(norm)

    def _restore(self, statistics: Sequence[Tensor]) -> None:
        """Undo what a forward pass did to the statistics of the batch norms."""
        for buffer, value in zip(self.network.buffers(), statistics, strict=True):
            buffer.copy_(value)

    def _split_from_now_on(self) -> None:
        print_note("Memory did not suffice: from here on each batch is computed in halves, one after the other.")
        self.splits = 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _backward_if_it_fits(self, parts: Sequence[Part]) -> float | None:
        """As `_backward`; None where memory did not suffice, but may for halves.

        Whoever tries again has to do it after the error is gone: it holds on to all that was computed until then.
        """
        try:
            return self._backward(parts)
        except (RuntimeError, MemoryError) as error:
            can_split = self.may_split and self.splits == 1 and max(len(part.images) for part in parts) > 1
            if not is_out_of_memory(error) or not can_split:
                raise
            return None

    def _backward(self, parts: Sequence[Part]) -> float:
        """Compute the gradients of a whole batch's loss; returns the loss."""
        self._spread_optimiser.zero_grad()
        pieces = [piece for part in parts for piece in _split(part, self.splits)]
        weights, ignored = self._class_weights, self._ignore_index
        counted = [count(labels, weights, self.config, ignored) for _, labels in pieces]
        counts = self.processes.add_up(torch.stack(counted).sum(0))
        total = torch.zeros((), device=counts.device)
        for number, (images, labels) in enumerate(pieces, start=1):
            with self.engine.fabric.no_backward_sync(self._spread, enabled=number < len(pieces)):
                loss = self._loss(images, labels, counts)
                # Gradients of several processes are averaged, and these losses are shares of one sum.
                self.engine.fabric.backward(loss * self.processes.count)
            total += loss.detach()
        return float(self.processes.add_up(total))

    def _loss(self, images: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        answer = self._model(images)
        stages = answer if isinstance(answer, tuple) else (answer,)
        return supervised_loss(
            stages, labels, self._class_weights, self.config, self._ignore_index, counts, self._teach(images)
        )

    def _teach(self, images: Tensor) -> Tensor | None:
        if self._teacher is None:
            return None
        with torch.no_grad(), self.engine.fabric.autocast():
            logits: Tensor = self._teacher.eval()(images)
            return logits

    def share_buffers(self) -> None:
        """Give all processes the first one's statistics, so that all measure the same network."""
        self.processes.take_from_first([*self.network.buffers(), *self.measured.buffers()])

    def state(self) -> dict[str, bytes]:
        """All that the next steps follow from, as the contents of files; to be asked for on all processes at once.

        Only the first process gets it, which writes it; the others get nothing.
        """
        scaler, device = self.engine.scaler, self.network.mean.device
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
        found = {WEIGHTS: pack(_tensors(self._trained)), OTHERS: content.getvalue()}
        if self._average is not None:
            found[AVERAGE] = pack(_tensors(self._average.module))
        return found

    def load_state(self, files: Mapping[str, bytes]) -> None:
        """Go back to a state.

        Raises:
            KeyError, RuntimeError, ValueError, TypeError: it is of another network or training.
        """
        device = self.network.mean.device
        self._trained.load_state_dict(unpack(files[WEIGHTS]))
        if self._average is not None:
            self._average.module.load_state_dict(unpack(files[AVERAGE]))
        others: dict[str, Any] = torch.load(io.BytesIO(files[OTHERS]), map_location="cpu", weights_only=True)
        self._optimiser.load_state_dict(others["optimiser"])
        if self.engine.scaler is not None:
            self.engine.scaler.load_state_dict(others["scaler"])
        self.splits, rank = others["splits"], self.processes.rank
        if len(others["random"]) == self.processes.count:
            torch.set_rng_state(others["random"][rank])
            if device.type == "cuda" and others["device_random"]:
                torch.cuda.set_rng_state(others["device_random"][rank], device)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}


def _split(part: Part, pieces: int) -> list[Piece]:
    return list(zip(part.images.chunk(pieces), part.labels.chunk(pieces), strict=True))


_SIGNS_OF_FULL_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA error: out of memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of a device or of the machine is full."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS_OF_FULL_MEMORY)
