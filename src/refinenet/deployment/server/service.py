"""The work of the server, without HTTP: the bytes of an image to the bytes of its results."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from refinenet._version import __version__
from refinenet.deployment.inputs import choose_kinds, usual_suffix
from refinenet.deployment.server.http.refusals import Refusal
from refinenet.deployment.server.memory import estimate_bytes, measure_pixel_bytes, read_bytes
from refinenet.deployment.server.metrics import Metrics
from refinenet.deployment.server.model_processes import ModelEndedError, ModelProcesses
from refinenet.deployment.server.settings import ServerSettings
from refinenet.deployment.server.work import WorkQueue
from refinenet.inference.backends.base import BackendError
from refinenet.inference.backends.windowed import WindowedBackend
from refinenet.inference.output_kinds import OUTPUT_KINDS, POLYGONS, Kind
from refinenet.inference.prediction import Prediction
from refinenet.inference.rendering import Renderer
from refinenet.inference.values.subject import kinds_of, usual_kind
from refinenet.io.images.image_files import TooLargeError, UnknownFormatError
from refinenet.io.images.isolated_decoding import DecoderEndedError, DecoderPool
from refinenet.io.images.sample_values import Decoded, ValueRange
from refinenet.io.images.shrinking import find_factor

if TYPE_CHECKING:
    from refinenet.deployment.segmentation_model import SegmentationModel
    from refinenet.inference.segmenter import Backend

SUMMARY = "summary"
"""Kind of results besides those of `OUTPUT_KINDS`: JSON with size, areas and times."""
_PUBLIC_LIMITS = ("max_bytes", "max_pixels", "window_pixels", "workers", "queue", "body_seconds", "request_seconds")
"""Settings that clients may know."""
_WARM_UP = 64
"""Side, in pixels, of the first image, for which engines prepare themselves."""


@dataclass(frozen=True, kw_only=True)
class ResultOptions:
    """How to read an image and what to return for it, checked."""

    renderers: Sequence[Renderer] = ()
    """Renderers of the files; none for the summary alone."""
    has_summary: bool = False
    abstain_below: float = 0.0
    bands: tuple[int, ...] | None = None
    value_range: ValueRange | None = None

    @property
    def is_one_file(self) -> bool:
        """Whether the response is a file; otherwise it is JSON with all of them."""
        return len(self.renderers) == 1 and not self.has_summary


@dataclass(frozen=True, kw_only=True)
class Result:
    """Results for an image."""

    files: Mapping[Kind, tuple[str, bytes]]
    """Media type and content of each file."""
    summary: Mapping[str, Any]
    """Size, areas, notes and times, as JSON-ready values."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready values, files in base64."""
        files = {
            kind: {"type": media, "base64": base64.b64encode(content).decode()}
            for kind, (media, content) in self.files.items()
        }
        return {**self.summary, **({"files": files} if files else {})}


