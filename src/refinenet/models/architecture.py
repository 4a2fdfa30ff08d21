"""Architecture of a network, as model files describe it. Nothing here needs PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, get_args

from refinenet.io.images.bands import COLOURS, Band, read_bands
from refinenet.labels import MAX_CLASSES
from refinenet.models.decoder_config import FULL, LIGHTWEIGHT, LIGHTWEIGHT_MOBILE, DecoderConfig
from refinenet.models.encoders.feature_info import MOBILENETV2, base_name
from refinenet.outputs import CLASSES, OutputSpec, class_output, read_outputs

ModelType = Literal["full", "lightweight"]
MODEL_TYPES: tuple[ModelType, ...] = get_args(ModelType)

DECODERS: Mapping[str, DecoderConfig] = MappingProxyType({"full": FULL, "lightweight": LIGHTWEIGHT})

_PLAIN_SCALES = (1.0,)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Architecture of a network: everything but its weights.

    Raises:
        ValueError: A value is not allowed, or two contradict each other.
    """

    model_type: ModelType
    """"full" (3x3 convolutions and residual conv units) or "lightweight" (1x1 convolutions, none)."""
    encoder: str
    """Name of a timm model."""
    num_classes: int
    """Number of classes, 1 to 65,535; 0 for a network without an output of classes."""
    outputs: tuple[OutputSpec, ...] = (CLASSES,)
    """What the network predicts, in the order of its maps."""
    decoder_options: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `DecoderConfig` that differ from those of the model type and encoder."""
    input_scales: tuple[float, ...] = _PLAIN_SCALES
    """Scales at which encoders see the image, each with weights of its own, the largest first: (1.2,) in the MATLAB
    networks, (1.2, 0.6) in the one of two scales (CVPR 2017, section 4.3)."""
    bands: tuple[Band, ...] = ()
    """Bands of the images, in the order of their channels; none for RGB of 8 bits."""

    def __post_init__(self) -> None:
        if self.model_type not in MODEL_TYPES:
            raise ValueError(f"model_type must be one of {', '.join(MODEL_TYPES)}, not {self.model_type!r}.")
        if not isinstance(self.encoder, str):
            raise ValueError(f"encoder must be a timm model name, not {self.encoder!r}.")
        object.__setattr__(self, "outputs", read_outputs(self.outputs))
        object.__setattr__(self, "bands", read_bands(self.bands) if self.bands else ())
        self._check_classes()
        self._check_scales()
        if not isinstance(self.decoder_options, Mapping):
            raise ValueError(f"decoder_options must be names and values, not {self.decoder_options!r}.")
        object.__setattr__(self, "decoder_options", self._changed_options())

    def _changed_options(self) -> dict[str, Any]:
        """Return the options that differ from the default, with lists as in JSON, so that equal networks compare so."""
        config, usual = self.decoder, self._usual_decoder
        values = {name: getattr(config, name) for name in sorted(self.decoder_options)}
        changed = {name: value for name, value in values.items() if value != getattr(usual, name)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}

    def _check_classes(self) -> None:
        least = 1 if class_output(self.outputs) is not None else 0
        most = MAX_CLASSES if least else 0
        if type(self.num_classes) is not int or not least <= self.num_classes <= most:
            allowed = f"a whole number from 1 to {MAX_CLASSES}" if least else "0 without an output of classes"
            raise ValueError(f"num_classes must be {allowed}, not {self.num_classes!r}.")

    def _check_scales(self) -> None:
        scales = tuple(self.input_scales) if isinstance(self.input_scales, list | tuple) else ()
        if not 1 <= len(scales) <= 2 or not all(type(scale) in (int, float) and 0.1 <= scale <= 4 for scale in scales):
            raise ValueError(f"input_scales must be one or two numbers from 0.1 to 4, not {self.input_scales!r}.")
        if len(scales) == 2 and scales[0] <= scales[1]:
            raise ValueError(f"input_scales must be in descending order, the largest first, not {self.input_scales!r}.")
        object.__setattr__(self, "input_scales", scales)

    @property
    def decoder(self) -> DecoderConfig:
        """Decoder configuration of this model type and encoder, with the options of this architecture."""
        config = self._usual_decoder
        return config.changed(self.decoder_options) if self.decoder_options else config

    @property
    def _usual_decoder(self) -> DecoderConfig:
        is_mobile = self.model_type == "lightweight" and base_name(self.encoder) == MOBILENETV2
        return LIGHTWEIGHT_MOBILE if is_mobile else DECODERS[self.model_type]

    @property
    def num_channels(self) -> int:
        """Number of channels of the maps of all outputs together."""
        return sum(spec.count_maps(self.num_classes) for spec in self.outputs)

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names of the channels of an image, in their order."""
        return tuple(band.name for band in self.bands) or COLOURS

    @property
    def is_plain(self) -> bool:
        """Whether model files of format version 2 can describe this architecture."""
        return self.to_dict().keys() == {"model_type", "encoder", "num_classes"}

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values, without defaults of fields that format version 2 does not know."""
        values: dict[str, Any] = {
            "model_type": self.model_type,
            "encoder": self.encoder,
            "num_classes": self.num_classes,
        }
        if self.outputs != (CLASSES,):
            values["outputs"] = [spec.to_dict() for spec in self.outputs]
        if self.decoder_options:
            values["decoder_options"] = dict(self.decoder_options)
        if self.input_scales != _PLAIN_SCALES:
            values["input_scales"] = list(self.input_scales)
        if self.bands:
            values["bands"] = [band.to_dict() for band in self.bands]
        return values
