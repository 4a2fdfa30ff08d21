"""Images of any size: segmented in windows, in bounded memory, and written row by row.

The labels are those of `Protocol(window=..., overlap=...)`. Memory holds a row of windows of the image, the logits that
two rows of windows share, and what the network needs for one window. Where that is too much, for a wide image or many
classes, the image is segmented in strips of columns.

Shape letters: K classes, H height, W width.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet.inference.output_kinds import OUTPUT_KINDS, Kind
from refinenet.inference.prediction import Prediction
from refinenet.inference.protocol import Protocol
from refinenet.inference.rendering import Renderer, open_renderer, refuse_idle
from refinenet.inference.segmentation import Logits
from refinenet.inference.segmenter import Segmenter, check_abstention, prepare
from refinenet.inference.sliding_window import Block, WindowGrid, blend_windows
from refinenet.inference.upsampling import resize
from refinenet.inference.values.subject import AS_USUAL, RenderOptions, usual_kind
from refinenet.io.arrays import Array
from refinenet.io.console import progress_bar
from refinenet.io.files import refuse_same_file
from refinenet.io.images.sample_values import AS_DECLARED, Mask, Note, Pixels, Reading
from refinenet.io.images.shrinking import find_factor, shrink_image
from refinenet.io.raster.band_reader import BandReader, open_bands
from refinenet.io.raster.reader import RasterReader, open_upright
from refinenet.io.raster.writer import TILE, RasterWriter, check_suffix, open_target

WINDOW = (768, 768)
"""Height and width of windows; with the bundled model, the process stays below 2 GiB (`benchmarks/large.py`)."""
OVERLAP = 0.75
"""Minimum overlap of neighbouring windows, as a share of their side.

With windows moved, labels of the bundled model agree in 98.4 % of the pixels at 0.25, 99.6 to 99.7 % at 0.5, 99.7 to
99.8 % at 0.66 and 99.9 % at 0.75. The differences are spread evenly: not seams, but the network's response to other
surroundings; larger windows do not change that. Work grows with 1 / (1 - overlap)^2. Measured by
`benchmarks/large.py --size 3600x2600 --part 2600 --backend openvino`."""
MEMORY = 384 * 2**20
"""Bytes for rows in flight, without the network."""


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows in which an image is segmented."""

    size: tuple[int, int] | None = None
    """Height and width, in pixels; None for `WINDOW`."""
    overlap: float = OVERLAP
    """Least share of its side by which a window overlaps the next one."""

    def __post_init__(self) -> None:
        Protocol(window=self.size or WINDOW, overlap=self.overlap)  # raises if a value is not allowed


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture to write of a large image."""

    path: Path
    """A `.tif`, `.tiff` or `.png` file."""
    kind: Kind | None = None
    """A key of `OUTPUT_KINDS`; None for label ids, or the first output of a network without classes."""
    rendering: RenderOptions = AS_USUAL


@dataclass(frozen=True, kw_only=True)
class LargeSegmentation:
    """Outcome for an image that was never in memory as a whole."""

    output: Path
    """The picture written."""
    size: tuple[int, int]
    """Height and width of the image, in pixels."""
    areas: Mapping[str, float]
    """Share of the image's pixels with data by class name, in [0, 1]; classes that do not occur have 0."""
    windows: int
    """Number of windows."""
    seconds: float
    no_data: float = 0.0
    """Share of the image's pixels without data, in [0, 1]; they have no class."""
    notes: tuple[Note, ...] = ()
    """Notes on how the image was read."""


