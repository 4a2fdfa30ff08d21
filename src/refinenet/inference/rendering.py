"""Renderers: from the prediction for an image to the picture or file of one kind.

Shape letters: H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy.typing as npt

from refinenet.inference.output_kinds import (
    OUTPUT_KINDS,
    Kind,
    Output,
    OutputKind,
    PixelForm,
    split_kind,
)
from refinenet.inference.prediction import Prediction
from refinenet.inference.segmentation import choose_palette, reorder_channels
from refinenet.inference.values.subject import (
    AS_USUAL,
    RenderOptions,
    Subject,
    describe_outputs,
    find_subject,
    kinds_of,
)
from refinenet.io.drawing.overlay import OverlayStyle
from refinenet.io.images.codec import encode
from refinenet.labels import Colour, LabelSet
from refinenet.outputs import OutputSpec, class_output


def check_kind(kind: Kind, outputs: Sequence[OutputSpec]) -> OutputKind:
    """Return the row of a kind.

    Raises:
        ValueError: the kind is unknown, or the network has no output that it shows.
    """
    key, name = split_kind(kind)
    if key not in OUTPUT_KINDS or (name and not OUTPUT_KINDS[key].shows_values):
        raise ValueError(f"kind must be one of {', '.join(OUTPUT_KINDS)}, not {kind!r}.")
    if not OUTPUT_KINDS[key].shows_values and class_output(outputs) is None:
        raise ValueError(
            f"The network predicts no classes ({describe_outputs(outputs)}), so {kind} cannot be written; "
            f"{', '.join(kinds_of(outputs))} can."
        )
    return OUTPUT_KINDS[key]


@dataclass(frozen=True, kw_only=True)
class Renderer:
    """Draws the results of one kind in files of one suffix; made by `open_renderer`."""

    kind: Kind
    row: OutputKind
    suffix: str
    """Suffix in lower case, ".tif" instead of ".tiff"."""
    label_set: LabelSet
    subject: Subject | None
    """What a kind of values shows; None for classes."""
    style: OverlayStyle | None = None
    """How an overlay is drawn; None for other kinds."""

    @property
    def form(self) -> PixelForm | None:
        """Pixels of a picture of values; None for classes, and for other files."""
        return self.row.forms.get(self.suffix)

    @property
    def options(self) -> tuple[str, ...]:
        """Fields of `RenderOptions` that have an effect on its files."""
        return self.row.options_of(self.suffix)

    @property
    def is_picture(self) -> bool:
        """Whether it draws pictures; otherwise files for other programs."""
        return self.form is not None or self.row.is_picture

    def shape(self, height: int, width: int) -> tuple[int, ...]:
        """Return the shape of the picture of an image, without a legend."""
        if self.form is None or self.subject is None:
            return self.row.shape(height, width)
        channels = self.form.channels or len(range(self._count)[self.subject.channels])
        return (height, width) if channels == 1 else (height, width, channels)

    @property
    def _count(self) -> int:
        assert self.subject is not None
        return self.subject.spec.count_channels(len(self.label_set))

    @property
    def dtype(self) -> npt.DTypeLike:
        """Type of the picture's values."""
        return self.row.dtype(self.label_set) if self.form is None else self.form.dtype

    @property
    def no_data(self) -> float | None:
        """Value of pixels without a class or a value; None if there is none."""
        return self.row.no_data(self.label_set) if self.form is None else self.form.no_data

    @property
    def palette(self) -> Sequence[Colour] | None:
        """Palette of the files; None for kinds without one."""
        return None if self.row.shows_values else choose_palette(cast("Output", self.kind), self.label_set)

    @property
    def text(self) -> Mapping[str, str]:
        """Texts by keyword that files hold."""
        return {} if self.form is None or self.subject is None else self.form.describe(self.subject)

    @property
    def bands(self) -> Sequence[tuple[str, str]]:
        """Name and unit of each channel of a picture that holds quantities; otherwise none."""
        if self.form is None or self.subject is None or self.form.dtype != "float32":
            return ()
        quantities = self.subject.quantities
        return quantities if len(quantities) == math.prod(self.shape(1, 1)) else ()

    @property
    def needs_limits(self) -> bool:
        """Whether colours depend on the values of the image, because no limits were chosen."""
        is_free = self.subject is not None and self.subject.limits is None
        return is_free and self.form is not None and self.form.find_limits is not None

    def with_limits(self, prediction: Prediction) -> Renderer:
        """Return the renderer with limits of the colours: those chosen, or those of a prediction."""
        if not self.needs_limits:
            return self
        assert self.form is not None
        assert self.form.find_limits is not None
        assert self.subject is not None
        return replace(self, subject=self.form.find_limits(self._values(prediction), self.subject))

    def with_all_classes(self) -> Renderer:
        """Return the renderer with all classes in the legend, so that the frames of a video have one size."""
        return self if self.style is None else replace(self, style=replace(self.style, lists_absent=True))

    def block(self, prediction: Prediction) -> npt.NDArray[Any]:
        """Return the picture of a part of an image, without a legend, in RGB."""
        if self.form is None or self.subject is None:
            assert prediction.segmentation is not None
            if self.style is None:
                return prediction.segmentation.render(cast("Output", self.kind))
            return prediction.segmentation.draw_as(self.style)
        return self.form.draw(self._values(prediction), self.subject)

    def picture(self, prediction: Prediction) -> npt.NDArray[Any]:
        """Return the picture of an image, `(H, W)` or `(H, W, 3)`; pictures of colours have its channel order."""
        picture = self._framed(prediction)
        return reorder_channels(picture, prediction.channel_order) if self._is_colour else picture

    def encode(self, prediction: Prediction, image_name: str = "image") -> bytes:
        """Return the content of the file.

        Args:
            prediction: What to write.
            image_name: Name of the image in files that name it.
        """
        if self.row.pack is not None:
            assert prediction.segmentation is not None  # `open_renderer`
            return self.row.pack(prediction.segmentation, image_name)
        if self.suffix in self.row.contents:
            assert self.subject is not None
            return self.row.contents[self.suffix](prediction, self.subject)
        if self.form is None:
            assert prediction.segmentation is not None
            if self.style is None:
                return prediction.segmentation.encode(self.suffix, cast("Output", self.kind))
            picture = prediction.segmentation.draw_as(self.style)
            return encode(reorder_channels(picture, prediction.channel_order), self.suffix)
        shown = self.with_limits(prediction)
        return encode(shown._framed(prediction), self.suffix, text=shown.text)

    @property
    def _is_colour(self) -> bool:
        return self.form is not None and self.form.dtype == "uint8"

    def _values(self, prediction: Prediction) -> npt.NDArray[Any]:
        assert self.subject is not None
        return self.row.read(prediction, self.subject.spec.name)[self.subject.channels]

    def _framed(self, prediction: Prediction) -> npt.NDArray[Any]:
        shown = self.with_limits(prediction)
        picture = shown.block(prediction)
        if shown.form is None or shown.form.frame is None or shown.subject is None:
            return picture
        return shown.form.frame(picture, shown.subject)


