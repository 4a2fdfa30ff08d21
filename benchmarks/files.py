"""Folder runs: the cost of each step, and throughput relative to the network alone, in one run.

    python benchmarks/files.py [--images 40] [--size 960x720] [--backend openvino] [--kind labels] [--rounds 3]

Drawn streets are written as JPEG files (quality 90). Steps are timed one by one, without overlap: wall-clock time,
and CPU time of all threads, which is less affected by other load. Each round then runs the network on the
same number of prepared images and `RefineNet.deploy_files` on the folder, in turn, so that a machine whose speed
drifts affects both equally; ratios are medians over rounds.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from PIL import Image

from refinenet import RefineNet
from refinenet.datasets.street_scenes import draw_street
from refinenet.deployment import Kind
from refinenet.deployment.inputs import choose_kinds, usual_suffix
from refinenet.inference.backends import open_backend
from refinenet.inference.backends.base import BackendName
from refinenet.inference.segmenter import Segmenter, prepare
from refinenet.io.arrays import Array
from refinenet.io.console import print_table
from refinenet.io.files import write_atomically
from refinenet.io.images.codec import decode, encode
from refinenet.labels import Colour

DRAWN = 6
"""Number of distinct images; further files are copies."""
STEPS = ("decode", "prepare", "network", "post", "encode", "write")


class Stopwatch:
    """Milliseconds by step: wall-clock and processor time."""

    def __init__(self) -> None:
        self.wall: dict[str, list[float]] = defaultdict(list)
        self.processor: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def time(self, step: str) -> Iterator[None]:
        """Record the time of the context."""
        wall, processor = time.perf_counter(), time.process_time()
        yield
        self.wall[step].append(1000 * (time.perf_counter() - wall))
        self.processor[step].append(1000 * (time.process_time() - processor))


class TimedBackend:
    """Backend wrapper that times calls as the step "network"."""

    def __init__(self, network: RefineNet, backend: BackendName, watch: Stopwatch) -> None:
        self._run, self._watch = open_backend(network.network, backend, "float32"), watch
        self.device = self._run.device

    def __call__(self, images: Array) -> Array:
        """Run the backend and record its time."""
        with self._watch.time("network"):
            return self._run(images)


def draw_files(folder: Path, count: int, width: int, height: int) -> list[Path]:
    """Save drawn streets as JPEG files."""
    contents = []
    for seed in range(min(DRAWN, count)):
        content = io.BytesIO()
        Image.fromarray(draw_street(seed, height, width)[0]).save(content, "JPEG", quality=90)
        contents.append(content.getvalue())
    paths = [folder / f"{number:04d}.jpg" for number in range(count)]
    folder.mkdir()
    for number, path in enumerate(paths):
        path.write_bytes(contents[number % len(contents)])
    return paths


def time_steps(network: RefineNet, backend: BackendName, paths: list[Path], kind: Kind, results: Path) -> Stopwatch:
    """Time each step of each file without overlap; the first file is a warm-up."""
    watch = Stopwatch()
    segmenter = Segmenter(
        TimedBackend(network, backend, watch), network.label_set, temperature=network.card.temperature
    )
    for path in [paths[0], *paths]:
        with watch.time("decode"):
            pixels = decode(path)
        with watch.time("prepare"):
            prepare(pixels, segmenter.backend.device)
        with watch.time("segment"):
            found = segmenter.predict_outputs(pixels)
        with watch.time("encode"):
            content = network.open_renderer(kind, usual_suffix(kind)).encode(found, path.name)
        with watch.time("write"):
            write_atomically(results / f"{path.stem}{usual_suffix(kind)}", content)
    for times in (watch.wall, watch.processor):
        for values in times.values():
            del values[0]
        parts = zip(times["segment"], times["prepare"], times["network"], strict=True)
        times["post"] = [segment - before - inside for segment, before, inside in parts]
    return watch


def time_levels(network: RefineNet, path: Path) -> list[list[str]]:
    """Milliseconds and bytes of a label map and an overlay as PNG at each zlib level, and at the package's setting."""
    found = network.segment(path)
    rows = []
    for name, pixels, palette in (("labels", found.labels, found.label_set.colours), ("overlay", found.overlay, None)):
        for level in (1, 3, 6, None):
            times = []
            for _ in range(3):
                started = time.thread_time()
                content = encode_at(pixels, level, palette) if level else encode(pixels, ".png", palette=palette)
                times.append(1000 * (time.thread_time() - started))
            rows.append([f"{name}, {level or 'as written'}", f"{min(times):.1f}", f"{len(content):,}"])
    return rows


def encode_at(pixels: npt.NDArray[Any], level: int, palette: Sequence[Colour] | None) -> bytes:
    image, content = Image.fromarray(pixels), io.BytesIO()
    if palette is not None:
        image.putpalette([value for colour in palette for value in colour])
    image.save(content, "PNG", compress_level=level)
    return content.getvalue()


def main() -> None:
    """Time, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--size", default="960x720", help="width x height")
    parser.add_argument("--backend", choices=["pytorch", "openvino"], default="pytorch")
    parser.add_argument("--kind", default="labels")
    parser.add_argument("--model", default="camvid")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    (kind,) = choose_kinds([arguments.kind])
    network = RefineNet(model=arguments.model, device="cpu", backend=arguments.backend)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        paths = draw_files(folder / "in", arguments.images, width, height)
        watch = time_steps(network, arguments.backend, paths, kind, folder / "single")
        print_steps(watch, f"{arguments.size} JPEG to {kind}, {arguments.backend}, float32")
        print_table("PNG by zlib's level", ["", "ms (processor)", "bytes"], time_levels(network, paths[0]))
        print_throughput(network, arguments.backend, folder, paths, kind, arguments.rounds)


def print_steps(watch: Stopwatch, title: str) -> None:
    rows = [
        [step, f"{statistics.median(watch.wall[step]):.1f}", f"{statistics.median(watch.processor[step]):.1f}"]
        for step in STEPS
    ]
    print_table(f"{title}, {torch.get_num_threads()} threads: ms (median)", ["", "wall", "processor"], rows)
    for name, times in (("wall", watch.wall), ("processor", watch.processor)):
        medians = {step: statistics.median(times[step]) for step in STEPS}
        others = sum(medians.values()) - medians["network"]
        print(f"All besides the network, {name}: {others:.1f} ms, {100 * others / medians['network']:.1f} % of it.")


def print_throughput(
    network: RefineNet, backend: BackendName, folder: Path, paths: list[Path], kind: Kind, rounds: int
) -> None:
    run = open_backend(network.network, backend, "float32")
    images = [prepare(decode(path), run.device) for path in paths[:DRAWN]]
    alone, whole = [], []
    for number in range(rounds):
        started = time.perf_counter()
        for count in range(len(paths)):
            run(images[count % len(images)])
        alone.append(len(paths) / (time.perf_counter() - started))
        started = time.perf_counter()
        found = network.deploy_files(folder / "in", folder / f"out{number}", kinds=[kind], progress=False)
        whole.append(len(paths) / (time.perf_counter() - started))
        assert all(result.error is None for result in found)
    shares = [100 * some / most for some, most in zip(whole, alone, strict=True)]
    print(
        f"Network alone {statistics.median(alone):.2f} images/s, a folder of {len(paths)} files "
        f"{statistics.median(whole):.2f}: {statistics.median(shares):.0f} % (rounds: "
        f"{', '.join(f'{share:.0f}' for share in shares)})."
    )


if __name__ == "__main__":
    main()
