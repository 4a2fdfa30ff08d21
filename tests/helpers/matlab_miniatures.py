"""Miniatures of the datasets whose labels are MATLAB files or PASCAL VOC's, in the layouts of their owners.

`write_NAME(root)` writes 3 train and 2 val images of about 40x32 pixels; the functions below it write single files as
MATLAB does. Nothing here reads through the package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.io import savemat
from scipy.sparse import csc_matrix

Ids = npt.NDArray[Any]

TRAIN = ("2007_000032", "2007_000039", "2007_000063")
VAL = ("2007_000033", "2007_000042")
"""Two of VOC 2012's own segmentation val."""
VOC_TEST = ("2008_000006", "2008_000011", "2008_000012")
SBD_ONLY = ("2008_000002", "2008_000005")
SUN_PREFIX = "/n/fs/sun3d/data/SUNRGBD/"
BORDER = (3, 2, 1, 2)
"""White rows above and below, white columns to the left and to the right in the miniature of NYU."""


def draw_ids(seed: int, ids: Sequence[int], height: int = 32, width: int = 40) -> Ids:
    """`(H, W)` uint16: stripes of some of the ids."""
    chosen = np.random.default_rng(seed).choice(np.array(ids), 4)
    return np.repeat(chosen, -(-width // 4))[None, :width].repeat(height, axis=0).astype(np.uint16)


def paint(ids: Ids) -> npt.NDArray[np.uint8]:
    """`(H, W, 3)` uint8: a picture in which each id has a colour of its own, nowhere white."""
    colours = np.random.default_rng(0).integers(20, 230, (1000, 3), dtype=np.uint8)
    painted: npt.NDArray[np.uint8] = colours[ids % 1000]
    return painted


def voc_palette() -> bytes:
    """VOC's 256 colours, built bit by bit; 255 is the border's (224, 224, 192)."""
    values = []
    for index in range(256):
        for channel in range(3):
            values.append(sum((index >> (3 * level + channel) & 1) << (7 - level) for level in range(3)))
    return bytes(values)


def write_jpeg(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)


def write_palette_png(path: Path, ids: Ids) -> None:
    """A PNG of mode P, as VOC's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids.astype(np.uint8)).convert("P")
    image.putdata(ids.ravel().tolist())
    image.putpalette(voc_palette())
    image.save(path)


def write_list(path: Path, names: Sequence[str], ending: str = "\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{name}{ending}" for name in names).encode())


def write_voc_sample(folder: Path, name: str, ids: Ids) -> None:
    """Image and palette mask, with VOC's border of 255 between the stripes."""
    write_jpeg(folder / "JPEGImages" / f"{name}.jpg", paint(ids))
    write_palette_png(folder / "SegmentationClass" / f"{name}.png", ids)


def write_gtcls(path: Path, ids: Ids) -> None:
    """SBD's cls/ID.mat: a structure GTcls with sparse boundaries by class, the segmentation and the classes present."""
    path.parent.mkdir(parents=True, exist_ok=True)
    boundaries = np.empty((20, 1), object)
    for number in range(20):
        boundaries[number, 0] = csc_matrix((ids == number + 1).astype(np.float64))
    present = np.unique(ids[ids > 0]).astype(np.float64)[:, None]
    content = {"Boundaries": boundaries, "Segmentation": ids.astype(np.uint8), "CategoriesPresent": present}
    savemat(path, {"GTcls": content}, do_compression=True)


def write_label_map(path: Path, ids: Ids) -> None:
    """PASCAL-Context's trainval/ID.mat."""
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"LabelMap": ids.astype(np.uint16)}, do_compression=True)


def structures(records: Sequence[Mapping[str, Any]]) -> npt.NDArray[Any]:
    """A `(1, N)` array of MATLAB structures; without any, the empty array that MATLAB has for `[]`."""
    if not records:
        return np.zeros((0, 0))
    array = np.empty((1, len(records)), [(name, object) for name in records[0]])
    for index, record in enumerate(records):
        for name, value in record.items():
            array[0, index][name] = value
    return array


