"""Hardened reader of MATLAB files, versions 5 and 7.3, and of the ids in them.

scipy's reader of version 5 trusts the sizes in a file and ends the process on some damaged files. This one reads only
the requested variable, checks each size against the part that contains it, and supports neither objects nor functions.

Source: MathWorks, "MAT-File Format".
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet.io.hdf5 import clear_errors, open_hdf5
from refinenet.io.images.image_files import MAX_PIXELS, to_sixteen_bits
from refinenet.labels import LabelMap

MAX_BYTES = 2**29
"""Maximum size in bytes of a file, and of a variable in it when unpacked."""

_MATRIX, _COMPRESSED = 14, 15
_CELLS, _STRUCTURE, _TEXT, _NUMBERS = 1, 2, 4, range(6, 16)
_COMPLEX = 0x800
_HEADER = 128
_NUMBER_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_ENCODINGS = {1: "ascii", 2: "ascii", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}


@dataclass(frozen=True)
class _File:
    """The state shared by all arrays of a file."""

    path: Path
    order: str
    """Byte order, "<" or ">"."""
    content: bytes

    def damage(self, what: str) -> ValueError:
        return ValueError(f"{self.path} is damaged or not the published file: {what}. Download it again.")


class Array:
    """A lazily read array of a file: numbers, text, cells, or a structure array."""

    def __init__(self, file: _File, start: int, size: int) -> None:
        self._file = file
        self.shape: tuple[int, ...] = (0, 0)
        """The shape; MATLAB arrays have at least two axes."""
        self._parts = list(_parts(file, start, start + size))
        self._class = 0
        if size:  # MATLAB writes an empty array as a part of size 0
            self._read_header()

    def _read_header(self) -> None:
        parts, file = self._parts, self._file
        if len(parts) < 3 or parts[0][2] != 8 or parts[1][2] not in (8, 12, 16):
            raise file.damage("an array has no valid header")
        flags = struct.unpack_from(f"{file.order}I", file.content, parts[0][1])[0]
        self._class = flags & 0xFF
        if flags & _COMPLEX:
            raise file.damage("it holds complex numbers")
        self.shape = struct.unpack_from(f"{file.order}{parts[1][2] // 4}i", file.content, parts[1][1])
        if min(self.shape) < 0 or math.prod(self.shape) > MAX_PIXELS:
            size = " x ".join(map(str, self.shape))
            raise ValueError(f"{file.path} has an array of {size} elements; at most {MAX_PIXELS:,} are allowed.")

    @property
    def name(self) -> str:
        """The name of a variable; empty for arrays inside one."""
        return self._text(2) if len(self._parts) > 2 else ""

    def numbers(self) -> npt.NDArray[Any]:
        """Read a numeric array in its storage type, which may be smaller than the array's own type.

        Raises:
            ValueError: The array is not numeric, or is damaged.
        """
        if self._class == 0:
            return np.zeros(self.shape)
        if self._class not in _NUMBERS or len(self._parts) != 4:
            raise self._file.damage("an array of numbers is missing")
        kind, start, size = self._parts[3]
        count = math.prod(self.shape)
        if kind not in _NUMBER_TYPES or np.dtype(_NUMBER_TYPES[kind]).itemsize * count != size:
            raise self._file.damage(f"an array of {count} numbers has {size} bytes of kind {kind}")
        # MATLAB stores arrays column by column, hence Fortran order.
        stored = np.frombuffer(self._file.content, self._file.order + _NUMBER_TYPES[kind], count, start)
        return stored.reshape(self.shape, order="F").astype(stored.dtype.newbyteorder("="))

    def text(self) -> str:
        """Read a text, or the text in a single cell.

        Raises:
            ValueError: The array is not text, or is damaged.
        """
        array = self.cells()[0] if self._class == _CELLS and self.shape == (1, 1) else self
        if array._class != _TEXT or len(array._parts) != 4 or array.shape[0] > 1:
            raise self._file.damage("a string is missing")
        return array._text(3)

    def cells(self) -> list[Array]:
        """Return the arrays in the cells of a cell array.

        Raises:
            ValueError: The array has no cells, or is damaged.
        """
        if self._class != _CELLS:
            raise self._file.damage("a cell array is missing")
        return self._inner(self._parts[3:], math.prod(self.shape))

    def field(self, name: str) -> list[Array]:
        """Return one field of all elements of a structure array; empty for an empty array.

        Raises:
            ValueError: The array is not a structure, has no such field, or is damaged.
        """
        count = math.prod(self.shape)
        if count == 0:
            return []
        names = self._field_names() if self._class == _STRUCTURE else []
        if name not in names:
            raise self._file.damage(f"the field {name!r} is missing")
        inner = self._parts[5:]
        if len(inner) != count * len(names):
            raise self._file.damage(f"a structure of {count} elements has {len(inner)} parts")
        # Elements are stored one after another, each with all of its fields.
        return self._inner(inner[names.index(name) :: len(names)], count)

    def _field_names(self) -> list[str]:
        if len(self._parts) < 5 or self._parts[3][2] != 4:
            raise self._file.damage("the names of a structure's fields are missing")
        length = struct.unpack_from(f"{self._file.order}i", self._file.content, self._parts[3][1])[0]
        _, start, size = self._parts[4]
        if not 0 < length <= size:
            raise self._file.damage("the names of a structure's fields are damaged")
        names = [self._file.content[place : place + length] for place in range(start, start + size, length)]
        return [name.partition(b"\0")[0].decode("ascii", "replace") for name in names]

    def _inner(self, parts: list[tuple[int, int, int]], count: int) -> list[Array]:
        if len(parts) != count or any(kind != _MATRIX for kind, _, _ in parts):
            raise self._file.damage(f"{count} arrays were expected, not {len(parts)} parts")
        return [Array(self._file, start, size) for _, start, size in parts]

    def _text(self, index: int) -> str:
        kind, start, size = self._parts[index]
        encoding = _ENCODINGS.get(kind, "")
        if encoding in ("utf-16", "utf-32"):
            encoding += "-le" if self._file.order == "<" else "-be"
        try:
            return self._file.content[start : start + size].decode(encoding)
        except (LookupError, UnicodeDecodeError) as error:
            raise self._file.damage(f"a string cannot be read ({error})") from error


def read_variable(path: Path, name: str) -> Array:
    """Find one variable of a version 5 file.

    Raises:
        ValueError: The file is of another kind, damaged, too large, or lacks the variable.
        OSError: The file cannot be read.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path} has {size:,} bytes; at most {MAX_BYTES:,} are allowed in a MATLAB file of its kind.")
    content = path.read_bytes()
    orders = {b"\0\1IM": "<", b"\1\0MI": ">"}
    if content[124:_HEADER] not in orders:
        raise ValueError(f"{path} is not a MATLAB file of version 5, in which {name} is published. Download it again.")
    file = _File(path, orders[content[124:_HEADER]], content)
    for kind, start, size in _parts(file, _HEADER, len(content), is_packed=True):
        if kind not in (_MATRIX, _COMPRESSED):
            raise file.damage(f"a part of kind {kind} was found instead of a variable")
        array = _inflate(file, start, size) if kind == _COMPRESSED else Array(file, start, size)
        if array.name == name:
            return array
    raise ValueError(f"{path} has no variable {name!r}: it is not the published file, or it is incomplete.")


