"""Miniatures of COCO, COCO-Stuff, Cityscapes, ADE20K and CamVid in the layouts of their owners.

Each has 3 images to train on and 2 to validate on, whose pictures are noise and whose masks are eight bands of five
columns, of the values that stand beside the writers; COCO has objects instead.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from refinenet.datasets.dataset import Dataset

HEIGHT, WIDTH = 32, 40
BANDS = 8

CITYSCAPES_VALUES = (7, 8, 11, 33, 0, 255, 4, 26)
"""Road, sidewalk, building, bicycle, unlabelled, number plate (-1), static, car."""
ADE20K_VALUES = (0, 1, 150, 7, 49, 13, 2, 3)
"""Other, wall, flag, road, skyscraper, person, building, sky."""
STUFF_VALUES = (0, 10, 12, 89, 91, 181, 255, 2)
"""Person, fire hydrant, stop sign, toothbrush, banner, wood, unlabelled, car."""
CAMVID_VALUES = (0, 10, 11, 3, 8, 4, 5, 1)
"""Sky, bicyclist, void, road, car, pavement, tree, building."""
CAMVID_COLOURS = {
    "Road": (128, 64, 128),
    "LaneMkgsDriv": (128, 0, 192),
    "Void": (0, 0, 0),
    "Wall": (64, 192, 0),
    "Sidewalk": (0, 0, 192),
    "Truck_Bus": (192, 128, 192),
    "Child": (192, 128, 64),
    "TrafficCone": (0, 0, 64),
}
COCO_HEIGHT, COCO_WIDTH = 40, 48
COCO_CATEGORIES = {1: "person", 2: "bicycle", 3: "car", 13: "stop sign", 18: "dog", 72: "tv"}


def bands(values: Sequence[int] | Sequence[tuple[int, ...]]) -> npt.NDArray[np.uint8]:
    """Eight vertical bands: `(HEIGHT, WIDTH)` ids or `(HEIGHT, WIDTH, 3)` colours."""
    row = np.repeat(np.array(values, np.uint8), WIDTH // BANDS, axis=0)
    return np.repeat(row[np.newaxis], HEIGHT, axis=0)


def save(path: Path, pixels: npt.NDArray[Any] | Image.Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path)
    return path


def noise(seed: int, height: int = HEIGHT, width: int = WIDTH) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def box(left: float, top: float, right: float, bottom: float) -> list[float]:
    """A rectangle as COCO's polygon: it covers the columns left to right - 1 and the rows top to bottom - 1."""
    return [left, top, right, top, right, bottom, left, bottom]


def annotation(identifier: int, image: int, category: int, segmentation: Any, area: float) -> dict[str, Any]:
    return {
        "segmentation": segmentation,
        "area": area,
        "iscrowd": int(isinstance(segmentation, dict)),
        "image_id": image,
        "bbox": [0.0, 0.0, 1.0, 1.0],
        "category_id": category,
        "id": identifier,
    }


def coco_json(images: Sequence[int], annotations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """An instances file of images of 40 rows and 48 columns; keys in the order of the official files."""
    return {
        "info": {"description": "COCO 2017 Dataset", "year": 2017},
        "licenses": [{"url": "http://creativecommons.org/licenses/by/2.0/", "id": 4, "name": "Attribution License"}],
        "images": [
            {"license": 4, "file_name": f"{k:012d}.jpg", "height": COCO_HEIGHT, "width": COCO_WIDTH, "id": k}
            for k in images
        ],
        "annotations": list(annotations),
        "categories": [{"supercategory": "any", "id": k, "name": name} for k, name in COCO_CATEGORIES.items()],
    }


COCO_TRAIN = coco_json(
    [9, 25, 30, 34],
    [
        annotation(1, 9, 1, [box(4, 4, 36, 36)], 1024.0),
        annotation(2, 25, 18, [box(12, 2, 42, 38)], 1080.0),
        annotation(3, 9, 2, [box(30, 8, 44, 20)], 168.0),
        annotation(4, 30, 72, [box(0, 0, 20, 40), box(28, 0, 48, 20)], 1200.0),
        annotation(5, 9, 13, [box(0, 0, 48, 3)], 144.0),
        annotation(900100000025, 25, 1, {"counts": [0, 400, 1520], "size": [COCO_HEIGHT, COCO_WIDTH]}, 400),
    ],
)
"""Image 34 has no objects, as a thousand official ones. The crowd is the ten left columns of image 25."""
COCO_VAL = coco_json([139, 285], [annotation(6, 139, 3, [box(10, 10, 20, 30)], 200.0)])


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_coco(root: Path) -> None:
    for split, content in (("train", COCO_TRAIN), ("val", COCO_VAL)):
        json_file = root / "annotations" / f"instances_{split}2017.json"
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(content))
        for image in content["images"]:
            save(root / f"{split}2017" / image["file_name"], noise(image["id"], COCO_HEIGHT, COCO_WIDTH))


