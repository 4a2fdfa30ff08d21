"""A model with everything that it needs to segment: images, files, large images and videos.

Shape letters: H height, W width.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy.typing as npt

from refinenet._version import __version__
from refinenet.deployment.files import DeployOptions, FileResult, segment_files, take_all
from refinenet.deployment.inputs import JobList, choose_reading, plan_work
from refinenet.deployment.large_images import OVERLAP, LargeSegmentation, Windows, segment_large
from refinenet.deployment.latency_budget import LatencyTuner
from refinenet.deployment.video.runner import RETRIES, VideoResult, segment_video
from refinenet.inference.backends import open_backend
from refinenet.inference.backends.base import BackendName, InferencePrecision
from refinenet.inference.backends.graph import ExportedModel
from refinenet.inference.output_kinds import Kind, Output
from refinenet.inference.prediction import Prediction
from refinenet.inference.segmentation import Segmentation, check_output
from refinenet.inference.segmenter import Segmenter
from refinenet.io.files import refuse_same_file
from refinenet.io.images import ChannelOrder, ImageSource, knows_its_order, read_image
from refinenet.io.sample_values import Decoded, Note, Reading, ValueRange
from refinenet.labels import LabelSet
from refinenet.models.factory import exported_model_message
from refinenet.models.inference_graph import Weights, note_weights
from refinenet.models.model_file import ModelCard
from refinenet.models.network import Network
from refinenet.models.tensor_files import digest


class SegmentationModel:
    """A network or exported graph with its model card, run by a backend.

    Args:
        model: The network or the exported graph.
        card: Its model card.
        backend: Name of the backend that runs it.
        precision: Precision of the backend's arithmetic.
        or_pytorch: Whether PyTorch replaces a backend that fails to open.
        channel_order: Channel order of arrays and tensors.

    Raises:
        ValueError: the backend cannot run the model.
    """

    _model: Network | ExportedModel
    _card: ModelCard
    _noted: Weights
    _tuner: LatencyTuner
    _segmenter: Segmenter

    def __init__(
        self,
        model: Network | ExportedModel,
        card: ModelCard,
        *,
        backend: BackendName,
        precision: InferencePrecision,
        or_pytorch: bool,
        channel_order: ChannelOrder,
    ) -> None:
        self._channel_order: ChannelOrder = channel_order
        self._backend, self._precision, self._or_pytorch = backend, precision, or_pytorch
        self._untrained: Weights | None = None
        self._adopt(model, card)

    def __getstate__(self) -> dict[str, Any]:
        # The card drops scores and hash if weights were changed by hand, which only the original tensors can show.
        card = self.card
        state = {key: value for key, value in self.__dict__.items() if key not in _REBUILT}
        return {**state, "_card": card}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._adopt(self._model, self._card)

    @property
    def network(self) -> Network:
        """The `torch.nn.Module`: float32 RGB images `(N, 3, H, W)` in [0, 1] to logits `(N, K, H, W)`.

        Its weights may be changed in place, under `torch.no_grad()`; changes through `.data` go unnoticed.

        Raises:
            ValueError: the model is an exported graph, which has no network.
        """
        if isinstance(self._model, Network):
            return self._model
        raise ValueError(exported_model_message(self._model.path))

    @property
    def parameters(self) -> int | None:
        """Number of trainable parameters; None for exported graphs."""
        if isinstance(self._model, ExportedModel):
            return None
        return sum(parameter.numel() for parameter in self._model.parameters())

    @property
    def card(self) -> ModelCard:
        """The model card; without scores and hash if weights were changed by hand."""
        if _note(self._model) != self._noted:
            self._card, self._noted = replace(self._card, scores={}, weights_sha256=""), _note(self._model)
        return self._card

    @property
    def label_set(self) -> LabelSet:
        """Names and colours of the classes, and the ignore index."""
        return self.card.label_set

    @label_set.setter
    def label_set(self, label_set: LabelSet) -> None:
        self._adopt(self._model, replace(self.card, label_set=label_set))

    def _adopt(self, model: Network | ExportedModel, card: ModelCard) -> None:
        backend = open_backend(model, self._backend, self._precision, or_pytorch=self._or_pytorch)
        # One step, so that concurrent calls see either the old model with its card and segmenter, or the new one.
        self.__dict__.update(
            _model=model,
            _card=card,
            _noted=_note(model),
            _tuner=LatencyTuner(model, self._backend, card),
            _segmenter=Segmenter(
                backend, card.label_set, temperature=card.temperature, outputs=card.architecture.outputs
            ),
        )

    def _warn_of_random_weights(self) -> None:
        """Warn once that the predictions of an untrained network are meaningless."""
        if self._untrained is not None and self._untrained == _note(self._model):
            warnings.warn(
                "This network is untrained: its weights are random, and so are the labels that it predicts. Train it, "
                'or load a model: RefineNet(model="FILE"), or model="camvid" for street scenes.',
                stacklevel=3,
            )
        self._untrained = None

    @property
    def _weights_sha256(self) -> str:
        """Hexadecimal SHA-256 of the current weights, or of an exported file as it was read."""
        if isinstance(self._model, ExportedModel):
            return self._model.sha256
        return self.card.weights_sha256 or digest(self._model.state_dict())

    def _choose_reading(
        self, bands: Sequence[int] | None, value_range: ValueRange | None
    ) -> tuple[Reading, tuple[Note, ...]]:
        return choose_reading(self.card.value_range, bands, value_range)

    def segment(
        self,
        image: ImageSource,
        *,
        channel_order: ChannelOrder | None = None,
        abstain_below: float = 0.0,
        max_latency_ms: float | None = None,
        bands: Sequence[int] | None = None,
        value_range: ValueRange | None = None,
    ) -> Segmentation:
        """Segment an image.

        Args:
            image: A path, the bytes of a file, a binary file object, a Pillow image, a NumPy array or a tensor; see
                `refinenet.io.images.decode`.
            channel_order: "bgr" for arrays from OpenCV; by default the order given to `RefineNet`. Pictures of the
                result have the same order.
            abstain_below: Confidence in [0, 1]; pixels with less get the ignore index instead of a class.
            max_latency_ms: Time limit in milliseconds for an image of this size, from memory to labels. Backend,
                precision and scale are chosen by timing them on the first such image; the choice and its loss of
                accuracy are reported.
            bands: Band numbers from 1 for red, green and blue, or a single one for grey; by default as the file
                declares.
            value_range: Stored values of black and white, such as (0, 4095) for 12 bits; by default those that the
                model was trained with (`card.value_range`), otherwise the range of the data type.

        Returns:
            Labels, confidence, probabilities, colours and areas at the size of the image. Pixels without data (by
            alpha, mask or nodata value) have no class.

        Raises:
            ValueError, TypeError, OSError: the image cannot be read or used.
        """
        self._warn_of_random_weights()
        decoded, order = self._decode(image, channel_order, bands, value_range)
        segmenter = self._segmenter
        if max_latency_ms is not None:
            segmenter = self._tuner.within(decoded.pixels, max_latency_ms).segmenter
        return segmenter.segment(decoded.pixels, abstain_below, decoded.valid, order)

    def predict(
        self,
        image: ImageSource,
        *,
        channel_order: ChannelOrder | None = None,
        abstain_below: float = 0.0,
        bands: Sequence[int] | None = None,
        value_range: ValueRange | None = None,
    ) -> Prediction:
        """Predict all outputs of the network for an image: classes, depths, normals, quantities.

        Args:
            image: As for `segment`.
            channel_order: As for `segment`.
            abstain_below: As for `segment`.
            bands: As for `segment`.
            value_range: As for `segment`.

        Returns:
            The outputs at the size of the image: `.labels`, `.depth`, `.normals`, `.values["height"]`, and `[name]`
            for any output besides classes.

        Raises:
            ValueError, TypeError, OSError: the image cannot be read or used.
        """
        self._warn_of_random_weights()
        decoded, order = self._decode(image, channel_order, bands, value_range)
        return self._segmenter.predict_outputs(decoded.pixels, abstain_below, decoded.valid, order)

    def _decode(
        self,
        image: ImageSource,
        channel_order: ChannelOrder | None,
        bands: Sequence[int] | None,
        value_range: ValueRange | None,
    ) -> tuple[Decoded, ChannelOrder]:
        """Read an image, and return it with the channel order of the result's pictures."""
        reading, notes = self._choose_reading(bands, value_range)
        order = channel_order
        if order is None:
            order = "rgb" if knows_its_order(image) else self._channel_order
        decoded = read_image(image, channel_order=order, reading=reading)
        for note in (*notes, *decoded.notes):
            warnings.warn(note.text, stacklevel=3)
        return decoded, order

    def deploy(
        self,
        image: ImageSource | None = None,
        image_file: str | os.PathLike[str] | None = None,
        output_file: str | os.PathLike[str] | None = None,
        output: Output | None = None,
        channel_order: ChannelOrder | None = None,
        abstain_below: float = 0.0,
        max_latency_ms: float | None = None,
        bands: Sequence[int] | None = None,
        value_range: ValueRange | None = None,
    ) -> npt.NDArray[Any]:
        """Segment an image, render a picture of the result, and write it to a file if one is given.

        Args:
            image: An array `(H, W, 3)` uint8 RGB, or anything else that `segment` accepts.
            image_file: Path of an image file, instead of `image`.
            output_file: `.png` or `.jpg` file to write. Missing folders are created, and an existing file is replaced,
                unless it is the image itself.
            output: "labels" (ids; `.png` only), "palette" (ids, with the class colours as palette in the file),
                "colour", "overlay" or "confidence". By default the colour image is returned, a `.png` file contains
                label ids, and a `.jpg` file colours.
            channel_order: As for `segment`.
            abstain_below: As for `segment`.
            max_latency_ms: As for `segment`.
            bands: As for `segment`.
            value_range: As for `segment`.

        Returns:
            The picture: `(H, W, 3)` uint8 in the channel order of the image; `(H, W)` for "labels", "palette" and
            "confidence". The colours in `output_file` are right in either order.

        Raises:
            ValueError: not exactly one of `image` and `image_file` is given, the image cannot be used, or
                `output_file` does not fit `output` or is the image itself.
            OSError: a file cannot be read or written.
        """
        source = _choose_source(image, image_file)
        if output_file is not None:
            check_output(output_file, output)
            if isinstance(source, str | os.PathLike):
                refuse_same_file(source, output_file)
        segmentation = self.segment(
            source,
            channel_order=channel_order,
            abstain_below=abstain_below,
            max_latency_ms=max_latency_ms,
            bands=bands,
            value_range=value_range,
        )
        picture = segmentation.render(output or "colour")
        if output_file is not None:
            segmentation.save(output_file, output)
        return picture

    def deploy_files(
        self,
        sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        output: str | os.PathLike[str] | None = None,
        kinds: Kind | Sequence[str] = (),
        recursive: bool = False,
        overwrite: bool = False,
        abstain_below: float = 0.0,
        progress: bool = True,
        bands: Sequence[int] | None = None,
        value_range: ValueRange | None = None,
    ) -> list[FileResult]:
        """Segment image files and write the results; unreadable files are skipped and reported.

        A journal in the folder of results (`deploy.json`, `deploy.jsonl`) makes an interrupted run resumable: results
        of the same model and settings are not computed again while their images are unchanged.

        Args:
            sources: Image files, folders, patterns such as `"photos/**/*.jpg"`, and `"@list.txt"` for a text file that
                lists them.
            output: A folder, by default `segmented`; for a single image a file, by default next to it.
            kinds: What to write: "labels", "palette" (labels with the class colours as palette), "colour", "overlay",
                "confidence", "probabilities" (`.npz`), "coco" (COCO JSON with run lengths), "geojson", or "polygons"
                for the last two. Several kinds get a folder each.
            recursive: Whether to include subfolders, which results keep.
            overwrite: Whether to compute existing results again and to replace files that are in the way.
            abstain_below: As for `segment`.
            progress: Whether to show progress on standard error.
            bands: As for `segment`.
            value_range: As for `segment`.

        Returns:
            The written files or the error of each image, in order.

        Raises:
            ValueError: no image is found, or the output does not fit or belongs to another run; the message says what
                to do.
            OSError: the folder of results cannot be used.
        """
        named = [sources] if isinstance(sources, str | os.PathLike) else sources
        chosen = [kinds] if isinstance(kinds, str) else kinds
        work = plan_work(named, None if output is None else Path(output), chosen, recursive=recursive)
        found: list[FileResult] = []
        results = self.deploy_work(
            work, overwrite, abstain_below=abstain_below, progress=progress, bands=bands, value_range=value_range
        )
        take_all(results, len(work.items), found.append, progress=progress)
        return found

    def deploy_work(
        self,
        work: JobList,
        overwrite: bool = False,
        windows: Windows | None = None,
        max_latency_ms: float | None = None,
        abstain_below: float = 0.0,
        progress: bool = True,
        bands: Sequence[int] | None = None,
        value_range: ValueRange | None = None,
    ) -> Generator[FileResult]:
        """Segment the images of a plan; results are computed as they are consumed, in order.

        Args:
            work: The plan, from `plan_work`.
            overwrite: As for `deploy_files`.
            windows: Windows for all images, as in `deploy_large`; by default only for images too large for memory.
            max_latency_ms: As for `segment`; not together with windows.
            abstain_below: As for `segment`.
            progress: Whether to show progress on standard error for a single image in windows.
            bands: As for `segment`.
            value_range: As for `segment`. Notes on how images are read are `UserWarning`s, one for each kind.

        Raises:
            ValueError, OSError: as for `deploy_files`.
        """
        reading, notes = self._choose_reading(bands, value_range)
        options = DeployOptions(
            reading=reading,
            abstain_below=abstain_below,
            windows=windows,
            max_latency_ms=max_latency_ms,
            overwrite=overwrite,
            progress=progress,
        )
        self._warn_of_random_weights()
        for note in notes:
            warnings.warn(note.text, stacklevel=2)
        model_settings: dict[str, Any] = {
            "refinenet": __version__,
            "model_sha256": self._weights_sha256,
            "label_set": self.label_set.to_dict(),
            "temperature": self.card.temperature,
            "backend": self._backend,
            "precision": self._precision,
        }
        return segment_files(self._segmenter, work, options, model_settings, self._tuner)

    def deploy_large(
        self,
        image_file: str | os.PathLike[str],
        output_file: str | os.PathLike[str],
        output: Output | None = None,
        *,
        window: tuple[int, int] | None = None,
        overlap: float = OVERLAP,
        abstain_below: float = 0.0,
        progress: bool = True,
        bands: Sequence[int] | None = None,
        value_range: ValueRange | None = None,
    ) -> LargeSegmentation:
        """Segment an image file of any size, such as a map or a scan, in windows and bounded memory.

        Args:
            image_file: TIFF (also BigTIFF and GeoTIFF), PNG, JPEG or BMP.
            output_file: `.tif` (tiled, compressed) or `.png`; georeferencing is kept.
            output: As for `deploy`; by default label ids.
            window: Height and width of the windows in pixels; by default 768 by 768.
            overlap: Minimum overlap of neighbouring windows, as a share of their side.
            abstain_below: As for `segment`.
            progress: Whether to show progress on standard error.
            bands: As for `segment`.
            value_range: As for `segment`.

        Raises:
            ValueError, OSError: as for `large_images.segment_large`.
        """
        self._warn_of_random_weights()
        reading, notes = self._choose_reading(bands, value_range)
        result = segment_large(
            self._segmenter,
            image_file,
            output_file,
            output,
            window=window,
            overlap=overlap,
            abstain_below=abstain_below,
            reading=reading,
            progress=progress,
        )
        for note in (*notes, *result.notes):
            warnings.warn(note.text, stacklevel=2)
        return result

    def deploy_video(
        self,
        source: str | os.PathLike[str],
        output: str | os.PathLike[str],
        kind: Output | None = None,
        abstain_below: float = 0.0,
        retries: int = RETRIES,
        progress: bool = True,
    ) -> VideoResult:
        """Segment a video, a stream or a camera frame by frame, and write a video or a folder of images.

        Args:
            source: A file, the address of a stream (`rtsp://`, `rtmp://`, `http://`, ...), or a camera (`camera:0`).
            output: A `.mp4`, `.m4v`, `.mov` or `.mkv` file (H.264, with the original timestamps and sound), or a
                folder for a PNG file per frame and their timestamps in `frames.jsonl`.
            kind: Picture of each frame: "overlay" (default for files), "colour" or "confidence"; for folders also
                "labels" (their default).
            abstain_below: As for `segment`.
            retries: Number of consecutive attempts to reconnect to a stream.
            progress: Whether to show progress on standard error.

        Returns:
            What was written, with counts of skipped and damaged frames.

        Raises:
            ValueError: PyAV is not installed, the source is not a video or has no frames, or the output does not fit.
            OSError: a file cannot be read or written, or a stream does not respond.
            KeyboardInterrupt: Ctrl-C or SIGTERM; the output is playable and holds the frames up to then.
        """
        self._warn_of_random_weights()
        segment = partial(self._segmenter.segment, abstain_below=abstain_below)
        return segment_video(segment, source, output, kind, retries=retries, progress=progress)


_REBUILT = ("_noted", "_tuner", "_segmenter")
"""Attributes that a copy builds for itself."""


def _note(model: Network | ExportedModel) -> Weights:
    """Return what changes with the values of parameters, but not when the network moves to another device."""
    return note_weights(model, buffers=False) if isinstance(model, Network) else ()


def _choose_source(image: ImageSource | None, image_file: str | os.PathLike[str] | None) -> ImageSource:
    if (image is None) == (image_file is None):
        raise ValueError("Pass exactly one of image (such as an array) and image_file (a path).")
    if image is not None:
        return image
    if not isinstance(image_file, str | os.PathLike):
        raise ValueError(f"image_file must be a path, not {type(image_file).__name__}: pass it as image.")
    return image_file