def write_anno(path: Path, things: Sequence[tuple[str, int, Ids, Sequence[tuple[str, Ids]]]]) -> None:
    """PASCAL-Part's Annotations_Part/ID.mat of objects (class, number, mask, parts); a part has a name and a mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    objects = [
        {
            "class": name,
            "class_ind": np.array([[number]], np.uint8),
            "mask": mask.astype(np.uint8),
            "parts": structures([{"part_name": part, "mask": area.astype(np.uint8)} for part, area in parts]),
        }
        for name, number, mask, parts in things
    ]
    anno = structures([{"imname": path.stem, "objects": structures(objects)}])
    savemat(path, {"anno": anno}, do_compression=True)


def create_hdf5(path: Path) -> h5py.File:
    """A new file with room for MATLAB's own header, which `finish_hdf5` writes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return h5py.File(path, "w", userblock_size=512, libver="earliest")


def finish_hdf5(path: Path) -> None:
    """The header of 512 bytes that MATLAB writes before HDF5's own: text, no subsystem, version 2.0, byte order."""
    words = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Sep 10 12:00:00 2012 HDF5 schema 1.00 ."
    with path.open("r+b") as stream:
        stream.write((words.ljust(116) + bytes(8) + b"\x00\x02IM").ljust(512, b"\0"))


def add_array(group: h5py.Group, name: str, array: npt.NDArray[Any], kind: str) -> h5py.Dataset:
    """An array that already has its axes in HDF5's order, with MATLAB's note of its class."""
    dataset = group.create_dataset(name, data=array, chunks=array.shape, compression="gzip")
    dataset.attrs["MATLAB_class"] = np.bytes_(kind)
    return dataset


def add_references(file: h5py.File, group: h5py.Group, name: str, arrays: Sequence[tuple[Ids, str]]) -> None:
    """A column of references `(N, 1)` into '#refs#', as MATLAB stores cells and fields of structure arrays."""
    store = file.require_group("#refs#")
    references = np.empty((len(arrays), 1), h5py.ref_dtype)
    for index, (array, kind) in enumerate(arrays):
        references[index, 0] = add_array(store, f"{name}{index}", array, kind).ref
    dataset = group.create_dataset(name, data=references, dtype=h5py.ref_dtype)
    dataset.attrs["MATLAB_class"] = np.bytes_("cell")


def write_nyu_mat(
    path: Path,
    images: Sequence[npt.NDArray[np.uint8]],
    labels: Sequence[Ids],
    depths: Sequence[npt.NDArray[np.floating[Any]]] | None = None,
) -> None:
    """nyu_depth_v2_labeled.mat of images `(H, W, 3)` and labels `(H, W)`: there `(N, 3, W, H)` and `(N, W, H)`.

    Depths `(H, W)` are 1 by default; the raw ones lack the third column from the right.
    """
    with create_hdf5(path) as file:
        stacked = np.stack([image.transpose(2, 1, 0) for image in images])
        add_array(file, "images", stacked, "uint8")
        add_array(file, "labels", np.stack([label.T for label in labels]).astype(np.uint16), "uint16")
        filled = [np.ones(label.shape) for label in labels] if depths is None else depths
        stored = np.stack([depth.T for depth in filled]).astype(np.float32)
        add_array(file, "depths", stored, "single")
        stored[:, -3:-2] = 0
        add_array(file, "rawDepths", stored, "single")
        names = [(np.array([[ord(letter)] for letter in word], np.uint16), "char") for word in ("book", "bottle")]
        add_references(file, file, "names", names)
    finish_hdf5(path)


