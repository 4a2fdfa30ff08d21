"""How the images of a model are read: its bands, or the bands and the value range that a user chooses."""

from __future__ import annotations

from collections.abc import Sequence

from refinenet.io.images.bands import Band
from refinenet.io.images.sample_values import Note, Reading, ValueRange, check_value_range


def choose_reading(
    model_range: ValueRange | None,
    bands: Sequence[int] | None,
    value_range: ValueRange | None,
    model_bands: tuple[Band, ...] = (),
) -> tuple[Reading, tuple[Note, ...]]:
    """Choose how to read images for a model, and what to report about that.

    Args:
        model_range: Value range that the model was trained with, if recorded.
        bands: Band numbers from 1 for red, green and blue, or one for grey; None for those that files declare.
        value_range: Stored values for black and white; None for the model's.
        model_bands: Bands that the model takes, if it does not take RGB of 8 bits; `bands` are then as many numbers.

    Raises:
        ValueError: the bands or the value range are not valid.
    """
    chosen = None if bands is None else tuple(bands)
    if model_bands:
        return Reading(bands=chosen, value_range=value_range, model_bands=model_bands), ()
    if value_range is None:
        return Reading(bands=chosen, value_range=model_range, is_from_model=True), ()
    asked = check_value_range(value_range)
    if model_range is None or model_range == asked:
        return Reading(bands=chosen, value_range=asked), ()
    low, high = model_range
    note = Note(
        "other-range",
        f"The model was trained with the value range {low:g},{high:g}; {asked[0]:g},{asked[1]:g} is used.",
    )
    return Reading(bands=chosen, value_range=asked), (note,)
