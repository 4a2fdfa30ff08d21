"""Findings about depth, normals and other quantities: in single files, and across the files of a target."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from refinenet.datasets.doctor.findings import Finding
from refinenet.datasets.doctor.listing import Pair
from refinenet.datasets.doctor.scan import Facts
from refinenet.datasets.doctor.targets.depth_rules import judge_depths
from refinenet.datasets.doctor.targets.notes import Notes, Seen
from refinenet.datasets.doctor.targets.outlines import compare_outlines, find_flip
from refinenet.datasets.doctor.targets.value_rules import judge_quantities
from refinenet.datasets.folder.target_encoding import AWAY, AXES, TargetEncoding
from refinenet.outputs import OutputSpec

_MIN_MAPS = 8
"""Smallest number of maps of a split from which its values are compared with those of another split."""
_APART = 0.85
"""Largest difference of two cumulative distributions (Kolmogorov and Smirnov) of splits that are alike."""
_RELATED = 3.0
"""Mean strength of a fit, in standard errors, from which values have something to do with their images."""
_CLEAR = 0.02
"""Mean product of components of normals and of those computed from the depth from which its sign is certain."""
_MOST = 0.8
_UNLIKE = 0.5
"""Mean cosine of normals and of those computed from the depth below which they have little in common."""
_UPWARDS = 0.2
"""Mean of y in the lower third of images from which the ground seems to face down."""


@dataclass(frozen=True, kw_only=True)
class TargetVerdict:
    """The findings about targets, and what a repaired copy has to do about them."""

    findings: list[Finding] = field(default_factory=list)
    left_out: Mapping[Pair, str] = field(default_factory=dict)
    """Samples that a repaired copy omits, with the reason."""
    flips: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """By output, the axes of normals that are certainly to be negated."""


def judge_targets(
    facts: Sequence[Facts], specs: Mapping[str, OutputSpec], encodings: Mapping[str, TargetEncoding], root: Path | None
) -> TargetVerdict:
    """Find problems of targets.

    Args:
        facts: Facts of the samples.
        specs: Specifications of the targets, by output.
        encodings: The meaning of their numbers in files, by output.
        root: The dataset's folder.
    """
    notes = Notes(root)
    flips: dict[str, tuple[int, ...]] = {}
    for name, spec in specs.items():
        seen = [Seen(fact, target) for fact in facts for target in fact.targets if target.name == name]
        readable = [one for one in seen if not one.target.problem]
        for one in seen:
            for kind, message in _judge_file(one, spec):
                notes.add(kind, one, message)
        _judge_channels(readable, spec, notes)
        _judge_partners(readable, spec, notes)
        if spec.kind == "depth":
            judge_depths(readable, encodings.get(name), spec, notes)
        elif spec.kind == "normals":
            flips[name] = _judge_frame(readable, notes, encodings.get(name))
        elif spec.kind == "regression":
            judge_quantities(readable, encodings.get(name), spec, notes)
    return TargetVerdict(
        findings=notes.make(), left_out=notes.left_out, flips={name: axes for name, axes in flips.items() if axes}
    )


def _judge_file(one: Seen, spec: OutputSpec) -> Iterator[tuple[str, str]]:
    """Yield kind and details of each problem of a file."""
    target, image = one.target, one.fact.image
    if target.problem:
        yield f"target-{target.problem}", target.message
        return
    size = image.size if image is not None and not image.problem else target.size
    if target.size not in (size, (0, 0)):
        sizes = (f"{height}x{width}" for width, height in (size, target.size))
        yield "target-size", "{} and {} pixels (width x height) for the first one.".format(*sizes)
    for kind, count in (
        ("target-infinite", target.infinite),
        ("depth-zeros", target.zeros),
        ("depth-negative", target.negative),
        ("normals-length", target.long),
    ):
        if count:
            yield kind, f"{count} in the first one."
    if not target.known:
        yield "target-empty", ""
    for index, channel in enumerate(target.channels):
        if channel.marker is not None:
            name, value = spec.channels[index] if spec.channels else "", f"{channel.marker:.10g}"
            yield "target-marker", f"{value} in the first one{f', in {name}' if name else ''}."
    if target.channels and all(channel.is_constant for channel in target.channels) and spec.kind != "normals":
        yield "target-constant", ""


def find_target_obstacle(fact: Facts) -> str:
    """Return why the targets of a sample cannot be repaired; empty if they can, or are sound."""
    lacking = [name for name, path in fact.pair.targets if not path]
    if lacking:
        return f"there is no file of {', '.join(lacking)}, or there are several"
    for target in fact.targets:
        if target.problem:
            return target.message
        if fact.image is not None and target.size not in (fact.image.size, (0, 0)):
            return f"image and {target.name} have different sizes"
        if target.negative or target.long or any(channel.marker is not None for channel in target.channels):
            return f"values of {target.name} are not allowed, or probably mark missing ones"
    return ""


def _judge_channels(seen: Sequence[Seen], spec: OutputSpec, notes: Notes) -> None:
    """Find quantities without any ground truth, and those whose values in train and val differ."""
    for k, name in enumerate(spec.channels or (spec.name,)):
        channels = [(one.fact.pair.split, one.target.channels[k]) for one in seen if len(one.target.channels) > k]
        if channels and not any(channel.known for _, channel in channels):
            notes.add_name("target-nothing", name)
        medians: dict[str, list[float]] = defaultdict(list)
        for split, channel in channels:
            if channel.known:
                medians[split].append(channel.quantiles[1])
        if spec.kind != "normals" and _are_apart(medians["train"], medians["val"]):
            middles = [f"{np.median(medians[split]):.3g}" for split in ("train", "val")]
            notes.add_name("target-splits-differ", name, "{} in train and {} in val.".format(*middles))


def _are_apart(one: Sequence[float], other: Sequence[float]) -> bool:
    if min(len(one), len(other)) < _MIN_MAPS:
        return False
    places = np.sort([*one, *other])
    shares = [np.searchsorted(np.sort(values), places, "right") / len(values) for values in (one, other)]
    return bool(np.abs(shares[0] - shares[1]).max() > _APART)


def _judge_partners(seen: Sequence[Seen], spec: OutputSpec, notes: Notes) -> None:
    """Find values that several images share, and those that belong to other images."""
    groups: dict[bytes, list[Seen]] = defaultdict(list)
    for one in seen:
        if one.target.digest:
            groups[one.target.digest].append(one)
    for group in groups.values():
        if len({one.fact.image.digest for one in group if one.fact.image is not None}) > 1:
            for one in group[1:]:
                notes.add("target-repeated", one, partner=group[0].name, leaves_out=True)
            notes.left_out.setdefault(group[0].fact.pair, f"target-repeated: {group[0].target.name}")
    repeated = {one.name for group in groups.values() if len(group) > 1 for one in group}
    outlined = [one for one in seen if one.target.outlines and one.name not in repeated and _outlines(one)]
    outlined.sort(key=lambda one: (one.fact.pair.split, one.fact.pair.item))
    images, values = [_outlines(one) for one in outlined], [one.target.outlines for one in outlined]
    fit = compare_outlines(images, values)
    for index, other in fit.swapped.items():
        notes.add("target-of-another-image", outlined[index], partner=outlined[other].name, leaves_out=True)
    flip = "" if fit.swapped else find_flip(images, values)
    if flip:
        notes.add_name("values-flipped", spec.name, f"{flip}.")
    elif spec.kind != "regression" and not fit.swapped and fit.strength < _RELATED / np.sqrt(max(1, fit.count)):
        notes.add_name("target-unrelated", spec.name)


def _outlines(one: Seen) -> bytes:
    return b"" if one.fact.image is None else one.fact.image.outlines


def _judge_frame(seen: Sequence[Seen], notes: Notes, encoding: TargetEncoding | None) -> tuple[int, ...]:
    """Find normals in another frame; return the axes that are certainly to be negated."""
    means = [one.target.mean for one in seen if one.target.mean is not None]
    agreements = [one.target.agreement for one in seen if one.target.agreement is not None]
    if not means:
        return ()
    if agreements:
        middle = np.mean(agreements, 0)
        flips = [k for k in range(3) if _is_flipped(np.array(agreements)[:, k])]
        if flips:
            current = () if encoding is None else encoding.flips
            # Negating an axis that is negated already undoes it.
            axes = sorted(set(flips) ^ set(current))
            message = f"{', '.join(AXES[k] for k in flips)}, as the depth shows."
            notes.add_name("normals-frame", seen[0].target.name, f"{message}\n{_advise_flips(axes)}")
            if np.abs(middle).sum() > _UNLIKE:
                return tuple(flips)
            notes.unfixable.add("normals-frame")
            return ()
        if middle.sum() < _UNLIKE:
            notes.add_name("normals-unlike-depth", seen[0].target.name, f"{middle.sum():.2f}")
    elif np.mean([mean[2] for mean in means]) > AWAY:
        notes.add_name("normals-frame", seen[0].target.name, f"z, and perhaps y.\n{_advise_flips([1, 2])}")
        notes.unfixable.add("normals-frame")
        return ()
    below = [one.target.mean_below for one in seen if not np.isnan(one.target.mean_below)]
    if not agreements and below and np.mean(below) > _UPWARDS:
        notes.add_name("normals-upside-down", seen[0].target.name)
    return ()


def _is_flipped(products: npt.NDArray[np.float64]) -> bool:
    """Return whether most of the maps in which an axis matters show it negated."""
    clear = products[np.abs(products) > _CLEAR]
    return bool(len(clear) and (clear < 0).mean() > _MOST)


def _advise_flips(axes: Sequence[int]) -> str:
    return f"flip: [{', '.join(AXES[axis] for axis in axes)}]"