def open_renderer(
    kind: Kind,
    suffix: str,
    outputs: Sequence[OutputSpec],
    label_set: LabelSet,
    options: RenderOptions = AS_USUAL,
) -> Renderer:
    """Open the renderer of a kind for a network.

    Args:
        kind: What to write.
        suffix: Suffix of the files.
        outputs: Outputs of the network.
        label_set: Its classes.
        options: Choices for overlays and for files of values.

    Raises:
        ValueError: the network has no such output, or the suffix, the options or the classes do not go with the kind.
    """
    row, plain = check_kind(kind, outputs), _plain_suffix(suffix)
    if not row.shows_values:
        style = options.style if row.options else None
        if style is not None:
            style.find_shown(label_set)
        found = Renderer(kind=kind, row=row, suffix=plain, label_set=label_set, subject=None, style=style)
        if row.has_palette:
            choose_palette(cast("Output", kind), label_set)
        return found
    subject = find_subject(kind, outputs, options)
    check_suffix_of(kind, plain)
    if plain in row.forms:
        row.forms[plain].check(subject)
    return Renderer(kind=kind, row=row, suffix=plain, label_set=label_set, subject=subject)


def refuse_idle(options: RenderOptions, renderers: Iterable[Renderer]) -> None:
    """Refuse options without an effect on any of the results, and limits for quantities of different units.

    If there are no results, no options are refused.

    Args:
        options: Choices of the user.
        renderers: Renderers of all results.

    Raises:
        ValueError: names the first such option, and what it is for, or the pictures that the limits are for.
    """
    opened = tuple(renderers)
    if options.limits is not None:
        _refuse_several_units(options.limits, opened)
    used = {name for renderer in opened for name in renderer.options}
    idle = next((name for name in options.to_dict() if name not in used), None)
    if idle is None or not opened:
        return
    written = ", ".join(dict.fromkeys(f"{renderer.kind} ({renderer.suffix})" for renderer in opened))
    raise ValueError(
        f"{idle} (--{idle}) has no effect on {written}: leave it out. It is for {', '.join(_list_affected(idle))}."
    )


