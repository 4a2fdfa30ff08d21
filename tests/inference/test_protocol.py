"""Several scales, mirrored, in windows: what must stay the same does, and averages are those worked out otherwise."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_parts import small_network
from torch import Tensor
from torch.nn import functional

from refinenet.datasets.catalog import PUBLISHED
from refinenet.inference.backends.pytorch import PyTorchBackend
from refinenet.inference.protocol import PLAIN, Protocol, average_outputs, choose_protocol
from refinenet.inference.segmenter import Segmenter
from refinenet.inference.sliding_window import WindowGrid, blend_windows
from refinenet.labels import LabelSet

WEIGHTS = torch.randn(4, 3, 1, 1, generator=torch.Generator().manual_seed(1)) * 5


def pointwise(images: Tensor) -> Tensor:
    """A network that sees one pixel at a time: what it says of a constant image is constant."""
    return functional.conv2d(images, WEIGHTS)


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def looks_once(backend: PyTorchBackend, image: Tensor) -> Tensor:
    """What a network says of the whole image, of the image's size."""
    return functional.interpolate(backend(image), image.shape[-2:], mode="bilinear")


protocols = st.builds(
    Protocol,
    scales=st.lists(st.sampled_from([0.25, 0.4, 0.75, 1.0, 1.3, 2.0]), min_size=1, max_size=3, unique=True).map(tuple),
    flip=st.booleans(),
    window=st.none() | st.tuples(st.integers(32, 80), st.integers(32, 80)),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.9]),
    shorter_side=st.none() | st.just((40, 60)),
)
sizes = st.tuples(st.integers(1, 90), st.integers(1, 90))


