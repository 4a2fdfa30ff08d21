"""Many image files at once: which they are, where each result goes, and going on past those that cannot be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from refinenet.datasets import IMAGE_SUFFIXES, list_files
from refinenet.files import refuse_same_file
from refinenet.large_images import LargeSegmentation
from refinenet.large_source import needs_windows
from refinenet.large_target import TIFF_SUFFIXES
from refinenet.segmenter import Output, Segmentation, check_output

RESULT_SUFFIXES = (".png", ".jpg", ".jpeg", *TIFF_SUFFIXES)
SegmentLarge = Callable[[Path, Path, Output | None], LargeSegmentation]
"""From an image file to a picture file, in windows."""


@dataclass(frozen=True, kw_only=True)
class FileResult:
    """What became of one image file."""

    image: Path
    output: Path
    segmentation: Segmentation | LargeSegmentation | None
    """None where the image could not be segmented or the result not be written."""
    error: ValueError | OSError | None
    """Why not; None where it worked."""


def pair_outputs(paths: Sequence[Path], output: Path | None, kind: Output | None) -> list[tuple[Path, Path]]:
    """Pair each image with the file that its result goes to.

    Args:
        paths: Image files, and folders whose images are taken in alphabetical order.
        output: For one image a file (`.png`, `.jpg` or `.tif`), by default `NAME_labels.png` (or the kind's name)
            beside it; for several a folder, by default `segmented`, in which each gets a `.png` file of its name.
        kind: Which picture will be written; see `Segmentation.save`.

    Raises:
        ValueError: an output that cannot hold the picture, a folder without images, a file as output for several
            images, the images' own folder, or two images of one name.
    """
    images = list(dict.fromkeys(image for path in paths for image in _images_of(path)))
    if len(images) == 1 and not paths[0].is_dir():
        target = output or images[0].with_name(f"{images[0].stem}_{kind or 'labels'}.png")
        target = target / f"{images[0].stem}.png" if target.is_dir() else target
        if target.suffix.lower() not in TIFF_SUFFIXES:  # which are written in windows, whatever they show
            check_output(target, kind)
        return [(images[0], target)]
    folder = output or Path("segmented")
    if folder.suffix.lower() in RESULT_SUFFIXES:
        raise ValueError(f"Several images need a folder for their results, not one file: {folder}.")
    if folder.is_dir() and any(image.parent.exists() and image.parent.samefile(folder) for image in images):
        raise ValueError(f"{folder} holds the images themselves: results would mix with them. Name another folder.")
    stems = Counter(image.stem for image in images)
    stem, times = stems.most_common(1)[0]
    if times > 1:
        raise ValueError(f"{times} images are named {stem!r}, and one result would replace the other.")
    return [(image, folder / f"{image.stem}.png") for image in images]


def _images_of(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    images = sorted(list_files(path, IMAGE_SUFFIXES))
    if not images:
        raise ValueError(f"{path} holds no images (looked for {', '.join(IMAGE_SUFFIXES)}).")
    return images


def segment_files(
    segment: Callable[[Path], Segmentation],
    pairs: Sequence[tuple[Path, Path]],
    output: Output | None,
    segment_large: SegmentLarge,
    always_large: bool = False,
) -> Iterator[FileResult]:
    """Segment image files one by one and write the results; one that cannot be is told of, and the next one follows.

    Args:
        segment: From an image file to its segmentation.
        pairs: Image files and where their results go.
        output: Which picture to write; see `Segmentation.save`.
        segment_large: Segments a file and writes the picture for images that do not fit into memory, and for TIFF.
        always_large: Whether it does so for all.
    """
    for image, target in pairs:
        segmentation: Segmentation | LargeSegmentation
        try:
            refuse_same_file(image, target)
            if always_large or target.suffix.lower() in TIFF_SUFFIXES or needs_windows(image):
                segmentation = segment_large(image, target, output)
            else:
                segmentation = segment(image)
                segmentation.save(target, output)
        except (ValueError, OSError) as error:
            yield FileResult(image=image, output=target, segmentation=None, error=error)
        else:
            yield FileResult(image=image, output=target, segmentation=segmentation, error=None)
