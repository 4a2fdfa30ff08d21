"""Encoder weights from files, against timm's own network with the same weights."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from refinenet import RefineNet
from refinenet.models.network import Network

Arrays = dict[str, npt.NDArray[np.float32]]

MOBILENET_FEATURES = (1, 2, 3, 4, 5, 6)
"""Stages of timm's MobileNetV2 whose last block the published decoder reads."""


def random_timm_network(name: str) -> nn.Module:
    """A classification network with batch norms that do something."""
    torch.manual_seed(9)
    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=7).eval()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            nn.init.normal_(norm.running_mean, std=0.2)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
            nn.init.uniform_(norm.weight, 0.8, 1.6)
            nn.init.normal_(norm.bias, std=0.3)
    return network


def convolutions_and_norms(network: nn.Module) -> tuple[list[nn.Conv2d], list[nn.BatchNorm2d]]:
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(convolutions) == len(norms) == 52
    return convolutions, norms


def fold(network: nn.Module) -> Arrays:
    """A MobileNetV2's convolutions with their batch norms folded in, numbered in the network's order."""
    arrays: Arrays = {}
    convolutions, norms = convolutions_and_norms(network)
    for index, (convolution, norm) in enumerate(zip(convolutions, norms, strict=True)):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        weight = convolution.weight.double() * scale[:, None, None, None]
        bias = norm.bias.double() - norm.running_mean.double() * scale
        arrays[f"{index:02d}.w"] = weight.detach().float().numpy()
        arrays[f"{index:02d}.b"] = bias.detach().float().numpy()
    classifier = next(module for module in network.modules() if isinstance(module, nn.Linear))
    arrays["52.w"] = classifier.weight.detach()[:, :, None, None].numpy()
    arrays["52.b"] = classifier.bias.detach().numpy()
    return arrays


def mobilenet_features(network: nn.Module, stem_input: Tensor) -> Iterator[Tensor]:
    """The maps that the decoder reads, from timm's own modules."""
    parts = dict(network.named_children())
    features = parts["bn1"](parts["conv_stem"](stem_input))
    for index, stage in enumerate(parts["blocks"].children()):
        features = stage(features)
        if index in MOBILENET_FEATURES:
            yield features


def features_of_folded(network: nn.Module, images: Tensor, mean: Tensor) -> list[Tensor]:
    """What timm's network for 2 x - 1 makes of images that lie, as ours see it, on the mean colour."""
    bordered = torch.empty(2, 3, 69, 92).copy_(mean)
    bordered[:, :, 1:-1, 1:-1] = images
    stem = network.get_submodule("conv_stem")
    assert isinstance(stem, nn.Conv2d)
    stem.padding = (0, 0)
    try:
        with torch.no_grad():
            return list(mobilenet_features(network, 2 * bordered - 1))
    finally:
        stem.padding = (1, 1)


def our_features(network: Network, images: Tensor) -> list[Tensor]:
    with torch.no_grad():
        groups = network.eval().encoder((images - network.mean) / network.std)
    return [feature for group in groups for feature in group]


def same(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert theirs.std() > 1e-3  # else equality would say little
        assert (ours - theirs).abs().max() <= 1e-3 * theirs.abs().max()


@pytest.fixture(scope="module")
def mobilenet() -> nn.Module:
    return random_timm_network("mobilenetv2_100")


@pytest.fixture(scope="module")
def folded(mobilenet: nn.Module) -> Arrays:
    return fold(mobilenet)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 67, 90, generator=torch.Generator().manual_seed(2))


def save_folded(folder: Path, arrays: Arrays) -> Path:
    path = folder / "folded.npz"
    np.savez(path, allow_pickle=False, **arrays)
    return path


@pytest.fixture(scope="module")
def from_folded(folded: Arrays, tmp_path_factory: pytest.TempPathFactory) -> Network:
    """Our network with the folded file's weights; tests only read it."""
    path = save_folded(tmp_path_factory.mktemp("folded"), folded)
    return RefineNet(encoder="mobilenetv2_100", encoder_weights=path, device="cpu").network


def test_folded_mobilenet_computes_what_timm_computes(
    mobilenet: nn.Module, from_folded: Network, images: Tensor
) -> None:
    same(our_features(from_folded, images), features_of_folded(mobilenet, images, from_folded.mean))


