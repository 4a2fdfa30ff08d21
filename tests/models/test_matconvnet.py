"""MATLAB files as RefineNet's authors published them, written here byte for byte as their layout is described."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import torch
from conftest import CommandLine
from published import PARITY, image

from refinenet import RefineNet
from refinenet.models.architecture import Architecture
from refinenet.models.decoder_config import DECODER_PRESETS
from refinenet.models.network import Network

Array = npt.NDArray[Any]
CLASSES = 22


def recorded_shapes(order: str) -> dict[str, tuple[int, ...]]:
    """Return the names and MATLAB shapes of a published network's parameters, without the classifier."""
    names = ("matconvnet_101_encoder", f"matconvnet_decoder_{order}")
    lists = [json.loads((PARITY / "keys" / f"{name}.json").read_text("utf-8"))["keys"] for name in names]
    return {name: tuple(shape) for each in lists for name, shape in each}


def small_network(order: str) -> Network:
    """Return a network of one of the published architectures with weights that are the same every time."""
    options = DECODER_PRESETS["matlab-2018" if order == "improved" else "matlab"]
    torch.manual_seed(7)
    network = Network(
        Architecture(
            model_type="full",
            encoder="matconvnet_resnet101",
            num_classes=CLASSES,
            decoder_options=options,
            input_scales=(1.2,),
        )
    ).eval()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith("running_mean"):
                tensor.normal_(std=0.1)
            elif "decoder" in name and tensor.ndim == 4:
                tensor.normal_(std=(1 / tensor[0].numel()) ** 0.5)
    return network


def in_matlab(name: str, network: Network) -> Array:
    """Return a parameter in MATLAB's shape, by names written out from the network graphs, independently of ours."""
    tensors = {key: value.numpy() for key, value in network.state_dict().items()}
    encoder, rest = "encoder.features.", name
    if rest.startswith(("conv1", "bn_conv1")):
        return parameter(tensors, f"{encoder}conv1" if rest.startswith("conv1") else f"{encoder}bn1", name)
    if rest.startswith(("res", "bn")):
        stem, branch, _ = rest.split("_", 2)
        stem = stem.removeprefix("res").removeprefix("bn")
        blocks = ["a", *(["b", "c"] if stem[0] in "25" else [f"b{k}" for k in range(1, 23)])]
        part = {"branch1": "downsample.0", "branch2a": "conv1", "branch2b": "conv2", "branch2c": "conv3"}[branch]
        if rest.startswith("bn"):
            part = {"downsample.0": "downsample.1"}.get(part, part.replace("conv", "bn"))
        return parameter(tensors, f"{encoder}layer{int(stem[0]) - 1}.{blocks.index(stem[1:])}.{part}", name)
    return parameter(tensors, decoder_module(name), name)


def decoder_module(name: str) -> str:
    if name.startswith("p_ims1d2_outl"):
        return f"decoder.blocks.{int(name[13]) - 1}.adaptations.0.1"
    if name.startswith("adapt_"):
        stage = int(name.split("_b")[0][-1])
        path = f"decoder.blocks.{stage - 1}.adaptations.0"
        if "joint" in name:
            return f"{path}.4"
        unit = int(name.split("_b")[1][0])
        return f"{path}.{1 + unit}.convolution_{2 if 'relu' in name else 1}"
    block = f"decoder.blocks.{int(name[12]) - 1}"
    if "_pb" in name:
        return f"{block}.pooling.convolutions.{int(name.split('_pb')[1][0]) - 1}"
    if "_pool" in name:
        return f"{block}.pooling.convolutions.{int(name.split('_pool')[1][0]) - 1}"
    if "joint" in name:
        return f"{block}.output.3"
    return f"{block}.output.{int(name.split('_b')[1][0]) - 1}.convolution_{2 if 'relu' in name else 1}"


