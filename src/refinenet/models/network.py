"""RefineNet: from images to logits, with normalisation inside.

Shape letters: N batch, K classes, H and W height and width of the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from refinenet.labels import MAX_CLASSES
from refinenet.models.decoder import FULL, LIGHTWEIGHT, LIGHTWEIGHT_MOBILE, Decoder, DecoderConfig, upsample
from refinenet.models.encoders.encoder import MOBILENETV2, Encoder, base_name

ModelType = Literal["full", "lightweight"]
MODEL_TYPES: tuple[ModelType, ...] = get_args(ModelType)

DECODERS: Mapping[str, DecoderConfig] = MappingProxyType({"full": FULL, "lightweight": LIGHTWEIGHT})


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Architecture of a network: everything but its weights.

    Raises:
        ValueError: The model type, encoder or number of classes is not allowed.
    """

    model_type: ModelType
    """"full" (3x3 convolutions and residual conv units) or "lightweight" (1x1 convolutions, none)."""
    encoder: str
    """Name of a timm model."""
    num_classes: int
    """Number of classes, 1 to 65,535."""

    def __post_init__(self) -> None:
        if self.model_type not in MODEL_TYPES:
            raise ValueError(f"model_type must be one of {', '.join(MODEL_TYPES)}, not {self.model_type!r}.")
        if not isinstance(self.encoder, str):
            raise ValueError(f"encoder must be a timm model name, not {self.encoder!r}.")
        if type(self.num_classes) is not int or not 1 <= self.num_classes <= MAX_CLASSES:
            raise ValueError(f"num_classes must be a whole number from 1 to {MAX_CLASSES}, not {self.num_classes!r}.")

    @property
    def decoder(self) -> DecoderConfig:
        """Decoder configuration of this model type and encoder."""
        if self.model_type == "lightweight" and base_name(self.encoder) == MOBILENETV2:
            return LIGHTWEIGHT_MOBILE
        return DECODERS[self.model_type]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        return asdict(self)


class Network(nn.Module):
    """RefineNet for semantic segmentation.

    Args:
        architecture: Architecture to build.
        pretrained: Whether to load timm's ImageNet weights into the encoder (downloads them the first time).

    Raises:
        ValueError: The encoder cannot be used or its weights cannot be downloaded.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, architecture: Architecture, *, pretrained: bool = False) -> None:
        super().__init__()
        self.architecture = architecture
        self.encoder = Encoder(architecture.encoder, pretrained=pretrained)
        self.decoder = Decoder(self.encoder.channels, architecture.decoder)
        self.dropout = nn.Dropout(architecture.decoder.classifier_dropout)
        self.classifier = nn.Conv2d(self.decoder.channels, architecture.num_classes, kernel_size=3, padding=1)
        # Buffers: they move with the network, and are saved with its weights, but are not trained.
        self.register_buffer("mean", torch.tensor(self.encoder.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(self.encoder.std)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """Map float32 RGB images `(N, 3, H, W)` in [0, 1], any H and W from 1 up, to logits `(N, K, H, W)`."""
        return upsample(self.logits(images), images, align_corners=False)

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits before upsampling, `(N, K, ceil(H/4), ceil(W/4))`."""
        return self.classify(self.decoder(self.encode(images)))

    def encode(self, images: Tensor) -> list[list[Tensor]]:
        """Map images to the input of the decoder: groups of feature maps at strides 4, 8, 16, 32."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"The network takes RGB images (N, 3, H, W), not a tensor of shape {tuple(images.shape)}.")
        if not images.is_floating_point():
            raise ValueError(f"The network takes floating-point images in [0, 1], not {images.dtype}: divide by 255.")
        features: list[list[Tensor]] = self.encoder((images - self.mean) / self.std)
        return features

    def classify(self, refined: Tensor) -> Tensor:
        """Map the output of the decoder, `(N, C, h, w)`, to logits `(N, K, h, w)`."""
        logits: Tensor = self.classifier(self.dropout(refined))
        return logits

    def with_classes(self, rows: Sequence[int | None]) -> Network:
        """Return this network with another classifier, on the same device.

        Args:
            rows: For each class of the new network the class of this one with its weights, or None for new weights.
        """
        network = Network(replace(self.architecture, num_classes=len(rows)))
        network.to(self.mean.device)
        weights, known = network.state_dict(), self.state_dict()
        for name in weights:
            if not name.startswith("classifier."):
                weights[name] = known[name]
                continue
            for new, old in enumerate(rows):
                if old is not None:
                    weights[name][new] = known[name][old]
        network.load_state_dict(weights)
        return network