@dataclass(kw_only=True)
class Service:
    """A model, its limits, the threads and processes that run it, and the processes that decode images for them."""

    model: SegmentationModel
    settings: ServerSettings
    queue: WorkQueue = field(init=False)
    metrics: Metrics = field(init=False)
    decoders: DecoderPool = field(init=False)
    windows: WindowedBackend = field(init=False)
    """Runs the network on large images."""
    processes: ModelProcesses | None = field(default=None, init=False)
    """Processes that run the network; None if the threads do."""
    needed_bytes: int | None = field(default=None, init=False)
    """About how much memory the limits allow; None where the system does not say, and before it was measured."""
    is_warm: bool = field(default=False, init=False)
    """Whether the model has run once."""
    is_draining: bool = field(default=False, init=False)
    """Whether the server was asked to stop."""

    def __post_init__(self) -> None:
        self.metrics = Metrics(lambda: self.queue.pending, lambda: self.is_ready)
        settings = self.settings
        self.queue = WorkQueue(
            settings.threads, settings.queue, self.metrics.queue_seconds.observe, settings.request_seconds
        )
        # As many as threads, so that none waits for another one's image.
        self.decoders = DecoderPool(
            settings.threads,
            max_pixels=settings.max_pixels,
            seconds=settings.decode_seconds,
            observe_restart=self.metrics.decoder_restarts.inc,
        )
        if settings.model_processes > 0:
            self.model = self.model.run_by(self._open_processes)
        self.model = self.model.run_by(self._open_windows)

    def _open_windows(self, backend: Backend) -> Backend:
        self.windows = windows = WindowedBackend(backend, self.settings.window_pixels)
        return windows

    def _open_processes(self, backend: Backend) -> Backend:
        self.processes = processes = ModelProcesses(
            backend,
            self.settings.model_processes,
            seconds=self.settings.model_seconds,
            observe_restart=self.metrics.model_restarts.inc,
        )
        self.metrics.add_gauge(
            "model_processes", "Processes that can run the model", lambda: len(processes.identifiers)
        )
        return processes

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken."""
        has_model = self.processes is None or self.processes.is_ready
        return self.is_warm and has_model and not self.is_draining

    def refuse_unready(self) -> None:
        """Refuse a request while the server starts or stops.

        Raises:
            Refusal: it does.
        """
        if not self.is_ready:
            raise Refusal(503, "The server is starting or stopping.", "not_ready", {"Retry-After": "5"})

    def admit(self) -> None:
        """Refuse an image that could not be computed, before it is read.

        Raises:
            Refusal: the server starts or stops, or the queue is full.
        """
        self.refuse_unready()
        self.queue.refuse_if_full()

    def drain(self) -> None:
        """Take no further requests, because the server was asked to stop."""
        self.is_draining = True

    @property
    def kinds(self) -> list[Kind]:
        """Kinds of results that the model has."""
        return [SUMMARY, *kinds_of(self.model.outputs)]

    def describe(self) -> dict[str, Any]:
        """Return what clients may know of the model and the limits, as JSON-ready values."""
        labels, card = self.model.label_set, self.model.card
        return {
            "name": self.settings.name,
            "version": __version__,
            "classes": [
                {"id": k, "name": name, "colour": list(colour)}
                for k, (name, colour) in enumerate(zip(labels.names, labels.colours, strict=True))
            ],
            "ignore_index": labels.ignore_index,
            "outputs": [spec.to_dict() for spec in self.model.outputs],
            "kinds": self.kinds,
            "views": [kind for kind in kinds_of(self.model.outputs) if OUTPUT_KINDS[kind].is_usual],
            "licence": card.licence,
            "scores": dict(card.scores),
            "limits": {name: getattr(self.settings, name) for name in _PUBLIC_LIMITS},
        }

    def warm_up(self) -> None:
        """Start all processes, run the model, and measure its memory, so that the first client does not wait for them.

        Raises:
            ValueError: a process cannot load the model.
        """
        self.decoders.start()
        if self.processes is not None:
            self.processes.start()
        self._try_out(_WARM_UP)
        identifiers = [os.getpid(), *(() if self.processes is None else self.processes.identifiers)]
        pixel_bytes = measure_pixel_bytes(self._try_out, identifiers, self.largest_whole)
        if pixel_bytes is not None:
            held = sum(read_bytes("VmRSS", each) for each in identifiers)
            self.needed_bytes = estimate_bytes(
                self.settings, held, pixel_bytes, self.model.card.architecture.num_channels
            )
        self.is_warm = True

    @property
    def largest_whole(self) -> int:
        """Number of pixels of the largest image that the network sees as a whole."""
        return min(self.settings.max_pixels, self.settings.window_pixels)

    def _try_out(self, side: int) -> None:
        """Predict for a square image all that needs memory."""
        bands = self.model.card.architecture.bands
        pixels = np.zeros((side, side, len(bands) or 3), np.float32 if bands else np.uint8)
        found = self.model.predict_decoded(Decoded(pixels=pixels)).segmentation
        if found is not None:
            assert found.confidence.size == found.probabilities[0].size

    def check_options(
        self, kinds: Sequence[str], suffix: str | None, rendering: Mapping[str, Any], **reading: Any
    ) -> ResultOptions:
        """Return the options of a request.

        Args:
            kinds: Kinds of results; none for the usual one.
            suffix: Format of the files; None for the usual one of each kind.
            rendering: Options of `open_renderer`.
            reading: Further fields of `ResultOptions`.

        Raises:
            Refusal: the model has no such kind, or the suffix or an option does not go with it.
        """
        named = list(dict.fromkeys(kinds)) or [usual_kind(self.model.outputs) or "labels"]
        files = [name for name in named if name != SUMMARY]
        try:
            chosen = choose_kinds(files)
            renderers = [self.model.open_renderer(kind, suffix or usual_suffix(kind), **rendering) for kind in chosen]
        except ValueError as error:
            allowed = f"{', '.join(self.kinds)} and {POLYGONS}"
            raise Refusal(422, f"{error} This model has the kinds {allowed}.", "parameters") from error
        for each in renderers:
            self._check_suffix(each)
        return ResultOptions(renderers=renderers, has_summary=SUMMARY in named, **reading)

    def _check_suffix(self, renderer: Renderer) -> None:
        row, suffix = renderer.row, renderer.suffix
        if suffix not in row.suffixes:
            allowed = ", ".join(row.suffixes)
            raise Refusal(422, f"{renderer.kind} is written as {allowed}, not as {suffix!r}.", "parameters")

    def run(self, content: bytes, options: ResultOptions) -> Result:
        """Predict for an image; called in a thread.

        Args:
            content: Bytes of an image file.
            options: What `check_options` returned.

        Raises:
            Refusal: the image cannot be read, or a file cannot hold what was predicted.
        """
        times = [time.perf_counter()]
        image = self._read(content, options)
        times.append(time.perf_counter())
        prediction = self.predict(image, options.abstain_below)
        times.append(time.perf_counter())
        files = {each.kind: self._render(prediction, each) for each in options.renderers}
        times.append(time.perf_counter())
        decode, infer, encode = (after - before for before, after in pairwise(times))
        self.metrics.decode_seconds.observe(decode)
        seconds = {"decode": round(decode, 4), "infer": round(infer, 4), "encode": round(encode, 4)}
        return Result(files=files, summary=self._summarise(prediction, image, seconds))

    def predict(self, image: Decoded, abstain_below: float = 0.0) -> Prediction:
        """Predict for a decoded image; called in a thread.

        Raises:
            Refusal: the process that ran the model ended or took too long, or the model cannot take the image.
        """
        started = time.perf_counter()
        try:
            prediction = self.model.predict_decoded(image, abstain_below=abstain_below)
        except ModelEndedError as error:
            status, reason = (504, "computed_too_long") if error.is_timeout else (503, "model_ended")
            raise Refusal(status, str(error), reason, {"Retry-After": "5"}) from error
        except BackendError:
            raise
        except ValueError as error:  # such as an exported graph that needs more memory than it may take
            raise Refusal(422, str(error), "image") from error
        self.metrics.infer_seconds.observe(time.perf_counter() - started)
        self.metrics.image_pixels.observe(image.pixels.shape[0] * image.pixels.shape[1])
        return prediction

    def _render(self, prediction: Prediction, renderer: Renderer) -> tuple[str, bytes]:
        """Return media type and content of a file."""
        try:
            return renderer.row.media_type_of(renderer.suffix), renderer.encode(prediction)
        except ValueError as error:  # such as depths that are too large for the integers of a .png
            raise Refusal(422, str(error), "parameters") from error

    def _summarise(self, prediction: Prediction, image: Decoded, seconds: Mapping[str, float]) -> dict[str, Any]:
        height, width = prediction.size
        return {
            "model": self.settings.name,
            "width": width,
            "height": height,
            "areas": dict(prediction.areas),
            "no_data": prediction.no_data,
            "notes": [note.text for note in image.notes] + self._note_windows(height, width),
            "seconds": dict(seconds),
        }

    def _note_windows(self, height: int, width: int) -> list[str]:
        factor = find_factor((height, width), self.model.card.longest_side)
        if not self.windows.splits(round(height * factor), round(width * factor)):
            return []
        limit = self.settings.window_pixels
        return [f"The image has more than {limit:,} pixels: it was segmented in overlapping windows of about as many."]

    def _read(self, content: bytes, options: ResultOptions) -> Decoded:
        try:
            return self.model.read_bytes(
                content, bands=options.bands, value_range=options.value_range, decode=self.decoders.decode
            )
        except UnknownFormatError as error:
            raise Refusal(415, str(error), "format") from error
        except TooLargeError as error:
            raise Refusal(413, str(error), "image_size") from error
        except ValueError as error:
            raise Refusal(400, str(error), "image") from error
        except DecoderEndedError as error:
            status, reason = (504, "decoded_too_long") if error.is_timeout else (500, "decoder_ended")
            raise Refusal(status, str(error), reason) from error

    def close(self) -> None:
        """End the threads and the processes, without waiting for what runs."""
        self.queue.close()
        self.decoders.close()
        if self.processes is not None:
            self.processes.close()
