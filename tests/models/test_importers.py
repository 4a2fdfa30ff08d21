"""Import of published checkpoints: plain, wrapped, old, damaged, or something else altogether."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published import image, published_weights, resnet_shapes
from torch import Tensor

from refinenet import RefineNet
from refinenet.models.importers.checkpoints import import_checkpoint

Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def weights() -> Weights:
    """The published tensors of the smallest format."""
    return published_weights("lightweight_mobilenetv2_voc")


@pytest.fixture(scope="module")
def expected(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    """What the plain checkpoint answers (`test_parity.py` proves that right)."""
    path = tmp_path_factory.mktemp("plain") / "plain.pth"
    torch.save(weights, path)
    return answer(path)


def answer(path: Path) -> Tensor:
    """The logits of a model file for the parity picture."""
    with torch.inference_mode():
        return RefineNet(model=path, device="cpu").network.logits(image())


def prefixed(weights: Weights) -> Weights:
    return {f"module.{name}": tensor for name, tensor in weights.items()}


WRAPPINGS: dict[str, Callable[[Weights], dict[str, Any]]] = {
    "module prefix": prefixed,
    "two module prefixes": lambda weights: prefixed(prefixed(weights)),
    "segmenter": lambda weights: {"segmenter": prefixed(weights), "epoch_start": 300, "best_val": np.float64(0.42)},
    "model": lambda weights: {
        "model": weights,
        "epoch": 7,
        "optimisers": [{"state": {0: {"step": 3, "momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 1e-3}]}],
        "schedulers": [{"last_epoch": 7}],
        "best_val": [np.float64(0.42), np.float32(0.5), np.int64(3)],
    },
    "weights": lambda weights: {
        "weights": weights,
        "model_metadata": {"type": "full", "num_layers": 50, "num_classes": 40, "learning_rate": 0.0005},
        "global_iteration": 12,
        "enc_optimiser": {"state": {}, "param_groups": []},
    },
    "state_dict": lambda weights: {"state_dict": weights, "arch": "mobilenet"},
    "a wrapper in a wrapper": lambda weights: {"model": {"state_dict": weights}},
    "a name beside the weights": lambda weights: {"model": "mobilenet", "state_dict": prefixed(weights)},
    "stray head": lambda weights: {**weights, "fc.weight": torch.zeros(10, 320), "fc.bias": torch.zeros(10)},
    "no counters": lambda weights: {n: t for n, t in weights.items() if not n.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize(
    ("wrapping", "legacy"), [*((wrapping, False) for wrapping in WRAPPINGS), ("segmenter", True), ("model", True)]
)
def test_wrapped_checkpoint_is_the_plain_one(
    wrapping: str, legacy: bool, weights: Weights, expected: Tensor, tmp_path: Path
) -> None:
    path = tmp_path / "wrapped.pth.tar"
    torch.save(WRAPPINGS[wrapping](weights), path, _use_new_zipfile_serialization=not legacy)
    torch.testing.assert_close(answer(path), expected, rtol=0, atol=0)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_numpy_scalar_of_an_old_numpy(legacy: bool, weights: Weights, expected: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "old.pth.tar"
    content = io.BytesIO()
    torch.save(WRAPPINGS["segmenter"](weights), content, _use_new_zipfile_serialization=not legacy)
    new, old = b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"
    if legacy:
        assert content.getvalue().count(new) == 1
        path.write_bytes(content.getvalue().replace(new, old))
    else:
        with zipfile.ZipFile(content) as source, zipfile.ZipFile(path, "w") as target:
            for name in source.namelist():
                target.writestr(name, source.read(name).replace(new, old))
    torch.testing.assert_close(answer(path), expected, rtol=0, atol=0)


def test_converted_model_is_the_checkpoint(weights: Weights, expected: Tensor, tmp_path: Path) -> None:
    old, new = tmp_path / "old.pth.tar", tmp_path / "new.safetensors"
    torch.save(weights, old)
    RefineNet(model=old, device="cpu").save(new)
    torch.testing.assert_close(answer(new), expected, rtol=0, atol=0)


def test_half_precision_checkpoint_becomes_float32(weights: Weights, expected: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "half.pth"
    torch.save({name: tensor.half() if tensor.ndim == 4 else tensor for name, tensor in weights.items()}, path)
    logits = answer(path)
    assert logits.dtype == torch.float32
    assert (logits - expected).abs().max() <= 0.02 * expected.abs().max()


@pytest.mark.parametrize("depth", [50, 101, 152])
@pytest.mark.parametrize(("model_type", "num_classes"), [("lightweight", 40), ("full", 7)])
def test_family_depth_and_classes_are_inferred(model_type: str, depth: int, num_classes: int, tmp_path: Path) -> None:
    shapes = resnet_shapes(model_type, depth, num_classes)
    constants = {name: float(index) for index, name in enumerate(shapes, start=1)}
    counters = {name for name in shapes if name.endswith("num_batches_tracked")}
    path = tmp_path / "published.pth"
    # Each tensor is one number, spread: the file stays small whatever it claims to hold.
    spread = {name: torch.tensor(constants[name]).expand(shape) for name, shape in shapes.items()}
    torch.save({name: tensor.long() if name in counters else tensor for name, tensor in spread.items()}, path)
    network = import_checkpoint(path)
    found = network.architecture
    assert (found.model_type, found.encoder, found.num_classes) == (model_type, f"resnet{depth}", num_classes)
    state = {name: tensor for name, tensor in network.state_dict().items() if name not in ("mean", "std")}
    assert sorted(float(tensor.flatten()[0]) for tensor in state.values()) == sorted(constants.values())


def spoil(weights: Weights, name: str, change: Callable[[Tensor], Tensor]) -> Weights:
    return {**weights, name: change(weights[name])}


def without(weights: Weights, *names: str) -> Weights:
    return {name: tensor for name, tensor in weights.items() if name not in names}


def nan_at_one_place(tensor: Tensor) -> Tensor:
    spoilt = tensor.clone()
    spoilt.view(-1)[-1] = torch.nan
    return spoilt


SPOILT: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "missing": (lambda w: without(w, "conv6.weight", "crp1.0.4_outvar_dimred.weight"),
                r"2 missing: conv6\.weight, crp1\.0\.4_outvar_dimred\.weight"),
    "missing norm": (lambda w: without(w, "layer1.1.running_var"), r"1 missing: layer1\.1\.running_var"),
    "missing bias": (lambda w: without(w, "segm.bias"), r"1 missing: segm\.bias"),
    "unexpected": (lambda w: {**w, "conv9.weight": torch.zeros(1)}, r"1 unexpected: conv9\.weight"),
    "unprintable": (lambda w: {**w, "\x1b[2J": torch.zeros(1)}, r"1 unexpected: \\x1b\[2J"),
    "misshapen": (lambda w: spoil(w, "conv8.weight", lambda t: t[:, :-1]),
                  r"conv8\.weight \(256, 319, 1, 1\) instead of \(256, 320, 1, 1\)"),
    "misshapen classifier": (lambda w: spoil(w, "segm.bias", lambda t: t[:-1]),
                             r"segm\.bias \(20,\) instead of \(21,\)"),
    "not a number": (lambda w: spoil(w, "conv3.weight", nan_at_one_place), r"not finite numbers: conv3\.weight"),
    "infinite": (lambda w: spoil(w, "segm.bias", lambda t: t / 0), r"not finite numbers: segm\.bias"),
    "whole numbers": (lambda w: spoil(w, "segm.bias", Tensor.long), r"segm\.bias torch\.int64 instead of"),
    "complex": (lambda w: spoil(w, "segm.bias", lambda t: t + 1j), r"segm\.bias torch\.complex64 instead of"),
    "eight bits": (lambda w: spoil(w, "segm.bias", lambda t: t.to(torch.float8_e4m3fn)), r"segm\.bias torch\.float8"),
    "sparse": (lambda w: spoil(w, "segm.bias", Tensor.to_sparse), r"of another type: segm\.bias"),
    "half renamed": (lambda w: {f"module.{n}" if n < "d" else n: t for n, t in w.items()}, "missing: conv3"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize("case", SPOILT)
def test_tensors_that_do_not_fit_are_named(case: str, weights: Weights, tmp_path: Path) -> None:
    change, message = SPOILT[case]
    path = tmp_path / "spoilt.pth"
    torch.save(change(weights), path)
    with pytest.raises(ValueError, match=message) as refused:
        RefineNet(model=path)
    assert str(path) in str(refused.value)
    assert str(refused.value).isprintable()


def test_resnet_with_a_block_too_few_is_refused(tmp_path: Path) -> None:
    shapes = resnet_shapes("lightweight", 50, 21)
    path = tmp_path / "short.pth"
    torch.save({name: torch.zeros(s) for name, s in shapes.items() if not name.startswith("layer3.5.")}, path)
    with pytest.raises(ValueError, match=r"ResNet with \(3, 4, 5, 3\) blocks.* \(3, 4, 6, 3\) \(ResNet-50\)"):
        RefineNet(model=path)


NO_MODELS: dict[str, tuple[Any, str]] = {
    "other network": ({"features.0.weight": torch.zeros(2)}, r"not in a known RefineNet format.* features\.0\.weight"),
    "empty": ({}, "holds an empty map"),
    "empty wrapper": ({"model": {}}, "holds an empty map"),
    "list": ([torch.zeros(2)], "an object of type list"),
    "tensor": (torch.zeros(2), "an object of type Tensor"),
    "nothing": (None, "an object of type NoneType"),
    "nested lists": ({"model": [[[[1, 2], 3]]]}, "these are not tensors: model"),
    "numbers": ({"clf_conv.weight": 3, "\x1b]0;x": 4}, r"these are not tensors: clf_conv\.weight, \\x1b\]0;x"),
    "numbers as names": ({1: torch.zeros(2)}, "these are not tensors: 1"),
    "flat classifier": ({"segm.weight": torch.zeros(21)}, "no classifier"),
    "no classes": ({"segm.weight": torch.zeros(0, 256, 3, 3)}, "classifier for 0 classes"),
    "far too many classes": (
        {"segm.weight": torch.zeros(1).expand(10**9, 256, 3, 3)},
        "classifier for 1000000000 classes",
    ),
    "many classes": ({"segm.weight": torch.zeros(1).expand(65_535, 256, 3, 3)}, r"missing: conv3\.weight"),
}


@pytest.mark.parametrize("case", NO_MODELS)
def test_what_is_no_refinenet_is_refused(case: str, tmp_path: Path) -> None:
    content, message = NO_MODELS[case]
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(ValueError, match=message) as refused:
        RefineNet(model=path)
    assert str(path) in str(refused.value)


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no model file .*nowhere\.pth.* camvid"):
        RefineNet(model=tmp_path / "nowhere.pth")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        RefineNet(model=tmp_path)
    (tmp_path / "last.safetensors").touch()
    with pytest.raises(FileNotFoundError, match=r"not been validated yet.*last\.safetensors"):
        RefineNet(model=tmp_path / "best.safetensors")


def test_checkpoint_under_the_suffix_of_another_format_is_read(
    weights: Weights, expected: Tensor, tmp_path: Path
) -> None:
    path = tmp_path / "old.safetensors"
    torch.save(weights, path)
    torch.testing.assert_close(answer(path), expected, rtol=0, atol=0)
