"""Importer of published PyTorch checkpoints, with a table of names for each format.

Supported are the files of light-weight-refinenet (ResNet-50, -101, -152 and MobileNetV2), refinenet-pytorch
(ResNet-101), multi-task-refinenet (also with the names of DenseTorch) and the predecessor of this package (full and
light-weight, ResNet-50, -101, -152), plain or wrapped as by their training scripts. Model type, depth, outputs and
number of classes are inferred from the tensors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from refinenet.labels import MAX_CLASSES
from refinenet.models.architecture import Architecture
from refinenet.models.decoder_config import DECODER_PRESETS
from refinenet.models.files.file_checks import enumerate_names
from refinenet.models.files.tensor_files import check_tensors, read_checkpoint
from refinenet.models.network import Network
from refinenet.outputs import CLASSES, OutputSpec

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
    is_densetorch = any(name.startswith("1.stem_convs.") for name in tensors)
    tensors = _rename_densetorch(tensors) if is_densetorch else tensors
    architecture = infer_architecture(tensors, path, aligned=is_densetorch)
    given = {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}
    return build(architecture, given, path)


def build(architecture: Architecture, tensors: Mapping[str, Tensor], path: Path) -> Network:
    """Build a network with the tensors of a file.

    Args:
        architecture: Architecture of the network.
        tensors: Tensors of the network by their published names, all but its normalisation.
        path: The file, for messages.

    Raises:
        ValueError: A tensor is missing, unexpected, of another shape or not finite.
    """
    with torch.device("meta"):  # shapes first: a file cannot make us allocate more than it holds
        network = Network(architecture)
    expected = {published: ours for ours, published in _published_names(network).items()}
    # Missing from files of 2018, and without effect on inference.
    counters = [name for name in expected if name.endswith("num_batches_tracked")]
    given = {**dict.fromkeys(counters, torch.tensor(0)), **tensors}
    needed = network.state_dict()
    check_tensors(given, {name: needed[ours] for name, ours in expected.items()}, path)
    network = Network(architecture)
    renamed = {expected[name]: tensor for name, tensor in given.items()}
    network.load_state_dict({**network.state_dict(), **renamed})
    return network.eval()


def _rename_densetorch(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of DenseTorch's multi-task network, an encoder and a decoder in a row, as in other files."""
    renamed = {}
    heads = ("segm", "depth", "normal")
    patterns: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
        (r"0\.", lambda m: ""),  # noqa: ARG005 - the same parameter for all patterns
        (r"1\.stem_convs\.([0-5])\.", lambda m: f"conv{8 - int(m[1])}."),
        (r"1\.crp_blocks\.([0-3])\.(?:0\.)?", lambda m: f"crp{4 - int(m[1])}.0."),
        (r"1\.adapt_convs\.([0-2])\.", lambda m: f"conv_adapt{4 - int(m[1])}."),
        (r"1\.heads\.([0-2])\.0\.", lambda m: f"pre_{heads[int(m[1])]}."),
        (r"1\.heads\.([0-2])\.2\.", lambda m: f"{heads[int(m[1])]}."),
    )
    for name, tensor in tensors.items():
        matches = ((re.match(pattern, name), rename) for pattern, rename in patterns)
        found = next(((match, rename) for match, rename in matches if match is not None), None)
        renamed[name if found is None else found[1](found[0]) + name[found[0].end() :]] = tensor
    return renamed


def infer_architecture(tensors: Mapping[str, Tensor], path: Path, *, aligned: bool = False) -> Architecture:
    """Infer model type, encoder, outputs and number of classes from the names and shapes of a published checkpoint.

    Args:
        tensors: Tensors by their published names.
        path: The file, for messages.
        aligned: Whether a multi-task network aligns corners where it upsamples, as DenseTorch does.

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
        return _mobilenetv2_architecture(tensors, num_classes, aligned=aligned)
    blocks = tuple(
        len({match[1] for name in tensors if (match := re.match(rf"layer{layer}\.(\d+)\.", name))})
        for layer in (1, 2, 3, 4)
    )
    if blocks not in _LAYER_BLOCKS_TO_DEPTH:
        raise ValueError(
            f"{path} holds a ResNet with {blocks} blocks in its four layers. Known ones have "
            + ", ".join(f"{known} (ResNet-{depth})" for known, depth in _LAYER_BLOCKS_TO_DEPTH.items())
            + ". Blocks may be missing from the file."
        )
    full = any(re.match(r"(adapt_stage|mflow_conv_g)\d_b\.", name) for name in tensors)
    return Architecture(
        model_type="full" if full else "lightweight",
        encoder=f"resnet{_LAYER_BLOCKS_TO_DEPTH[blocks]}",
        num_classes=num_classes,
    )


_TASKS = {"depth": OutputSpec(name="depth", kind="depth"), "normal": OutputSpec(name="normals", kind="normals")}
"""Outputs of the multi-task network besides classes, by their published names, in order."""


def _mobilenetv2_architecture(tensors: Mapping[str, Tensor], num_classes: int, *, aligned: bool) -> Architecture:
    mobile = Architecture(model_type="lightweight", encoder="mobilenetv2_100", num_classes=num_classes)
    if "pre_segm.weight" not in tensors:
        return mobile
    upsampling = {"upsampling": "bilinear_aligned"} if aligned else {}
    outputs = (CLASSES, *(spec for name, spec in _TASKS.items() if f"{name}.weight" in tensors))
    return replace(mobile, outputs=outputs, decoder_options={**DECODER_PRESETS["multitask"], **upsampling})


def _published_names(network: Network) -> dict[str, str]:
    """Return published tensor names by ours, for all tensors of a network except its normalisation."""
    if network.architecture.encoder == "mobilenetv2_100":
        modules = _mobilenetv2_names(network.architecture)
    else:
        modules = _resnet_decoder_names(network.architecture)
    names = {}
    for ours in network.state_dict():
        if ours in ("mean", "std") or ours.endswith((".scale", ".offset")):
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
        names |= _pooling_names(block, f"mflow_conv_g{stage}_pool.0", config.pooling_links)
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


def _pooling_names(block: str, published: str, links: int) -> dict[str, str]:
    return {f"{block}.pooling.convolutions.{link}": f"{published}.{link + 1}_outvar_dimred" for link in range(links)}


def _mobilenetv2_names(architecture: Architecture) -> dict[str, str]:
    """Return published names of the modules of the MobileNetV2 networks; `crp4` is the coarsest, our block 0."""
    features = "encoder.features"
    names = {f"{features}.conv_stem": "layer1.0", f"{features}.bn1": "layer1.1", **_head_names(architecture)}
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
        names |= _pooling_names(block, f"crp{4 - index}.0", architecture.decoder.pooling_links)
        names[f"{block}.output.0"] = f"conv_adapt{4 - index}"
    return names


def _head_names(architecture: Architecture) -> dict[str, str]:
    """Return published names of the heads' convolutions."""
    if not architecture.decoder.depthwise_heads:
        return {"classifier": "segm"}
    heads = {"heads.depth.layers": "depth", "heads.normals": "normal"}
    names = {"classifier_stem.0": "pre_segm", "classifier": "segm"}
    names |= {f"{ours}.0": f"pre_{published}" for ours, published in heads.items()}
    return names | {f"{ours}.2": published for ours, published in heads.items()}
