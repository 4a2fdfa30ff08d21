"""Batch norm in training: frozen for small batches, or with statistics over all processes.

Shape letters: N batch, C channels; ... any further axes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from refinenet.settings import Settings

BatchNormMode = Literal["train", "frozen_statistics", "frozen", "synchronised"]

_COARSEST = 32
"""Stride of the coarsest feature maps: a crop of so many pixels becomes one value."""

_ORDINARY = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True, kw_only=True)
class BatchNormConfig(Settings):
    """What batch norm does in training.

    Raises:
        ValueError: a value that is not allowed.
    """

    batch_norm: BatchNormMode = "train"
    """"train": statistics of the batch, in each process its own. "frozen_statistics": the running statistics that the
    network came with, factors and offsets being trained, as the papers did with their small batches. "frozen": factors
    and offsets stay, too. "synchronised": statistics of the batches of all processes together."""


def apply_batch_norm(network: nn.Module, config: BatchNormConfig, processes: int) -> nn.Module:
    """Make the batch norms of a network do what is wanted, and go on so whenever it is put into training mode.

    They are replaced in place, around the same parameters and buffers: `state_dict` keeps its names and values. What an
    earlier call made of them is undone. To be called after the network went to its device and before an optimiser, an
    average or a wrapper is built.

    Args:
        network: Holds the batch norms.
        config: What they are to do.
        processes: How many train together; one alone has nothing to synchronise.

    Returns:
        The network.

    Raises:
        ValueError: something is to be done with batch norm, but the network has none, or one of an unknown kind.
    """
    mode = "train" if config.batch_norm == "synchronised" and processes == 1 else config.batch_norm
    norms = [(name, norm) for name, norm in network.named_modules(remove_duplicate=False) if _is_batch_norm(norm)]
    if mode != "train" and not norms:
        raise ValueError(f'The network has no batch norm: leave batch_norm="train", not "{mode}".')
    replacements: dict[int, nn.Module] = {}
    for name, norm in norms:
        if mode == "train" and not isinstance(norm, _BatchNorm | _TorchSynchronisedBatchNorm):
            continue
        if id(norm) not in replacements:
            _check_kind(name, norm)
            replacements[id(norm)] = _replacement(norm, mode)
        network.set_submodule(name, replacements[id(norm)])
    return network


def refuse_unlearned_statistics(network: nn.Module, config: BatchNormConfig) -> None:
    """Refuse to keep statistics that no batch norm of a network has ever learned: 0 and 1 normalise nothing.

    Raises:
        ValueError: statistics are to be kept, and the network is new.
    """
    if config.batch_norm not in ("frozen_statistics", "frozen"):
        return
    tracked = [(norm.running_mean, norm.running_var) for norm in _batch_norms(network) if norm.track_running_stats]
    new = [not mean.any() and bool((var == 1).all()) for mean, var in tracked]
    if sum(new) > len(new) / 2:  # in an encoder with weights a few may be new that were put in as identities
        raise ValueError(
            f'batch_norm="{config.batch_norm}" keeps the statistics that the network came with, and this one has '
            'learned none yet: begin with a model or with encoder_weights="imagenet" (--encoder-weights imagenet), or '
            'leave batch_norm="train".'
        )


def refuse_single_values(network: nn.Module, config: BatchNormConfig, images: int, size: tuple[int, int]) -> None:
    """Refuse batches whose coarsest feature maps have one value per channel, of which there are no statistics.

    Args:
        network: What is to be trained.
        config: What its batch norms are to do.
        images: How many the statistics are taken over at once.
        size: Height and width of these images.

    Raises:
        ValueError: batch norms would see one value, and are to take its statistics.
    """
    learns = config.batch_norm in ("train", "synchronised") and any(_batch_norms(network))
    if learns and images == 1 and max(size) <= _COARSEST:
        raise ValueError(
            f"Of one image cropped to {size[0]}x{size[1]} pixels, batch norm sees a single value per channel, which "
            f"has no statistics: take a crop_size above {_COARSEST}, or two or more images in each part of a batch."
        )


def has_activation(module: nn.Module) -> bool:
    """Whether it is timm's `BatchNormAct2d`, with an activation inside as `act`; told without importing timm."""
    kind = type(module)
    return kind.__name__ == "BatchNormAct2d" and kind.__module__.partition(".")[0] == "timm"


def _batch_norms(network: nn.Module) -> Iterator[Any]:
    return filter(_is_batch_norm, network.modules())


def _is_batch_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm)


def _check_kind(name: str, norm: Any) -> None:
    """Refuse what a replacement would compute differently.

    Raises:
        ValueError: it is of an unknown kind.
    """
    is_known = type(norm) in (*_ORDINARY, _BatchNorm, _TorchSynchronisedBatchNorm) or has_activation(norm)
    if not (is_known and norm.affine and norm.track_running_stats and norm.momentum is not None):
        raise ValueError(
            f"The batch norm {name!r} is of a kind that can only be trained as it is: {norm}. "
            'Leave batch_norm="train" or take another encoder.'
        )