def write_sun_files(
    root: Path, scenes: Sequence[tuple[str, npt.NDArray[np.uint8], Ids]], train: Sequence[str], test: Sequence[str]
) -> None:
    """SUNRGBD and SUNRGBDtoolbox: scenes (folder below SUNRGBD, image, labels of 0 to 37) in the order of the files."""
    toolbox = root / "SUNRGBDtoolbox"
    (toolbox / "traintestSUNRGBD").mkdir(parents=True)
    with create_hdf5(toolbox / "Metadata" / "SUNRGBD2Dseg.mat") as file:
        group = file.create_group("SUNRGBD2Dseg")
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        add_references(file, group, "seglabel", [(ids.T.astype(np.uint8), "uint8") for _, _, ids in scenes])
    finish_hdf5(toolbox / "Metadata" / "SUNRGBD2Dseg.mat")
    records = []
    for number, (scene, image, _) in enumerate(scenes):
        name = f"{number:07}.jpg"
        write_jpeg(root / "SUNRGBD" / scene / "image" / name, image)
        write_sun_depth(root / "SUNRGBD" / scene, f"{number:07}.png", np.full(image.shape[:2], 2000))
        box = structures([{"basis": np.eye(3), "classname": "chair", "labelname": "chair"}])
        records.append({
            "sequenceName": f"SUNRGBD/{scene}", "groundtruth3DBB": box if number else structures([]),
            "rgbpath": f"{SUN_PREFIX}{scene}/image/{name}", "rgbname": name,
            "depthpath": f"{SUN_PREFIX}{scene}/depth/{number:07}.png", "K": np.eye(3),
        })  # fmt: skip
    savemat(toolbox / "Metadata" / "SUNRGBDMeta.mat", {"SUNRGBDMeta": structures(records)}, do_compression=True)
    directories = {"alltrain": cells(train), "alltest": cells(test)}
    savemat(toolbox / "traintestSUNRGBD" / "allsplit.mat", directories, do_compression=True)


def write_sun_depth(scene: Path, name: str, millimetres: Ids, folder: str = "depth_bfx") -> None:
    """depth_bfx/NAME, whose 16 bits are rotated, and intrinsics.txt of SUN RGB-D."""
    (scene / folder).mkdir(parents=True, exist_ok=True)
    rotated = [[(value << 3 | value >> 13) & 0xFFFF for value in row] for row in millimetres.tolist()]
    Image.fromarray(np.array(rotated, np.uint16)).save(scene / folder / name)
    (scene / "intrinsics.txt").write_text("30.5 0 18 0 31.5 15 0 0 1 \n")


def cells(scenes: Sequence[str]) -> npt.NDArray[Any]:
    """A `(1, N)` cell array of scenes' folders on the machine of SUN RGB-D's owners."""
    array = np.empty((1, len(scenes)), object)
    array[0, :] = [f"{SUN_PREFIX}{scene}" for scene in scenes]
    return array


def write_nyu(root: Path) -> None:
    """The .mat file: its images 1 and 2 are in val, 3 to 5 in train; a white border stands around all."""
    top, bottom, left, right = BORDER
    labels = [draw_ids(seed, range(895), 32 + top + bottom, 40 + left + right) for seed in range(5)]
    images = [paint(ids) for ids in labels]
    for image in images:
        image[:top] = image[-bottom:] = image[:, :left] = image[:, -right:] = 255
    rows = np.arange(32 + top + bottom)[:, np.newaxis]
    depths = [number + (rows + np.arange(40 + left + right)) / 1000 for number in range(1, 6)]
    write_nyu_mat(root / "nyu_depth_v2_labeled.mat", images, labels, depths)


def write_voc(root: Path, train: Sequence[str] = TRAIN) -> None:
    """VOCdevkit/VOC2012."""
    folder = root / "VOCdevkit" / "VOC2012"
    for seed, name in enumerate((*train, *VAL)):
        ids = draw_ids(seed, range(21))
        ids[:, 9::10] = 255
        write_voc_sample(folder, name, ids)
    for split, names in (("train", train), ("val", VAL), ("trainval", (*train, *VAL))):
        write_list(folder / "ImageSets" / "Segmentation" / f"{split}.txt", names)


def write_voc_test(root: Path) -> None:
    """What VOC2012test.tar adds: three images without masks, and their list."""
    folder = root / "VOCdevkit" / "VOC2012"
    for seed, name in enumerate(VOC_TEST):
        write_jpeg(folder / "JPEGImages" / f"{name}.jpg", paint(draw_ids(seed, range(21), 20 + seed, 30)))
    write_list(folder / "ImageSets" / "Segmentation" / "test.txt", VOC_TEST)


