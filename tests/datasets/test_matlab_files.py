"""MATLAB files, intact, damaged and malicious: their contents, or a clear error that takes little memory."""

from __future__ import annotations

import struct
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matlab_miniatures import create_hdf5, finish_hdf5, structures, write_anno, write_gtcls, write_label_map
from scipy.io import loadmat, savemat
from scipy.io.matlab import MatlabObject
from scipy.sparse import csc_matrix

from refinenet.datasets.formats.matlab import hdf5_shape, read_hdf5, read_referenced, read_variable, to_ids, translate

HEADER = b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\1IM"
IDS = np.arange(12).reshape(3, 4) * 41


def matrix(array_class: int, axes: tuple[int, ...], *parts: bytes, name: bytes = b"LabelMap") -> bytes:
    """Build a variable by hand: flags, axes, name, and the rest."""
    flags = struct.pack("<IIII", 6, 8, array_class, 0)
    sizes = struct.pack(f"<II{len(axes)}i", 5, 4 * len(axes), *axes) + bytes(len(axes) % 2 * 4)
    named = struct.pack("<II", 1, len(name)) + name + bytes(-len(name) % 8)
    content = flags + sizes + named + b"".join(parts)
    return struct.pack("<II", 14, len(content)) + content


def numbers(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def packed(variable: bytes) -> bytes:
    content = zlib.compress(variable)
    return struct.pack("<II", 15, len(content)) + content


def save(path: Path, *parts: bytes) -> Path:
    path.write_bytes(HEADER + b"".join(parts))
    return path


def read(path: Path) -> npt.NDArray[Any]:
    return read_variable(path, "LabelMap").numbers()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "i8", "u8", "f4", "f8", "?"])
def test_numbers_are_read_as_scipy_reads_them(dtype: str, compressed: bool, tmp_path: Path) -> None:
    for shape in ((3, 4), (1, 1), (0, 0), (2, 3, 4)):
        stored = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
        savemat(tmp_path / "a.mat", {"other": "x", "LabelMap": stored, "z": 1}, do_compression=compressed)
        np.testing.assert_array_equal(read(tmp_path / "a.mat"), loadmat(tmp_path / "a.mat")["LabelMap"])


def test_texts_cells_and_structures_are_read_as_they_were_written(tmp_path: Path) -> None:
    cells = np.array([["a", "bc", "d\u00e9f"]], object)
    records = structures([{"first": "x", "second": np.eye(2)}, {"first": "yz", "second": np.zeros((0, 0))}])
    savemat(tmp_path / "a.mat", {"cells": cells, "records": records, "none": structures([])}, do_compression=True)
    assert [cell.text() for cell in read_variable(tmp_path / "a.mat", "cells").cells()] == ["a", "bc", "d\u00e9f"]
    found = read_variable(tmp_path / "a.mat", "records")
    assert found.shape == (1, 2)
    assert [text.text() for text in found.field("first")] == ["x", "yz"]
    assert [array.numbers().tolist() for array in found.field("second")] == [[[1, 0], [0, 1]], []]
    assert read_variable(tmp_path / "a.mat", "none").field("anything") == []
    with pytest.raises(ValueError, match=r"a\.mat .*the field 'third' is missing"):
        found.field("third")


