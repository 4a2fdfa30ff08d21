"""The exported graph, whatever its format: its metadata, and the type of the functions that run it.

Shape letters: N batch, K classes, H and W height and width of the image.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet._version import __version__
from refinenet.models.encoders.feature_info import STRIDES
from refinenet.models.files.model_card import HEADER_KEY, ModelCard, make_header
from refinenet.models.files.tensor_files import digest
from refinenet.models.inference_graph import GraphResult, list_results
from refinenet.models.network import Network
from refinenet.outputs import has_only_classes

Images = npt.NDArray[np.float32]
GraphOutput = tuple[npt.NDArray[Any], ...]
"""The outputs of `models.inference_graph.list_results`: of classes alone labels `(N, H, W)` and logits
`(N, K, ceil(H/4), ceil(W/4))`."""
Runner = Callable[[Images], GraphOutput]
"""From float32 images `(N, 3, H, W)` in [0, 1], RGB or other bands, to the outputs of the graph."""

SUGGESTED_SIDE = 512
"""Image side for programs that ask for one; the graphs take all sizes."""


@dataclass(frozen=True, kw_only=True)
class GraphMetadata:
    """Metadata of a graph."""

    card: ModelCard
    """Model card, with the hash of the weights."""
    header: str
    """JSON text of `model_file.make_header`, in ASCII, on one line."""

    @property
    def names(self) -> tuple[str, ...]:
        """Class names by id."""
        return self.card.label_set.names

    @property
    def results(self) -> tuple[GraphResult, ...]:
        """Outputs of the graph."""
        return list_results(self.card.architecture.outputs, len(self.names))

    def text_entries(self) -> Mapping[str, str]:
        """Return metadata for formats that hold a text under each key.

        "refinenet" is the header. The others are those that Ultralytics' `AutoBackend` reads (docs.ultralytics.com,
        "Export"): Python literals as texts. "palette" holds a list of RGB colours, 0 to 255, as JSON; "outputs", of
        networks with others than classes, what each of them holds.
        """
        is_plain = has_only_classes(self.card.architecture.outputs)
        described = {} if is_plain else {"outputs": json.dumps(self._describe_outputs())}
        return {
            HEADER_KEY: self.header,
            "task": "semantic",
            "names": repr(dict(enumerate(self.names))),
            "stride": str(STRIDES[-1]),
            "channels": str(len(self.card.architecture.band_names)),
            "batch": "1",
            "imgsz": repr([SUGGESTED_SIDE, SUGGESTED_SIDE]),
            "args": repr({"dynamic": True}),
            "description": f"RefineNet ({self.card.architecture.model_type}, {self.card.architecture.encoder})",
            "author": "refinenet",
            "version": __version__,
            "license": self.card.licence,
            "palette": json.dumps(self.card.label_set.to_dict()["colours"]),
            **described,
        }

    def _describe_outputs(self) -> list[dict[str, Any]]:
        """Return name, meaning, and unit of the channels of each output of values."""
        return [
            {
                **result.spec.to_dict(),
                "name": result.name,
                "meaning": result.meaning,
                "units": [unit for _, unit in result.spec.quantities],
                "shape": list(result.shape),
            }
            for result in self.results
            if result.spec is not None
        ]

    def model_info(self) -> Mapping[str, Any]:
        """Return the "model_info" that OpenVINO's Model API reads.

        The API passes images in BGR from 0 to 255, and splits labels at spaces, so that names have underscores here.
        Images of other bands than RGB are to be scaled before they are passed.
        Its masks are upsampled from labels at a quarter of the size; the output "labels" is finer.
        Source: openvinotoolkit.github.io/model_api, "Segmentation".
        """
        return {
            "model_type": "Segmentation",
            "labels": " ".join(name.replace(" ", "_") for name in self.names),
            **({} if self.card.architecture.bands else {"reverse_input_channels": "True", "scale_values": "255.0"}),
            "return_soft_prediction": "False",
            "blur_strength": "-1",
        }


def describe(network: Network, card: ModelCard) -> GraphMetadata:
    """Collect the metadata of a network's graph."""
    known = replace(card, weights_sha256=card.weights_sha256 or digest(network.state_dict()))
    header = make_header(network, known, known.weights_sha256)
    return GraphMetadata(card=known, header=json.dumps(header, sort_keys=True, allow_nan=False))
