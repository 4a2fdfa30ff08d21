"""Importers of published weights: PyTorch checkpoints, MATLAB files of MatConvNet, and weights of encoders."""

from __future__ import annotations

from pathlib import Path

from refinenet.models.importers.checkpoints import import_checkpoint
from refinenet.models.importers.matconvnet import import_matconvnet
from refinenet.models.network import Network

MATLAB_SUFFIX = ".mat"


def import_network(path: Path) -> Network:
    """Build the network of a published file and load its weights.

    Returns:
        The network, float32 on the CPU, in evaluation mode.

    Raises:
        ValueError: The file cannot be read or is not in a known format, or its tensors do not fit; they are named.
        OSError: The file cannot be read.
    """
    return import_matconvnet(path) if path.suffix.lower() == MATLAB_SUFFIX else import_checkpoint(path)