def test_folded_mobilenet_has_measured_statistics_to_train_with(folded: Arrays, from_folded: Network) -> None:
    modules = from_folded.encoder.named_modules()
    norms = [m for name, m in modules if isinstance(m, nn.BatchNorm2d) and "_expand" not in name]
    assert len(norms) == 51
    for index, norm in enumerate(norms):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        # What batch norm adds and multiplies in total is the file's bias, and nothing.
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        torch.testing.assert_close(scale, torch.ones_like(scale))
        if index > 0:  # the stem's bias took up the change of input range
            shift = norm.bias - norm.running_mean * scale
            torch.testing.assert_close(shift, torch.from_numpy(folded[f"{index:02d}.b"]), rtol=1e-4, atol=1e-4)
        assert norm.running_mean.abs().max() > 0


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "encoder",
    ["resnet50", "mobilenetv2_100", "efficientnet_b0", "convnext_atto", "swin_tiny_patch4_window7_224"],
)
def test_timm_file_computes_what_timm_computes(encoder: str, suffix: str, images: Tensor, tmp_path: Path) -> None:
    source, path = random_timm_network(encoder), tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": source.state_dict(), "epoch": 3}, path)
    else:
        safetensors.torch.save_file(source.state_dict(), path)
    network = RefineNet(encoder=encoder, encoder_weights=path, device="cpu").network
    normalised = (images - network.mean) / network.std
    with torch.no_grad():
        if encoder == "mobilenetv2_100":
            expected = list(mobilenet_features(source, normalised))
        else:
            multiple = 1 if encoder == "resnet50" else 32
            padded = functional.pad(normalised, (0, -90 % multiple, 0, -67 % multiple))
            options = {"strict_img_size": False} if encoder.startswith("swin") else {}
            tapped = timm.create_model(encoder, num_classes=7, **options).eval()
            tapped.load_state_dict(source.state_dict())
            maps = tapped.forward_intermediates(padded, intermediates_only=True)
            strides = (4, 8, 16, 32)
            expected = [map_[..., : -(-67 // s), : -(-90 // s)] for map_, s in zip(maps[-4:], strides, strict=True)]
    same(our_features(network, images), expected)


def test_torchvision_file_without_counters_loads(tmp_path: Path) -> None:
    source, path = random_timm_network("resnet50"), tmp_path / "resnet50-19c8e357.pth"
    state = source.state_dict()
    torch.save({name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}, path)
    features = RefineNet(encoder_weights=path, device="cpu").network.encoder.features.state_dict()
    assert len(features) == len(state) - 2  # all but the head
    assert all(torch.equal(tensor, state[name]) for name, tensor in features.items())


def test_folded_mobilenet_for_another_encoder_is_refused(folded: Arrays, tmp_path: Path) -> None:
    path = save_folded(tmp_path, folded)
    with pytest.raises(
        ValueError, match=r"folded\.npz holds a MobileNetV2.* encoder='mobilenetv2_100', not 'resnet50'"
    ):
        RefineNet(encoder_weights=path)


def test_weights_of_another_encoder_are_refused_by_name(mobilenet: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "mobilenet.pth"
    torch.save(mobilenet.state_dict(), path)
    with pytest.raises(ValueError, match=r"missing: .*conv1\.weight.* unexpected: blocks\.0\.0"):
        RefineNet(encoder_weights=path)


@pytest.mark.parametrize("change", ["missing", "misshapen", "unexpected", "not finite"])
def test_spoilt_tensors_are_named(change: str, folded: Arrays, tmp_path: Path) -> None:
    arrays, state = dict(folded), random_timm_network("test_resnet").state_dict()
    first = "conv1.0.weight"
    if change == "missing":
        del arrays["07.b"], state[first]
    elif change == "misshapen":
        arrays["07.b"], state[first] = arrays["07.b"][:-1], state[first][:-1]
    elif change == "unexpected":
        arrays["53.w"], state["layer9.weight"] = arrays["07.b"], state[first]
        first = "layer9.weight"
    else:
        arrays["07.b"], state[first] = arrays["07.b"] * np.float32("nan"), state[first] / 0
    named = "53.w" if change == "unexpected" else "07.b"
    with pytest.raises(ValueError, match=f"1 .*{named}"):
        RefineNet(encoder="mobilenetv2_100", encoder_weights=save_folded(tmp_path, arrays))
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=f"1 .*{first}"):
        RefineNet(encoder="test_resnet", encoder_weights=tmp_path / "weights.pth")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"text"])
def test_damaged_archive_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "folded.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"folded\.npz is damaged or not an \.npz"):
        RefineNet(encoder="mobilenetv2_100", encoder_weights=path)


def test_archive_of_objects_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "folded.npz"
    np.savez(path, np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="damaged or not"):
        RefineNet(encoder="mobilenetv2_100", encoder_weights=path)


def test_single_array_named_npz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "folded.npz"
    with path.open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(ValueError, match="damaged or not"):
        RefineNet(encoder="mobilenetv2_100", encoder_weights=path)


def test_missing_file_is_an_error_of_the_system(tmp_path: Path) -> None:
    for name in ("nowhere.npz", "nowhere.pth"):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            RefineNet(encoder="mobilenetv2_100", encoder_weights=tmp_path / name)


@pytest.mark.skipif("REFINENET_IMAGENET_WEIGHTS" not in os.environ, reason="REFINENET_IMAGENET_WEIGHTS names no file")
def test_the_real_imagenet_file_computes_what_timm_computes(images: Tensor) -> None:
    path = Path(os.environ["REFINENET_IMAGENET_WEIGHTS"])
    network = RefineNet(encoder="mobilenetv2_100", encoder_weights=path, device="cpu").network
    oracle = random_timm_network("mobilenetv2_100")
    convolutions, norms = convolutions_and_norms(oracle)
    with np.load(path) as archive, torch.no_grad():
        for index, (convolution, norm) in enumerate(zip(convolutions[:51], norms[:51], strict=True)):
            convolution.weight.copy_(torch.from_numpy(archive[f"{index:02d}.w"]))
            norm.reset_running_stats()
            norm.weight.fill_((1 + norm.eps) ** 0.5)
            norm.bias.copy_(torch.from_numpy(archive[f"{index:02d}.b"]))
    same(our_features(network, images), features_of_folded(oracle, images, network.mean))


def test_a_model_file_gives_its_encoder(tmp_path: Path) -> None:
    trained = RefineNet(encoder="test_resnet", num_classes=3, device="cpu", seed=1)
    path = trained.save(tmp_path / "trained.safetensors")
    generator = torch.get_rng_state()
    r = RefineNet(encoder="test_resnet", outputs="depth", encoder_weights=path, device="cpu", seed=2)
    assert torch.equal(torch.get_rng_state(), generator)
    for name, weight in trained.network.encoder.state_dict().items():
        assert torch.equal(r.network.encoder.state_dict()[name], weight)
    with pytest.raises(
        ValueError, match="is a model with the encoder test_resnet; its weights do not fit mobilenetv2_05"
    ):
        RefineNet(encoder="mobilenetv2_050", encoder_weights=path, device="cpu")
