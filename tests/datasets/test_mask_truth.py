"""Masks of every format, mode, depth, palette, alpha and byte order with known labels: read exactly, rejected by name,
or stopped by the doctor; never silently read as another label map."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from mask_writers import COMPRESSIONS, Values, bmp, png, tiff
from PIL import Image

from refinenet.datasets import doctor
from refinenet.datasets.catalog import open_dataset

CASES = 2_400
SEEDS = range(int(os.environ.get("REFINENET_MASK_SEEDS", "1")))


class Case(NamedTuple):
    what: str
    suffix: str
    content: bytes
    classes: str
    labels: Values
    """The expected labels, void as 255."""


Random = np.random.Generator


def draw_labels(rng: Random, count: int) -> npt.NDArray[np.uint8]:
    """`(H, W)` labels in blocks, ids below `count`; all occur if there is room."""
    height, width = (int(v) for v in rng.integers(9, 24, 2))
    labels = rng.integers(0, count, (height // 3 + 1, width // 3 + 1)).repeat(3, 0).repeat(3, 1)[:height, :width]
    return np.ascontiguousarray(labels).astype(np.uint8)


def draw_colours(rng: Random, count: int) -> list[tuple[int, int, int]]:
    kind = rng.integers(5)
    if kind == 0:  # a grey ramp, which readers take for no palette
        return [(k, k, k) for k in range(count)]
    if kind == 1:
        return [(k * 255 // max(count - 1, 1),) * 3 for k in range(count)]
    if kind == 2:  # dark colours, which 16 bits show as black
        return [(k // 36 * 5, k // 6 % 6 * 5, k % 6 * 5) for k in range(count)]
    found: dict[tuple[int, int, int], None] = {(0, 0, 0): None} if kind == 3 else {}
    while len(found) < count:
        red, green, blue = rng.integers(0, 256, 3).tolist()
        found[red, green, blue] = None
    return list(found)


def yaml_of(colours: list[tuple[int, int, int]] | None, count: int, *, painted: bool = False) -> str:
    lines = [f"names: [{', '.join(f'c{k}' for k in range(count))}]"]
    if colours:
        lines.append(f"colours: {[list(colour) for colour in colours]}")
    return "\n".join(lines + ["masks: colours"] * painted) + "\n"


def cases(rng: Random) -> Iterator[Case]:
    makers = (id_png, id_bmp, id_tiff, painted_png, painted_bmp, painted_tiff, id_tiff, painted_tiff)
    while True:
        for make in makers:
            yield make(rng)


def pick(rng: Random, *choices: object) -> object:
    return choices[int(rng.integers(len(choices)))]


def id_png(rng: Random) -> Case:
    bits = (1, 2, 4, 8, 16)[rng.integers(5)]
    count = int(rng.integers(2, min(1 << bits, 20) + 1))
    labels, colours = draw_labels(rng, count), draw_colours(rng, count)
    interlaced = bool(rng.integers(2))
    if bits <= 8 and rng.integers(2):
        has_alpha = bool(rng.integers(2))
        alpha = rng.integers(0, 256, count).astype(np.uint8).tobytes() if has_alpha else b""
        content = png(labels, bits, 3, palette=colours, transparency=alpha, interlaced=interlaced)
        listed = colours if len(set(colours)) == count and rng.integers(2) else None
        return Case(f"png palette {bits} tRNS {has_alpha}", ".png", content, yaml_of(listed, count), labels)
    kind = rng.integers(4)
    if bits >= 8 and kind == 0:
        both = np.stack([labels, rng.integers(0, 256, labels.shape)], 2)
        return Case(
            f"png grey alpha {bits}", ".png", png(both, bits, 4, interlaced=interlaced), yaml_of(None, count), labels
        )
    if bits >= 8 and kind == 1:
        thrice = np.stack([labels] * 3, 2)
        return Case(
            f"png rgb ids {bits}", ".png", png(thrice, bits, 2, interlaced=interlaced), yaml_of(None, count), labels
        )
    key = int(rng.integers(0, count)).to_bytes(2, "big") if rng.integers(2) else b""
    content = png(labels, bits, 0, transparency=key, interlaced=interlaced)
    return Case(f"png grey {bits} tRNS {bool(key)}", ".png", content, yaml_of(None, count), labels)


def id_bmp(rng: Random) -> Case:
    bits = (1, 4, 8)[rng.integers(3)]
    count = int(rng.integers(2, min(1 << bits, 20) + 1))
    labels, colours = draw_labels(rng, count), draw_colours(rng, count)
    core, rle = bool(rng.integers(4) == 0), bits > 1 and bool(rng.integers(3) == 0)
    room = (1 << bits) if core else int(pick(rng, count, count, 1 << bits))  # type: ignore[call-overload]
    ramp = colours[1:2] == [(1, 1, 1)]
    palette = [*colours, *[(k, k, k) if ramp else (0, 0, 0) for k in range(count, room)]]
    rle = rle and not core
    content = bmp(
        labels, bits, palette=palette, core_header=core, compression="rle" if rle else "raw",
        top_down=not core and not rle and bool(rng.integers(2)),
    )  # fmt: skip
    return Case(f"bmp {bits} core {core} rle {rle} {room}", ".bmp", content, yaml_of(None, count), labels)


def id_tiff(rng: Random) -> Case:
    bits = (1, 2, 4, 8, 16, 32)[rng.integers(6)]
    count = int(rng.integers(2, min(1 << bits, 20) + 1))
    labels, colours = draw_labels(rng, count), draw_colours(rng, count)
    options = layout(rng)
    sample_format, photometric = 1, 1
    stored: Values = labels
    if bits <= 8 and rng.integers(3) == 0:
        photometric = 3
        options |= {"palette": colours, "palette_scale": int(pick(rng, 1, 256, 257))}  # type: ignore[call-overload]
    elif rng.integers(6) == 0:
        photometric, stored = 0, (1 << bits) - 1 - labels.astype(np.int64)  # drawn so that white is class 0
    elif bits >= 8:
        sample_format = (1, 2, 3 if bits == 32 else 2)[rng.integers(3)]
        stored = labels.astype({1: np.uint32, 2: np.int32, 3: np.float32}[sample_format])
    truth = labels
    if sample_format == 2 and rng.integers(2):
        stored = np.where(labels == 0, -1, stored)
        truth = np.where(labels == 0, 254, labels).astype(np.uint8)  # no label map that -1 may become
    content = tiff(stored, bits, photometric, sample_format=sample_format, **options)  # type: ignore[arg-type]
    what = f"tiff {bits} photometric {photometric} format {sample_format}"
    return Case(what, ".tif", content, yaml_of(None, count), truth)


def layout(rng: Random) -> dict[str, object]:
    return {
        "order": pick(rng, "<", ">"),
        "compression": pick(rng, *COMPRESSIONS),
        "tile": pick(rng, 0, 16),
        "big": pick(rng, False, True),
        "strip_rows": pick(rng, 0, 4),
    }


def paint(rng: Random, count: int) -> tuple[npt.NDArray[np.uint8], list[tuple[int, int, int]], Values, str]:
    """Draw labels, distinct colours, the painted image and the text of `classes.yaml`."""
    colours = draw_colours(rng, count)
    labels = draw_labels(rng, count)
    return labels, colours, np.array(colours)[labels], yaml_of(colours, count, painted=True)


def with_alpha(rng: Random, pixels: Values, top: int) -> Values:
    alpha = np.full((*pixels.shape[:2], 1), top)
    if rng.integers(2):
        alpha[0, 0] = 0
    return np.concatenate([pixels, alpha], 2)


def painted_png(rng: Random) -> Case:
    labels, colours, pixels, classes = paint(rng, int(rng.integers(2, 12)))
    deep, interlaced = bool(rng.integers(2)), bool(rng.integers(2))
    if rng.integers(4) == 0:
        cut = int(rng.integers(0, 2))  # a palette that lacks its last colour
        content = png(labels, 8, 3, palette=colours[: len(colours) - cut], interlaced=interlaced)
        return Case(f"png palette of colours, {cut} missing", ".png", content, classes, labels)
    scale = int(pick(rng, 1, 256, 257)) if deep else 1  # type: ignore[call-overload]
    stored = pixels.astype(np.int64) * scale
    if rng.integers(2):
        stored = with_alpha(rng, stored, 65_535 if deep else 255)
    if (pixels == pixels[..., :1]).all() and rng.integers(2):
        stored = stored[..., [0, -1]] if stored.shape[2] == 4 else stored[..., 0]
    channels = 1 if stored.ndim == 2 else stored.shape[2]
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    content = png(stored, 16 if deep else 8, colour_type, interlaced=interlaced)
    return Case(f"png painted {channels} channels deep {deep} times {scale}", ".png", content, classes, labels)


def painted_bmp(rng: Random) -> Case:
    labels, colours, pixels, classes = paint(rng, int(rng.integers(2, 12)))
    bits = (4, 8, 16, 24, 32)[rng.integers(5)]
    top_down = bool(rng.integers(2))
    if bits <= 8:
        content = bmp(labels, bits, palette=colours, top_down=top_down)
    else:
        if bits == 16:  # Five bits hold no other colours for certain.
            colours = [(255 * (k & 1), 255 * (k >> 1 & 1), 255 * (k >> 2 & 1)) for k in range(8)]
            labels = labels % 8
            pixels, classes = np.array(colours)[labels], yaml_of(colours, 8, painted=True)
        stored = with_alpha(rng, pixels, 255) if bits == 32 else pixels
        content = bmp(stored, bits, top_down=top_down)
    return Case(f"bmp painted {bits}", ".bmp", content, classes, labels)


def painted_tiff(rng: Random) -> Case:
    labels, colours, pixels, classes = paint(rng, int(rng.integers(2, 12)))
    options = layout(rng)
    if rng.integers(3) == 0:
        bits = (4, 8)[rng.integers(2)]
        scale = int(pick(rng, 1, 256, 257))  # type: ignore[call-overload]
        content = tiff(labels, bits, 3, palette=colours, palette_scale=scale, **options)  # type: ignore[arg-type]
        return Case(f"tiff palette of colours {bits} times {scale}", ".tif", content, classes, labels)
    deep = bool(rng.integers(2))
    scale = int(pick(rng, 1, 256, 257)) if deep else 1  # type: ignore[call-overload]
    stored = pixels.astype(np.int64) * scale
    extra: list[int] = []
    if rng.integers(2):
        extra = [int(rng.integers(0, 3))]
        stored = with_alpha(rng, stored, 65_535 if deep else 255)
    planar = bool(rng.integers(2))
    content = tiff(stored.astype(np.uint32), 16 if deep else 8, 2, extra=extra, planar=planar, **options)  # type: ignore[arg-type]
    what = f"tiff painted {stored.shape[2]} channels deep {deep} times {scale} planar {planar} extra {extra}"
    return Case(what, ".tif", content, classes, labels)


def judge(case: Case, folder: Path) -> str:
    """ "equal", "refused", "stopped" by the doctor, or "silent"."""
    for old in folder.glob("masks/*/*"):
        old.unlink()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*case.labels.shape, 3), np.uint8))
    for split in ("train", "val"):
        image.save(folder / "images" / split / "one.png")
        (folder / "masks" / split / f"one{case.suffix}").write_bytes(case.content)
    (folder / "classes.yaml").write_text(case.classes)
    try:
        labels = open_dataset(folder)("train").labels(0)
    except ValueError as error:
        return "refused" if f"one{case.suffix}" in str(error) else "refused without the file's name"
    if labels.shape == case.labels.shape and (labels == case.labels).all():
        return "equal"
    report = doctor.check(folder, quick=True, workers=0, progress=False)
    return "stopped" if report.stops_training else "silent"


@pytest.mark.parametrize("seed", SEEDS)
def test_no_mask_is_read_as_another_label_map_in_silence(seed: int, tmp_path: Path) -> None:
    for name in ("images/train", "images/val", "masks/train", "masks/val"):
        (tmp_path / name).mkdir(parents=True)
    outcomes: Counter[str] = Counter()
    kinds: dict[str, Counter[str]] = {}
    for _, case in zip(range(CASES), cases(np.random.default_rng(seed)), strict=False):
        outcome = judge(case, tmp_path)
        outcomes[outcome] += 1
        kinds.setdefault(case.what, Counter())[outcome] += 1
    if os.environ.get("REFINENET_MASK_TABLE"):
        print(outcomes, *(f"{what}: {dict(counts)}" for what, counts in sorted(kinds.items())), sep="\n")
    assert {what: dict(counts) for what, counts in kinds.items() if counts["silent"]} == {}
    assert set(outcomes) <= {"equal", "refused", "stopped"}
    assert outcomes["equal"] > 0.6 * CASES  # It refuses no more than it has to.