def _inflate(file: _File, start: int, size: int) -> Array:
    packed = memoryview(file.content)[start : start + size]
    inflator = zlib.decompressobj()
    try:
        # The first bytes state the sizes, so that large variables are rejected before they are unpacked.
        tag = inflator.decompress(packed, 56)
        room = 8 + int(struct.unpack_from(f"{file.order}I", tag, 4)[0])
        if room > MAX_BYTES:
            raise file.damage(f"unpacked, it has {room:,} bytes; at most {MAX_BYTES:,} are allowed")
        content = tag + inflator.decompress(inflator.unconsumed_tail, max(1, room + 1 - len(tag)))
    except (zlib.error, struct.error) as error:
        raise file.damage(f"its content cannot be unpacked ({error})") from error
    if not inflator.eof or len(content) != room:
        raise file.damage(f"a variable does not have the expected {room} bytes")
    return Array(_File(file.path, file.order, content), 8, room - 8)


def _parts(file: _File, position: int, end: int, is_packed: bool = False) -> Iterator[tuple[int, int, int]]:
    """Iterate over the parts between two bytes: kind, first byte, size; aligned to 8 bytes unless `is_packed`."""
    while position < end:
        if position + 8 > end:
            raise file.damage(f"it ends within a part, at byte {end}")
        kind, size = struct.unpack_from(f"{file.order}II", file.content, position)
        start = position + 8
        if kind >> 16:  # small element: the upper half of the kind is the size, up to 4 bytes of data are in the tag
            kind, size, start, position = kind & 0xFFFF, kind >> 16, position + 4, start
        else:
            position = start + size + (0 if is_packed else -size % 8)
        if start + size > end or (start + 4 == position and size > 4):
            raise file.damage(f"the part at byte {start} extends beyond the part that contains it")
        yield kind, start, size