def segment_large(
    segmenter: Segmenter,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    output: Kind | None = None,
    *,
    window: tuple[int, int] | None = None,
    overlap: float = OVERLAP,
    abstain_below: float = 0.0,
    reading: Reading = AS_DECLARED,
    rendering: RenderOptions = AS_USUAL,
    memory: int = MEMORY,
    progress: bool = True,
) -> LargeSegmentation:
    """Segment an image file in windows and write the picture; an existing file is replaced only on success.

    Args:
        segmenter: Network and classes; its own protocol is ignored.
        source: A TIFF (BigTIFF, GeoTIFF), PNG, JPEG or BMP file: grey, RGB, alpha or palette of 8 or 16 bits, or other
            bands and types as `reading` says.
        target: A `.tif` or `.tiff` file (tiled, compressed) or a `.png` file. Georeferencing is kept, beside a PNG in
            `NAME.png.aux.xml`.
        output: Kind of picture, a key of `OUTPUT_KINDS`; by default label ids, and for networks without classes the
            first output.
        window: Height and width of the windows, in pixels; by default 768 by 768, or larger by as much as the model
            reduces the image.
        overlap: Minimum overlap of neighbouring windows, as a share of their side.
        abstain_below: Pixels with less confidence get no class, but the label set's ignore index.
        reading: Bands to read, and their values for black and white.
        rendering: Choices for pictures; colours of values need limits, outlines and legends are not drawn.
        memory: Bytes for rows in flight; less memory means more strips, whose borders are segmented twice.
        progress: Whether to show progress on standard error.

    Raises:
        ValueError: rasterio is not installed, a value is not allowed, the file cannot be used, or `target` is `source`.
        OSError: a file cannot be read or written.
    """
    windows = Windows(size=window, overlap=overlap)
    picture = Picture(path=Path(target), kind=output, rendering=rendering)
    return segment_in_windows(
        segmenter, source, [picture], windows, abstain_below, reading, memory=memory, progress=progress
    )


def segment_in_windows(
    segmenter: Segmenter,
    source: str | os.PathLike[str],
    pictures: Sequence[Picture],
    windows: Windows,
    abstain_below: float = 0.0,
    reading: Reading = AS_DECLARED,
    *,
    memory: int = MEMORY,
    progress: bool = True,
) -> LargeSegmentation:
    """Segment an image file in windows once, and write any number of pictures; for arguments see `segment_large`.

    Returns:
        The outcome; its `output` is the first picture.

    Raises:
        ValueError, OSError: as for `segment_large`.
    """
    check_abstention(abstain_below)
    renderers = []
    for picture in pictures:
        check_suffix(picture.path)
        renderers.append(_open_renderer(segmenter, picture))
        refuse_same_file(source, picture.path)
    with _open(source, reading) as image:
        factor = find_factor((image.height, image.width), segmenter.longest_side)
        protocol = Protocol(window=windows.size or _enlarge(WINDOW, factor), overlap=windows.overlap)
        run = _LargeRun(segmenter.under(protocol), image, renderers, abstain_below, memory)
        run.run([picture.path for picture in pictures], progress=progress)
    return run.report(pictures[0].path)


def _enlarge(window: tuple[int, int], factor: float) -> tuple[int, int]:
    """Return the window of an image whose windows are reduced by a factor before the network."""
    return round(window[0] / factor), round(window[1] / factor)


def _open(source: str | os.PathLike[str], reading: Reading) -> AbstractContextManager[RasterReader | BandReader]:
    return open_bands(source, reading) if reading.model_bands else open_upright(source, reading)


def _open_renderer(segmenter: Segmenter, picture: Picture) -> Renderer:
    rendering = picture.rendering
    kind = picture.kind or usual_kind(segmenter.outputs) or "labels"
    renderer = open_renderer(kind, picture.path.suffix, segmenter.outputs, segmenter.label_set, rendering)
    refuse_files(picture.path, [renderer])
    refuse_idle(rendering, [renderer])
    if rendering.outline or rendering.legend:
        raise ValueError(
            "In windows, overlays are drawn pixel by pixel, without outlines or legends: leave out outline (--outline) "
            "and legend (--legend), or segment a smaller image as a whole, into a .png or .jpg file."
        )
    if renderer.needs_limits:
        raise ValueError(
            f"In windows, {kind} needs the values at both ends of its colour scale, which must not depend on the "
            "window: pass limits (--limits LOW,HIGH)."
        )
    return renderer


