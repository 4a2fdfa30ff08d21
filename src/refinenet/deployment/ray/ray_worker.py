"""What Ray's workers do: segment images that were read by `ray_reader`, and write the results."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import Any

import numpy as np

from refinenet._version import __version__
from refinenet.deployment.ray.storage import find_stamps, write_content
from refinenet.deployment.ray.tasks import as_table, given_up
from refinenet.inference.backends import open_backend
from refinenet.inference.backends.base import BackendName, Precision
from refinenet.inference.segmenter import Output, Segmentation, Segmenter
from refinenet.io.console import describe_error
from refinenet.io.files import refuse_same_file
from refinenet.models.model_file import ModelCard
from refinenet.models.network import Network


@dataclass(frozen=True, kw_only=True)
class Job:
    """What all workers do alike."""

    network: Network
    card: ModelCard
    backend: BackendName
    precision: Precision
    device: str
    """"cpu" or "cuda", which is the GPU that Ray gives to a worker."""
    threads: int
    """Of each worker."""
    kind: Output | None
    version: str = __version__


class Worker:
    """Holds the network, segments images and writes the results.

    Args:
        job: A reference, in Ray's words, to the `Job`.
        deaths: Ray's handle of a `Deaths`.

    Raises:
        ValueError: this machine has another version of the package, or cannot run the backend.
    """

    def __init__(self, job: Any, deaths: Any) -> None:
        import ray
        import torch

        self._job: Job = ray.get(job)
        if self._job.version != __version__:
            raise ValueError(
                f"{socket.gethostname()} has refinenet {__version__}, the run was begun with {self._job.version}. "
                "Install the same version on all machines."
            )
        torch.set_num_threads(self._job.threads)
        network, card = self._job.network.to(self._job.device).eval(), self._job.card
        backend = open_backend(network, self._job.backend, self._job.precision)
        self._segmenter = Segmenter(backend, card.label_set, temperature=card.temperature)
        self._deaths = deaths

    def __call__(self, table: Any) -> Any:
        """A row of `read_image`, to one with "index" and "answer", JSON: "error", or "areas", "read" and "made"."""
        row = table.drop_columns(["pixels"]).to_pylist()[0]
        error = row["error"] or given_up(self._deaths, "segment", row)
        answer = {"error": error} if error else self._answer(row, table.column("pixels")[0].as_buffer())
        return as_table({"index": row["index"], "answer": json.dumps(answer)})

    def _answer(self, row: dict[str, Any], content: Any) -> dict[str, Any]:
        try:
            # A copy: what lies in Ray's shared memory must not be written to.
            pixels = np.frombuffer(content, np.uint8).reshape(row["height"], row["width"], 3).copy()
            segmentation = self._segmenter.segment(pixels)
            self._save(segmentation, row["image"], row["output"])
        except (ValueError, OSError, RuntimeError) as failure:  # PyTorch tells of a full memory by RuntimeError
            return {"error": describe_error(failure)}
        areas = {name: area for name, area in segmentation.areas.items() if area > 0}
        return {"areas": areas, "read": row["read"], "made": find_stamps([row["output"]]).get(row["output"])}

    def _save(self, segmentation: Segmentation, image: str, output: str) -> None:
        if image == output:
            raise ValueError(f"The output {output} is the input itself: writing would destroy it. Name another folder.")
        refuse_same_file(image, output)
        write_content(output, segmentation.encode(output, self._job.kind))
