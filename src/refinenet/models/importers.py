"""Importers of published PyTorch checkpoints, with a table of names for each format.

Supported are the files of light-weight-refinenet (ResNet-50, -101, -152 and MobileNetV2), refinenet-pytorch
(ResNet-101) and the predecessor of this package (full and light-weight, ResNet-50, -101, -152), plain or wrapped
by their training scripts. Model type, depth and number of classes are inferred from the tensors.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from refinenet.labels import MAX_CLASSES
from refinenet.models.decoder import POOLING_STAGES
from refinenet.models.encoders.encoder import MOBILENETV2, added_tensors, base_name, name_in_features
from refinenet.models.network import Architecture, Network
from refinenet.models.tensor_files import (
    check_archive,
    check_tensors,
    enumerate_names,
    is_safetensors,
    read_checkpoint,
    read_safetensors,
)

_LAYER_BLOCKS_TO_DEPTH = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}


def import_checkpoint(path: Path) -> Network:
    """Build the network of a published checkpoint and load its weights.

    Returns:
        The network, float32 on the CPU, in evaluation mode.

    Raises:
        ValueError: The file cannot be read, is not in a known format, or a tensor is missing, unexpected, of another
            shape or not finite; the message names the tensors.
    """
    tensors = read_checkpoint(path)
    architecture = infer_architecture(tensors, path)
    with torch.device("meta"):  # shapes first: a file cannot make us allocate more than it holds
        network = Network(architecture)
    expected = {published: ours for ours, published in _published_names(network).items()}
    # Missing from files of 2018, and without effect on inference.
    counters = [name for name in expected if name.endswith("num_batches_tracked")]
    given = {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}
    given = {**dict.fromkeys(counters, torch.tensor(0)), **given}
    needed = network.state_dict()
    check_tensors(given, {name: needed[ours] for name, ours in expected.items()}, path)
    network = Network(architecture)
    renamed = {expected[name]: tensor for name, tensor in given.items()}
    network.load_state_dict({**renamed, "mean": network.mean, "std": network.std})
    return network.eval()


def infer_architecture(tensors: Mapping[str, Tensor], path: Path) -> Architecture:
    """Infer model type, encoder and number of classes from the tensor names and shapes of a published checkpoint.

    Raises:
        ValueError: The tensors are not in a known format.
    """
    classifier = tensors.get("clf_conv.weight", tensors.get("segm.weight"))
    if classifier is None or classifier.ndim != 4:
        raise ValueError(
            f"{path} is not in a known RefineNet format: it has no classifier clf_conv.weight or segm.weight. "
            f"Its tensors are: {enumerate_names(tensors)}."
        )
    num_classes = classifier.shape[0]
    if not 1 <= num_classes <= MAX_CLASSES:
        raise ValueError(f"{path} has a classifier for {num_classes} classes; 1 to {MAX_CLASSES} are allowed.")
    if "segm.weight" in tensors:
        return Architecture(model_type="lightweight", encoder="mobilenetv2_100", num_classes=num_classes)
    blocks = tuple(
        len({match[1] for name in tensors if (match := re.match(rf"layer{layer}\.(\d+)\.", name))})
        for layer in (1, 2, 3, 4)
    )
    if blocks not in _LAYER_BLOCKS_TO_DEPTH:
        raise ValueError(
            f"{path} holds a ResNet with {blocks} blocks in its four layers. Known are "
            + ", ".join(f"{known} (ResNet-{depth})" for known, depth in _LAYER_BLOCKS_TO_DEPTH.items())
            + ". Blocks may be missing from the file."
        )
    full = any(re.match(r"(adapt_stage|mflow_conv_g)\d_b\.", name) for name in tensors)
    return Architecture(
        model_type="full" if full else "lightweight",
        encoder=f"resnet{_LAYER_BLOCKS_TO_DEPTH[blocks]}",
        num_classes=num_classes,
    )


def _published_names(network: Network) -> dict[str, str]:
    """Return published tensor names by ours, for all tensors of a network except its normalisation."""
    if network.architecture.encoder == "mobilenetv2_100":
        modules = _mobilenetv2_names()
    else:
        modules = _resnet_decoder_names(network.architecture)
    names = {}
    for ours in network.state_dict():
        if ours in ("mean", "std"):
            continue
        module, _, tensor = ours.rpartition(".")
        # The encoder of a ResNet has the names of torchvision.
        names[ours] = f"{modules.get(module, module.removeprefix('encoder.features.'))}.{tensor}"
    return names


def _resnet_decoder_names(architecture: Architecture) -> dict[str, str]:
    """Return published names of the decoder modules of ResNet networks; stage 1 is the coarsest, like our block 0."""
    config = architecture.decoder
    names = {"classifier": "clf_conv"}
    for index in range(4):
        block, stage = f"decoder.blocks.{index}", index + 1
        adaptation = f"{block}.adaptations.0"
        names[f"{adaptation}.1"] = f"p_ims1d2_outl{stage}_dimred"
        names |= _unit_names(f"{adaptation}.{{}}", 2, f"adapt_stage{stage}_b.0", config.adaptive_units)
        names[f"{adaptation}.{2 + config.adaptive_units}"] = f"adapt_stage{stage}_b2_joint_varout_dimred"
        names |= _pooling_names(block, f"mflow_conv_g{stage}_pool.0")
        names |= _unit_names(f"{block}.output.{{}}", 0, f"mflow_conv_g{stage}_b.0", config.output_units)
        names[f"{block}.output.{config.output_units}"] = f"mflow_conv_g{stage}_b3_joint_varout_dimred"
    return names


def _unit_names(ours: str, first: int, published: str, count: int) -> dict[str, str]:
    names = {}
    for unit in range(count):
        module = ours.format(first + unit)
        names[f"{module}.convolution_1"] = f"{published}.{unit + 1}_conv"
        names[f"{module}.convolution_2"] = f"{published}.{unit + 1}_conv_relu_varout_dimred"
    return names


def _pooling_names(block: str, published: str) -> dict[str, str]:
    return {
        f"{block}.pooling.convolutions.{link}": f"{published}.{link + 1}_outvar_dimred"
        for link in range(POOLING_STAGES)
    }


def _mobilenetv2_names() -> dict[str, str]:
    """Return published names of the modules of the MobileNetV2 network; `crp4` is the coarsest, our block 0."""
    features = "encoder.features"
    names = {f"{features}.conv_stem": "layer1.0", f"{features}.bn1": "layer1.1", "classifier": "segm"}
    first = f"{features}.blocks_0.0"
    for step, (convolution, norm) in enumerate(
        [("conv_expand", "bn_expand"), ("block.conv_dw", "block.bn1"), ("block.conv_pw", "block.bn2")]
    ):
        names |= {
            f"{first}.{convolution}": f"layer2.0.output.{step}.0",
            f"{first}.{norm}": f"layer2.0.output.{step}.1",
        }
    for stage, repeats in enumerate((2, 3, 4, 3, 3, 1), start=1):
        for repeat in range(repeats):
            ours, published = f"{features}.blocks_{stage}.{repeat}", f"layer{stage + 2}.{repeat}.output"
            for step, convolution in enumerate(("conv_pw", "conv_dw", "conv_pwl")):
                names[f"{ours}.{convolution}"] = f"{published}.{step}.0"
                names[f"{ours}.bn{step + 1}"] = f"{published}.{step}.1"
    reductions = [("conv7", "conv8"), ("conv5", "conv6"), ("conv4",), ("conv3",)]
    for index, published_names in enumerate(reductions):
        block = f"decoder.blocks.{index}"
        names |= {f"{block}.adaptations.{path}.1": name for path, name in enumerate(published_names)}
        names |= _pooling_names(block, f"crp{4 - index}.0")
        names[f"{block}.output.0"] = f"conv_adapt{4 - index}"
    return names


HEAD_PREFIXES = ("fc.", "classifier.", "head.", "conv_head.", "bn2.", "norm.", "norm_pre.", "head_norm.")
"""Prefixes of the tensors of a classification head, which an encoder does not have."""


def load_encoder_weights(network: Network, path: Path, calibration_images: Callable[[], Tensor]) -> None:
    """Load weights from a file into a network's encoder.

    Args:
        network: Network, changed in place.
        path: A `.safetensors` or `torch.save` file in the layout of timm or torchvision, or a `.npz` of a MobileNetV2
            with folded batch norm: `NN.w` (out, in / groups, kh, kw) and `NN.b` float32 in the order of the network,
            52 convolutions and the classifier, for RGB input in [-1, 1].
        calibration_images: Returns `(N, 3, H, W)` float32 RGB images in [0, 1], on which the statistics of folded
            batch norms are measured.

    Raises:
        ValueError: The file is damaged, or its tensors do not fit the encoder; they are named.
        OSError: The file cannot be read.
    """
    if path.suffix == ".npz":
        _load_folded_mobilenetv2(network, path, calibration_images())
        return
    tensors = read_safetensors(path)[0] if is_safetensors(path) else read_checkpoint(path)
    expected = network.encoder.features.state_dict()
    counters = {name: tensor for name, tensor in expected.items() if name.endswith("num_batches_tracked")}
    renamed = {name_in_features(name, expected): tensor for name, tensor in tensors.items()}
    given = {n: t for n, t in renamed.items() if n in expected or not n.startswith(HEAD_PREFIXES)}
    given = {**counters, **added_tensors(expected), **given}
    check_tensors(given, expected, path)
    network.encoder.features.load_state_dict(given)


def _load_folded_mobilenetv2(network: Network, path: Path, images: Tensor) -> None:
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
    _unfold_batch_norms(network, [norm for _, norm in pairs], images)


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
