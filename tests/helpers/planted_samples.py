"""Drawn samples, and what spoils them: for each kind of finding a fault, to be planted among sound samples."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

CLASSES = ("ground", "disc", "block", "bar")
COLOURS = ((0, 0, 0), (200, 30, 30), (30, 200, 30), (40, 60, 220))
NAMES = f"names: [{', '.join(CLASSES)}]\n"
PAINTED = NAMES + f"colours: {[list(colour) for colour in COLOURS]}\nmasks: colours\n"


def draw(seed: int, width: int, height: int) -> tuple[Image.Image, npt.NDArray[np.uint8]]:
    """A picture of coloured shapes on a mottled ground, and its `(H, W)` uint8 ids of `CLASSES`."""
    random = np.random.default_rng(seed)
    ground = Image.fromarray(random.integers(40, 216, (6, 8, 3), dtype=np.uint8))
    image = ground.resize((width, height), Image.Resampling.BICUBIC)
    mask = Image.new("L", (width, height))
    for k in [1, 2, 3, *random.integers(1, 4, 4).tolist()]:
        x, y = int(random.integers(0, width)), int(random.integers(0, height))
        w, h = int(random.integers(width // 8, width // 3)), int(random.integers(height // 8, height // 3))
        box = [x, y, x + (w if k < 3 else w // 3), y + (h if k < 3 else 2 * h)]
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        for target, fill in ((image, colour), (mask, k)):
            shape = ImageDraw.Draw(target)
            (shape.ellipse if k == 1 else shape.rectangle)(box, fill=fill)
    noise = random.integers(-6, 7, (height, width, 3))
    pixels = np.clip(np.asarray(image, np.int16) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels), np.array(mask)


def draw_folder(
    root: Path, count: int, size: tuple[int, int], *, first_seed: int = 0, classes: str | None = NAMES
) -> dict[str, list[str]]:
    """A clean folder with `count` samples, a fifth of them in val; the stems by split."""
    stems: dict[str, list[str]] = {"train": [], "val": []}
    for number in range(count):
        split = "val" if number % 5 == 0 else "train"
        stem = f"picture {number:05}"
        image, ids = draw(first_seed + number, *size)
        save(root / "images" / split / f"{stem}{'.jpg' if number % 2 else '.png'}", image)
        save(root / "masks" / split / f"{stem}.png", Image.fromarray(ids))
        stems[split].append(stem)
    if classes is not None:
        (root / "classes.yaml").write_text(classes, encoding="utf-8")
    return stems


def save(path: Path, image: Image.Image, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    usual: dict[str, Any] = {".jpg": {"quality": 92}, ".png": {"compress_level": 1}}.get(path.suffix, {})
    image.save(path, **{**usual, **options})


class Spot(NamedTuple):
    """A sample of a drawn folder, to be spoilt."""

    root: Path
    split: str
    stem: str

    @property
    def image(self) -> Path:
        paths = (self.root / "images" / self.split / f"{self.stem}{suffix}" for suffix in (".png", ".jpg"))
        return next(path for path in paths if path.exists())

    @property
    def mask(self) -> Path:
        return self.root / "masks" / self.split / f"{self.stem}.png"

    def ids(self) -> npt.NDArray[np.uint8]:
        return np.array(Image.open(self.mask))

    def name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def replace_image(self, suffix: str, image: Image.Image, **options: Any) -> str:
        """Save another image in the place of this one; its name."""
        old = self.image
        path = old.with_suffix(suffix)
        save(path, image, **options)
        if path != old:
            old.unlink()
        return self.name(path)

    def replace_mask(self, image: Image.Image, **options: Any) -> str:
        save(self.mask, image, **options)
        return self.name(self.mask)


Fault = Callable[[Callable[[str], Spot]], Iterable[str]]
"""Spoils one sample, or several; it takes them by split, and gives the names of what is wrong."""


def one(spoil: Callable[[Spot], str]) -> Fault:
    """A fault of one sample in train."""
    return lambda take: [spoil(take("train"))]


def write_image(content: Callable[[bytes], bytes]) -> Fault:
    def spoil(spot: Spot) -> str:
        spot.image.write_bytes(content(spot.image.read_bytes()))
        return spot.name(spot.image)

    return one(spoil)


def write_mask(content: Callable[[bytes], bytes]) -> Fault:
    def spoil(spot: Spot) -> str:
        spot.mask.write_bytes(content(spot.mask.read_bytes()))
        return spot.name(spot.mask)

    return one(spoil)


def change_image(suffix: str, change: Callable[[Image.Image], Image.Image], **options: Any) -> Fault:
    return one(lambda spot: spot.replace_image(suffix, change(opened(spot.image)), **options))


def change_mask(change: Callable[[npt.NDArray[np.uint8]], Image.Image], **options: Any) -> Fault:
    return one(lambda spot: spot.replace_mask(change(spot.ids()), **options))


def opened(path: Path) -> Image.Image:
    return Image.open(io.BytesIO(path.read_bytes())).convert("RGB")


def cut(content: bytes) -> bytes:
    return content[: len(content) * 3 // 5]


def flip_bits(content: bytes) -> bytes:
    """Damage in the middle, as a failing disk leaves it; the checksum of a PNG finds it."""
    middle = len(content) // 2
    return content[:middle] + bytes(255 - value for value in content[middle : middle + 64]) + content[middle + 64 :]


def encode(image: Image.Image, image_format: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, image_format, **options)
    return content.getvalue()


def paint(ids: npt.NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.array(COLOURS, np.uint8)[ids])


def through_jpeg(image: Image.Image, quality: int = 90) -> Image.Image:
    return opened_bytes(encode(image, "JPEG", quality=quality))


def opened_bytes(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def with_orientation(spot: Spot, value: int) -> None:
    """Store the picture turned, with a note that turns it back, as cameras do."""
    turns = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    exif = Image.Exif()
    exif[0x0112] = value
    spot.replace_image(".jpg", opened(spot.image).transpose(turns[value]), exif=exif)


def turn_both(spot: Spot) -> str:
    """The mask was drawn on the picture as it is stored."""
    with_orientation(spot, 6)
    return spot.replace_mask(Image.fromarray(np.rot90(spot.ids())))


def turn_over(spot: Spot) -> str:
    with_orientation(spot, 3)
    return spot.name(spot.image)


def save_as_jpeg(spot: Spot) -> str:
    path = spot.mask.with_suffix(".jpg")
    Image.fromarray(spot.ids()).save(path)
    spot.mask.unlink()
    return spot.name(path)


def half_transparent(ids: npt.NDArray[np.uint8]) -> Image.Image:
    alpha = np.where(ids == 1, 0, 255).astype(np.uint8)
    return Image.fromarray(np.dstack([np.asarray(paint(ids)), alpha]))


def raise_first(ids: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.where(ids == 1, 77, ids).astype(np.uint8)


def remove_mask(spot: Spot) -> str:
    spot.mask.unlink()
    return spot.name(spot.image)


def remove_image(spot: Spot) -> str:
    spot.image.unlink()
    return spot.name(spot.mask)


def rename_mask(stem: str) -> Callable[[Spot], str]:
    def rename(spot: Spot) -> str:
        if "{" in stem:
            image = spot.image
            image.rename(image.with_name(unicodedata.normalize("NFC", stem.format(spot.stem)) + image.suffix))
            form = unicodedata.normalize("NFD", stem.format(spot.stem))
        else:
            form = spot.stem.replace("picture", stem)
        return spot.name(spot.mask.rename(spot.mask.with_name(f"{form}.png")))

    return rename


def double(take: Callable[[str], Spot]) -> Iterable[str]:
    """Two images of one name."""
    spot = take("train")
    other = spot.image.with_suffix(".bmp")
    Image.new("RGB", (3, 2)).save(other)
    return [spot.name(spot.image), spot.name(other)]


def copy_over(split: str, change: Callable[[Image.Image], Image.Image] | None, *, other_mask: bool = False) -> Fault:
    """The same picture twice, in train and `split`, byte for byte or changed a little."""

    def spoil(take: Callable[[str], Spot]) -> Iterable[str]:
        source, target = take(split), take("train")
        image = opened(source.image)
        changed = change(image) if change else image
        ids = source.ids()
        if changed.size != image.size:
            ids = np.array(Image.fromarray(ids).resize(changed.size, Image.Resampling.NEAREST))
        target.replace_image(".png", changed)
        target.replace_mask(Image.fromarray((ids + 1) % 4 if other_mask else ids))
        return [target.name(target.image)]

    return spoil


def brighten(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.clip(np.asarray(image) * 1.05, 0, 255).astype(np.uint8))


def shrink(image: Image.Image) -> Image.Image:
    return image.resize((image.width * 9 // 10, image.height * 9 // 10), Image.Resampling.BICUBIC)


def huge(_: bytes) -> bytes:
    return encode(Image.new("1", (8000, 7000)), "PNG")


def deep(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


def see_through(image: Image.Image) -> Image.Image:
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


FAULTS: tuple[tuple[str, Fault], ...] = (
    ("image-without-mask", one(remove_mask)),
    ("mask-without-image", one(remove_image)),
    ("stem-case", one(rename_mask("Picture"))),
    ("stem-unicode", one(rename_mask("b\u00e4r {}"))),
    ("stem-twice", double),
    ("image-empty", write_image(lambda _: b"")),
    ("image-not-an-image", write_image(lambda _: b"<html>404 Not Found</html>")),
    ("image-damaged", write_image(cut)),
    ("image-damaged", write_image(cut)),
    ("image-too-large", write_image(huge)),
    ("mask-empty", write_mask(lambda _: b"")),
    ("mask-not-an-image", write_mask(lambda _: b"version https://git-lfs.github.com/spec/v1")),
    ("mask-damaged", write_mask(cut)),
    ("mask-damaged", write_mask(flip_bits)),
    ("mask-too-large", write_mask(huge)),
    ("size-differs", change_mask(lambda ids: Image.fromarray(ids[:-1]))),
    ("size-exif", one(turn_both)),
    ("exif-turned", one(turn_over)),
    ("mask-colours-for-ids", change_mask(paint)),
    ("mask-rgb-ids", change_mask(lambda ids: Image.fromarray(ids).convert("RGB"))),
    ("mask-lossy-format", one(save_as_jpeg)),
    ("mask-lossy-format", write_mask(lambda content: encode(opened_bytes(content), "JPEG"))),
    ("mask-alpha", change_mask(half_transparent)),
    ("mask-mode", change_mask(lambda ids: Image.fromarray(ids).convert("F"), format="TIFF")),
    ("mask-frames", change_mask(lambda ids: Image.fromarray(ids), format="TIFF", save_all=True,
                                append_images=[Image.new("L", (5, 5))])),
    ("ids-outside", change_mask(lambda ids: Image.fromarray(raise_first(ids)))),
    ("mask-all-void", change_mask(lambda ids: Image.fromarray(np.full_like(ids, 255)))),
    ("image-frames", change_image(".tif", lambda image: image, save_all=True,
                                  append_images=[Image.new("RGB", (5, 5))])),
    ("image-cmyk", change_image(".jpg", lambda image: image.convert("CMYK"))),
    ("image-deep", change_image(".png", deep)),
    ("image-alpha", change_image(".png", see_through)),
    ("image-grey", change_image(".jpg", lambda image: image.convert("L"))),
    ("image-palette", change_image(".png", lambda image: image.quantize(200))),
    ("duplicates-across-splits", copy_over("val", None)),
    ("near-duplicates-across-splits", copy_over("val", lambda image: through_jpeg(image, 60))),
    ("near-duplicates-across-splits", copy_over("val", shrink)),
    ("near-duplicates-across-splits", copy_over("val", brighten)),
    ("duplicates-within-split", copy_over("train", None)),
    ("contradicting-masks", copy_over("train", None, other_mask=True)),
)  # fmt: skip
"""What one folder can hold beside each other."""
