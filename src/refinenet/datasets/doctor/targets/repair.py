"""Targets in repaired copies: OUT/depth/SPLIT/NAME.EXT and so on, and OUT/targets.yaml.

Files are copied byte by byte, or written as NumPy files where values were replaced; those of datasets that are known by
name always are NumPy files of float32 in the unit of the output.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet.datasets.catalog import Dataset
from refinenet.datasets.doctor.source import Source
from refinenet.datasets.folder.target_encoding import TargetEncoding
from refinenet.datasets.folder.targets_file import FILE, write_encodings
from refinenet.io.files import write_atomically
from refinenet.outputs import OutputSpec

_FOLDERS = {"depth": "depth", "normals": "normals", "regression": "values"}


@dataclass(frozen=True, kw_only=True)
class TargetWriter:
    """A writer of targets, which can be sent to other processes."""

    out: Path
    encodings: Mapping[str, TargetEncoding]
    """The meaning of the files that are copied, corrected, by folder."""
    from_datasets: tuple[str, ...] = ()
    """The outputs whose values datasets read."""

    def write(self, files: Sequence[tuple[str, str]], split: str, stem: str) -> tuple[str, ...]:
        """Write the files of a sample, and return what was changed.

        Args:
            files: Names of outputs and paths.
            split: The sample's split.
            stem: Its stem in the copy.

        Raises:
            ValueError: A file is damaged.
            OSError: A file cannot be read or written.
        """
        folders = {encoding.spec.name: (folder, encoding) for folder, encoding in self.encodings.items()}
        changes = []
        for name, path in files:
            folder, encoding = folders[name]
            place, source = self.out / folder / split / stem, Path(path)
            mended = _mend(source, encoding)
            if mended is None:
                write_atomically(place.with_name(stem + source.suffix), source.read_bytes())
                continue
            values, count = mended
            _save(place.with_name(f"{stem}.npy"), values)
            changes.append(f"{name}: {count} values without ground truth")
        return tuple(changes)

    def write_values(self, dataset: Dataset, item: str, split: str, stem: str) -> None:
        """Write the values that a dataset reads for a sample.

        Raises:
            ValueError, OSError: See `write`.
        """
        for spec in dataset.target_specs:
            if spec.name in self.from_datasets:
                values = dataset.target_readers[spec.name](item).transpose(1, 2, 0)
                if values.shape[:2] != (1, 1) or not np.isnan(values).all():
                    _save(self.out / _FOLDERS[spec.kind] / split / f"{stem}.npy", values.astype(np.float32))

    def write_declaration(self) -> None:
        """Write the targets.yaml, if there is anything to declare."""
        text = write_encodings(self.encodings)
        if text:
            write_atomically(self.out / FILE, text.encode())


def make_writer(source: Source, flips: Mapping[str, Sequence[int]], out: Path) -> TargetWriter:
    """Return a writer for the targets of a source, with normals whose axes `flips` are negated in addition."""
    if not source.target_folders:
        names = source.reading.targets
        encodings = {_FOLDERS[source.target_specs[name].kind]: _in_units(source.target_specs[name]) for name in names}
        return TargetWriter(out=out, encodings=encodings, from_datasets=names)
    corrected = {
        folder: replace(encoding, flips=tuple(sorted(set(encoding.flips) ^ set(flips.get(encoding.spec.name, ())))))
        for folder, encoding in source.target_folders.items()
    }
    return TargetWriter(out=out, encodings=corrected)


def _in_units(spec: OutputSpec) -> TargetEncoding:
    nothing = (None,) * spec.count_channels(0)
    return TargetEncoding(
        spec=spec, origin=Path(FILE), scales=nothing, missing=nothing, has_range=spec.kind == "depth", is_optional=True
    )


def _mend(path: Path, encoding: TargetEncoding) -> tuple[npt.NDArray[Any], int] | None:
    """Return the stored numbers without infinities and depths of 0, and how many there were; None for none.

    A NumPy file has neither nodata value nor mask, so pixels that are missing by those of a TIFF are marked, too.
    """
    stored, values = encoding.decode(path)
    wrong = np.isinf(values)
    if encoding.spec.kind == "depth":
        wrong |= values == 0
    if not wrong.any():
        return None
    # Wrong integers are depths of 0, which are read as such only if another value is declared missing.
    missing = encoding.missing[0]
    if _holds(stored.dtype, missing):
        mended, gap = stored.copy(), missing
    else:
        mended, gap = stored.astype(np.result_type(stored.dtype, np.float32)), np.nan
    mended[wrong | np.isnan(values)] = gap
    return mended, int(wrong.sum())


def _holds(dtype: np.dtype[Any], missing: float | None) -> bool:
    """Return whether integers of a type can have the value that is declared missing."""
    if dtype.kind not in "ui" or missing is None:
        return False
    limits = np.iinfo(dtype)
    return limits.min <= missing <= limits.max and missing == int(missing)


def _save(path: Path, values: npt.NDArray[Any]) -> None:
    stream = io.BytesIO()
    np.save(stream, values[..., 0] if values.shape[2] == 1 else values, allow_pickle=False)
    write_atomically(path, stream.getvalue())