def to_ids(values: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint16]:
    """Convert `(H, W)` numbers of any type to ids.

    Raises:
        ValueError: The array, which messages call `name`, is not two-dimensional, is empty or too large, or has values
            that are not integers from 0 to 65535.
    """
    if values.ndim != 2 or values.dtype.kind not in "buif" or not 0 < values.size <= MAX_PIXELS:
        raise ValueError(
            f"{name} holds {values.dtype} of shape {values.shape}: ids are whole numbers (H, W), "
            f"at least one and at most {MAX_PIXELS:,}."
        )
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values == np.floor(values)).all()):
        raise ValueError(f"{name} holds numbers that are not integers: they cannot be ids.")
    return to_sixteen_bits(values, name)


def translate(ids: npt.NDArray[np.uint16], table: npt.NDArray[np.uint8], name: str) -> LabelMap:
    """Translate stored ids to class ids.

    Args:
        ids: `(H, W)` stored ids.
        table: Class id, or the ignore index, by stored id.
        name: The name of the file in messages.

    Raises:
        ValueError: An id is not in the table.
    """
    if ids.max() >= len(table):
        raise ValueError(f"{name} has the id {ids.max()}: 0 to {len(table) - 1} are allowed.")
    return table[ids]


MAX_CHUNK = 2**29
"""Maximum size in bytes of a compressed chunk, which HDF5 unpacks as a whole."""


def hdf5_shape(path: Path, name: str) -> tuple[int, ...]:
    """Return the shape of a dataset in a version 7.3 file, in the axis order of HDF5, the reverse of MATLAB's.

    Raises:
        ValueError: The file is of another kind, damaged, or lacks the dataset.
        OSError: The file cannot be read.
    """
    with open_hdf5(path) as file:
        return tuple(_member(file, name, path).shape)


def hdf5_names(path: Path) -> tuple[str, ...]:
    """Return the names of the variables in a version 7.3 file.

    Raises:
        ValueError: The file is of another kind, or damaged.
        OSError: The file cannot be read.
    """
    with open_hdf5(path) as file, clear_errors(path):
        return tuple(file)


def read_hdf5(path: Path, name: str, index: int) -> npt.NDArray[Any]:
    """Read one element along the first axis of a dataset, as stored.

    Raises:
        ValueError: See `hdf5_shape`; or the dataset is not numeric, too large, or has no such element.
        OSError: The file cannot be read.
    """
    with open_hdf5(path) as file:
        dataset = _member(file, name, path)
        if not dataset.shape or not 0 <= index < dataset.shape[0]:
            raise ValueError(f"{path}: {name} of shape {dataset.shape} has no element {index}.")
        _check_size(dataset, dataset.shape[1:], f"{path}: {name}")
        with clear_errors(path):
            array: npt.NDArray[Any] = dataset[index]
    return array


def read_referenced(path: Path, name: str, index: int) -> npt.NDArray[Any]:
    """Read the array that one element of a dataset of references points to; MATLAB stores a cell array so, `(N, 1)`.

    Raises:
        ValueError: See `read_hdf5`; or the element is not a reference.
        OSError: The file cannot be read.
    """
    import h5py

    with open_hdf5(path) as file:
        references = _member(file, name, path)
        where = f"{path}: element {index} of {name}"
        if references.ndim != 2 or not 0 <= index < references.shape[0] or references.shape[1] < 1:
            raise ValueError(f"{where} does not exist: the shape is {references.shape}.")
        if h5py.check_ref_dtype(references.dtype) is not h5py.Reference:
            raise ValueError(f"{where} is {references.dtype}, not a reference.")
        with clear_errors(path):
            dataset = file[references[index, 0]]
        _check_dataset(dataset, where)
        _check_size(dataset, dataset.shape, where)
        with clear_errors(path):
            array: npt.NDArray[Any] = dataset[()]
    return array


def _member(file: Any, name: str, path: Path) -> Any:
    import h5py

    place = file
    for part in name.split("/"):
        with clear_errors(path):
            link = place.get(part, getlink=True) if isinstance(place, h5py.Group) else None
            # Soft and external links may lead into another file: follow hard links only.
            place = place[part] if isinstance(link, h5py.HardLink) else None
        if place is None:
            raise ValueError(f"{path} has no {name!r}: it is not the published file.")
    _check_dataset(place, f"{path}: {name}")
    return place


def _check_dataset(dataset: Any, where: str) -> None:
    import h5py

    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None or dataset.external or dataset.is_virtual:
        raise ValueError(f"{where} is not an array stored in this file.")


def _check_size(dataset: Any, shape: Sequence[int], where: str) -> None:
    if dataset.dtype.kind not in "buif":
        raise ValueError(f"{where} holds {dataset.dtype}, not numbers.")
    if math.prod(shape) > 3 * MAX_PIXELS or math.prod(dataset.chunks or (1,)) * dataset.dtype.itemsize > MAX_CHUNK:
        raise ValueError(f"{where} has the shape {tuple(shape)}: at most {MAX_PIXELS:,} pixels are read.")