def _refuse_several_units(limits: tuple[float, float], renderers: Iterable[Renderer]) -> None:
    drawn = [
        (renderer.kind, renderer.subject.quantities[0][1])
        for renderer in renderers
        if renderer.subject is not None and "limits" in renderer.options
    ]
    if len({unit for _, unit in drawn}) > 1:
        named = " and ".join(f"{kind} ({unit or 'no unit'})" for kind, unit in dict.fromkeys(drawn))
        low, high = limits
        raise ValueError(
            f"limits (--limits) {low:g},{high:g} would apply to {named}, whose units differ: leave them out, or "
            "write each in a separate call."
        )


def _list_affected(option: str) -> Iterator[str]:
    """Yield the kinds that an option has an effect on, with their suffixes."""
    for kind, row in OUTPUT_KINDS.items():
        suffixes = [suffix for suffix in row.suffixes if option in row.options_of(suffix)]
        if suffixes:
            yield f"{kind} ({', '.join(suffixes)})"


def _plain_suffix(suffix: str) -> str:
    return ".tif" if suffix.lower() == ".tiff" else suffix.lower()


def check_suffix_of(kind: Kind, suffix: str) -> None:
    """Check the suffix of a file of values.

    Raises:
        ValueError: the kind is not written as such a file.
    """
    allowed = OUTPUT_KINDS[split_kind(kind)[0]].suffixes
    if _plain_suffix(suffix) not in allowed:
        raise ValueError(f"{kind} is written as {', '.join(allowed)}, not as {suffix!r}.")


def open_shown(
    kind: Kind, outputs: Sequence[OutputSpec], label_set: LabelSet, options: RenderOptions = AS_USUAL
) -> Renderer:
    """Open the renderer of the array that stands for a kind: a picture, or numbers in their units.

    Args:
        kind: What to show; for kinds that are not pictures, the usual picture of the same output is shown.
        outputs: Outputs of the network.
        label_set: Its classes.
        options: Choices for values.

    Raises:
        ValueError: as `open_renderer`.
    """
    row = check_kind(kind, outputs)
    if row.shows_values and not row.forms:
        key, name = split_kind(kind)
        usual = next(other for other, also in OUTPUT_KINDS.items() if also.of == row.of and also.is_usual)
        return open_renderer(kind.replace(key, usual, 1) if name else usual, ".png", outputs, label_set, options)
    return open_renderer(kind, ".png" if row.is_usual else ".tif", outputs, label_set, options)
