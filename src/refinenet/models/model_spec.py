"""Specification of a user's model: its name or file, or options for a new network. Nothing here needs PyTorch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from refinenet.io.files import refuse_address
from refinenet.io.images.bands import Band, BandsSource, read_bands
from refinenet.models.architecture import MODEL_TYPES, Architecture, ModelType
from refinenet.models.decoder_config import DECODER_PRESETS, LIGHTWEIGHT
from refinenet.models.encoders.feature_info import PUBLISHED_RESNETS
from refinenet.models.encoders.installed_weights import find_installed
from refinenet.models.files.hub import is_hub_address
from refinenet.models.files.model_card import BUNDLED, ModelCard
from refinenet.outputs import DEFAULT_RANGE, OutputSpec, class_output, read_outputs
from refinenet.settings import DEFAULT_SEED

DOWNLOAD = "Download it first and pass the file; models of the Hugging Face Hub are hf://owner/name."

DEFAULT_CLASSES = 21
"""Default number of classes of an untrained network: those of PASCAL VOC, as in the papers."""


SizeName = Literal["tiny", "small", "medium", "large"]
IMAGENET_WEIGHTS, RANDOM_WEIGHTS = "imagenet", "random"
"""Names of initial weights of an encoder."""


_LITE0 = "tf_efficientnet_lite0"


@dataclass(frozen=True, kw_only=True)
class Size:
    """Parts of a light-weight network of a given size."""

    encoder: str
    """timm name of the encoder."""
    width: int
    """Channels of the decoder."""
    neck: int
    """Channels of the sum of all blocks and encoder feature maps, which the heads read."""
    input_scale: float = 1.0
    """Scale at which the network sees the image."""
    depthwise_last_pooling: bool = False
    """See `DecoderConfig`."""

    @property
    def decoder(self) -> Mapping[str, Any]:
        """Options of the decoder: as with MobileNetV2 in the paper, but narrower, with batch norm and a neck."""
        return {
            "widths": [self.width] * 4,
            "fusion_convolution": False,
            "activation": "relu6",
            "depthwise_last_pooling": self.depthwise_last_pooling,
            "batch_norm": True,
            "neck_channels": self.neck,
            "encoder_dropout": 0.0,
        }


SIZES: Mapping[SizeName, Size] = MappingProxyType(
    {
        "tiny": Size(encoder=_LITE0, width=32, neck=96, input_scale=0.5, depthwise_last_pooling=True),
        "small": Size(encoder=_LITE0, width=32, neck=96, depthwise_last_pooling=True),
        "medium": Size(encoder=_LITE0, width=64, neck=192, depthwise_last_pooling=True),
        "large": Size(encoder=_LITE0, width=128, neck=256),
    }
)
"""Sizes of light-weight networks: 0.6, 2.2, 2.8 and 4.8 billion multiply-adds for an image of 512x512 and 11 classes,
chosen by `benchmarks/frontier.py`."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Request for a network; None leaves a field to the model file, or to its default.

    Raises:
        ValueError: A value is not allowed, or two contradict each other.
    """

    model_type: ModelType | None = None
    num_layers: int | None = None
    encoder: str | None = None
    size: SizeName | None = None
    """Size of a new light-weight network, which determines encoder, decoder and the scale of its input, see `SIZES`."""
    num_classes: int | None = None
    model: str | os.PathLike[str] | None = None
    encoder_weights: str | os.PathLike[str] | None = None
    """Initial weights of the encoder of a new network: "imagenet", a model or another file, or "random". By default
    random; of a `size`, those of an installed package, if there is one."""
    outputs: str | Sequence[str | OutputSpec | Mapping[str, Any]] | None = None
    """What the network predicts, see `outputs.read_outputs`; by default classes, or what the model file says."""
    decoder: str | Mapping[str, Any] | None = None
    """Name of `DECODER_PRESETS`, or fields of `DecoderConfig`, for a new network."""
    input_scales: tuple[float, ...] | None = None
    """Scales at which a new network sees the image, see `Architecture`."""
    bands: BandsSource | None = None
    """Bands of the images, see `bands.read_bands`; by default RGB of 8 bits, or what the model file says."""
    seed: int | None = None
    """Seed of the random weights of a new network."""

    def __post_init__(self) -> None:
        for key, value in (("model", self.model), ("encoder_weights", self.encoder_weights)):
            if not is_hub_address(value):
                refuse_address(key, value, DOWNLOAD)
        if self.model is not None and not (isinstance(self.model, str | os.PathLike) and os.fspath(self.model)):
            raise ValueError(f"model must be a file, or the name of a bundled model, not {self.model!r}.")
        self._expand_size()
        if self.encoder_weights == RANDOM_WEIGHTS:
            object.__setattr__(self, "encoder_weights", None)
        if self.encoder == "":
            raise ValueError("encoder must be the name of a network, such as 'mobilenetv2_100', not ''.")
        if self.num_layers is not None and not (type(self.num_layers) is int and self.num_layers in PUBLISHED_RESNETS):
            raise ValueError(f"num_layers must be one of {PUBLISHED_RESNETS}, not {self.num_layers!r}.")
        if self.num_layers is not None and self.encoder is not None:
            raise ValueError(
                f"num_layers={self.num_layers} selects a ResNet, but encoder={self.encoder!r} selects another "
                "network: pass one."
            )
        if self.model is not None and self.encoder_weights is not None:
            raise ValueError("A saved model contains its encoder's weights: pass model or encoder_weights, not both.")
        if self.model is not None and self.seed is not None:
            raise ValueError("A saved model contains its weights: pass model or seed, not both.")
        self._check_new()

    def _expand_size(self) -> None:
        """Replace a size by what it stands for, which is what recipes and model files record."""
        if self.size is None:
            return
        if self.size not in SIZES:
            raise ValueError(f"size must be one of {', '.join(SIZES)}, not {self.size!r}.")
        others = ("model", "num_layers", "encoder", "decoder")
        given = [name for name in others if getattr(self, name) is not None]
        if given or self.model_type == "full":
            raise ValueError(
                f"size={self.size!r} determines encoder and decoder of a new light-weight network: leave out "
                f"{given[0] if given else 'model_type'}, or size."
            )
        size = SIZES[self.size]
        weights = self.encoder_weights
        if weights is None and find_installed(size.encoder) is not None:
            weights = IMAGENET_WEIGHTS
        expanded: dict[str, Any] = {
            "encoder": size.encoder,
            "decoder": size.decoder,
            "encoder_weights": weights,
            "size": None,
        }
        if self.input_scales is None and size.input_scale != 1:
            expanded["input_scales"] = (size.input_scale,)
        for name, value in expanded.items():
            object.__setattr__(self, name, value)

    def _check_new(self) -> None:
        """Check what only a new network takes."""
        if self.decoder is not None:
            _read_decoder_options(self.decoder)
        if self.outputs is not None:
            read_outputs(self.outputs)
        if self.bands is not None:
            object.__setattr__(self, "bands", read_bands(self.bands))
        if self.seed is not None and (type(self.seed) is not int or not 0 <= self.seed < 2**63):
            raise ValueError(f"seed must be a whole number from 0 to 2^63 - 1, not {self.seed!r}.")

    @property
    def encoder_name(self) -> str | None:
        """Requested encoder, by its timm name."""
        return self.encoder if self.num_layers is None else f"resnet{self.num_layers}"

    @property
    def origin(self) -> Mapping[str, Any]:
        """Arguments of `RefineNet` that create the same network again, except for its number of classes."""
        arguments = {
            "model": self.model,
            "model_type": self.model_type,
            "num_layers": self.num_layers,
            "encoder": self.encoder,
            "encoder_weights": self.encoder_weights,
            "outputs": None if self.outputs is None else ",".join(s.to_text() for s in read_outputs(self.outputs)),
            "decoder": dict(self.decoder) if isinstance(self.decoder, Mapping) else self.decoder,
            "input_scales": None if self.input_scales is None else list(self.input_scales),
            "bands": None if self.bands is None else ",".join(band.to_text() for band in read_bands(self.bands)),
            "seed": self.random_seed if self.model is None else None,
        }
        return {key: value for key, value in arguments.items() if value is not None}

    @property
    def random_seed(self) -> int:
        """Seed of random weights."""
        return DEFAULT_SEED if self.seed is None else self.seed

    def name_outputs(self, card: ModelCard) -> tuple[OutputSpec, ...]:
        """Return the requested outputs, with the ranges of the model file where none is requested."""
        assert self.outputs is not None
        known = {spec.name: spec for spec in card.architecture.outputs}
        requested = read_outputs(self.outputs)
        return tuple(
            replace(spec, range=known[spec.name].range)
            if spec.name in known and spec.kind == known[spec.name].kind and spec.range == DEFAULT_RANGE
            else spec
            for spec in requested
        )

    def list_bands(self) -> tuple[Band, ...]:
        """Return the requested bands; none for RGB of 8 bits."""
        return () if self.bands is None else read_bands(self.bands)

    def count_classes(self, outputs: Sequence[OutputSpec]) -> int:
        """Return the number of classes of new outputs."""
        usual_classes = 0 if class_output(outputs) is None else DEFAULT_CLASSES
        return usual_classes if self.num_classes is None else self.num_classes

    def architecture(self) -> Architecture:
        """Return the architecture of a new network."""
        outputs = read_outputs("classes" if self.outputs is None else self.outputs)
        return Architecture(
            model_type=self.model_type or ("full" if self.encoder is None else "lightweight"),
            encoder=self.encoder_name or "resnet50",
            num_classes=self.count_classes(outputs),
            outputs=outputs,
            decoder_options={} if self.decoder is None else _read_decoder_options(self.decoder),
            input_scales=(1.0,) if self.input_scales is None else self.input_scales,
            bands=self.list_bands(),
        )

    def check(self, card: ModelCard) -> None:
        """Check that a model file is what was requested.

        Raises:
            ValueError: It is not.
        """
        assert self.model is not None
        requested: dict[str, Any] = {
            "model_type": self.model_type,
            "encoder": self.encoder_name,
            "num_classes": self.num_classes,
            "outputs": None if self.outputs is None else self.name_outputs(card),
            "decoder_options": None if self.decoder is None else _read_decoder_options(self.decoder),
            "input_scales": self.input_scales,
            "bands": None if self.bands is None else self.list_bands(),
        }
        for key, value in requested.items():
            actual = getattr(card.architecture, key)
            if value is not None and value != actual:
                raise ValueError(
                    f"{self.model} has {key}={actual!r}, not {value!r}. Leave {key} out: the file determines it."
                )


def split_first_argument(
    first: str | os.PathLike[str] | None, model: str | os.PathLike[str] | None
) -> tuple[ModelType | None, str | os.PathLike[str] | None]:
    """Return model type and model from `model` and the first argument of `RefineNet`, which may name a model, too.

    Raises:
        ValueError: The first argument is neither a type nor a model.
    """
    model_type = next((known for known in MODEL_TYPES if first == known), None)
    if first is None or model_type is not None:
        return model_type, model
    if model is None and isinstance(first, str | os.PathLike) and _is_model(os.fspath(first)):
        return None, first
    raise ValueError(
        f"model_type must be one of {', '.join(MODEL_TYPES)}, not {first!r}. A model to load is a file, or one of "
        f"{', '.join(BUNDLED)}: RefineNet(model=...)."
    )


def _is_model(name: str) -> bool:
    """Whether a text names a model: a bundled one, a file, or an address of the hub."""
    return name in BUNDLED or "://" in name or bool(Path(name).suffix) or Path(name).is_file()


EXPORTED_SUFFIXES = (".onnx", ".xml")
"""Suffixes of exported graphs: ONNX, OpenVINO. Other exports are not opened: `file_checks.UNOPENED`."""


def exported_model_message(model: str | os.PathLike[str]) -> str:
    """Return the message that an exported graph cannot be used as a network."""
    return (
        f"{model} is an exported graph: it supports segmentation and evaluation, but cannot be trained, calibrated, "
        "saved or converted. Use the model file (.safetensors) that it was exported from, and export again."
    )


def _read_decoder_options(decoder: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a decoder by name, as `Architecture` keeps them.

    Raises:
        ValueError: The name or a field is unknown.
    """
    if isinstance(decoder, str):
        if decoder not in DECODER_PRESETS:
            raise ValueError(f"decoder must be one of {', '.join(DECODER_PRESETS)}, or options, not {decoder!r}.")
        decoder = DECODER_PRESETS[decoder]
    if not isinstance(decoder, Mapping):
        raise ValueError(f"decoder must be one of {', '.join(DECODER_PRESETS)}, or options by name, not {decoder!r}.")
    LIGHTWEIGHT.changed(decoder)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in decoder.items()}