@settings(max_examples=60, deadline=None)
@given(protocols, sizes, st.tuples(*[st.floats(0, 1, width=32)] * 3))
def test_the_answer_to_a_constant_image_is_constant(
    protocol: Protocol, size: tuple[int, int], colour: tuple[float, ...]
) -> None:
    image = torch.tensor(colour)[None, :, None, None].expand(1, 3, *size).contiguous()
    expected = pointwise(image)[0].softmax(0)
    torch.testing.assert_close(average_outputs(pointwise, image, protocol), expected, rtol=0, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(protocols, sizes)
def test_probabilities_add_up_to_one(protocol: Protocol, size: tuple[int, int]) -> None:
    found = average_outputs(pointwise, picture(*size), protocol)
    assert found.shape == (4, *size)
    torch.testing.assert_close(found.sum(0), torch.ones(size), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "protocol",
    [PLAIN, Protocol(window=(50, 70)), Protocol(window=(512, 512), overlap=0.9), Protocol(shorter_side=(45, 45))],
    ids=["plain", "as large", "larger", "its own size"],
)
def test_one_look_at_the_whole_is_plain_inference(protocol: Protocol) -> None:
    backend, image = PyTorchBackend(small_network()), picture(45, 70)
    expected = looks_once(backend, image)[0].softmax(0)
    torch.testing.assert_close(average_outputs(backend, image, protocol), expected, rtol=0, atol=1e-6)


def test_windows_of_a_pointwise_network_are_seamless() -> None:
    image = picture(75, 101)
    found = average_outputs(pointwise, image, Protocol(window=(32, 40), overlap=0.3))
    torch.testing.assert_close(found, pointwise(image)[0].softmax(0), rtol=0, atol=1e-6)


def test_flip_averages_the_answer_to_the_mirror_image() -> None:
    backend, image = PyTorchBackend(small_network()), picture(40, 56)
    mirrored = looks_once(backend, torch.from_numpy(image.numpy()[..., ::-1].copy())).numpy()[..., ::-1].copy()
    expected = (looks_once(backend, image)[0].softmax(0) + torch.from_numpy(mirrored)[0].softmax(0)) / 2
    found = average_outputs(backend, image, Protocol(flip=True))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_scales_average_outputs_and_not_logits() -> None:
    backend, image = PyTorchBackend(small_network()), picture(64, 96)
    larger = functional.interpolate(image, (128, 192), mode="bilinear", antialias=True)
    down = functional.interpolate(looks_once(backend, larger), (64, 96), mode="bilinear")
    expected = (looks_once(backend, image)[0].softmax(0) + down[0].softmax(0)) / 2
    found = average_outputs(backend, image, Protocol(scales=(1.0, 2.0)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_a_window_weighs_its_middle_more() -> None:
    """Two windows that say 0 and 1: where both see a pixel, the nearer one counts more."""
    answers = iter([torch.zeros(1, 2, 32, 40), torch.stack([torch.zeros(32, 40), torch.ones(32, 40)])[None]])
    found = average_outputs(lambda _: next(answers), picture(32, 60), Protocol(window=(32, 40), overlap=0.5))
    share = torch.logit(found[1])[16]  # of the second window: 1 where only it is
    assert share[:20].abs().max() < 1e-5
    assert (share[40:] - 1).abs().max() < 1e-5
    places = torch.arange(20, 40)
    first, second = (torch.exp(-0.5 * ((places - middle) / 5) ** 2) for middle in (19.5, 39.5))
    torch.testing.assert_close(share[20:40], second / (first + second), rtol=0, atol=1e-4)


def test_temperature_divides_logits() -> None:
    image = picture(5, 7)
    found = average_outputs(pointwise, image, PLAIN, temperature=2.5)
    torch.testing.assert_close(found, (pointwise(image)[0] / 2.5).softmax(0), rtol=0, atol=1e-6)


def test_a_segmenter_says_the_same_under_plain_and_averaged_protocols() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (45, 70, 3), np.uint8)
    backend, labels = PyTorchBackend(small_network()), LabelSet.numbered(3)
    plain, averaged = (
        Segmenter(backend, labels, protocol, temperature=1.7).segment(pixels)
        for protocol in (PLAIN, Protocol(window=(64, 80)))
    )
    assert (plain.labels == averaged.labels).all()
    np.testing.assert_allclose(plain.confidence, averaged.confidence, atol=1e-6)


def test_pixels_of_little_confidence_get_no_class() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (45, 70, 3), np.uint8)
    segmenter = Segmenter(PyTorchBackend(small_network()), LabelSet.numbered(3))
    whole = segmenter.segment(pixels)
    limit = float(np.median(whole.confidence))
    found = segmenter.segment(pixels, limit)
    unsure = whole.confidence < limit
    assert 0 < unsure.mean() < 1
    assert (found.labels[unsure] == 255).all()
    assert (found.labels[~unsure] == whole.labels[~unsure]).all()
    assert sum(found.areas.values()) == pytest.approx(1 - unsure.mean())
    assert (found.colour[unsure] == 0).all()
    with pytest.raises(ValueError, match=r"from 0 to 1, not 1\.5"):
        segmenter.segment(pixels, 1.5)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"scales": ()}, "at least one number"),
        ({"scales": (0.0,)}, "above 0 and up to 8"),
        ({"scales": (float("nan"),)}, "above 0 and up to 8"),
        ({"scales": (1.0, 1.0)}, "occurs twice"),
        ({"scales": [1.0]}, "a tuple"),
        ({"window": (16, 64)}, "at least 32"),
        ({"window": (64.0, 64)}, "at least 32"),
        ({"overlap": 1.0}, "from 0 to 0.9"),
        ({"flip": 1}, "true or false"),
        ({"shorter_side": (60, 40)}, "a minimum and a maximum"),
        ({"scales": (9.0,), "overlap": -1}, "up to 8, not .*; overlap"),
    ],
)
def test_what_no_protocol_is_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Protocol(**values)


def test_the_papers_protocols() -> None:
    full = choose_protocol("paper", "full")
    assert full.scales == (0.48, 0.72, 0.96, 1.2, 1.44)
    assert (full.shorter_side, full.flip, full.window) == ((450, 800), False, None)
    assert choose_protocol("paper", "full", PUBLISHED["cityscapes"].info.paper_shorter_side).shorter_side == (600, 1100)
    assert choose_protocol("paper", "lightweight") == PLAIN
    with pytest.raises(ValueError, match="'plain', 'paper' or a Protocol, not 'best'"):
        choose_protocol("best", "full")


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("side", [256, 257, 700, 1000, 2049])
def test_large_windows_lie_alike_to_the_strides_and_are_seamless(side: int, overlap: float) -> None:
    seen: list[tuple[int, int]] = []

    def look(rows: slice, columns: slice) -> Tensor:
        seen.append((columns.start, columns.stop))
        return image[:, :, rows, columns]

    image = picture(3, side)
    blocks = list(blend_windows(look, WindowGrid(3, 256, overlap), WindowGrid(side, 256, overlap)))
    torch.testing.assert_close(torch.cat([block.logits for block in blocks], -1), image[0], rtol=0, atol=1e-6)
    assert all(start % 32 == 0 and 256 - 32 < stop - start <= 256 for start, stop in seen)
    assert (seen[0][0], seen[-1][1]) == (0, side)
    common = [first[1] - second[0] for first, second in itertools.pairwise(seen)]
    assert all(pixels >= 256 * overlap for pixels in common)
