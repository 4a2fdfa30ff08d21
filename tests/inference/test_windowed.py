"""Large images in windows, against the same network on the whole image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from refinenet import RefineNet
from refinenet.datasets import draw_street
from refinenet.inference.backends.windowed import WindowedBackend

Floats = npt.NDArray[np.float32]


class Means:
    """Means of blocks of 4x4 pixels, and their squares: a network in which no place depends on another."""

    device = "cpu"

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def __call__(self, images: Floats) -> Floats:
        height, width = images.shape[-2:]
        self.seen.append((height, width))
        rows, columns = np.arange(0, height, 4), np.arange(0, width, 4)
        sums = np.add.reduceat(np.add.reduceat(images, rows, axis=2), columns, axis=3)
        sizes = np.outer(np.diff([*rows, height]), np.diff([*columns, width]))
        means = sums / sizes.astype(np.float32)
        return np.concatenate([means, means**2], axis=1).astype(np.float32)


def random_images(count: int, height: int, width: int) -> Floats:
    return np.random.default_rng(3).random((count, 3, height, width), np.float32)


@pytest.mark.parametrize(("height", "width"), [(64, 65), (65, 64), (201, 303), (1, 5000), (4999, 1), (130, 64)])
def test_a_local_network_has_the_same_maps_in_windows(height: int, width: int) -> None:
    images, whole, parts = random_images(2, height, width), Means(), Means()
    found = WindowedBackend(parts, 64 * 64)(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, whole(images), rtol=1e-5, atol=1e-6)
    assert len(parts.seen) > 2
    assert max(down * across for down, across in parts.seen) <= 64 * 64
    assert len(parts.seen) <= 2 * (4 + 2 * height * width // 64**2)


def test_images_up_to_the_limit_are_seen_whole() -> None:
    images, parts = random_images(1, 64, 64), Means()
    assert np.array_equal(WindowedBackend(parts, 64 * 64)(images), Means()(images))
    assert parts.seen == [(64, 64)]


def test_tensors_give_tensors() -> None:
    images = random_images(1, 90, 150)

    def on_tensors(given: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(Means()(given.numpy()))

    on_tensors.device = torch.device("cpu")  # type: ignore[attr-defined] # a backend is any callable with a device
    found = WindowedBackend(on_tensors, 64 * 64)(torch.from_numpy(images))  # type: ignore[arg-type] # as above
    np.testing.assert_allclose(found.numpy(), Means()(images), rtol=1e-5, atol=1e-6)


def test_the_bundled_model_labels_a_street_in_windows_as_it_does_whole() -> None:
    street = draw_street(5, 480, 640)[0]
    model = RefineNet(model="camvid", device="cpu")
    whole = model.segment(street).labels
    parts = model.run_by(lambda backend: WindowedBackend(backend, 256 * 256)).segment(street).labels
    assert parts.shape == whole.shape
    assert 0.9 < np.mean(parts == whole) < 1
