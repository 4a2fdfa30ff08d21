"""Tensors that stay on their device, as those of a network on a GPU, against NumPy arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_parts import small_network
from torch import Tensor

from refinenet.datasets.street_scenes import draw_street
from refinenet.inference.backends.pytorch import PyTorchBackend
from refinenet.inference.protocol import PLAIN, Protocol
from refinenet.inference.segmenter import Segmenter
from refinenet.labels import LabelSet

PROTOCOLS = (PLAIN, Protocol(window=(40, 56)), Protocol(scales=(0.6, 1.3), flip=True))


class Device(PyTorchBackend):
    """A network on a device that is not called "cpu", so that its images and maps are tensors."""

    device = torch.device("cpu", 0)

    def __call__(self, images: Tensor) -> Tensor:
        assert isinstance(images, Tensor)
        maps: Tensor = super().__call__(images)
        assert isinstance(maps, Tensor)
        return maps


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tensors_give_what_arrays_give(protocol: Protocol) -> None:
    network, labels, picture = small_network(), LabelSet.numbered(3), draw_street(3, 75, 102)[0]
    arrays = Segmenter(PyTorchBackend(network), labels, protocol, temperature=1.7).segment(picture)
    tensors = Segmenter(Device(network), labels, protocol, temperature=1.7).segment(picture)
    assert isinstance(arrays.scores.values, np.ndarray)
    assert isinstance(tensors.scores.values, Tensor)
    assert (arrays.labels == tensors.labels).mean() >= 0.999
    np.testing.assert_allclose(arrays.confidence, tensors.confidence, rtol=0, atol=1e-5)
    np.testing.assert_allclose(arrays.probabilities, tensors.probabilities, rtol=0, atol=1e-3)
