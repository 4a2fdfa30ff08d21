"""A model with everything that it needs to predict: network or exported graph, model card, backend.

Shape letters: H height, W width.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Self, overload

from refinenet import models
from refinenet.deployment.latency_budget import LatencyTuner
from refinenet.inference.backends import open_backend
from refinenet.inference.backends.base import BackendError, BackendName, InferencePrecision
from refinenet.inference.backends.graph import ExportedModel
from refinenet.inference.prediction import Prediction
from refinenet.inference.segmentation import Segmentation
from refinenet.inference.segmenter import Backend, Segmenter
from refinenet.io.console import print_note
from refinenet.io.images.bands import name_bands
from refinenet.io.images.codec import ChannelOrder, ImageSource, knows_its_order, read_image
from refinenet.io.images.image_sources import not_an_image
from refinenet.io.images.sample_values import Decoded, Note, Reading, ValueRange, choose_reading
from refinenet.io.processes.threads import ThreadLock
from refinenet.labels import LabelSet
from refinenet.models.files.model_card import ModelCard
from refinenet.models.model_spec import exported_model_message
from refinenet.outputs import CLASS_KIND, OutputSpec

_AT_ONCE = 2
"""Images of a batch in work: one in the network, one before or after it."""


def _check_single(image: ImageSource) -> ImageSource:
    if isinstance(image, list | tuple):
        raise not_an_image(image)
    return image


class PredictionModel:
    """A network or exported graph with its model card, run by a backend.

    Args:
        model: The network or the exported graph.
        card: Its model card.
        backend: Name of the backend that runs it.
        precision: Precision of the backend's arithmetic.
        or_pytorch: Whether PyTorch replaces a backend that turns out not to be able to run the network.
        channel_order: Channel order of arrays and tensors.
        load_network: Loads the network that `model` is the translation of, with its card.

    Raises:
        ValueError: the backend cannot run the model.
    """

    _model: models.Network | ExportedModel
    _card: ModelCard
    _noted: models.Weights
    _own_tuner: LatencyTuner | None
    _segmenter: Segmenter

    def __init__(
        self,
        model: models.Network | ExportedModel,
        card: ModelCard,
        *,
        backend: BackendName,
        precision: InferencePrecision,
        or_pytorch: bool,
        channel_order: ChannelOrder,
        load_network: Callable[[], tuple[models.Network, ModelCard]] | None = None,
    ) -> None:
        self._channel_order: ChannelOrder = channel_order
        self._backend, self._precision, self._or_pytorch = backend, precision, or_pytorch
        self._untrained: models.Weights | None = None
        self._has_warned = False
        self._load_network, self._loading = load_network, ThreadLock()
        try:
            self._adopt(model, card)
        except BackendError as error:
            if not or_pytorch or load_network is None:
                raise
            print_note(f"{error} The network is loaded instead.")
            self._adopt(*load_network())

    def __getstate__(self) -> dict[str, Any]:
        # The card drops scores and hash if weights were changed by hand, which only the original tensors can show.
        card = self.card
        state = {key: value for key, value in self.__dict__.items() if key not in _REBUILT}
        return {**state, "_card": card}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._adopt(self._model, self._card)

    def __repr__(self) -> str:
        made = self.card.architecture
        named = ", ".join(spec.to_text() for spec in self.outputs if spec.kind != CLASS_KIND)
        parts = [
            f"{made.model_type}, {made.encoder}",
            *([f"{len(self.label_set)} classes"] if len(self.label_set) else []),
            *([f"outputs {named}"] if named else []),
            *([f"bands {name_bands(made.bands)}"] if made.bands else []),
            *(["untrained"] if self._is_untrained else []),
            f"{self._segmenter.backend.device}, {self._backend}, {self._precision}",
        ]
        return f"{type(self).__name__}({', '.join(parts)})"

    @property
    def network(self) -> models.Network:
        """The `torch.nn.Module`: float32 RGB images `(N, 3, H, W)` in [0, 1] to logits `(N, K, H, W)`.

        Its weights may be changed in place, under `torch.no_grad()`; changes through `.data` go unnoticed. It is loaded
        when it is first asked for, where its translation predicts.

        Raises:
            ValueError: the model is an exported graph, which has no network.
        """
        with self._loading:  # one of several threads loads it, the others wait
            if not isinstance(self._model, ExportedModel):
                return self._model
            if self._load_network is None:
                raise ValueError(exported_model_message(self._model.path))
            network, card = self._load_network()
            if card.weights_sha256 != self._model.sha256:
                raise ValueError(f"{self._model.path} has changed since it was opened: open it again.")
            self._adopt(network, self._card, self._segmenter.backend)
            return network

    @property
    def parameters(self) -> int | None:
        """Number of trainable parameters; None for exported graphs."""
        if self._has_no_network:
            return None
        return sum(parameter.numel() for parameter in self.network.parameters())

    @property
    def _has_no_network(self) -> bool:
        return isinstance(self._model, ExportedModel) and self._load_network is None

    @property
    def card(self) -> ModelCard:
        """The model card; without scores and hash if weights were changed by hand."""
        if _note(self._model) != self._noted:
            self._card, self._noted = replace(self._card, scores={}, weights_sha256=""), _note(self._model)
        return self._card

    @property
    def outputs(self) -> tuple[OutputSpec, ...]:
        """What the model predicts, in the order of its maps."""
        return self.card.architecture.outputs

    @property
    def label_set(self) -> LabelSet:
        """Names and colours of the classes, and the ignore index."""
        return self.card.label_set

    @label_set.setter
    def label_set(self, label_set: LabelSet) -> None:
        self._adopt(self._model, replace(self.card, label_set=label_set))

    def _adopt(
        self, model: models.Network | ExportedModel, card: ModelCard, translation: Backend | None = None
    ) -> None:
        """Run another model from now on; `translation` runs it until its weights change."""
        backend = open_backend(
            model,
            self._backend,
            self._precision,
            record=card.int8,
            or_pytorch=self._or_pytorch,
            translation=translation,
        )
        # One step, so that concurrent calls see either the old model with its card and segmenter, or the new one.
        self.__dict__.update(
            _model=model,
            _card=card,
            _noted=_note(model),
            _own_tuner=None,
            _segmenter=Segmenter(
                backend,
                card.label_set,
                temperature=card.temperature,
                outputs=card.architecture.outputs,
                bands=card.architecture.bands,
                longest_side=card.longest_side,
            ),
        )

    @property
    def _is_untrained(self) -> bool:
        return self._untrained is not None and self._untrained == _note(self._model)

    def _warn_of_random_weights(self) -> None:
        """Warn once that the predictions of an untrained network are meaningless."""
        if not self._has_warned and self._is_untrained:
            warnings.warn(
                "This network is untrained: its weights are random, and so are the labels that it predicts. Train it, "
                'or load a model: RefineNet(model="FILE"), or model="camvid" for street scenes.',
                stacklevel=3,
            )
        self._has_warned = True

    @property
    def _weights_sha256(self) -> str:
        """Hexadecimal SHA-256 of the current weights, or of an exported file as it was read."""
        if isinstance(self._model, ExportedModel):
            return self._model.sha256
        return self.card.weights_sha256 or models.digest(self._model.state_dict())

    @property
    def _tuner(self) -> LatencyTuner:
        """Chooses among all backends of the network, which is therefore loaded."""
        model = self._model if self._has_no_network else self.network
        with self._loading:
            if self._own_tuner is None:
                self._own_tuner = LatencyTuner(model, self._backend, self._card)
            return self._own_tuner

    def _choose_reading(
        self, bands: Sequence[int] | None, value_range: ValueRange | None
    ) -> tuple[Reading, tuple[Note, ...]]:
        return choose_reading(self.card.value_range, bands, value_range, self.card.architecture.bands)

    @overload
    def segment(
        self,
        image: list[Any] | tuple[Any, ...],
        *,
        channel_order: ChannelOrder | None = None,
        abstain_below: float = 0.0,
        max_latency_ms: float | None = None,
        bands: Sequence[int] | None = None,
        value_range: ValueRange | None = None,
    ) -> list[Segmentation]: ...

    @overload
    def segment(
        self,
        image: ImageSource,
        *,
        channel_order: ChannelOrder | None = None,
        abstain_below: float = 0.0,
        max_latency_ms: float | None = None,
        bands: Sequence[int] | None = None,
        value_range: ValueRange | None = None,
    ) -> Segmentation: ...

    def segment(
        self,
        image: ImageSource | list[Any] | tuple[Any, ...],
        *,
        channel_order: ChannelOrder | None = None,
        abstain_below: float = 0.0,
        max_latency_ms: float | None = None,
        bands: Sequence[int] | None = None,
        value_range: ValueRange | None = None,
    ) -> Segmentation | list[Segmentation]:
        """Segment an image, or a list of images.

        Args:
            image: A path, the bytes of a file, a binary file object, a Pillow image, a NumPy array or a tensor; see
                `refinenet.io.images.codec.decode`. A list or tuple of these is handled by `segment_batch`.
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
            alpha, mask or nodata value) have no class. For a list of images, a list of these.

        Raises:
            ValueError, TypeError, OSError: the image cannot be read or used.
        """
        if isinstance(image, list | tuple):
            reading = {"channel_order": channel_order, "bands": bands, "value_range": value_range}
            return self.segment_batch(image, abstain_below=abstain_below, max_latency_ms=max_latency_ms, **reading)
        self._warn_of_random_weights()
        decoded, order = self._decode(image, channel_order, bands, value_range)
        segmenter = self._choose_segmenter(decoded, max_latency_ms)
        return segmenter.segment(decoded.pixels, abstain_below, decoded.valid, order)

    def segment_batch(self, images: Iterable[ImageSource], **options: Any) -> list[Segmentation]:
        """Segment several images, of any sizes, and return their results in order.

        While the network runs on one image, another one is decoded or its result is resized. Images are not joined into
        one tensor: on CPUs that is no faster, and each result is exactly that of `segment`. All results are kept in
        memory; for many files use `deploy_files`.

        Args:
            images: Images as for `segment`.
            options: As for `segment`, for all images.

        Raises:
            ValueError, TypeError, OSError: as `segment`, for the first image that cannot be read or used.
        """
        self._warn_of_random_weights()
        with ThreadPoolExecutor(_AT_ONCE, "segment") as threads:
            segment: Callable[..., Segmentation] = self.segment
            waiting = [threads.submit(segment, _check_single(image), **options) for image in images]
            try:
                return [each.result() for each in waiting]
            finally:
                threads.shutdown(cancel_futures=True)  # after an error

    def predict(
        self,
        image: ImageSource,
        *,
        channel_order: ChannelOrder | None = None,
        abstain_below: float = 0.0,
        max_latency_ms: float | None = None,
        bands: Sequence[int] | None = None,
        value_range: ValueRange | None = None,
    ) -> Prediction:
        """Predict all outputs of the network for an image: classes, depths, normals, quantities.

        Args:
            image: As for `segment`.
            channel_order: As for `segment`.
            abstain_below: As for `segment`.
            max_latency_ms: As for `segment`.
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
        segmenter = self._choose_segmenter(decoded, max_latency_ms)
        return segmenter.predict_outputs(decoded.pixels, abstain_below, decoded.valid, order)

    def read_bytes(
        self,
        content: bytes,
        *,
        decode: Callable[[bytes, Reading], Decoded],
        bands: Sequence[int] | None = None,
        value_range: ValueRange | None = None,
    ) -> Decoded:
        """Read the bytes of an image file as `predict` does, with notes on how they were read instead of warnings.

        Args:
            content: Bytes of an image file.
            decode: Decodes them, such as `DecoderPool.decode`.
            bands: As for `predict`.
            value_range: As for `predict`.

        Raises:
            ValueError: as `predict`.
        """
        reading, notes = self._choose_reading(bands, value_range)
        decoded = decode(content, reading)
        return replace(decoded, notes=(*notes, *decoded.notes))

    def predict_decoded(self, image: Decoded, *, abstain_below: float = 0.0) -> Prediction:
        """Predict all outputs for an image from `read_bytes`, as `predict` does.

        Raises:
            ValueError: `abstain_below` is not in [0, 1].
        """
        return self._segmenter.predict_outputs(image.pixels, abstain_below, image.valid)

    def run_by(self, wrap: Callable[[Backend], Backend]) -> Self:
        """Return a model that shares everything with this one but runs its network with another backend.

        Args:
            wrap: Takes the backend of this model and returns one that wraps it.
        """
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        copied._segmenter = self._segmenter.run_by(wrap(self._segmenter.backend))
        return copied

    def _choose_segmenter(self, image: Decoded, max_latency_ms: float | None) -> Segmenter:
        return self._segmenter if max_latency_ms is None else self._tuner.within(image.pixels, max_latency_ms).segmenter

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


_REBUILT = ("_noted", "_own_tuner", "_segmenter")
"""Attributes that a copy builds for itself."""


def _note(model: models.Network | ExportedModel) -> models.Weights:
    """Return what changes with the values of parameters, but not when the network moves to another device."""
    return () if isinstance(model, ExportedModel) else models.note_weights(model, buffers=False)
