"""Importer of the MATLAB files that RefineNet's authors published (MatConvNet, MATLAB 7.3, which is HDF5).

Three properties of these networks are read from the names of their parameters: how many links the pooling has, whether
a link pools or convolves first, and whether the names are those of 2016 or of 2018. All of them have encoders with the
stride in the first 1x1 convolution, images in [0, 255] minus 128, enlarged by 1.2, and bicubic fusion. Where the
training labels had a class "void", the classifier has a channel for it, which stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from refinenet.io.console import print_note
from refinenet.labels import MAX_CLASSES
from refinenet.models.architecture import Architecture
from refinenet.models.decoder_config import DECODER_PRESETS
from refinenet.models.encoders.resnet import BLOCKS, MATCONVNET
from refinenet.models.files.file_checks import enumerate_names, printable
from refinenet.models.importers.checkpoints import build
from refinenet.models.network import Network

INPUT_SCALE = 1.2
_EPSILON = 1e-5
"""Added to variances by batch normalisation; stored deviations include it."""
_MAX_VALUES = 2**26
"""Most values of a parameter: a 3x3 convolution of 2048 to 512 channels has 9.4 million."""
_MAX_NAMES = 10_000

Parameters = dict[str, npt.NDArray[np.float32]]


def import_matconvnet(path: Path) -> Network:
    """Build the network of a published MATLAB file and load its weights; report what was detected.

    Returns:
        The network, float32 on the CPU, in evaluation mode.

    Raises:
        ValueError: The file is damaged or holds another network, or a parameter is missing, unexpected or of another
            shape; the message names it.
        OSError: The file cannot be read.
    """
    parameters = _read(path)
    tensors: dict[str, Tensor] = {}
    for name, values in parameters.items():
        tensors |= _convert(name, values, path)
    architecture = _infer(parameters, tensors, path)
    network = build(architecture, tensors, path)
    config = architecture.decoder
    order = "pools first" if config.pooling_order == "pool_first" else "convolves first (improved residual pooling)"
    print_note(
        f"{path.name}: ResNet-{architecture.encoder.removeprefix(MATCONVNET)}, chained residual pooling of "
        f"{config.pooling_links} links that {order}, parameter names of {_year(parameters)}, "
        f"{architecture.num_classes} channels of classes. If the training labels had a class 'void', one of these "
        "channels (the last, or the first for ADE20K and SUN RGB-D) is its."
    )
    return network


def _infer(parameters: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path) -> Architecture:
    blocks = tuple(
        len({match[1] for name in tensors if (match := re.match(rf"layer{layer}\.(\d+)\.", name))})
        for layer in (1, 2, 3, 4)
    )
    depths = [name for name, counts in BLOCKS.items() if counts == blocks]
    classifier = tensors.get("clf_conv.weight")
    if not depths or classifier is None or classifier.ndim != 4:
        raise ValueError(
            f"{path} is not a RefineNet of MatConvNet: it has {blocks} blocks in the layers of its encoder, and "
            f"{'no' if classifier is None else 'a'} classifier. Its parameters are: {enumerate_names(parameters)}."
        )
    links = {int(match[1]) for name in parameters if (match := re.search(r"_g1_pool(\d+)_outvar_dimred_filter$", name))}
    pooled = {int(match[1]) for name in parameters if (match := re.search(r"_g1_.*_pb(\d+)_filter$", name))}
    if bool(links) == bool(pooled):
        raise ValueError(f"{path} has chained residual poolings of both orders, or none: it cannot be imported.")
    options = {**DECODER_PRESETS["matlab"], "pooling_links": max(links or pooled)}
    options |= {"pooling_order": "convolution_first"} if pooled else {}
    return Architecture(
        model_type="full",
        encoder=depths[0].replace("resnet", MATCONVNET),
        num_classes=min(classifier.shape[0], MAX_CLASSES),
        decoder_options=options,
        input_scales=(INPUT_SCALE,),
    )


def _year(parameters: Mapping[str, Any]) -> int:
    return 2018 if any(name.startswith("adapt_input_path") for name in parameters) else 2016


_JOINT = "_b2_joint_varout_dimred.weight"
_KINDS = {"filter": "weight", "bias": "bias"}
# From patterns of MatConvNet's names to those of refinenet-pytorch, which `checkpoints` knows.
_RULES: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"conv1_filter", lambda m: "conv1.weight"),  # noqa: ARG005 - the same parameter for all patterns
    (r"bn_conv1_(\w+)", lambda m: f"bn1.{m[1]}"),
    (r"res([2-5])(\w+?)_branch(1|2[abc])_filter", lambda m: f"{_layer(m)}.{_part(m[3], 'conv', '0')}.weight"),
    (r"bn([2-5])(\w+?)_branch(1|2[abc])_(\w+)", lambda m: f"{_layer(m)}.{_part(m[3], 'bn', '1')}.{m[4]}"),
    (r"(p_ims1d2_outl[1-4]_dimred)_filter", lambda m: f"{m[1]}.weight"),
    (r"adapt_(?:stage|input_path)([1-4])_b(\d)_conv_(filter|bias)", lambda m: _unit(f"adapt_stage{m[1]}", m, "")),
    (
        r"adapt_(?:stage|input_path)([1-4])_b(\d)_conv_relu_varout_dimred_(filter)",
        lambda m: _unit(f"adapt_stage{m[1]}", m, "_relu_varout_dimred"),
    ),
    (r"adapt_(?:stage|input_path)([1-4])_b2_joint_varout_dimred_filter", lambda m: f"adapt_stage{m[1]}{_JOINT}"),
    (r"mflow_conv_g([1-4])_pool(\d+)_outvar_dimred_filter", lambda m: _pool(m[1], int(m[2]))),
    (r"mflow_conv_g([1-4])_(?:poolprev_relu_varout|pool\d+_outvar)_pb(\d+)_filter", lambda m: _pool(m[1], int(m[2]))),
    (r"mflow_conv_g([1-4])_b(\d)_conv_(filter|bias)", lambda m: _unit(f"mflow_conv_g{m[1]}", m, "")),
    (
        r"mflow_conv_g([1-4])_b(\d)_conv_relu_varout_dimred_(filter)",
        lambda m: _unit(f"mflow_conv_g{m[1]}", m, "_relu_varout_dimred"),
    ),
    (r"(mflow_conv_g[1-4]_b3_joint_varout_dimred)_filter", lambda m: f"{m[1]}.weight"),
    (r"clf_conv_(filter|bias)", lambda m: f"clf_conv.{_KINDS[m[1]]}"),
)


def _layer(match: re.Match[str]) -> str:
    """Return the block of an encoder: res3a is the first of its layer, then come b, c, ... or b1, b2, ..."""
    name = match[2]
    index = int(name[1:]) if len(name) > 1 else ord(name) - ord("a")
    return f"layer{int(match[1]) - 1}.{index}"


def _part(branch: str, prefix: str, place: str) -> str:
    return f"downsample.{place}" if branch == "1" else f"{prefix}{'abc'.index(branch[1]) + 1}"


def _unit(place: str, match: re.Match[str], ending: str) -> str:
    return f"{place}_b.0.{match[2]}_conv{ending}.{_KINDS[match[3]]}"


def _pool(block: str, link: int) -> str:
    return f"mflow_conv_g{block}_pool.0.{link}_outvar_dimred.weight"


def _convert(name: str, values: npt.NDArray[np.float32], path: Path) -> dict[str, Tensor]:
    """Return the tensors of a parameter by their published names."""
    found = ((re.fullmatch(pattern, name), rename) for pattern, rename in _RULES)
    renamed = next((rename(match) for match, rename in found if match is not None), None)
    if renamed is None:
        raise ValueError(f"{path} has the parameter {printable(name)!r}, which no known RefineNet has.")
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    module, _, kind = renamed.rpartition(".")
    if kind == "weight":
        # In HDF5 the axes are those of MATLAB in reverse: outputs, inputs, width, height. Axes of length 1 may be cut.
        full = tensor.reshape(*tensor.shape, *(1,) * (4 - tensor.ndim))
        return {renamed: full.transpose(2, 3).contiguous()}
    if kind == "moments":
        mean, deviation = tensor.reshape(2, -1)
        return {f"{module}.running_mean": mean, f"{module}.running_var": deviation**2 - _EPSILON}
    return {f"{module}.{'weight' if kind == 'mult' else 'bias'}": tensor.flatten()}


def _read(path: Path) -> Parameters:
    """Read the parameters of the file's networks, and the classifier as clf_conv_filter and clf_conv_bias."""
    from refinenet.io.hdf5 import clear_errors, open_hdf5

    parameters: Parameters = {}
    with open_hdf5(path) as file, clear_errors(path):
        for group in _groups(file):
            for name, dataset in _named_values(file, group):
                if name in parameters:
                    raise ValueError(f"the parameter {name!r} occurs twice")
                if len(parameters) > _MAX_NAMES:
                    raise ValueError(f"more than {_MAX_NAMES} parameters")
                parameters[name] = _values(dataset, name)
    return parameters


