"""Finding the largest batch that fits into memory."""

from __future__ import annotations

from collections.abc import Callable

MARGIN = 0.1
"""Share of the largest batch that fits which is left free: other steps need a little more memory than the one tried,
and allocators fragment."""


def find_batch_size(fits: Callable[[int], bool], most: int, multiple_of: int = 1) -> int:
    """The largest batch that fits, less a margin; found by doubling, then by halving what is between.

    Where `most` fits it is the answer, since memory is not what limits it; else `MARGIN` is taken off the largest batch
    that fits, but never below `multiple_of`.

    Args:
        fits: Whether a training step with so many images runs without filling the memory (see `is_out_of_memory`); a
            batch smaller than one that fits is taken to fit. On a CPU a system such as Linux grants more memory than it
            has and ends the process when it is used, so there it has to compare with what is free.
        most: The largest batch that makes sense, such as all training images.
        multiple_of: What the batch has to be a multiple of.

    Returns:
        A multiple of `multiple_of`, at most `most`.

    Raises:
        ValueError: no batch is allowed, or not even the smallest fits.
    """
    if multiple_of < 1 or most < multiple_of:
        raise ValueError(f"There is no batch size from {multiple_of} to {most} that is a multiple of {multiple_of}.")
    units = most // multiple_of
    if not fits(multiple_of):
        raise ValueError(
            f"Not even a batch of {multiple_of} images fits into memory. "
            "Take a smaller crop_size or a smaller network, or close what else uses the memory."
        )
    fitting = 1
    while fitting < units and fits(min(2 * fitting, units) * multiple_of):
        fitting = min(2 * fitting, units)
    if fitting == units:
        return units * multiple_of
    failing = min(2 * fitting, units)
    while failing - fitting > 1:
        middle = (fitting + failing) // 2
        if fits(middle * multiple_of):
            fitting = middle
        else:
            failing = middle
    return max(1, int(fitting * (1 - MARGIN))) * multiple_of
