"""The image classifier that pre-trains an encoder, and the encoder's file.

Shape letters: N batch, K classes, C channels, H and W height and width of the image, h and w of a feature map.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as pack
from torch import Tensor, nn

from refinenet._version import __version__
from refinenet.io.files import write_atomically
from refinenet.models.encoders.encoder import Encoder
from refinenet.models.files.tensor_files import check_tensors

HEADER = "refinenet_encoder"
"""Entry of an encoder file's metadata that describes it in JSON."""


class ImageClassifier(nn.Module):
    """Classifier of whole images: an encoder, the means of its feature maps, and a linear layer.

    All feature maps that a decoder reads contribute, so that all of the encoder learns.

    Args:
        encoder: A timm model name.
        classes: Number of classes.

    Raises:
        ValueError: The encoder cannot be used.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: str, classes: int) -> None:
        super().__init__()
        self.encoder = Encoder(encoder)
        channels = [count for group in self.encoder.channels for count in group]
        self.norms = nn.ModuleList(nn.LayerNorm(count) for count in channels)
        self.classifier = nn.Linear(sum(channels), classes)
        self.register_buffer("mean", torch.tensor(self.encoder.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(self.encoder.std)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `(N, K, 1, 1)`, like a map of one pixel, for float32 RGB images `(N, 3, H, W)` in [0, 1]."""
        groups = self.encoder((images - self.mean) / self.std)
        maps = [feature for group in groups for feature in group]
        # Feature maps of different depth differ in scale, so each is normalised separately.
        means = [norm(feature.mean((2, 3))) for norm, feature in zip(self.norms, maps, strict=True)]
        logits: Tensor = self.classifier(torch.cat(means, dim=1))
        return logits[:, :, None, None]


def write_encoder(path: Path, name: str, encoder: Encoder, metadata: Mapping[str, Any]) -> Path:
    """Write an encoder to a file for `RefineNet(encoder_weights=...)`, whole or not at all.

    Args:
        path: The `.safetensors` file.
        name: Name of the encoder in timm.
        encoder: Encoder to write.
        metadata: Further entries of the file's header, JSON-ready.

    Raises:
        ValueError: A weight is not a finite number.
        OSError: The file cannot be written.
    """
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in encoder.features.state_dict().items()}
    check_tensors(tensors, tensors, f"the encoder to be saved to {path}")
    preprocessing = {"channel_order": "RGB", "range": [0.0, 1.0], "mean": encoder.mean, "std": encoder.std}
    header = {"encoder": name, "preprocessing": preprocessing, "package_version": __version__, **metadata}
    return write_atomically(path, pack(tensors, {HEADER: json.dumps(header, sort_keys=True, allow_nan=False)}))
