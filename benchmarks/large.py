"""Large images: peak memory, speed and seams of sliding-window segmentation on a drawn image.

    python benchmarks/large.py [--size 20000x15000] [--window 768x768] [--overlap 0.75] [--backend openvino]

The image consists of adjacent, alternately mirrored streets with slowly varying colours; it is written and read in
parts. The segmentation runs in a separate process, whose peak resident memory is reported by the system. Then a part
of the image is cut out so that its windows are offset by half a step from those of the whole image where possible: a
seam would appear as pixels with different labels along the lines where another window begins to dominate. Other pixels
are compared, too: differences there are not seams, but the effect of different surroundings on the network.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import rasterio

from refinenet.datasets.street_scenes import draw_street
from refinenet.inference.sliding_window import STRIDE, WindowGrid
from refinenet.io.console import print_table

STREET = (720, 960)
BORDER = 8
"""Pixels on either side of a middle line between two windows that count as its border."""

_RUN = """
import json, sys
from dataclasses import asdict
from refinenet import RefineNet
source, target, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
network = RefineNet(model="camvid", backend=settings.pop("backend"))
found = network.deploy_large(source, target, window=tuple(settings.pop("window")), **settings)
print(json.dumps({"windows": found.windows, "seconds": found.seconds}))
"""


class Place(NamedTuple):
    """A rectangular part of the image."""

    top: int
    left: int
    height: int
    width: int


def draw(path: Path, width: int, height: int) -> None:
    """Write the image, one row of streets at a time."""
    streets = [draw_street(seed, *STREET)[0] for seed in range(4)]
    profile = {"width": width, "height": height, "count": 3, "dtype": "uint8", "compress": "lzw"}
    with rasterio.open(path, "w", driver="GTiff", tiled=True, bigtiff="if_safer", **profile) as target:
        for number, top in enumerate(range(0, height, STREET[0])):
            rows = min(STREET[0], height - top)
            row = [streets[(number + k) % 4][:, :: 1 if k % 2 else -1] for k in range(-(-width // STREET[1]))]
            pixels = np.concatenate(row, axis=1)[:rows, :width].astype(np.float32)
            down, across = np.arange(top, top + rows)[:, None] / 3000, np.arange(width) / 2000
            for channel in range(3):
                pixels[..., channel] *= 0.9 + 0.1 * np.sin(down + across + channel)
            target.write(np.moveaxis(pixels.astype(np.uint8), -1, 0), window=((top, top + rows), (0, width)))


def segment(source: Path, target: Path, settings: dict[str, Any]) -> dict[str, float]:
    """Segment in another process; return the number of windows, seconds, and peak resident memory in GiB."""
    command = [sys.executable, "-c", _RUN, str(source), str(target), json.dumps(settings)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    # The maximum over all children so far, in KiB on Linux: the whole image comes first and is the largest.
    return found | {"peak": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20}


def near_borders(side: int, window: int, overlap: float) -> npt.NDArray[np.bool_]:
    """Whether each pixel of a side is near the middle of the overlap of two windows, `(side,)`."""
    near = np.zeros(side, bool)
    for first, second in itertools.pairwise(WindowGrid(side, window, overlap).starts):
        middle = (first + window + second) // 2
        near[middle - BORDER : middle + BORDER] = True
    return near


def choose_part(width: int, height: int, settings: dict[str, Any], longest: int) -> Place:
    """Choose a part of at most `longest` pixels per side that starts half a step after a window, at a whole stride."""

    def begin(side: int, window: int) -> int:
        starts = WindowGrid(side, window, settings["overlap"]).starts
        index = max(0, min(len(starts) - 2, len(starts) // 3))
        return sum(starts[index : index + 2]) // 2 // STRIDE * STRIDE

    top, left = begin(height, settings["window"][0]), begin(width, settings["window"][1])
    return Place(top, left, min(longest, height - top), min(longest, width - left))


def cut(source: Path, target: Path, part: Place) -> None:
    """Copy a part of an image."""
    window = ((part.top, part.top + part.height), (part.left, part.left + part.width))
    with rasterio.open(source) as whole:
        pixels = whole.read(window=window)
    profile = {"width": part.width, "height": part.height, "count": len(pixels), "dtype": "uint8"}
    with rasterio.open(target, "w", driver="GTiff", **profile) as copy:
        copy.write(pixels)


def compare(labels: Path, shifted: Path, part: Place, settings: dict[str, Any]) -> dict[str, float]:
    """Fractions of equal labels near window borders and elsewhere, away from the edges of the part."""
    rows, columns = slice(part.top, part.top + part.height), slice(part.left, part.left + part.width)
    with rasterio.open(labels) as whole, rasterio.open(shifted) as other:
        equal = whole.read(1, window=((rows.start, rows.stop), (columns.start, columns.stop))) == other.read(1)
        near = np.logical_or.outer(
            near_borders(whole.height, settings["window"][0], settings["overlap"])[rows],
            near_borders(whole.width, settings["window"][1], settings["overlap"])[columns],
        )
    margin = [window // 2 for window in settings["window"]]
    inner = (slice(margin[0], part.height - margin[0]), slice(margin[1], part.width - margin[1]))
    equal, near = equal[inner], near[inner]
    return {"border": equal[near].mean(), "elsewhere": equal[~near].mean(), "pixels": int(near.sum())}


def main() -> None:
    """Draw, segment, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="20000x15000", help="width x height")
    parser.add_argument("--window", default="768x768", help="width x height")
    parser.add_argument("--overlap", type=float, default=0.75)
    parser.add_argument("--part", type=int, default=3000, help="longest side of the part with shifted windows")
    parser.add_argument("--backend", default="pytorch")
    arguments = parser.parse_args()
    width, height = (int(side) for side in arguments.size.split("x"))
    window = [int(side) for side in arguments.window.split("x")][::-1]
    settings = {"window": window, "overlap": arguments.overlap, "backend": arguments.backend}
    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
    with tempfile.TemporaryDirectory() as folder, rasterio.Env(GDAL_CACHEMAX=64 * 2**20):
        image, labels, part_image, part_labels = (Path(folder) / f"{name}.tif" for name in ("a", "b", "c", "d"))
        draw(image, width, height)
        found = segment(image, labels, settings)
        part = choose_part(width, height, settings, arguments.part)
        cut(image, part_image, part)
        segment(part_image, part_labels, settings)
        agreement = compare(labels, part_labels, part, settings)
    rows = [
        ["peak resident memory of the process", f"{found['peak']:.2f} GiB"],
        ["windows", f"{found['windows']:,.0f}"],
        ["seconds", f"{found['seconds']:,.0f}"],
        ["megapixels a second", f"{width * height / 1e6 / found['seconds']:.3f}"],
        [f"equal with shifted windows, of {agreement['pixels']:,.0f} border pixels", f"{agreement['border']:.3%}"],
        ["equal with shifted windows, elsewhere", f"{agreement['elsewhere']:.3%}"],
    ]
    title = f"{width}x{height}, windows {arguments.window}, overlap {arguments.overlap:g}, {arguments.backend}"
    print_table(title, ["", ""], rows)


if __name__ == "__main__":
    main()
