"""Batch norm in training: frozen for small batches, or with statistics over all processes.

Shape letters: N batch, C channels; ... any further axes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from refinenet.models.batch_norm_config import BatchNormConfig, BatchNormMode

_COARSEST = 32
"""Stride of the coarsest feature maps: a crop of this size becomes a single value."""

_ORDINARY = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def apply_batch_norm(network: nn.Module, config: BatchNormConfig, processes: int) -> nn.Module:
    """Set the mode of all batch norms of a network, for every time that it is in training mode.

    They are replaced in place, with the same parameters and buffers, so `state_dict` keeps its names and values. An
    earlier call is undone. Call it after the network was moved to its device, and before an optimiser, an average or a
    wrapper is built.

    Args:
        network: Network with the batch norms.
        config: Mode of the batch norms.
        processes: Number of training processes; a single one has nothing to synchronise.

    Returns:
        The network.

    Raises:
        ValueError: The mode is not "train", and the network has no batch norm, or one of an unknown kind.
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
    """Refuse to freeze statistics that were never learned: a mean of 0 and a variance of 1 do not normalise.

    Raises:
        ValueError: Statistics should be frozen, and the network is new.
    """
    if config.batch_norm not in ("frozen_statistics", "frozen"):
        return
    tracked = [(norm.running_mean, norm.running_var) for norm in _batch_norms(network) if norm.track_running_stats]
    new = [not mean.any() and bool((var == 1).all()) for mean, var in tracked]
    if sum(new) > len(new) / 2:  # a trained encoder may have a few new ones that were added as identities
        raise ValueError(
            f'batch_norm="{config.batch_norm}" keeps the network\'s statistics, but this network has none yet: '
            'start from a model or from encoder_weights="imagenet" (--encoder-weights imagenet), or leave '
            'batch_norm="train".'
        )


def refuse_single_values(network: nn.Module, config: BatchNormConfig, images: int, size: tuple[int, int]) -> None:
    """Refuse batches whose coarsest feature maps have a single value per channel, which has no statistics.

    Args:
        network: Network to train.
        config: Mode of the batch norms.
        images: Number of images that statistics are computed over.
        size: Height and width of these images.

    Raises:
        ValueError: Batch norms would compute the statistics of a single value.
    """
    learns = config.batch_norm in ("train", "synchronised") and any(_batch_norms(network))
    if learns and images == 1 and max(size) <= _COARSEST:
        raise ValueError(
            f"For a single image cropped to {size[0]}x{size[1]} pixels, batch norm has a single value per channel, "
            f"too few for statistics: use a crop_size above {_COARSEST}, or two or more images in each part of a batch."
        )


def has_activation(module: nn.Module) -> bool:
    """Whether a module is timm's `BatchNormAct2d`, with its activation as `act`; works without importing timm."""
    kind = type(module)
    return kind.__name__ == "BatchNormAct2d" and kind.__module__.partition(".")[0] == "timm"


def _batch_norms(network: nn.Module) -> Iterator[Any]:
    return filter(_is_batch_norm, network.modules())


def _is_batch_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm)


def _check_kind(name: str, norm: Any) -> None:
    """Refuse batch norms for which a replacement would compute something else.

    Raises:
        ValueError: It is of an unknown kind.
    """
    is_known = type(norm) in (*_ORDINARY, _BatchNorm, _TorchSynchronisedBatchNorm) or has_activation(norm)
    if not (is_known and norm.affine and norm.track_running_stats and norm.momentum is not None):
        raise ValueError(
            f"The batch norm {name!r} is of a kind that supports only batch_norm='train': {norm}. "
            'Leave batch_norm="train" or use another encoder.'
        )


def _replacement(norm: Any, mode: BatchNormMode) -> nn.Module:
    """Return a batch norm with the same parameters, buffers and children."""
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
    """Apply the layers that timm puts into a batch norm: `drop`, then `act`."""
    for child in norm.children():
        features = child(features)
    return features


class _BatchNorm(nn.BatchNorm2d):
    """Batch norm of tensors `(N, C, ...)` with a mode of `BatchNormConfig`; "synchronised" only on CPUs."""

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
        # As in PyTorch, running statistics use the unbiased variance, normalisation the biased one.
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
    """Mean and biased variance per channel over the tensors `(N, C, ...)` of all processes, which may differ in size.

    Gradients are those of the sum of the losses of all processes. The result is the same in each process to the last
    bit.
    """

    @staticmethod
    def forward(context: Any, features: Tensor) -> tuple[Tensor, Tensor, int]:
        """Return mean `(C,)`, variance `(C,)`, float32 (or float64 for such features), and the number of values."""
        values = _by_channel(features)
        count = values.shape[1]
        mean = values.sum(dim=1) / max(count, 1)
        squares = (values - mean[:, None]).square().sum(dim=1)
        # Means and squared differences (Chan et al., 1979) avoid the cancellation of sums of squares.
        local = torch.cat([mean, squares, torch.full_like(mean[:1], count)]).double()
        gathered = [torch.empty_like(local) for _ in range(distributed.get_world_size())]
        distributed.all_gather(gathered, local)
        stacked = torch.stack(gathered)
        means, squares, counts = stacked[:, : len(mean)], stacked[:, len(mean) : -1], stacked[:, -1:]
        total = int(counts.sum())
        if total < 2:
            raise ValueError("Batch norm in training needs more than 1 value per channel: use a larger batch or crop.")
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
        # d mean / d x = 1 / n and d variance / d x = 2 (x - mean) / n; both gradients are divided by n above.
        gradient = of_mean[:, None] + 2 * of_variance[:, None] * differences
        others = features.shape[:1] + features.shape[2:]
        by_image: Tensor = gradient.unflatten(1, others).transpose(0, 1)
        return by_image.type_as(features)


def _by_channel(features: Tensor) -> Tensor:
    """Reshape `(N, C, ...)` to `(C, values)` in at least float32."""
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    return wide.transpose(0, 1).flatten(1)
