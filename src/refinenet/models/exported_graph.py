"""What is exported: the network with argmax behind it, as one graph that takes images of any size.

Shape letters: N batch, K classes, H and W height and width of the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from refinenet.io.threads import TRACING
from refinenet.models.decoder import upsample
from refinenet.models.inference_graph import fuse
from refinenet.models.network import Network

INPUT, LABELS, LOGITS = "images", "labels", "logits"
"""What the graph's input and outputs are called in every format."""

CERTIFICATE_ENDING = ".certificate.json"
EXPORTED_SUFFIXES = (".onnx", ".xml")
"""Of the files of exported graphs: ONNX, OpenVINO."""
"""What follows an exported file's name in that of its certificate."""
EXAMPLE_SHAPE = (2, 3, 65, 97)
"""Of the images that a network is traced with: none of its sides has a special size."""
_FREE = torch.export.Dim.DYNAMIC
FREE_SIZES: Mapping[str, Any] = MappingProxyType({INPUT: {0: _FREE, 2: _FREE, 3: _FREE}})


class Logits(nn.Module):
    """A network whose answer is its logits before upsampling."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Float32 RGB images `(N, 3, H, W)` in [0, 1] to logits `(N, K, ceil(H/4), ceil(W/4))`."""
        return self.network.logits(images)


class DeployedNetwork(nn.Module):
    """A network as other programs run it: images in, ids and logits out, normalisation inside.

    Args:
        network: Is shared, not copied.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.label_type = label_type(network.architecture.num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Segment images.

        Args:
            images: `(N, 3, H, W)` float32 RGB in [0, 1], any H and W from 1 up.

        Returns:
            Label ids `(N, H, W)`, uint8 (int32 past 255 classes): where the logits, resized bilinearly to the image's
            size, are largest. And these logits before resizing, `(N, K, ceil(H/4), ceil(W/4))` float32.
        """
        logits = self.network.logits(images)
        labels = upsample(logits, images, align_corners=False).argmax(1)
        return labels.to(self.label_type), logits


def label_type(num_classes: int) -> torch.dtype:
    """The type of the label ids of a graph: uint8, or int32 past 255 classes."""
    return torch.uint8 if num_classes <= 255 else torch.int32


def network_to_deploy(network: Network) -> DeployedNetwork:
    """A copy on the CPU in evaluation mode, of the same mathematics: what is traced for every format."""
    return DeployedNetwork(fuse(network).cpu().to(memory_format=torch.contiguous_format)).eval()


def trace(deployed: DeployedNetwork) -> torch.export.ExportedProgram:
    """A network as PyTorch's exported program, in which N, H and W are free from 1 up.

    The trace meets questions on whether feature maps have one row, one column or more, whose answers decide on how
    tensors lie in memory and not on any value. It writes the answers for its example down as conditions; they are
    taken off here, because small images are images. Whoever exports compares on small images what this rests on.

    Args:
        deployed: On the CPU, in evaluation mode.
    """
    with TRACING:
        program = torch.export.export(deployed, (torch.zeros(EXAMPLE_SHAPE),), dynamic_shapes=dict(FREE_SIZES))
    for symbol, allowed in program.range_constraints.items():
        program.range_constraints[symbol] = type(allowed)(1, allowed.upper)
    program._guards_code.clear()
    return program
