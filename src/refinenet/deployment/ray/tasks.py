"""What Ray's tasks do: read images. Tables are PyArrow's, with one row. No PyTorch, so that they start soon."""

from __future__ import annotations

import json
import os
import socket
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from refinenet._version import __version__
from refinenet.deployment.ray.storage import find_stamps, is_here, read_content, write_content
from refinenet.inference.backends import open_backend
from refinenet.inference.backends.base import BackendName, InferencePrecision
from refinenet.inference.segmentation import Output, Segmentation
from refinenet.inference.segmenter import Segmenter
from refinenet.io.console import describe_error
from refinenet.io.files import refuse_same_file
from refinenet.io.images import decode
from refinenet.models.model_file import ModelCard
from refinenet.models.network import Network

DEATHS = 3
"""How many processes may die over an image before it is given up."""


class Deaths:
    """Counts, in a process of its own, over which images others die: a killed process cannot count for itself.

    Ray begins the work of a killed process again, as often as it takes, which for an image that kills every process
    would be for ever.
    """

    def __init__(self) -> None:
        self._current: dict[str, str] = {}
        self._deaths: Counter[str] = Counter()

    def begin(self, process: str, work: str) -> int:
        """A process begins with some work. How many died over it before?"""
        for dead in [other for other, theirs in self._current.items() if theirs == work and other != process]:
            del self._current[dead]
            self._deaths[work] += 1
        self._current[process] = work
        return self._deaths[work]


def read_image(table: Any, deaths: Any) -> Any:
    """Read an image, apart from the workers, so that these need not wait for disks, networks and decoders.

    Args:
        table: A row with "index", "image" and "output".
        deaths: Ray's handle of a `Deaths`.

    Returns:
        The row with "pixels", "height", "width", "read" (the file's stamp), and "error", None where it could be read.
    """
    row = table.to_pylist()[0]
    error, pixels, stamp = given_up(deaths, "read", row), np.zeros((0, 0, 3), np.uint8), ""
    if error is None:
        try:
            stamp = find_stamps([row["image"]]).get(row["image"], "")
            pixels = _decode(row["image"])
        except (ValueError, OSError) as failure:
            error = describe_error(failure)
    height, width, _ = pixels.shape
    facts = {"height": height, "width": width, "read": stamp, "error": error}
    return as_table({**row, **facts, "pixels": pixels.tobytes()})


def _decode(image: str) -> Any:
    if is_here(image):
        return decode(image)
    content = read_content(image)
    try:
        return decode(content)
    except ValueError as error:
        raise ValueError(f"{image}: {error}") from error


def given_up(deaths: Any, work: str, row: dict[str, Any]) -> str | None:
    """Begin with an image; why not, where too many processes have died over it.

    Args:
        deaths: Ray's handle of a `Deaths`.
        work: What is done with it.
        row: The image: "index" and "image".
    """
    import ray

    process = f"{socket.gethostname()}:{os.getpid()}"
    count: int = ray.get(deaths.begin.remote(process, f"{work} {row['index']}"))
    if count < DEATHS:
        return None
    return (
        f"{row['image']} is given up: {count} processes died over it, perhaps for want of memory. "
        "Resize it, or give each worker more with fewer --workers."
    )


def as_table(row: dict[str, Any]) -> Any:
    """A PyArrow table of one row."""
    import pyarrow

    # Pixels of several images may pass the 2 GB of Arrow's usual bytes.
    kinds = {"pixels": pyarrow.large_binary(), "error": pyarrow.string()}
    return pyarrow.table({key: pyarrow.array([value], kinds.get(key)) for key, value in row.items()})


@dataclass(frozen=True, kw_only=True)
class Job:
    """What all workers do alike."""

    network: Network
    card: ModelCard
    backend: BackendName
    precision: InferencePrecision
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
