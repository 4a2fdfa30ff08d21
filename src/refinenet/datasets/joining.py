"""Several datasets as one: each sample is read by the dataset that it comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np

from refinenet.datasets.dataset import Dataset, Target, TargetReader, no_file
from refinenet.outputs import OutputSpec

Result = TypeVar("Result")


def join(parts: Sequence[Dataset]) -> Dataset:
    """Concatenate the samples of several datasets; the split is that of the first, the targets are those of all.

    Images of a dataset without classes are ignored for classes, and those of a dataset that lacks a target of others
    have no ground truth for it (NaN).

    Raises:
        ValueError: Their classes differ, or targets of the same name or bands do.
    """
    first = next((part for part in parts if part.label_set.names), parts[0])
    for part in parts:
        if part.label_set.names and part.label_set.names != first.label_set.names:
            raise ValueError(
                f"{first.name} and {part.name} have different classes and cannot be joined: "
                f"{_describe_difference(first, part)}. Give both the same names, in the same order, in a classes.yaml; "
                "its key `rename` changes labels of annotation tools."
            )
    if len({part.bands for part in parts}) > 1:
        raise ValueError("Images of different bands cannot be joined.")
    specs = _join_specs(parts)
    return Dataset(
        name=" + ".join(part.name for part in parts),
        split=parts[0].split,
        label_set=first.label_set,
        items=[f"{index}/{item}" for index, part in enumerate(parts) for item in part.items],
        read_image=partial(_in_part, [part.read_image for part in parts]),
        read_labels=partial(_in_part, [part.with_void_labels(first.label_set).read_labels for part in parts]),
        locate=partial(_in_part, [part.locate for part in parts]),
        image_file=partial(_in_part, [part.image_file for part in parts]),
        label_file=partial(_in_part, [part.label_file for part in parts]),
        slow_sources=[source for part in parts for source in part.slow_sources],
        target_specs=tuple(specs.values()),
        target_readers={
            name: partial(_in_part, [part.target_readers.get(name, _no_truth(spec)) for part in parts])
            for name, spec in specs.items()
        },
        target_files={
            name: partial(_in_part, [part.target_files.get(name, no_file) for part in parts]) for name in specs
        },
        chosen_targets=tuple(dict.fromkeys(name for part in parts for name in part.chosen_targets)),
        target_origins=[origin for part in parts for origin in part.target_origins],
        read_intrinsics=partial(_in_part, [part.read_intrinsics for part in parts]),
        bands=first.bands,
        band_files=[
            replace(files, find=partial(_in_part, [files.find if k == index else no_file for k in range(len(parts))]))
            for index, part in enumerate(parts)
            for files in part.band_files
        ],
    )


def _describe_difference(one: Dataset, other: Dataset) -> str:
    """Say which classes only one of two datasets has, or that their order differs."""
    alone = []
    for first, second in ((one, other), (other, one)):
        names = [name for name in first.label_set.names if name not in second.label_set.names]
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        alone += [f"only {first.name} has {', '.join(names[:5])}{more}"] if names else []
    return "; ".join(alone) or "their order differs"


def _join_specs(parts: Sequence[Dataset]) -> dict[str, OutputSpec]:
    """Return the targets of all parts by name, with ranges that include those of each.

    Raises:
        ValueError: Two have the same name, but different kinds or quantities.
    """
    specs: dict[str, OutputSpec] = {}
    for part in parts:
        for spec in part.target_specs:
            known = specs.setdefault(spec.name, spec)
            if replace(known, range=spec.range) != spec:
                raise ValueError(
                    f"The target {spec.name!r} of {part.name} is {spec.to_dict()}, but in an earlier dataset it is "
                    f"{known.to_dict()}: they cannot be joined. Give one of them another name in its targets.yaml."
                )
            if known.range is not None and spec.range is not None:
                widest = min(known.range[0], spec.range[0]), max(known.range[1], spec.range[1])
                specs[spec.name] = replace(known, range=widest)
    return specs


def _no_truth(spec: OutputSpec) -> TargetReader:
    return partial(_read_no_truth, spec.count_channels(0))


def _read_no_truth(channels: int, _item: str) -> Target:
    return np.full((channels, 1, 1), np.nan, np.float32)


def _in_part(functions: Sequence[Callable[[str], Result]], item: str) -> Result:
    index, _, inner = item.partition("/")
    return functions[int(index)](inner)