def write_sbd(root: Path) -> None:
    """benchmark_RELEASE/dataset; its train has an image of VOC's val, which is not to be trained on."""
    folder = root / "benchmark_RELEASE" / "dataset"
    train, val = (SBD_ONLY[0], VAL[0], TRAIN[1], TRAIN[0]), (SBD_ONLY[1], TRAIN[2])
    for seed, name in enumerate((*train, *val)):
        ids = draw_ids(seed, range(21))
        write_jpeg(folder / "img" / f"{name}.jpg", paint(ids))
        write_gtcls(folder / "cls" / f"{name}.mat", ids)
    write_list(folder / "train.txt", train)
    write_list(folder / "val.txt", val)


def write_voc_aug(root: Path) -> None:
    """VOC with one train image and SBD, which adds two."""
    write_voc(root, TRAIN[:1])
    folder = root / "benchmark_RELEASE" / "dataset"
    train, val = (SBD_ONLY[1], VAL[0], TRAIN[0]), (VAL[1], SBD_ONLY[0])
    for seed, name in enumerate((*train, *val)):
        ids = draw_ids(seed, range(21))
        write_gtcls(folder / "cls" / f"{name}.mat", ids)
        if name in SBD_ONLY:
            write_jpeg(root / "VOCdevkit" / "VOC2012" / "JPEGImages" / f"{name}.jpg", paint(ids))
    write_list(folder / "train.txt", train)
    write_list(folder / "val.txt", val)


def write_context(root: Path) -> None:
    """trainval/ID.mat with ids of all 459 classes, and VOCdevkit/VOC2010."""
    voc = root / "VOCdevkit" / "VOC2010"
    for seed, name in enumerate((*TRAIN, *VAL)):
        ids = draw_ids(seed, range(1, 460))
        ids[:8] = (2, 23, 440, 458)[seed % 4]
        write_jpeg(voc / "JPEGImages" / f"{name}.jpg", paint(ids))
        write_label_map(root / "trainval" / f"{name}.mat", ids)
    for split, names in (("train", TRAIN), ("val", VAL)):
        write_list(voc / "ImageSets" / "Main" / f"{split}.txt", names)


def write_person_part(root: Path) -> None:
    """PASCAL-Part's Annotations_Part/ID.mat, the lists of DeepLab's page, and VOCdevkit/VOC2010."""
    voc = root / "VOCdevkit" / "VOC2010"
    for seed, name in enumerate((*TRAIN, *VAL)):
        whole = np.zeros((32, 40), np.uint8)
        rows, columns = np.mgrid[:32, :40]
        head, torso, leg = rows < 8, (rows >= 8) & (rows < 20), (rows >= 20) & (columns < 20 + seed)
        parts = [("head", head), ("torso", torso), ("luleg", leg)]
        write_anno(root / "Annotations_Part" / f"{name}.mat", [("person", 15, whole + 1, parts)])
        write_jpeg(voc / "JPEGImages" / f"{name}.jpg", paint(head + 2 * torso + 3 * leg))
    for split, names in (("train", TRAIN), ("val", VAL)):
        write_list(root / "pascal_person_part_trainval_list" / f"{split}.txt", names)
        flags = [f"{name} {' 1' if name in names else '-1'}" for name in (*TRAIN, *VAL)]
        write_list(voc / "ImageSets" / "Main" / f"person_{split}.txt", flags)


def write_sunrgbd(root: Path) -> None:
    """SUNRGBD and SUNRGBDtoolbox, images of two sizes, the splits in another order than the files."""
    names = (
        "kv1/NYUdata/NYU0001",
        "kv2/kinect2data/000002_a",
        "realsense/lg/b",
        "xtion/x/c",
        "kv1/b3dodata/d",
    )
    scenes = []
    for seed, name in enumerate(names):
        ids = draw_ids(seed, range(38), 32 + seed % 2, 40 - 3 * (seed % 2))
        scenes.append((name, paint(ids), ids))
    write_sun_files(root, scenes, train=(names[4], names[1], names[2]), test=(names[3], names[0]))
