"""Quantities of a dataset by their names: an output may have some of those that a target holds, in any order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from shlex import quote

from refinenet.datasets.dataset import Dataset, Target, TargetReader
from refinenet.outputs import OutputSpec


def with_quantities(dataset: Dataset, outputs: Iterable[OutputSpec]) -> Dataset:
    """Return the dataset with a target for each output whose quantities are among those of a target.

    Outputs that have a target with the same name and quantities, or whose quantities no target has, change nothing.

    Args:
        dataset: A dataset whose targets are not chosen yet.
        outputs: Those of a network.

    Raises:
        ValueError: Quantities of an output have different units, or several targets have them.
    """
    specs, readers = _by_name(dataset.target_specs), dict(dataset.target_readers)
    files = dict(dataset.target_files)
    for output in outputs:
        holder = _find_holder(dataset, output)
        if holder is None:
            continue
        channels = [holder.channels.index(name) for name in output.channels]
        specs[output.name] = replace(output, likelihood=None)
        readers[output.name] = partial(_read_channels, dataset.target_readers[holder.name], channels)
        if holder.name in dataset.target_files:
            files[output.name] = dataset.target_files[holder.name]
    return replace(dataset, target_specs=tuple(specs.values()), target_readers=readers, target_files=files)


def _by_name(specs: Iterable[OutputSpec]) -> dict[str, OutputSpec]:
    return {spec.name: spec for spec in specs}


def _find_holder(dataset: Dataset, output: OutputSpec) -> OutputSpec | None:
    """Return the target to take the quantities of an output from; None if it has one of its own, or nothing has them.

    Raises:
        ValueError: See `with_quantities`.
    """
    namesake = _by_name(dataset.target_specs).get(output.name)
    if not output.channels or (namesake is not None and namesake.quantities == output.quantities):
        return None
    known = [spec for spec in dataset.target_specs if spec.channels]
    holders = [spec for spec in known if set(spec.channels) >= set(output.channels)]
    if len(holders) > 1 and namesake in holders:
        holders = [spec for spec in holders if spec is namesake]
    if not holders:
        return None
    names = " and ".join(spec.to_text() for spec in holders)
    if len(holders) > 1:
        raise ValueError(
            f"{dataset.name} {dataset.split} has {', '.join(output.channels)} in {len(holders)} outputs, {names}: give "
            f"the output one of these names instead of {output.name!r}."
        )
    units = dict(holders[0].quantities)
    if any(units[name] != unit for name, unit in output.quantities):
        fitting = replace(output, units=tuple(units[name] for name in output.channels))
        raise ValueError(
            f"{dataset.name} {dataset.split} has different units from the output {output.to_text()}: it has {names}. "
            f"Pass --outputs {quote(fitting.to_text())}, or correct the units in targets.yaml."
        )
    return holders[0]


def _read_channels(read: TargetReader, channels: Sequence[int], item: str) -> Target:
    target: Target = read(item)[list(channels)]
    return target
