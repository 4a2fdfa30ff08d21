"""Plain vision transformers as encoders: the simple feature pyramid, against its description and timm's own tokens."""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor

from refinenet import RefineNet
from refinenet.models.encoders.encoder import Encoder, feature_info
from refinenet.models.encoders.pyramid import SimpleFeaturePyramid
from refinenet.models.encoders.timm_facts import find_facts

Map = npt.NDArray[np.float64]


def double(values: Map, kernel: Map, bias: Map) -> Map:
    """A transposed convolution of size and stride 2: each value `(C, h, w)` becomes a square of four."""
    _, height, width = values.shape
    made = np.empty((kernel.shape[1], 2 * height, 2 * width))
    for row in range(2):
        for column in range(2):
            made[:, row::2, column::2] = np.einsum("chw,cd->dhw", values, kernel[:, :, row, column])
    return np.asarray(made + bias[:, None, None])


def normalise(values: Map) -> Map:
    mean, variance = values.mean(0), values.var(0)
    return np.asarray((values - mean) / np.sqrt(variance + 1e-6))


def gelu(values: Map) -> Map:
    return np.asarray(values * (1 + np.vectorize(math.erf)(values / math.sqrt(2))) / 2)


def halve(values: Map) -> Map:
    channels, height, width = values.shape
    made = np.empty((channels, -(-height // 2), -(-width // 2)))
    for row, column in np.ndindex(*made.shape[1:]):
        made[:, row, column] = values[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].max((1, 2))
    return made


def test_levels_are_those_of_the_paper() -> None:
    torch.manual_seed(3)
    pyramid, features = SimpleFeaturePyramid(8, 16), torch.randn(1, 8, 3, 5)
    weights = {name: tensor.double().numpy() for name, tensor in pyramid.state_dict().items()}
    with torch.no_grad():
        found = [level[0].double().numpy() for level in pyramid(features)]
    middle = features[0].double().numpy()
    eighth = double(middle, weights["levels.1.weight"], weights["levels.1.bias"])
    quarter = gelu(normalise(double(middle, weights["levels.0.0.weight"], weights["levels.0.0.bias"])))
    quarter = double(quarter, weights["levels.0.3.weight"], weights["levels.0.3.bias"])
    for one, other in zip(found, (quarter, eighth, middle, halve(middle)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(1, 9), (8, 16), (11, 5)])
def test_patches_of_14_pixels_are_sampled_at_the_centres_of_16(height: int, width: int) -> None:
    values = np.random.default_rng(0).normal(size=(4, height, width))
    with torch.no_grad():
        found = SimpleFeaturePyramid(4, 14)(torch.from_numpy(values).float()[None])[2][0].numpy()

    def sample(sides: int, axis: int, source: Map, count: int) -> Map:
        # Pixel 16 k + 8 is the centre of a cell of 16; cells of 14 have theirs at 14 k + 7.
        places = np.clip(((16 * np.arange(count) + 8) - 7) / 14, 0, sides - 1)
        below = np.minimum(places.astype(int), max(sides - 2, 0))
        share = np.expand_dims(places - below, tuple(range(1, source.ndim - axis)))
        above = np.minimum(below + 1, sides - 1)
        return np.asarray(source.take(below, axis) * (1 - share) + source.take(above, axis) * share)

    rows = sample(height, 1, values, found.shape[1])
    np.testing.assert_allclose(found, sample(width, 2, rows, found.shape[2]), rtol=1e-4, atol=1e-5)
    assert found.shape[1] * 16 >= height * 14
    assert found.shape[2] * 16 >= width * 14


@pytest.mark.parametrize(("name", "size"), [("test_vit", 160), ("vit_tiny_patch16_224", 224)])
def test_tokens_are_those_of_timm(name: str, size: int, tmp_path: Path) -> None:
    torch.manual_seed(4)
    source = timm.create_model(name).eval()
    safetensors.torch.save_file(source.state_dict(), tmp_path / "weights.safetensors")
    path = tmp_path / "weights.safetensors"
    network = RefineNet(encoder=name, encoder_weights=path, model_type="lightweight", device="cpu").network
    images = torch.rand(1, 3, size, size)
    with torch.no_grad():
        expected = source.forward_features(images)[:, source.num_prefix_tokens :].squeeze(0)
        found = network.encoder(images)[2][0][0].flatten(1).T
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_sides_are_padded_to_whole_patches() -> None:
    encoder = Encoder("test_vit").eval()
    source = timm.create_model("test_vit", dynamic_img_size=True).eval()
    source.load_state_dict(encoder.features.get_submodule("transformer").state_dict(), strict=False)
    images = torch.rand(1, 3, 33, 50)
    padded = torch.zeros(1, 3, 48, 64)
    padded[..., :33, :50] = images
    with torch.no_grad():
        groups, tokens = encoder(images), source.forward_features(padded)[:, 1:]
    torch.testing.assert_close(groups[2][0].flatten(2).transpose(1, 2), tokens, rtol=1e-4, atol=1e-5)
    assert [tuple(group[0].shape[1:]) for group in groups] == [(16, 9, 13), (32, 5, 7), (64, 3, 4), (64, 2, 2)]


@pytest.mark.parametrize(
    ("name", "patch_size", "channels"),
    [("vit_small_patch14_dinov2", 14, 384), ("vit_small_patch16_dinov3", 16, 384), ("samvit_base_patch16", 16, 256)],
)
def test_transformers_of_many_kinds_are_encoders(name: str, patch_size: int, channels: int) -> None:
    assert [info.channels for info in feature_info(name)] == [channels // 4, channels // 2, channels, channels]
    assert find_facts(name).size_multiple == find_facts(name).patch_size == patch_size


def test_a_model_of_a_transformer_loads_bit_for_bit_and_takes_bands(tmp_path: Path) -> None:
    made = RefineNet(encoder="test_vit", num_classes=3, model_type="lightweight", device="cpu", seed=1)
    image = np.random.default_rng(0).integers(0, 256, (37, 50, 3), np.uint8)
    loaded = RefineNet(model=made.save(tmp_path / "model.safetensors"), device="cpu")
    images = torch.from_numpy(image).permute(2, 0, 1)[None] / 255

    def predict(r: RefineNet, seen: Tensor) -> Tensor:
        with torch.no_grad():
            maps: Tensor = r.network.eval()(seen)
        return maps

    assert torch.equal(predict(loaded, images), predict(made, images))
    banded = RefineNet(model=tmp_path / "model.safetensors", bands="red,green,blue,nir", device="cpu")
    grey = images[:, :1]
    with torch.no_grad():
        before = made.network.encoder(grey.expand(1, 3, 37, 50))
        after = banded.network.encoder(grey.expand(1, 4, 37, 50))
    torch.testing.assert_close(after[2][0], before[2][0], rtol=1e-4, atol=1e-5)