def _groups(file: Any) -> Iterator[Any]:
    """Yield the structures in the file; objects of MATLAB classes keep theirs under "#refs#"."""
    import h5py

    pending = [file]
    while pending:
        group = pending.pop()
        yield group
        for name in group:
            # Soft and external links may lead in circles or into another file: follow hard links only.
            if isinstance(group.get(name, getlink=True), h5py.HardLink) and isinstance(group[name], h5py.Group):
                pending.append(group[name])


def _named_values(file: Any, group: Any) -> Iterator[tuple[str, Any]]:
    """Yield the parameters of a structure array with the fields `name` and `value`, or of a convolution layer."""
    if {"filters", "biases"} <= set(group):
        yield "clf_conv_filter", group["filters"]
        yield "clf_conv_bias", group["biases"]
    elif {"name", "value"} <= set(group):
        names, values = group["name"], group["value"]
        if names.dtype.kind != "O":
            yield _text(names), values
            return
        for name, value in zip(names[()].ravel(), values[()].ravel(), strict=True):
            yield _text(file[name]), file[value]


def _text(dataset: Any) -> str:
    if dataset.dtype != np.uint16 or dataset.size > 200:
        raise ValueError("the name of a parameter is not text")
    return "".join(map(chr, dataset[()].ravel().tolist()))


def _values(dataset: Any, name: str) -> npt.NDArray[np.float32]:
    if dataset.dtype.kind != "f" or not 1 <= dataset.ndim <= 4 or dataset.size > _MAX_VALUES:
        raise ValueError(f"the parameter {name!r} is {dataset.dtype} of shape {dataset.shape}")
    return np.asarray(dataset[()], np.float32)
