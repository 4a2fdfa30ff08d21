"""A rule for each operator: the sides of what it makes and the memory that it needs; see `memory_bound`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from refinenet.export.loading.size_bounds import MAX_VALUES, Bounded, Size, Sizes, UnprovenError, constant

MAX_FACTOR, MAX_SUMMAND = 512, 2**20
"""In the computation of a size. For sides below 2^20 no 32-bit number then wraps around to another one."""
_ROUNDING = 0.1
"""Of numbers below 2^20 in float32."""

Given = Sequence[Bounded | None]


def _tensor(given: Given, place: int) -> Bounded:
    found = given[place] if place < len(given) else None
    if found is None:
        raise UnprovenError("an input is missing")
    return found


def _values(given: Given, place: int) -> Sizes:
    found = _tensor(given, place).values
    if found is None:
        raise UnprovenError("a size is computed from pixel values")
    return found


def _integers(given: Given, place: int) -> list[int]:
    numbers = [size.constant for size in _values(given, place).ravel()]
    return [_whole(number) for number in numbers]


def _whole(number: float | None) -> int:
    if number is None or not math.isfinite(number) or number != int(number):
        raise UnprovenError("a number is not a constant")
    return int(number)


def _axes(given: Given, options: Mapping[str, Any], rank: int) -> list[int]:
    axes = options["axes"] if "axes" in options else _integers(given, 1)
    return [axis % rank for axis in axes]


Made = tuple[Sequence[Bounded], Size]
"""Outputs, and numbers that the operator needs while it runs."""
_NOTHING = Size({})


def _broadcast(first: Size, second: Size) -> Size:
    if first.constant == 1:
        return second
    return first if second.constant == 1 else first.or_else(second)


def _elementwise(given: Given, options: Mapping[str, Any]) -> Made:
    tensors = [tensor for tensor in given if tensor is not None]
    rank = max(len(tensor.shape) for tensor in tensors)
    shape = [constant(1)] * rank
    for tensor in tensors:
        padded = [constant(1)] * (rank - len(tensor.shape)) + list(tensor.shape)
        shape = [_broadcast(side, other) for side, other in zip(shape, padded, strict=True)]
    function = FUNCTIONS.get(options.get("function", ""))
    arrays = [tensor.values for tensor in tensors if tensor.values is not None]
    if function is None or len(arrays) < len(tensors):
        return [Bounded(tuple(shape))], _NOTHING
    if any(side.constant is None for side in shape) or math.prod(side.constant or 0 for side in shape) > MAX_VALUES:
        return [Bounded(tuple(shape))], _NOTHING
    total: Any = arrays[0]
    for values in arrays[1:]:
        total = np.frompyfunc(function, 2, 1)(total, values)
    return [_computed(total)], _NOTHING


def _computed(values: Any) -> Bounded:
    """A tensor of numbers that were computed, all of them small enough not to overflow."""
    array = np.asarray(values, dtype=object)
    for size in array.ravel():
        for powers, ends in size.terms.items():
            largest = MAX_FACTOR if sum(powers) else MAX_SUMMAND
            if sum(powers) > 1 or not max(map(abs, ends)) <= largest:
                raise UnprovenError(f"a size is computed from {ends} times {powers}")
    return Bounded.of(array)


def _divide(first: Size, second: Size) -> Size:
    divisor = second.constant
    if not divisor:
        raise UnprovenError("a size is divided by another one")
    return first.times(1 / divisor).plus(-1, 1)  # whole numbers are rounded down, or towards zero


def _unary(function: Callable[[Size], Size]) -> Callable[[Given, Mapping[str, Any]], Made]:
    def rule(given: Given, _: Mapping[str, Any]) -> Made:
        tensor = _tensor(given, 0)
        if tensor.values is None:
            return [tensor], _NOTHING
        return [_computed(np.frompyfunc(function, 1, 1)(tensor.values))], _NOTHING

    return rule


def _clip(given: Given, options: Mapping[str, Any]) -> Made:
    def clip(size: Size) -> Size:
        for limit in options["limits"]:
            size = size.or_else(constant(limit))
        return size

    return _unary(clip)(given, options)


def _cast(size: Size) -> Size:
    number = size.constant
    return size if number is not None and number == round(number) else size.plus(-1, 1)


def _same(given: Given, _: Mapping[str, Any]) -> Made:
    return [Bounded(_tensor(given, 0).shape)], _NOTHING


def _slide(side: Size, index: int, kernel: int, options: Mapping[str, Any]) -> Size:
    """Return the output side of a kernel that slides over a side."""
    stride, pads, dilation = (options[name][index] for name in ("strides", "pads", "dilations"))
    if stride < 1 or dilation < 1 or kernel < 1:
        raise UnprovenError("a kernel or a stride is not positive")
    if options["same"]:
        return side.times(1 / stride).plus(0, 1)
    reach = dilation * (kernel - 1) + 1
    return side.plus(sum(pads) - reach, sum(pads) - reach).times(1 / stride).plus(0, 2 if options["ceil"] else 1)


def _convolve(given: Given, options: Mapping[str, Any]) -> Made:
    data, weights = _tensor(given, 0), [_whole(side.constant) for side in _tensor(given, 1).shape]
    groups = weights.pop(0) if options["grouped"] else 1
    kernel = weights[2:]
    sides = [_slide(side, index, kernel[index], options) for index, side in enumerate(data.shape[2:])]
    shape = (data.shape[0], constant(groups * weights[0]), *sides)
    # Engines may lay out what each position of the kernel sees ("im2col"), an image at a time.
    laid_out = math.prod(weights[1:]) if math.prod(kernel) > 1 else 0
    return [Bounded(shape)], math.prod(sides, start=constant(laid_out))


def _pool(given: Given, options: Mapping[str, Any]) -> Made:
    data, kernel = _tensor(given, 0), options["kernel"]
    sides = [_slide(side, index, kernel[index], options) for index, side in enumerate(data.shape[2:])]
    return [Bounded((*data.shape[:2], *sides))], _NOTHING


def _reduce(given: Given, options: Mapping[str, Any]) -> Made:
    shape = _tensor(given, 0).shape
    axes = _axes(given, options, len(shape))
    kept = [constant(1) if axis in axes else side for axis, side in enumerate(shape)]
    if not options["keep"]:
        kept = [side for axis, side in enumerate(kept) if axis not in axes]
    return [Bounded(tuple(kept))], _NOTHING


def _concatenate(given: Given, options: Mapping[str, Any]) -> Made:
    tensors = [_tensor(given, place) for place in range(len(given))]
    arrays = [tensor.values for tensor in tensors if tensor.values is not None]
    if len(arrays) == len(tensors):
        return [Bounded.of(np.concatenate(arrays, options["axis"]))], _NOTHING
    shape = list(tensors[0].shape)
    axis = options["axis"] % len(shape)
    for tensor in tensors[1:]:
        for index, side in enumerate(tensor.shape):
            shape[index] = shape[index] + side if index == axis else shape[index].or_else(side)
    return [Bounded(tuple(shape))], _NOTHING


def _shape(given: Given, options: Mapping[str, Any]) -> Made:
    part = _tensor(given, 0).shape[options["part"]]
    values = np.empty(len(part), dtype=object)
    values[:] = part
    return [Bounded.of(values)], _NOTHING


def _gather(given: Given, options: Mapping[str, Any]) -> Made:
    values, wanted = _values(given, 0), _tensor(given, 1)
    axis = options["axis"] if "axis" in options else _integers(given, 2)[0]
    indices = np.array(_integers(given, 1), dtype=np.int64)
    indices = indices.reshape([_whole(side.constant) for side in wanted.shape])
    return [Bounded.of(np.asarray(np.take(values, indices, axis), dtype=object))], _NOTHING


def _slice(given: Given, _: Mapping[str, Any]) -> Made:
    data = _tensor(given, 0)
    axes = _integers(given, 3) if len(given) > 3 and given[3] is not None else range(len(data.shape))
    steps = _integers(given, 4) if len(given) > 4 and given[4] is not None else [1] * len(axes)
    if data.values is not None:
        places = [slice(None)] * data.values.ndim
        for axis, start, end, step in zip(axes, _integers(given, 1), _integers(given, 2), steps, strict=True):
            places[axis] = slice(start, end, step)
        return [Bounded.of(np.asarray(data.values[tuple(places)], dtype=object))], _NOTHING
    shape = list(data.shape)
    starts, ends = (_values(given, place).ravel() for place in (1, 2))
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        # Exactly the smaller of side and end, if these count from the start; else something up to the side.
        counts_from_start = start.constant == 0 and step == 1 and all(low >= 0 for low, _ in end.terms.values())
        is_computed = end.constant is None
        shape[axis] = shape[axis].or_else(end if counts_from_start and is_computed else constant(0))
    return [Bounded(tuple(shape))], _NOTHING


def _reshape(given: Given, options: Mapping[str, Any]) -> Made:
    data, target = _tensor(given, 0), _values(given, 1).ravel()
    if data.values is not None:
        return [Bounded.of(data.values.reshape([_whole(size.constant) for size in target]))], _NOTHING
    sides = [data.shape[i] if size.constant == 0 and options["copies"] else size for i, size in enumerate(target)]
    free = [index for index, size in enumerate(sides) if size.constant == -1]
    if free:
        others = [_whole(size.constant) for size in sides if size.constant != -1]
        sides[free[0]] = data.elements().times(1 / max(1, math.prod(others)))
    return [Bounded(tuple(sides))], _NOTHING


def _squeeze(given: Given, options: Mapping[str, Any]) -> Made:
    data = _tensor(given, 0)
    if len(given) > 1 or "axes" in options:
        axes = _axes(given, options, len(data.shape))
    else:
        axes = [axis for axis, side in enumerate(data.shape) if side.constant == 1]
    if data.values is not None:
        return [Bounded.of(data.values.squeeze(tuple(axes)))], _NOTHING
    return [Bounded(tuple(side for axis, side in enumerate(data.shape) if axis not in axes))], _NOTHING


def _unsqueeze(given: Given, options: Mapping[str, Any]) -> Made:
    data = _tensor(given, 0)
    count = len(options["axes"] if "axes" in options else _integers(given, 1))
    axes = _axes(given, options, len(data.shape) + count)
    if data.values is not None:
        return [Bounded.of(np.expand_dims(data.values, tuple(axes)))], _NOTHING
    shape = list(data.shape)
    for axis in sorted(axes):
        shape.insert(axis, constant(1))
    return [Bounded(tuple(shape))], _NOTHING


def _resize(given: Given, options: Mapping[str, Any]) -> Made:
    shape, sizes = list(_tensor(given, 0).shape), _values(given, 1).ravel()
    axes = options["axes"] if "axes" in options else _integers(given, 2)
    for axis, size in zip(axes, sizes, strict=True):
        shape[axis] = size
    return [Bounded(tuple(shape))], _NOTHING


def _pad(given: Given, options: Mapping[str, Any]) -> Made:
    shape, begins = list(_tensor(given, 0).shape), list(_values(given, 1).ravel())
    ends = list(_values(given, 2).ravel()) if options["apart"] else begins[len(shape) :]
    axes = _integers(given, 3) if not options["apart"] and len(given) > 3 and given[3] is not None else None
    if axes is not None or len(begins) + (len(ends) if options["apart"] else 0) != 2 * len(shape):
        raise UnprovenError("only some axes are padded")
    for axis, end in enumerate(ends):
        shape[axis] = shape[axis] + begins[axis] + end
    return [Bounded(tuple(shape))], _NOTHING


def _split(given: Given, options: Mapping[str, Any]) -> Made:
    data = _tensor(given, 0)
    axis = options["axis"] if "axis" in options else _integers(given, 1)[0]
    lengths = _integers(given, options["lengths"]) if "lengths" in options else None
    if data.values is not None:
        places = options["count"] if lengths is None else np.cumsum(lengths)[:-1]
        return [Bounded.of(part) for part in np.split(data.values, places, axis)], _NOTHING
    if lengths is None:
        side = _whole(data.shape[axis].constant)
        lengths = [math.ceil(side / options["count"])] * options["count"]
    if min(lengths) < 0:
        raise UnprovenError("a part is as long as what is left")
    parts = []
    for length in lengths:
        shape = list(data.shape)
        shape[axis] = constant(length)
        parts.append(Bounded(tuple(shape)))
    return parts, _NOTHING


RULES: Mapping[str, Callable[[Given, Mapping[str, Any]], Made]] = MappingProxyType(
    {
        "cast": _unary(_cast),
        "ceil": _unary(lambda size: size.plus(-_ROUNDING, 1 + _ROUNDING)),
        "clip": _clip,
        "concat": _concatenate,
        "convolution": _convolve,
        "elementwise": _elementwise,
        "floor": _unary(lambda size: size.plus(-1 - _ROUNDING, _ROUNDING)),
        "gather": _gather,
        "identity": _unary(lambda size: size),
        "negate": _unary(lambda size: size.times(-1)),
        "pad": _pad,
        "pool": _pool,
        "reduce": _reduce,
        "reshape": _reshape,
        "resize": _resize,
        "same": _same,
        "shape": _shape,
        "slice": _slice,
        "split": _split,
        "squeeze": _squeeze,
        "unsqueeze": _unsqueeze,
    }
)
FUNCTIONS: Mapping[str, Callable[[Size, Size], Size]] = MappingProxyType(
    {
        "add": Size.__add__,
        "divide": _divide,
        "either": Size.or_else,
        "multiply": Size.__mul__,
        "subtract": Size.__sub__,
    }
)
"""What elementwise operators do with the numbers that sizes are computed from."""