def test_both_orders_of_bytes_and_small_types_as_matlab_writes_them_are_read(tmp_path: Path) -> None:
    # MATLAB stores whole doubles (class 6) in the smallest type that holds them, and up to 4 bytes in the tag.
    small = matrix(6, (1, 3), struct.pack("<I", 3 << 16 | 2) + b"\1\2\3\0")
    assert read(save(tmp_path / "a.mat", small)).tolist() == [[1, 2, 3]]
    big = b"".join(
        struct.pack(">" + layout, *values)
        for layout, values in (
            ("II", (14, 56)), ("IIII", (6, 8, 11, 0)), ("IIii", (5, 8, 1, 3)), ("II8s", (1, 8, b"LabelMap")),
            ("IIHHHH", (4, 6, 1, 300, 459, 0)),
        )
    )  # fmt: skip
    (tmp_path / "b.mat").write_bytes(HEADER[:124] + b"\1\0MI" + big[:4] + struct.pack(">I", len(big) - 8) + big[8:])
    assert read(tmp_path / "b.mat").tolist() == [[1, 300, 459]]


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        (b"", "not a MATLAB file of version 5"),
        (b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM", "not a MATLAB file of version 5"),
        (HEADER, "no variable 'LabelMap'"),
        (HEADER + b"\0\0\0", "ends within a part"),
        (HEADER + matrix(9, (1, 1), numbers(2, b"\1"), name=b"other"), "no variable 'LabelMap'"),
        (HEADER + numbers(2, b"\1" * 8), "a part of kind 2 was found instead"),
        (HEADER + matrix(9, (1, 4), numbers(2, b"\1")), "an array of 4 numbers has 1 bytes"),
        (HEADER + matrix(9, (1, 1), numbers(2, b"\1\2")), "an array of 1 numbers has 2 bytes"),
        (
            HEADER + matrix(9, (1, 6), struct.pack("<I", 6 << 16 | 2) + bytes(4), numbers(2, b"")),
            "extends beyond the part",
        ),
        (HEADER + matrix(9, (1, 1), numbers(4, b"\1")), "an array of 1 numbers has 1 bytes of kind 4"),
        (HEADER + matrix(9, (1, 1), numbers(8, b"\1")), "an array of 1 numbers has 1 bytes of kind 8"),
        (HEADER + matrix(9, (1, 1), struct.pack("<I", 9 << 16 | 2) + b"\1\2\3\0"), "extends beyond the part"),
        (HEADER + matrix(9, (1, 1), struct.pack("<II", 2, 2**32 - 1)), "extends beyond the part"),
        (HEADER + matrix(9, (-1, -1), numbers(2, b"\1")), "an array of -1 x -1 elements"),
        (HEADER + matrix(9, (31_623, 31_623), numbers(2, b"\1")), "31623 x 31623 elements; at most 50,000,000"),
        (HEADER + packed(matrix(9, (31_623, 31_623), numbers(2, b"\1"))), "31623 x 31623 elements; at most 50,000,000"),
        (HEADER + matrix(9, (1,) * 5, numbers(2, b"\1")), "no valid header"),
        (HEADER + matrix(9 | 0x800, (1, 1), numbers(2, b"\1"), numbers(2, b"\1")), "complex"),
        (HEADER + matrix(16, (1, 1), matrix(9, (1, 1))), "array of numbers is missing"),
        (HEADER + matrix(17, (1, 1), numbers(2, b"\1")), "array of numbers is missing"),
        (HEADER + matrix(3, (1, 1), numbers(2, b"\1")), "array of numbers is missing"),
        (HEADER + struct.pack("<II", 15, 4) + b"nope", "cannot be unpacked"),
        (HEADER + packed(matrix(9, (1, 1), numbers(2, b"\1")))[:-5], "extends beyond the part"),
        (HEADER + packed(struct.pack("<II", 14, 2**31)), "2,147,483,656 bytes; at most 536,870,912 are allowed"),
        (HEADER + packed(matrix(9, (1, 1), numbers(2, b"\1")) + bytes(10**6)), "does not have the expected 72 bytes"),
        (HEADER + packed(matrix(9, (1, 1), numbers(2, b"\1"))[:-8]), "does not have the expected 72 bytes"),
    ],
)
def test_damaged_and_hostile_files_are_refused_and_named(content: bytes, pattern: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile.mat"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=pattern) as caught:
        read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(path) in str(caught.value)
    assert peak < 10_000_000


def test_a_variable_that_unpacks_to_far_more_than_it_says_is_not_unpacked(tmp_path: Path) -> None:
    bomb = matrix(9, (1, 1), numbers(2, b"\1")) + bytes(100_000_000)
    path = save(tmp_path / "bomb.mat", packed(bomb))
    del bomb
    assert path.stat().st_size < 200_000
    tracemalloc.start()
    with pytest.raises(ValueError, match="does not have the expected 72 bytes"):
        read(path)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_a_structure_of_many_elements_or_fields_that_are_not_there_takes_no_memory(tmp_path: Path) -> None:
    names = b"".join(f"{k:08}".encode() for k in range(50_000))
    length = struct.pack("<III", 4 << 16 | 5, 8, 1)[:8]
    path = save(tmp_path / "a.mat", matrix(2, (1, 40_000_000), length, numbers(1, names), name=b"GTcls"))
    calls = 0

    def count(*_event: object) -> None:
        nonlocal calls
        calls += 1

    tracemalloc.start()
    sys.setprofile(count)
    try:
        with pytest.raises(ValueError, match="a structure of 40000000 elements has 0 parts"):
            read_variable(path, "GTcls").field("00000003")
    finally:
        sys.setprofile(None)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
    assert calls < 1_000_000


def test_a_hundred_thousand_cells_inside_each_other_are_no_danger(tmp_path: Path) -> None:
    """Recursive readers would end the process."""
    depth, size = 100_000, 56
    head = matrix(1, (1, 1))[8:]
    tags = [struct.pack("<II", 14, (depth - k) * size - 8) for k in range(depth)]
    path = save(tmp_path / "deep.mat", b"".join(tag + head for tag in tags))
    with pytest.raises(ValueError, match="a string is missing"):
        read_variable(path, "LabelMap").text()
    with pytest.raises(ValueError, match="array of numbers is missing"):
        read(path)
    assert len(read_variable(path, "LabelMap").cells()) == 1


def test_what_is_no_array_of_numbers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    for value in ("text", csc_matrix(np.eye(3)), np.array([[1, "x"]], object), {"a": 1}):
        savemat(path, {"LabelMap": value})
        with pytest.raises(ValueError, match=r"a\.mat .*array of numbers is missing"):
            read(path)
    savemat(path, {"LabelMap": MatlabObject(structures([{"a": 1}]), "Evil")})
    with pytest.raises(ValueError, match=r"a\.mat .*array of numbers is missing"):
        read(path)
    savemat(path, {"LabelMap": np.eye(2)})
    for read_wrongly in ("text", "cells"):
        with pytest.raises(ValueError, match=r"a\.mat is damaged or not the published file"):
            getattr(read_variable(path, "LabelMap"), read_wrongly)()
    with pytest.raises(ValueError, match=r"the field 'x' is missing"):
        read_variable(path, "LabelMap").field("x")


def test_ids_are_whole_numbers_up_to_65535() -> None:
    assert to_ids(np.array([[0.0, 65535.0]]), "a").tolist() == [[0, 65535]]
    assert to_ids(np.array([[True, False]]), "a").dtype == np.uint16
    strange: list[Any] = [[[0.5]], [[-1]], [[65536]], [[np.nan]], [[np.inf]], [1, 2], [[[1]]], [[]], [["a"]], [[1j]]]
    for values in strange:
        with pytest.raises(ValueError, match="a\\.mat"):
            to_ids(np.array(values), "a.mat")
    assert translate(np.array([[2, 0]], np.uint16), np.array([255, 0, 1], np.uint8), "a").tolist() == [[1, 255]]
    with pytest.raises(ValueError, match=r"a\.mat has the id 3: 0 to 2 are allowed"):
        translate(np.array([[2, 3]], np.uint16), np.array([255, 0, 1], np.uint8), "a.mat")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_to_a_file_is_a_value_error_that_names_it(data: st.DataObject, tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    kind = data.draw(st.sampled_from(["LabelMap", "GTcls", "anno"]))
    if kind == "anno":
        write_anno(path, [("person", 15, IDS, [("head", IDS)])])
    else:
        (write_gtcls if kind == "GTcls" else write_label_map)(path, IDS % 21)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    messages = []
    for name in ("LabelMap", "GTcls", "anno"):
        try:
            array = read_variable(path, name)
            fields = [array] if name == "LabelMap" else array.field("Segmentation" if name == "GTcls" else "objects")
            for inner in fields:
                inner.numbers()
        except ValueError as error:
            messages.append(str(error))
    assert all(str(path) in message for message in messages)


def hdf5_file(path: Path) -> h5py.File:
    file = create_hdf5(path)
    file["labels"] = IDS[None].astype(np.uint16)
    return file


def test_hdf5_arrays_are_read_by_number_and_by_reference(tmp_path: Path) -> None:
    with hdf5_file(tmp_path / "a.mat") as file:
        file["cell"] = np.array([[file["labels"].ref]], h5py.ref_dtype)
    finish_hdf5(tmp_path / "a.mat")
    assert hdf5_shape(tmp_path / "a.mat", "labels") == (1, 3, 4)
    assert read_hdf5(tmp_path / "a.mat", "labels", 0).tolist() == IDS.tolist()
    assert read_referenced(tmp_path / "a.mat", "cell", 0).tolist() == [IDS.tolist()]
    for index in (-1, 1):
        with pytest.raises(ValueError, match=r"a\.mat.*has no element"):
            read_hdf5(tmp_path / "a.mat", "labels", index)
        with pytest.raises(ValueError, match=r"a\.mat.* does not exist"):
            read_referenced(tmp_path / "a.mat", "cell", index)
    with pytest.raises(ValueError, match="does not exist"):
        read_referenced(tmp_path / "a.mat", "labels", 0)
    with pytest.raises(ValueError, match=r"holds object, not numbers"):
        read_hdf5(tmp_path / "a.mat", "cell", 0)


def test_hdf5_links_out_of_the_file_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"password" * 10)
    with hdf5_file(tmp_path / "other.mat"):
        pass
    with hdf5_file(tmp_path / "a.mat") as file:
        file["soft"] = h5py.SoftLink("/labels")
        file["external"] = h5py.ExternalLink("other.mat", "/labels")
        file.create_dataset("outside", (1, 8), "u1", external=[(str(secret), 0, 80)])
        layout = h5py.VirtualLayout((1, 3, 4), "u2")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.mat"), "labels", (1, 3, 4))
        file.create_virtual_dataset("virtual", layout)
        file["group/labels"] = IDS
        outside = file["outside"].ref
        file["cell"] = np.array([[outside], [file["group"].ref], [h5py.Reference()]], h5py.ref_dtype)
    for name in ("soft", "external", "outside", "virtual", "group", "missing", "labels/x", "group/missing"):
        with pytest.raises(ValueError, match=r"a\.mat"):
            read_hdf5(tmp_path / "a.mat", name, 0)
    for index in range(3):
        with pytest.raises(ValueError, match=r"a\.mat"):
            read_referenced(tmp_path / "a.mat", "cell", index)
    assert read_hdf5(tmp_path / "a.mat", "group/labels", 0).tolist() == IDS[0].tolist()


def test_hdf5_arrays_past_all_reason_are_refused_before_they_are_read(tmp_path: Path) -> None:
    with hdf5_file(tmp_path / "a.mat") as file:
        large = file.create_dataset("large", (2, 31_623, 31_623), "u1", chunks=(1, 100, 100))
        chunked = file.create_dataset(
            "chunked", (1, 10, 10), "u1", maxshape=(None, None, None), chunks=(1, 30_000, 30_000)
        )
        file["cell"] = np.array([[large.ref], [chunked.ref]], h5py.ref_dtype)
    for name in ("large", "chunked"):
        with pytest.raises(ValueError, match=r"a\.mat.*at most 50,000,000 pixels"):
            read_hdf5(tmp_path / "a.mat", name, 0)
    for index in range(2):
        with pytest.raises(ValueError, match=r"a\.mat.*at most 50,000,000 pixels"):
            read_referenced(tmp_path / "a.mat", "cell", index)


def test_absent_files_and_folders_are_the_system_s_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_variable(tmp_path / "none.mat", "LabelMap")
    with pytest.raises(FileNotFoundError):
        hdf5_shape(tmp_path / "none.mat", "labels")
    with pytest.raises(IsADirectoryError):
        hdf5_shape(tmp_path, "labels")