def refuse_files(source: Path, renderers: Sequence[Renderer]) -> None:
    """Refuse kinds of files that cannot be written in windows.

    Raises:
        ValueError: one is not a picture; the message names the image.
    """
    unsupported = [renderer.kind for renderer in renderers if not renderer.is_picture]
    if unsupported:
        able = ", ".join(kind for kind, row in OUTPUT_KINDS.items() if row.is_picture or row.forms)
        raise ValueError(
            f"{source}: {unsupported[0]} cannot be written in windows; {able} can. Choose among these with --kind."
        )


class _LargeRun:
    """Segmentation of one image."""

    def __init__(
        self,
        segmenter: Segmenter,
        image: RasterReader | BandReader,
        renderers: Sequence[Renderer],
        abstain_below: float,
        memory: int,
    ) -> None:
        self.segmenter, self.image, self.renderers, self.abstain_below = segmenter, image, renderers, abstain_below
        self.factor = find_factor((image.height, image.width), segmenter.longest_side)
        protocol = segmenter.protocol
        assert protocol.window is not None
        self.rows = WindowGrid(image.height, protocol.window[0], protocol.overlap)
        self.columns = WindowGrid(image.width, protocol.window[1], protocol.overlap)
        channels = sum(spec.count_maps(len(segmenter.label_set)) for spec in segmenter.outputs)
        pictures = sum(math.prod(each.shape(1, 1)) * np.dtype(each.dtype).itemsize for each in renderers)
        self.strips = _choose_strips(self.rows, image, channels, max(3, pictures), memory)
        self.windows = len(self.rows) * sum(len(self.columns.touching(strip)) for strip in self.strips)
        self.counts = np.zeros(segmenter.label_set.ignore_index + 1, np.int64)
        self.data_pixels = 0
        self.started = time.perf_counter()

    def run(self, paths: Sequence[Path], *, progress: bool) -> None:
        """Segment the image and write the pictures."""
        with progress_bar(progress) as bar, ExitStack() as stack:
            pairs = zip(paths, self.renderers, strict=True)
            targets = [stack.enter_context(self._open_target(path, renderer)) for path, renderer in pairs]
            task = bar.add_task("Segmenting", total=self.windows, status="", unit="windows")

            def advance() -> None:
                done = bar.tasks[task].completed + 1
                speed = done / (time.perf_counter() - self.started)
                bar.update(task, advance=1, status=f"{speed:.2f} windows/s")

            for strip in self.strips:
                self._run_strip(strip, targets, advance)

    def _open_target(self, path: Path, renderer: Renderer) -> AbstractContextManager[RasterWriter]:
        return open_target(
            path,
            renderer.shape(self.image.height, self.image.width),
            renderer.dtype,
            self.image.placing,
            renderer.palette,
            nodata=renderer.no_data,
            text=renderer.text,
            bands=renderer.bands,
            overviews="mode" if renderer.row.holds_ids else "average",
        )

    def _run_strip(self, strip: slice, targets: Sequence[RasterWriter], advance: Callable[[], None]) -> None:
        # A strip is blended from all windows that touch it, so that its labels do not depend on where strips end.
        touched = self.columns.touching(strip)
        reach = slice(self.columns.starts[touched[0]], self.columns.place(touched[-1]).stop)
        pixels = _Rows(self.image, self.rows.window, reach)

        def forward(rows: slice, columns: slice) -> Array:
            window = pixels.cut(rows, columns)
            images = prepare(shrink_image(window, self.factor), self.segmenter.backend.device)
            logits = resize(self.segmenter.backend(images), window.shape[:2])
            advance()
            return logits

        for target in targets:
            target.begin()
        bands: list[npt.NDArray[Any]] = []
        for block in blend_windows(forward, self.rows, self.columns, strip):
            # Blocks come in reading order; those of the same rows make up one band of each picture.
            prediction = self._predict(block, pixels)
            drawn = [renderer.block(prediction) for renderer in self.renderers]
            if not bands or len(bands[0]) != len(drawn[0]):
                bands = [np.empty((len(each), strip.stop - strip.start, *each.shape[2:]), each.dtype) for each in drawn]
            for band, each in zip(bands, drawn, strict=True):
                band[:, block.columns.start - strip.start : block.columns.stop - strip.start] = each
            if block.columns.stop == strip.stop:
                for target, band in zip(targets, bands, strict=True):
                    target.write(band, strip.start)
                bands = []

    def _predict(self, block: Block, pixels: _Rows) -> Prediction:
        size = block.logits.shape[1], block.logits.shape[2]
        found = Logits(values=block.logits, size=size, temperature=self.segmenter.temperature)
        image, valid = pixels.cut(block.rows, block.columns), pixels.cut_mask(block.rows, block.columns)
        prediction = self.segmenter.compose(image, found, self.abstain_below, valid)
        self.data_pixels += math.prod(size) if valid is None else int(valid.sum())
        if prediction.segmentation is not None:
            labels = prediction.segmentation.labels
            self.counts += np.bincount(labels.ravel(), minlength=len(self.counts))
        return prediction

    def report(self, path: Path) -> LargeSegmentation:
        """Return the outcome."""
        names, size = self.segmenter.label_set.names, (self.image.height, self.image.width)
        counts = self.counts[: len(names)]  # without the ignore index, whose id comes later
        areas = {name: int(count) / max(1, self.data_pixels) for name, count in zip(names, counts, strict=True)}
        seconds = time.perf_counter() - self.started
        return LargeSegmentation(
            output=path,
            size=size,
            areas=areas,
            windows=self.windows,
            seconds=seconds,
            no_data=1 - self.data_pixels / math.prod(size),
            notes=self.image.notes(),
        )


