"""RefineNet: from images to one map for each output, with normalisation inside.

Shape letters: N batch, B bands of an image (3 for RGB), C channels of all outputs together (of a network with classes
alone, their number K), H and W height and width of the image, h and w those of a feature map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional

from refinenet.io.images.bands import Band, name_bands
from refinenet.models.architecture import Architecture
from refinenet.models.decoder import Decoder, upsample
from refinenet.models.encoders.band_weights import inflate_kernel
from refinenet.models.encoders.encoder import Encoder, find_image_kernels
from refinenet.models.heads import build_head, build_stem
from refinenet.outputs import CLASS_KIND, OutputSpec


class Network(nn.Module):
    """RefineNet for dense prediction: an encoder, a decoder and a head for each output.

    Args:
        architecture: Architecture to build.
        pretrained: Whether to load timm's ImageNet weights into the encoder (downloads them the first time); for RGB.

    Raises:
        ValueError: The encoder cannot be used or its weights cannot be downloaded.
    """

    mean: Tensor
    """`(B, 1, 1)` float32: mean of each band in [0, 1], which is subtracted from images."""
    std: Tensor
    """`(B, 1, 1)` float32: standard deviation of each band, by which they are divided then."""

    def __init__(self, architecture: Architecture, *, pretrained: bool = False) -> None:
        super().__init__()
        self.architecture = architecture
        config = architecture.decoder
        self.encoder = Encoder(architecture.encoder, pretrained=pretrained, bands=architecture.bands)
        self.reduced_encoders = nn.ModuleList(
            Encoder(architecture.encoder, pretrained=pretrained, bands=architecture.bands)
            for _ in architecture.input_scales[1:]
        )
        channels = self.encoder.channels
        self.decoder = Decoder(channels, config, channels if self.reduced_encoders else ((),) * len(channels))
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.heads = nn.ModuleDict()
        for spec in architecture.outputs:
            if spec.kind == CLASS_KIND:
                # Beside the other heads, under the name that it has in all model files.
                self.classifier_stem = build_stem(self.decoder.channels, config)
                self.classifier = nn.Conv2d(self.decoder.channels, architecture.num_classes, kernel_size=3, padding=1)
            else:
                self.heads[spec.name] = build_head(spec, self.decoder.channels, config)
        if config.initial_deviation is not None:
            self._initialise(config.initial_deviation)
        # Buffers: they move with the network, and are saved with its weights, but are not trained.
        self.register_buffer("mean", torch.tensor(self.encoder.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(self.encoder.std)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """Map images to the maps of all outputs, at the images' size.

        Args:
            images: `(N, B, H, W)` float32 in [0, 1], by default RGB, any H and W from 1 up.

        Returns:
            `(N, C, H, W)` float32; for a network with only classes, their logits.
        """
        return upsample(self.maps(images), images, align_corners=False)

    def maps(self, images: Tensor) -> Tensor:
        """Return the maps of all outputs before upsampling, `(N, C, h, w)`, h and w usually a quarter, rounded up."""
        return self.predict(self.decoder(self.encode(images)))

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits of the classes before upsampling, `(N, K, h, w)`."""
        return self._classify(self.dropout(self.decoder(self.encode(images))))

    def encode(self, images: Tensor) -> list[list[Tensor]]:
        """Map images to the input of the decoder: groups of feature maps at strides 4, 8, 16, 32."""
        bands = self.architecture.bands
        if images.ndim != 4 or images.shape[1] != (len(bands) or 3):
            taken = f"images (N, {len(bands)}, H, W) of {name_bands(bands)}" if bands else "RGB images (N, 3, H, W)"
            raise ValueError(f"The network takes {taken}, not a tensor of shape {tuple(images.shape)}.")
        if not images.is_floating_point():
            raise ValueError(f"The network takes floating-point images in [0, 1], not {images.dtype}: divide by 255.")
        normalised = (images - self.mean) / self.std
        scales = self.architecture.input_scales
        groups: list[list[Tensor]] = self.encoder(_zoom(normalised, scales[0]))
        for encoder, scale in zip(self.reduced_encoders, scales[1:], strict=True):
            reduced: list[list[Tensor]] = encoder(_zoom(normalised, scale))
            groups = [group + further for group, further in zip(groups, reduced, strict=True)]
        return groups

    def predict(self, refined: Tensor) -> Tensor:
        """Map the output of the decoder, `(N, c, h, w)`, to the maps of all outputs, `(N, C, h, w)`."""
        features = self.dropout(refined)
        maps = [
            self._classify(features) if spec.kind == CLASS_KIND else self.heads[spec.name](features)
            for spec in self.architecture.outputs
        ]
        return maps[0] if len(maps) == 1 else torch.cat(maps, dim=1)

    def _classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.classifier_stem(features))
        return logits

    def _initialise(self, deviation: float) -> None:
        """Draw the weights of decoder and heads from a normal distribution, with biases of 0."""
        for name, module in self.named_modules():
            is_encoder = name.startswith(("encoder.", "reduced_encoders."))
            if isinstance(module, nn.Conv2d) and not is_encoder and not module.weight.is_meta:
                nn.init.normal_(module.weight, std=deviation)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

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

    def with_outputs(self, outputs: Sequence[OutputSpec], num_classes: int) -> Network:
        """Return this network with other outputs, on the same device; those that it has already keep their heads.

        Args:
            outputs: Outputs of the new network.
            num_classes: Number of its classes; that of this network if both predict classes.
        """
        network = Network(replace(self.architecture, outputs=tuple(outputs), num_classes=num_classes))
        network.to(self.mean.device)
        # The range only clips predictions.
        known = {replace(spec, range=None) for spec in self.architecture.outputs}
        new = {spec.name for spec in outputs if replace(spec, range=None) not in known}
        new_prefixes = tuple(f"heads.{name}." for name in new)
        own, weights = self.state_dict(), network.state_dict()
        kept = {name: own[name] for name in weights if name in own and not name.startswith(new_prefixes)}
        network.load_state_dict(weights | kept)
        return network

    def with_bands(self, bands: Sequence[Band]) -> Network:
        """Return this network for images of other bands, on the same device.

        All kernels that are applied to the image are converted by `inflate_kernel`. Mean and deviation of the bands
        that the network has already stay.

        Args:
            bands: Bands of the new network; none for RGB.

        Returns:
            A new network, or this one if it has these bands already.
        """
        if tuple(bands) == self.architecture.bands:
            return self
        network = Network(replace(self.architecture, bands=tuple(bands)))
        network.to(self.mean.device)
        source, wanted = self.architecture.band_names, network.architecture.band_names
        weights = dict(self.state_dict())
        kernels = find_image_kernels(self.architecture.encoder)
        for name, tensor in self.state_dict().items():
            if name.startswith(("encoder.", "reduced_encoders.")) and name.partition(".features.")[2] in kernels:
                weights[name] = inflate_kernel(tensor, source, wanted)
        for name in ("mean", "std"):
            own, new = weights[name], network.get_buffer(name)
            values = [own[source.index(each)] if each in source else new[k] for k, each in enumerate(wanted)]
            weights[name] = torch.stack(values)
        network.load_state_dict(weights)
        return network.train(self.training)


def _zoom(images: Tensor, scale: float) -> Tensor:
    """Resize images `(N, 3, H, W)` bicubically (a = -0.5), to sides that are rounded up."""
    if scale == 1:
        return images
    # In whole numbers, so that torch.export can reason about symbolic sides.
    ratio = Fraction(scale).limit_denominator(1000)
    size = [(side * ratio.numerator + ratio.denominator - 1) // ratio.denominator for side in images.shape[-2:]]
    return functional.interpolate(images, size=size, mode="bicubic", antialias=True)
