"""The work of Ray's workers: segmenting the images of `reading.read_row`. Tables are PyArrow's, with one row.

Shape letters: H height, W width.
"""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refinenet._version import __version__
from refinenet.deployment.inputs import check_target
from refinenet.deployment.ray.reading import as_table, begin, give_up
from refinenet.deployment.ray.storage import find_stamps, is_here, read_content, write_content
from refinenet.inference.backends import open_backend
from refinenet.inference.backends.base import BackendName, InferencePrecision
from refinenet.inference.output_kinds import Kind
from refinenet.inference.prediction import Prediction
from refinenet.inference.rendering import open_renderer
from refinenet.inference.segmenter import Segmenter
from refinenet.inference.values.subject import AS_USUAL, RenderOptions
from refinenet.io.console import describe_error
from refinenet.io.files import refuse_same_file
from refinenet.io.images.sample_values import RGB, Mask
from refinenet.models.files.model_card import ModelCard
from refinenet.models.network import Network


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """Settings that all workers share."""

    network: Network
    card: ModelCard
    backend: BackendName
    precision: InferencePrecision
    device: str
    """"cpu", or "cuda" for the GPU that Ray assigns to a worker."""
    threads: int
    """Threads of each worker."""
    kind: Kind | None
    rendering: RenderOptions = AS_USUAL
    version: str = __version__


class Worker:
    """Process that holds the network, segments images and writes the results.

    Args:
        settings: Ray's reference to the `WorkerSettings`.
        deaths: Ray's handle of a `Deaths`.

    Raises:
        ValueError: this machine has another version of the package, or cannot run the backend.
    """

    def __init__(self, settings: Any, deaths: Any) -> None:
        import ray
        import torch

        self._settings: WorkerSettings = ray.get(settings)
        if self._settings.version != __version__:
            raise ValueError(
                f"{socket.gethostname()} has refinenet {__version__}, but the run was started with "
                f"{self._settings.version}. Install the same version on all machines."
            )
        torch.set_num_threads(self._settings.threads)
        network, card = self._settings.network.to(self._settings.device).eval(), self._settings.card
        backend = open_backend(
            network, self._settings.backend, self._settings.precision, record=self._settings.card.int8
        )
        outputs = card.architecture.outputs
        self._segmenter = Segmenter(
            backend,
            card.label_set,
            temperature=card.temperature,
            outputs=outputs,
            longest_side=card.longest_side,
        )
        self._deaths = deaths

    def __call__(self, table: Any) -> Any:
        """Turn a row of `read_row` into one with "index" and "outcome".

        The outcome is a JSON object with "error", or with "areas", "no_data", "notes", "read" and "made".
        """
        row = table.drop_columns(["pixels", "valid"]).to_pylist()[0]
        count = 0 if row["error"] else begin(self._deaths, "segment", row)
        error = row["error"] or give_up(row, count)
        outcome = {"error": error} if error else self._segment(row, table, is_repeated=count > 0)
        return as_table({"index": row["index"], "outcome": json.dumps(outcome)})

    def _segment(self, row: dict[str, Any], table: Any, *, is_repeated: bool) -> dict[str, Any]:
        try:
            pixels, valid = _unpack(table, row["height"], row["width"])
            prediction = self._segmenter.predict_outputs(pixels, valid=valid)
            self._save(prediction, row["image"], row["output"], is_repeated=is_repeated)
        except (ValueError, OSError, RuntimeError) as failure:  # PyTorch reports a full memory as RuntimeError
            return {"error": describe_error(failure)}
        return {
            "areas": {name: area for name, area in prediction.areas.items() if area > 0},
            **({"no_data": prediction.no_data} if prediction.no_data > 0 else {}),
            "notes": json.loads(row["notes"]),
            "read": row["read"],
            "made": find_stamps([row["output"]]).get(row["output"]),
        }

    def _save(self, prediction: Prediction, image: str, output: str, *, is_repeated: bool) -> None:
        if image == output:
            raise ValueError(
                f"The output {output} is the input itself: writing would destroy it. Choose another folder."
            )
        refuse_same_file(image, output)
        segmenter, settings = self._segmenter, self._settings
        kind = check_target(Path(output), settings.kind, segmenter.outputs)
        suffix = Path(output).suffix
        renderer = open_renderer(kind, suffix, segmenter.outputs, segmenter.label_set, settings.rendering)
        content = renderer.encode(prediction)
        # Ray may repeat work whose result is in the journal already, with a stamp that writing it again would outdate.
        # In a store, looking costs a request: only where a process is known to have died.
        if not ((is_repeated or is_here(output)) and _holds(output, content)):
            write_content(output, content)


def _holds(place: str, content: bytes) -> bool:
    try:
        return read_content(place) == content
    except OSError:
        return False


def _unpack(table: Any, height: int, width: int) -> tuple[RGB, Mask | None]:
    """Return the pixels `(H, W, 3)` uint8 of a row, and where they have data, `(H, W)` bool, or None for everywhere."""
    content, bits = (table.column(name)[0].as_buffer() for name in ("pixels", "valid"))
    # A copy: Ray's shared memory must not be written to.
    pixels = np.frombuffer(content, np.uint8).reshape(height, width, 3).copy()
    if bits is None:
        return pixels, None
    valid = np.unpackbits(np.frombuffer(bits, np.uint8), count=height * width)
    return pixels, valid.reshape(height, width).astype(np.bool_)