def write_coco_stuff(root: Path) -> None:
    for split, numbers in (("train", (9, 25, 30)), ("val", (139, 285))):
        for number in numbers:
            save(root / f"{split}2017" / f"{number:012d}.jpg", noise(number))
            save(root / "stuffthingmaps" / f"{split}2017" / f"{number:012d}.png", bands(STUFF_VALUES))


CITYSCAPES_FRAMES = {
    "train": ("aachen_000000_000019", "aachen_000173_000019", "hamburg_000000_042505"),
    "val": ("frankfurt_000000_000294", "munster_000000_000019"),
    "test": ("berlin_000000_000019",),
}


def write_cityscapes(root: Path) -> None:
    for split, frames in CITYSCAPES_FRAMES.items():
        values = np.zeros((HEIGHT, WIDTH), np.uint8) if split == "test" else bands(CITYSCAPES_VALUES)
        for number, frame in enumerate(frames):
            city = frame.partition("_")[0]
            save(root / "leftImg8bit" / split / city / f"{frame}_leftImg8bit.png", noise(number))
            stem = root / "gtFine" / split / city / f"{frame}_gtFine"
            save(stem.with_name(f"{stem.name}_labelIds.png"), values)
            save(stem.with_name(f"{stem.name}_instanceIds.png"), values.astype(np.uint16) * 1000)
            save(stem.with_name(f"{stem.name}_color.png"), noise(number))
            stem.with_name(f"{stem.name}_polygons.json").write_text('{"imgHeight": 32, "imgWidth": 40, "objects": []}')


def write_disparity(root: Path, split: str, frame: str, stored: npt.NDArray[np.uint16]) -> None:
    """Cityscapes' disparity and camera of a frame, with the numbers of an official camera file."""
    city = frame.partition("_")[0]
    save(root / "disparity" / split / city / f"{frame}_disparity.png", stored)
    camera = root / "camera" / split / city / f"{frame}_camera.json"
    camera.parent.mkdir(parents=True, exist_ok=True)
    values = {
        "extrinsic": {"baseline": 0.222126, "pitch": 0.05, "roll": 0.0, "x": 1.7, "y": -0.1, "yaw": 0.007, "z": 1.18},
        "intrinsic": {"fx": 2268.36, "fy": 2225.5405988775956, "u0": 1048.64, "v0": 519.277},
    }
    camera.write_text(json.dumps(values))


def write_ade20k(root: Path) -> None:
    """Of the images to train on, one is grey and one CMYK."""
    base = root / "ADEChallengeData2016"
    for long, short, modes in (("training", "train", ("RGB", "L", "CMYK")), ("validation", "val", ("RGB", "RGB"))):
        for number, mode in enumerate(modes, start=1):
            name = f"ADE_{short}_{number:08d}"
            save(base / "images" / long / f"{name}.jpg", Image.fromarray(noise(number)).convert(mode))
            save(base / "annotations" / long / f"{name}.png", bands(ADE20K_VALUES))
    (base / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.1576\t11664\t1172\t1\twall\n")
    (base / "sceneCategories.txt").write_text("ADE_train_00000001 airport_terminal\n")


CAMVID_FRAMES = {
    "train": ("0001TP_008520", "0006R0_f00930", "0016E5_07920"),
    "val": ("0016E5_07959", "0016E5_08159"),
    "test": ("0001TP_008550", "Seq05VD_f00000"),
}


def write_camvid(root: Path) -> None:
    for split, frames in CAMVID_FRAMES.items():
        for number, frame in enumerate(frames):
            save(root / split / f"{frame}.png", noise(number))
            save(root / f"{split}annot" / f"{frame}.png", bands(CAMVID_VALUES))
        lines = [f"/SegNet/CamVid/{split}/{frame}.png /SegNet/CamVid/{split}annot/{frame}.png" for frame in frames]
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n")


def write_camvid_original(root: Path) -> None:
    for frames in CAMVID_FRAMES.values():
        for number, frame in enumerate(frames):
            save(root / "701_StillsRaw_full" / f"{frame}.png", noise(number))
            save(root / "LabeledApproved_full" / f"{frame}_L.png", bands(list(CAMVID_COLOURS.values())))
    (root / "label_colors.txt").write_text("64 128 64\tAnimal\n192 0 128\tArchway\n")


# What the eight bands of the miniatures mean, worked out by hand from the owners' tables.
CITYSCAPES_BANDS = [0, 1, 2, 18, 255, 255, 255, 13]
ADE20K_BANDS = [255, 0, 149, 6, 48, 12, 1, 2]
STUFF_BANDS = [0, 10, 11, 79, 80, 170, 255, 2]
CAMVID_BANDS = [0, 10, 255, 3, 8, 4, 5, 1]
ORIGINAL_BANDS = [3, 3, 255, 1, 4, 8, 9, 2]


def first_row(dataset: Dataset, index: int = 0) -> list[int]:
    """Return the ids of the eight bands, equal in every row."""
    labels = dataset[index].labels
    assert labels.dtype == np.uint8
    assert (labels == labels[0]).all()
    values: list[int] = labels[0, ::5].tolist()
    return values
