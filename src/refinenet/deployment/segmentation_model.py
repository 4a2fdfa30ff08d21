"""A model that writes what it predicts: images, files, large images and videos.

Shape letters: H height, W width.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy.typing as npt

from refinenet._version import __version__
from refinenet.deployment.file_results import DeployOptions, FileResult
from refinenet.deployment.files import segment_files, take_all
from refinenet.deployment.inputs import JobList, plan_work
from refinenet.deployment.large_images import OVERLAP, LargeSegmentation, Windows, segment_large
from refinenet.deployment.run_table import AreaTable
from refinenet.deployment.video.model import VideoModel
from refinenet.inference.output_kinds import Kind, Output
from refinenet.inference.rendering import Renderer, check_kind, open_renderer, open_shown, refuse_idle
from refinenet.inference.segmentation import check_output
from refinenet.inference.values.subject import RenderOptions, usual_kind
from refinenet.io.files import refuse_same_file, write_atomically
from refinenet.io.images.codec import ChannelOrder, ImageSource
from refinenet.io.images.sample_values import ValueRange


class SegmentationModel(VideoModel):
    """A model with a method for each way to write what it predicts."""

    def deploy(
        self,
        image: ImageSource | None = None,
        image_file: str | os.PathLike[str] | None = None,
        output_file: str | os.PathLike[str] | None = None,
        output: Kind | None = None,
        channel_order: ChannelOrder | None = None,
        abstain_below: float = 0.0,
        max_latency_ms: float | None = None,
        bands: Sequence[int] | None = None,
        value_range: ValueRange | None = None,
        **rendering: Any,
    ) -> npt.NDArray[Any]:
        """Predict for an image, render a picture of the result, and write it to a file if one is given.

        Args:
            image: An array `(H, W, 3)` uint8 RGB, or anything else that `segment` accepts.
            image_file: Path of an image file, instead of `image`.
            output_file: `.png` or `.jpg` file to write; of depths and other values also `.npz` and `.ply`. Missing
                folders are created, and an existing file is replaced, unless it is the image itself.
            output: "labels" (ids; `.png` only), "palette" (ids, with the class colours as palette in the file),
                "colour", "overlay" or "confidence". By default the colour image is returned, a `.png` file contains
                label ids, and a `.jpg` file colours. Of other outputs: "depth" (`.png` in millimetres), "depth_colour",
                "cloud" (`.ply`), "normals", "values", "values_colour"; the first output of the kind, or with its name
                "depth:far", "values:height". Networks without classes draw their first output by default.
            channel_order: As for `segment`.
            abstain_below: As for `segment`.
            max_latency_ms: As for `segment`.
            bands: As for `segment`.
            value_range: As for `segment`.
            rendering: Fields of `RenderOptions`. For overlays: `opacity`, `outline` (width in pixels), `legend` (True),
                `show` and `hide` (names of classes); see `Segmentation.draw`. For depths and other values: `scale`
                (stored value of one unit in `.png`), `limits` (values at both ends of colours), `intrinsics` (fx, fy,
                cx, cy for a point cloud).

        Returns:
            The picture: `(H, W, 3)` uint8 in the channel order of the image; `(H, W)` for "labels", "palette" and
            "confidence"; for "depth" and "values" float32 in their units. The colours in `output_file` are right in
            either order.

        Raises:
            ValueError: not exactly one of `image` and `image_file` is given, the image cannot be used, or
                `output_file` does not fit `output` or is the image itself.
            OSError: a file cannot be read or written.
        """
        source, options = _choose_source(image, image_file), RenderOptions.from_dict(rendering)
        kind = output or usual_kind(self.outputs)
        shown = open_shown(kind or "colour", self.outputs, self.label_set, options)
        written: Renderer | None = None
        if output_file is not None:
            written = self._open_written(output_file, kind, options)
            if isinstance(source, str | os.PathLike):
                refuse_same_file(source, output_file)
        refuse_idle(options, [shown] if written is None else [shown, written])
        found = self.predict(
            source,
            channel_order=channel_order,
            abstain_below=abstain_below,
            max_latency_ms=max_latency_ms,
            bands=bands,
            value_range=value_range,
        )
        picture = shown.picture(found)
        if output_file is not None and written is not None:
            write_atomically(output_file, written.encode(found))
        return picture

    def _open_written(self, path: str | os.PathLike[str], kind: Kind | None, options: RenderOptions) -> Renderer:
        if kind is None or not check_kind(kind, self.outputs).shows_values:
            kind = check_output(path, cast("Output | None", kind))
        return open_renderer(kind, Path(path).suffix, self.outputs, self.label_set, options)

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
        table: str | os.PathLike[str] | None = None,
        suffix: str | None = None,
        **rendering: Any,
    ) -> list[FileResult]:
        """Segment image files and write the results; unreadable files are skipped and reported.

        A journal in the folder of results (`deploy.json`, `deploy.jsonl`) makes an interrupted run resumable: results
        of the same model and settings are not recomputed while their images are unchanged.

        Args:
            sources: Image files, folders, patterns such as `"photos/**/*.jpg"`, and `"@list.txt"` for a text file that
                lists them.
            output: A folder, by default `segmented`; for a single image a file, by default next to it.
            kinds: What to write: "labels", "palette" (labels with the class colours as palette), "colour", "overlay",
                "confidence", "probabilities" (`.npz`), "coco" (COCO JSON with run lengths), "geojson", or "polygons"
                for the last two; and those of other outputs, as for `deploy`. Several kinds get a folder each.
            recursive: Whether to include subfolders, which results keep.
            overwrite: Whether to recompute existing results and to replace files that are in the way.
            abstain_below: As for `segment`.
            progress: Whether to show progress on standard error.
            bands: As for `segment`.
            value_range: As for `segment`.
            table: `.csv` or `.parquet` file for a table with a row for each image and class: pixels, share, regions,
                and square metres of georeferenced images. Regions of images in windows are not counted.
            suffix: Suffix of the results in a folder, such as ".jpg" for overlays or ".tif" for values; by default the
                usual one of each kind.
            rendering: As for `deploy`.

        Returns:
            The written files or the error of each image, in order.

        Raises:
            ValueError: no image is found, or the output does not fit or belongs to another run; the message says what
                to do.
            OSError: the folder of results cannot be used.
        """
        areas = None if table is None else self.open_table(table)
        named = [sources] if isinstance(sources, str | os.PathLike) else sources
        chosen = [kinds] if isinstance(kinds, str) else kinds
        target = None if output is None else Path(output)
        arrays = bool(self.card.architecture.bands)
        work = plan_work(named, target, chosen, recursive=recursive, outputs=self.outputs, arrays=arrays, suffix=suffix)
        found: list[FileResult] = []
        results = self.deploy_work(
            work,
            overwrite,
            abstain_below=abstain_below,
            progress=progress,
            bands=bands,
            value_range=value_range,
            measures_areas=areas is not None,
            **rendering,
        )
        take_all(results, len(work.items), found.append, progress=progress)
        if areas is not None:
            for result in found:
                areas.add(result)
            areas.write()
        return found

    def open_table(self, path: str | os.PathLike[str]) -> AreaTable:
        """Open a table of the areas of this model's classes; see `AreaTable`.

        Raises:
            ValueError, OSError: as `AreaTable`, or the model predicts no classes.
        """
        if not self.label_set.names:
            raise ValueError("A table lists the areas of classes, but the model predicts none.")
        return AreaTable(path)

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
        measures_areas: bool = False,
        **rendering: Any,
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
            measures_areas: Whether results have `regions` and `pixel_area`.
            rendering: As for `deploy`.

        Raises:
            ValueError, OSError: as for `deploy_files`.
        """
        reading, notes = self._choose_reading(bands, value_range)
        options = DeployOptions(
            reading=reading,
            rendering=RenderOptions.from_dict(rendering),
            abstain_below=abstain_below,
            windows=windows,
            max_latency_ms=max_latency_ms,
            overwrite=overwrite,
            progress=progress,
            measures_areas=measures_areas,
        )
        self._warn_of_random_weights()
        for note in notes:
            warnings.warn(note.text, stacklevel=2)
        tuner = None if max_latency_ms is None else self._tuner
        # Only the journal of a folder records the model.
        model_settings = {} if work.folder is None else self._describe_for_journal()
        return segment_files(self._segmenter, work, options, model_settings, tuner)

    def _describe_for_journal(self) -> dict[str, Any]:
        """Return what results depend on, besides the options, as JSON-ready values."""
        return {
            "refinenet": __version__,
            "model_sha256": self._weights_sha256,
            "label_set": self.label_set.to_dict(),
            "temperature": self.card.temperature,
            "backend": self._backend,
            "precision": self._precision,
        }

    def deploy_large(
        self,
        image_file: str | os.PathLike[str],
        output_file: str | os.PathLike[str],
        output: Kind | None = None,
        *,
        window: tuple[int, int] | None = None,
        overlap: float = OVERLAP,
        abstain_below: float = 0.0,
        progress: bool = True,
        bands: Sequence[int] | None = None,
        value_range: ValueRange | None = None,
        **rendering: Any,
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
            rendering: As for `deploy`; colours need `limits` here, and there are no outlines and legends.

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
            rendering=RenderOptions.from_dict(rendering),
            progress=progress,
        )
        for note in (*notes, *result.notes):
            warnings.warn(note.text, stacklevel=2)
        return result

    def serve(self, **settings: Any) -> bool:
        """Serve the model over HTTP, with a page for browsers, until Ctrl-C or SIGTERM.

        Args:
            settings: Fields of `refinenet.deployment.ServerSettings`, such as `host`, `port` and `token`.

        Returns:
            Whether all requests in flight were finished; otherwise a thread still computes.

        Raises:
            ValueError: a setting is not allowed, or FastAPI or uvicorn is not installed.
            OSError: the address cannot be used.
        """
        from refinenet.deployment.server.settings import ServerSettings, check_libraries

        chosen = ServerSettings.from_dict(settings)
        check_libraries()
        from refinenet.deployment.server.runner import serve

        self._warn_of_random_weights()
        return serve(self, chosen)


def _choose_source(image: ImageSource | None, image_file: str | os.PathLike[str] | None) -> ImageSource:
    if (image is None) == (image_file is None):
        raise ValueError("Pass exactly one of image (such as an array) and image_file (a path).")
    if image is not None:
        return image
    if not isinstance(image_file, str | os.PathLike):
        raise ValueError(f"image_file must be a path, not {type(image_file).__name__}: pass it as image.")
    return image_file
