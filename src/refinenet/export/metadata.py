"""What an exported file says of itself: to this package, and in the names that other readers look for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from refinenet._version import __version__
from refinenet.models.encoders.feature_info import STRIDES
from refinenet.models.model_file import HEADER_KEY, ModelCard, make_header
from refinenet.models.network import Network
from refinenet.models.tensor_files import digest

SUGGESTED_SIDE = 512
"""Side of the images that readers take which want to know one; all sizes are allowed."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that is written beside a graph."""

    card: ModelCard
    """Of the network, with the hash of its weights."""
    header: str
    """JSON text of `model_file.make_header`, in ASCII, on one line."""

    @property
    def names(self) -> tuple[str, ...]:
        """Class names by id."""
        return self.card.label_set.names

    def text_entries(self) -> Mapping[str, str]:
        """Entries for formats that hold a text under each key.

        "refinenet" is the header. The others are those that Ultralytics' `AutoBackend` reads (docs.ultralytics.com,
        "Export"): Python literals as texts. "palette" holds a list of RGB colours, 0 to 255, as JSON.
        """
        return {
            HEADER_KEY: self.header,
            "task": "semantic",
            "names": repr(dict(enumerate(self.names))),
            "stride": str(STRIDES[-1]),
            "channels": "3",
            "batch": "1",
            "imgsz": repr([SUGGESTED_SIDE, SUGGESTED_SIDE]),
            "args": repr({"dynamic": True}),
            "description": f"RefineNet ({self.card.architecture.model_type}, {self.card.architecture.encoder})",
            "author": "refinenet",
            "version": __version__,
            "license": self.card.licence,
            "palette": json.dumps(self.card.label_set.to_dict()["colours"]),
        }

    def model_info(self) -> Mapping[str, Any]:
        """What OpenVINO's Model API reads from a file's "model_info".

        It hands over images in BGR from 0 to 255, and splits labels at spaces, for which names have underscores here.
        Its masks are those of the logits at a quarter of the size, enlarged; "labels" has the finer ones.
        Source: openvinotoolkit.github.io/model_api, "Segmentation".
        """
        return {
            "model_type": "Segmentation",
            "labels": " ".join(name.replace(" ", "_") for name in self.names),
            "reverse_input_channels": "True",
            "scale_values": "255.0",
            "return_soft_prediction": "False",
            "blur_strength": "-1",
        }


def describe(network: Network, card: ModelCard) -> Facts:
    """What is written beside the graph of a network."""
    known = replace(card, weights_sha256=card.weights_sha256 or digest(network.state_dict()))
    header = make_header(network, known, known.weights_sha256)
    return Facts(card=known, header=json.dumps(header, sort_keys=True, allow_nan=False))
