"""Weights of an encoder from a file of timm or torchvision, or of a MobileNetV2 with folded batch norm."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from refinenet.models.encoders.encoder import added_tensors, name_in_features
from refinenet.models.encoders.feature_info import MOBILENETV2, base_name
from refinenet.models.files.file_checks import is_safetensors
from refinenet.models.files.model_card import HEADER_KEY
from refinenet.models.files.model_file import load
from refinenet.models.files.tensor_files import check_archive, check_tensors, read_checkpoint, read_safetensors
from refinenet.models.network import Network

HEAD_PREFIXES = (
    "fc.",
    "classifier.",
    "head.",
    "conv_head.",
    "bn2.",
    "norm.",
    "norm_pre.",
    "head_norm.",
    "fc_norm.",
    "attn_pool.",
    "head_dist.",
)
"""Prefixes of the tensors of a classification head, which an encoder does not have."""


def load_encoder_weights(network: Network, path: Path, calibration_images: Callable[[], Tensor]) -> None:
    """Load weights from a file into a network's encoder.

    Args:
        network: Network, changed in place.
        path: A model file of this package with the same encoder; a `.safetensors` or `torch.save` file in the layout of
            timm or torchvision; or a `.npz` of a MobileNetV2 with folded batch norm: `NN.w` (out, in / groups, kh, kw)
            and `NN.b` float32 in the order of the network, 52 convolutions and the classifier, for RGB input in
            [-1, 1].
            Weights for other bands than the network's are converted (`Network.with_bands`).
        calibration_images: Returns `(N, 3, H, W)` float32 RGB images in [0, 1], on which the statistics of folded
            batch norms are measured.

    Raises:
        ValueError: The file is damaged, or its tensors do not fit the encoder; they are named.
        OSError: The file cannot be read.
    """
    bands = network.architecture.bands
    tensors, index = _read(path)
    if HEADER_KEY in index.get("__metadata__", {}):
        _load_from_model(network, path)
    elif bands:
        plain = Network(replace(network.architecture, bands=()))
        load_encoder_weights(plain, path, calibration_images)
        network.encoder.load_state_dict(plain.with_bands(bands).encoder.state_dict())
    elif path.suffix == ".npz":
        _load_folded_mobilenetv2(network, path, calibration_images)
    else:
        _load_tensors(network, tensors, path)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the header of a file; both empty for a `.npz`."""
    if path.suffix == ".npz":
        return {}, {}
    return read_safetensors(path) if is_safetensors(path) else (read_checkpoint(path), {})


def _load_tensors(network: Network, tensors: Mapping[str, Tensor], path: Path) -> None:
    expected = network.encoder.features.state_dict()
    counters = {name: tensor for name, tensor in expected.items() if name.endswith("num_batches_tracked")}
    renamed = {name_in_features(name, expected): tensor for name, tensor in tensors.items()}
    given = {n: t for n, t in renamed.items() if n in expected or not n.startswith(HEAD_PREFIXES)}
    given = {**counters, **added_tensors(expected), **given}
    check_tensors(given, expected, path)
    network.encoder.features.load_state_dict(given)


def _load_from_model(network: Network, path: Path) -> None:
    model, card = load(path)
    if card.architecture.encoder != network.architecture.encoder:
        raise ValueError(
            f"{path} is a model with the encoder {card.architecture.encoder}; its weights do not fit "
            f"{network.architecture.encoder}."
        )
    bands = network.architecture.bands
    model = model.with_bands(bands)
    network.encoder.load_state_dict(model.encoder.state_dict())
    if bands:
        network.mean.copy_(model.mean)
        network.std.copy_(model.std)


def _load_folded_mobilenetv2(network: Network, path: Path, calibration_images: Callable[[], Tensor]) -> None:
    if base_name(network.architecture.encoder) != MOBILENETV2:
        raise ValueError(
            f"{path} holds a MobileNetV2 with folded batch norm; it fits encoder='mobilenetv2_100', "
            f"not {network.architecture.encoder!r}."
        )
    arrays = _read_arrays(path)
    pairs = list(_convolutions(network.encoder.features))
    expected = {f"{index:02d}.w": convolution.weight for index, (convolution, _) in enumerate(pairs)}
    expected |= {f"{index:02d}.b": norm.bias for index, (_, norm) in enumerate(pairs)}
    head = {f"{index}.{kind}" for index in (51, 52) for kind in "wb"}
    check_tensors({name: array for name, array in arrays.items() if name not in head}, expected, path)
    with torch.no_grad():
        for index, (convolution, norm) in enumerate(pairs):
            weight, bias = arrays[f"{index:02d}.w"].float(), arrays[f"{index:02d}.b"].float()
            if index == 0:
                weight, bias = _accept_normalised_images(weight, bias, network)
            convolution.weight.copy_(weight)
            norm.bias.copy_(bias)
            norm.reset_running_stats()
            # Cancels the division by sqrt(1 + eps): with new statistics the batch norm adds its bias alone.
            norm.weight.fill_((1 + norm.eps) ** 0.5)
    _unfold_batch_norms(network, [norm for _, norm in pairs], calibration_images())


def _read_arrays(path: Path) -> dict[str, Tensor]:
    try:
        with path.open("rb") as stream:
            check_archive(stream)
        with np.load(path, allow_pickle=False) as archive:
            return {name: torch.from_numpy(archive[name]) for name in archive.files}
    except (ValueError, TypeError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged or not an .npz of arrays: {error}") from error


def _convolutions(features: nn.Module) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Return the convolutions of a MobileNetV2 with their batch norms, without the added expand convolution."""
    modules = [module for name, module in features.named_modules() if "_expand" not in name]
    convolutions = [module for module in modules if isinstance(module, nn.Conv2d)]
    norms = [module for module in modules if isinstance(module, nn.BatchNorm2d)]
    return zip(convolutions, norms, strict=True)


def _accept_normalised_images(weight: Tensor, bias: Tensor, network: Network) -> tuple[Tensor, Tensor]:
    """Fold the change of input from our normalised images n to 2 x - 1, with x = n * std + mean, into the stem."""
    mean, std = network.mean, network.std
    return weight * 2 * std, bias + (weight * (2 * mean - 1)).sum((1, 2, 3))


@torch.no_grad()
def _unfold_batch_norms(network: Network, norms: list[nn.BatchNorm2d], images: Tensor) -> None:
    """Set statistics of folded batch norms for training, with weight and bias such that the function stays the same.

    All statistics can be measured in a single pass, because the function of the layers before each batch norm does not
    change.
    """
    measured: dict[nn.BatchNorm2d, tuple[Tensor, Tensor]] = {}

    def measure(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        measured[norm] = (inputs[0].mean((0, 2, 3)), inputs[0].var((0, 2, 3), correction=0))

    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    was_training = network.training
    network.eval()
    network.encoder((images - network.mean) / network.std)
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    for norm, (mean, variance) in measured.items():
        norm.running_mean, norm.running_var = mean, variance
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.add_(mean)