def parameter(tensors: dict[str, Array], module: str, name: str) -> Array:
    if name.endswith("_filter"):
        return tensors[f"{module}.weight"].transpose(2, 3, 1, 0)  # height, width, inputs, outputs
    if name.endswith("_moments"):
        deviation = np.sqrt(tensors[f"{module}.running_var"] + 1e-5)
        return np.stack([tensors[f"{module}.running_mean"], deviation], axis=1)
    values = tensors[f"{module}.{'weight' if name.endswith('_mult') else 'bias'}"]
    return values[None] if "conv_bias" in name and "bn_" not in name else values[:, None]


def write(path: Path, network: Network, order: str) -> Path:
    """Write `net_config`, an object whose structures MATLAB keeps under `#refs#`; axes are reversed in HDF5."""
    with h5py.File(path, "w", userblock_size=512) as file:
        refs = file.create_group("#refs#")
        file.create_group("#subsystem#")
        file["net_config"] = np.array([[0xDD000000, 2, 1, 1, 1, 1]], np.uint32)
        shapes = recorded_shapes(order)
        half = len(shapes) // 2
        for number, names in enumerate((list(shapes)[:half], list(shapes)[half:])):
            params = refs.create_group(f"params{number}")
            for field in ("name", "value"):
                params.create_dataset(field, (len(names), 1), h5py.ref_dtype)
            params["learningRate"] = np.ones((len(names), 1))
            for index, name in enumerate(names):
                values = in_matlab(name, network)
                assert values.shape == shapes[name], name
                text = np.frombuffer(name.encode("utf-16-le"), np.uint16)[:, None]
                params["name"][index, 0] = refs.create_dataset(f"n{number}.{index}", data=text).ref
                stored = np.ascontiguousarray(values.T)
                params["value"][index, 0] = refs.create_dataset(f"v{number}.{index}", data=stored).ref
        layer = refs.create_group("layer")
        layer["filters"] = np.ascontiguousarray(network.classifier.weight.detach().numpy().transpose(2, 3, 1, 0).T)
        bias = network.get_parameter("classifier.bias")
        layer["biases"] = np.ascontiguousarray(bias.detach().numpy()[None].T)
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    return path


@pytest.mark.parametrize("order", ["legacy", "improved"])
def test_a_matlab_file_gives_the_results_of_the_network_it_was_made_from(
    order: str, tmp_path: Path, run_refinenet: CommandLine
) -> None:
    network = small_network(order)
    write(tmp_path / "net.mat", network, order)
    result = run_refinenet("convert", tmp_path / "net.mat", tmp_path / "net.safetensors", timeout=300)
    assert result.returncode == 0, result.stderr
    detected = "convolves first" if order == "improved" else "pools first"
    year = 2018 if order == "improved" else 2016
    said = " ".join(result.stderr.split())
    assert f"net.mat: ResNet-101, chained residual pooling of 4 links that {detected}" in said
    assert f"parameter names of {year}, {CLASSES} channels of classes" in said
    converted = RefineNet(model=tmp_path / "net.safetensors", device="cpu")
    assert converted.network.architecture == network.architecture
    with torch.inference_mode():
        expected, found = network.logits(image()), converted.network.logits(image())
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_parameters_that_no_published_network_has_are_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.mat", "w", userblock_size=512) as file:
        params = file.create_group("#refs#/params")
        params["name"] = np.frombuffer("fc1000_filter".encode("utf-16-le"), np.uint16)[:, None]
        params["value"] = np.zeros((3, 3), np.float32)
    with pytest.raises(ValueError, match=r"other\.mat has the parameter 'fc1000_filter', which no known RefineNet has"):
        RefineNet(model=tmp_path / "other.mat", device="cpu")


@pytest.mark.parametrize("content", [b"MATLAB 5.0 MAT-file", b"\x89HDF\r\n\x1a\n" + bytes(600)])
def test_damaged_matlab_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.mat").write_bytes(content)
    with pytest.raises(ValueError, match=r"net\.mat is not a MATLAB file of version 7\.3"):
        RefineNet(model=tmp_path / "net.mat", device="cpu")