class _Rows:
    """Sliding buffer of the image rows under the current windows, for some columns; each row is read once."""

    def __init__(self, image: RasterReader | BandReader, height: int, columns: slice) -> None:
        self._image, self._columns = image, columns
        shape = height, columns.stop - columns.start
        self._pixels: Pixels = np.empty((*shape, image.channels), image.dtype)
        self._valid: Mask | None = np.empty(shape, np.bool_) if image.may_lack_data else None
        self._top = self._bottom = 0

    def cut(self, rows: slice, columns: slice) -> Pixels:
        """Return pixels `(H, W, 3)`, or bands `(H, W, B)`; calls must not move up the image."""
        if rows.stop > self._bottom:
            self._advance(rows)
        return self._pixels[self._place(rows, columns)]

    def cut_mask(self, rows: slice, columns: slice) -> Mask | None:
        """Return where the pixels of `cut` have data, `(H, W)` bool; None for everywhere."""
        return None if self._valid is None else self._valid[self._place(rows, columns)]

    def _place(self, rows: slice, columns: slice) -> tuple[slice, slice]:
        left = self._columns.start
        return slice(rows.start - self._top, rows.stop - self._top), slice(columns.start - left, columns.stop - left)

    def _advance(self, rows: slice) -> None:
        # Rows that the next windows share with the last ones move to the top of the buffer; the others are read.
        shared = max(0, self._bottom - rows.start)
        old, new = (
            slice(self._bottom - shared - self._top, self._bottom - self._top),
            slice(shared, rows.stop - rows.start),
        )
        missing = slice(rows.start + shared, rows.stop)
        self._pixels[:shared] = self._pixels[old]
        if self._valid is None:
            self._pixels[new] = self._image.read(missing, self._columns)
        else:
            self._valid[:shared] = self._valid[old]
            self._pixels[new], self._valid[new] = self._image.read_with_mask(missing, self._columns)
        self._top, self._bottom = rows.start, rows.stop


def _choose_strips(
    rows: WindowGrid, image: RasterReader | BandReader, channels: int, picture: int, memory: int
) -> list[slice]:
    """Return strips of columns, from left to right, narrow enough for their rows in flight to fit into memory."""
    # Bytes per column: float32 logits shared by two rows of windows, pixels while rows move in the buffer, pictures.
    width, pixel = image.width, image.channels * np.dtype(image.dtype).itemsize
    logits, pixels, pictures = 4 * channels * rows.longest_overlap, 2 * pixel * rows.window, 2 * picture * rows.window
    count = math.ceil(width * (logits + pixels + pictures) / memory)
    side = math.ceil(width / count / TILE) * TILE  # whole tiles: each is compressed and written once
    return [slice(left, min(width, left + side)) for left in range(0, width, side)]
