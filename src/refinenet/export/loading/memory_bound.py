"""Proof that a graph needs memory in proportion to the image, whatever the image's size.

The sandbox tests a graph on small images only. A size that is computed from the image's sides can be harmless there and
take all memory for an image of one more row (`max(H - 150, 0) * 40_000_000`). Here each side of each tensor, and each
whole number that a size is computed from, is bounded by a polynomial in N, H and W whose coefficients are intervals.
Such polynomials are closed under sums, products and floors, and terms that cancel (TensorFlow's padding,
`ceil(H / 2) * 2 - H`) cancel here, too. `size_bounds` has the polynomials, `memory_rules` a rule for each operator.

Only the operators of this package's own exports have rules. A graph with other operators is not rejected: nothing is
proven about it, and it runs in a process with limited memory (`inference.backends.isolated`).

Shape letters: N batch, H and W height and width of the image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from refinenet.export.loading.memory_rules import RULES
from refinenet.export.loading.size_bounds import Bounded, Size, UnprovenError, constant

MAX_NUMBERS = (2**26, 2**18, 2**11)
"""In memory at a time for each image, for each of its rows and columns, and for each of its pixels.

Our largest exports have some 500 for each pixel. Of the small maps of many channels, whose sides are rounded up, most
is for each line and each image.
"""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One step of a graph, in words that ONNX's and OpenVINO's operators are translated to."""

    kind: str
    """A key of `memory_rules.RULES`."""
    inputs: Sequence[str]
    """Names of tensors; an empty one stands for an input that is not given."""
    outputs: Sequence[str]
    options: Mapping[str, Any] = field(default_factory=dict)


def prove(
    operations: Sequence[Operation], known: Mapping[str, Bounded], image: str, result: str, bands: int = 3
) -> None:
    """Bound the memory of a graph.

    Args:
        operations: In an order in which they can be computed.
        known: Constants and weights by name.
        image: Name of the input, `(N, bands, H, W)`.
        result: Name of the output.
        bands: Number of bands of an image.

    Raises:
        UnprovenError: no bound is found, or it is too large.
    """
    sides = [Size({powers: (1.0, 1.0)}) for powers in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]
    tensors = {**known, image: Bounded((sides[0], constant(bands), sides[1], sides[2]))}
    last = {name: index for index, operation in enumerate(operations) for name in operation.inputs}
    last[result] = len(operations)
    alive: dict[str, Size] = {}
    for index, operation in enumerate(operations):
        given = [_find(tensors, name) for name in operation.inputs]
        rule = RULES.get(operation.kind)
        if rule is None:
            raise UnprovenError(operation.kind)
        made, workspace = rule(given, operation.options)
        # A graph may leave optional outputs out, or name more than the rule knows: reading these fails in `_find`.
        for name, tensor in zip(operation.outputs, made, strict=False):
            tensors[name] = tensor
            if not tensor.is_constant:
                alive[name] = tensor.elements()
        _check(sum(alive.values(), start=workspace))
        alive = {name: count for name, count in alive.items() if last.get(name, -1) > index}


def _find(tensors: Mapping[str, Bounded], name: str) -> Bounded | None:
    if name and name not in tensors:
        raise UnprovenError(f"{name!r} is used before it is computed")
    return tensors.get(name)


def _check(count: Size) -> None:
    """Refuse more numbers than an image of any size may need."""
    found = [0.0, 0.0, 0.0]
    for powers, (_, high) in count.terms.items():
        if max(powers) > 1 and high > 0:
            raise UnprovenError(f"memory grows with {powers}")
        found[powers[1] + powers[2] if max(powers) <= 1 else 0] += max(high, 0)
    # What is asked is false of NaN, which infinite constants lead to.
    if not all(number <= limit for number, limit in zip(found, MAX_NUMBERS, strict=True)):
        raise UnprovenError("{:.3g} numbers for each image, {:.3g} for each line, {:.3g} for each pixel".format(*found))


def is_proven(
    operations: Iterable[Operation], known: Mapping[str, Bounded], image: str, result: str, bands: int = 3
) -> bool:
    """Whether the memory of a graph is bounded in proportion to the image; arguments as for `prove`."""
    try:
        prove(list(operations), known, image, result, bands)
    except (UnprovenError, ValueError, TypeError, LookupError, ArithmeticError):
        # A graph that is not what its operators ask for: nothing is proven of it.
        return False
    return True