def _replacement(norm: Any, mode: BatchNormMode) -> nn.Module:
    """A batch norm of the same name, parameters, buffers and children."""
    settings = {"num_features": norm.num_features, "eps": norm.eps, "momentum": norm.momentum, "device": "meta"}
    replacement: nn.Module
    if mode == "synchronised" and norm.weight.device.type != "cpu":
        replacement = _TorchSynchronisedBatchNorm(**settings)
    else:
        replacement = _BatchNorm(mode=mode, **settings)
    for name, parameter in norm.named_parameters(recurse=False):
        replacement.register_parameter(name, parameter.requires_grad_(mode != "frozen"))
    for name, buffer in norm.named_buffers(recurse=False):
        replacement.register_buffer(name, buffer)
    for name, child in norm.named_children():
        replacement.add_module(name, child)
    return replacement.train(norm.training)


def _pass_through_children(norm: nn.Module, features: Tensor) -> Tensor:
    """Do what timm puts into a batch norm, to be done after it: `drop`, then `act`."""
    for child in norm.children():
        features = child(features)
    return features


class _BatchNorm(nn.BatchNorm2d):
    """A batch norm of tensors `(N, C, ...)` with a mode of `BatchNormConfig`; "synchronised" is for CPUs."""

    def __init__(self, mode: BatchNormMode, **settings: Any) -> None:
        super().__init__(**settings)
        self.mode = mode

    def forward(self, features: Tensor) -> Tensor:
        is_training = self.training and self.mode in ("train", "synchronised")
        if is_training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        if is_training and self.mode == "synchronised":
            return _pass_through_children(self, self._normalise_together(features))
        normalised = functional.batch_norm(
            features,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=is_training,
            momentum=self.momentum or 0.0,
            eps=self.eps,
        )
        return _pass_through_children(self, normalised)

    def _normalise_together(self, features: Tensor) -> Tensor:
        mean, variance, count = _StatisticsOfAllProcesses.apply(features)
        self._track(mean.detach(), variance.detach() * count / (count - 1))
        shape = (1, -1) + (1,) * (features.ndim - 2)
        factor = self.weight * torch.rsqrt(variance + self.eps)
        normalised: Tensor = (features - mean.view(shape)) * factor.view(shape) + self.bias.view(shape)
        return normalised.type_as(features)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        momentum = self.momentum or 0.0
        for running, new in ((self.running_mean, mean), (self.running_var, variance)):
            if running is not None:
                running.mul_(1 - momentum).add_(momentum * new)


class _TorchSynchronisedBatchNorm(nn.SyncBatchNorm):
    def forward(self, features: Tensor) -> Tensor:
        return _pass_through_children(self, super().forward(features))


class _StatisticsOfAllProcesses(torch.autograd.Function):
    """Mean and biased variance of each channel over the tensors `(N, C, ...)` of all processes, whatever their sizes.

    Gradients are those of the sum of all processes' losses. The same numbers come out in each process, to the last bit.
    """

    @staticmethod
    def forward(context: Any, features: Tensor) -> tuple[Tensor, Tensor, int]:
        """Returns mean `(C,)`, variance `(C,)`, float32 (or float64 for such features), and the number of values."""
        values = _by_channel(features)
        count = values.shape[1]
        mean = values.sum(dim=1) / max(count, 1)
        squares = (values - mean[:, None]).square().sum(dim=1)
        # Means and squared differences from them (Chan et al., 1979) keep the digits that sums of squares would lose.
        own = torch.cat([mean, squares, torch.full_like(mean[:1], count)]).double()
        gathered = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
        distributed.all_gather(gathered, own)
        everyone = torch.stack(gathered)
        means, squares, counts = everyone[:, : len(mean)], everyone[:, len(mean) : -1], everyone[:, -1:]
        total = int(counts.sum())
        if total < 2:
            raise ValueError("Batch norm in training needs more than 1 value per channel: take a larger batch or crop.")
        overall = (counts * means).sum(dim=0) / total
        variance = (squares + counts * (means - overall).square()).sum(dim=0) / total
        context.save_for_backward(features, overall.type_as(values))
        context.total = total
        return overall.type_as(values), variance.type_as(values), total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        features, mean = context.saved_tensors
        combined = torch.stack(gradients[:2])
        distributed.all_reduce(combined)
        of_mean, of_variance = combined / context.total
        differences = _by_channel(features) - mean[:, None]
        gradient = of_mean[:, None] + 2 * of_variance[:, None] * differences
        others = features.shape[:1] + features.shape[2:]
        by_image: Tensor = gradient.unflatten(1, others).transpose(0, 1)
        return by_image.type_as(features)


def _by_channel(features: Tensor) -> Tensor:
    """`(N, C, ...)` to `(C, values)`, in float32 or, if it is that, float64."""
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    return wide.transpose(0, 1).flatten(1)
