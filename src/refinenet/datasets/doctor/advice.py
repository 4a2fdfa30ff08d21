"""What to write where, so that masks mean what their owner says: nothing is guessed beside the owner's names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from refinenet.datasets.doctor.mask_values import Values, write_classes
from refinenet.datasets.folder.classes_file import Meaning
from refinenet.datasets.formats.lookup import pack_colours, unpack_colour

MAX_LISTED = 64
"""Values that are listed at most: more are no classes."""

_WITHOUT = "`--fix OUT` writes a copy without these samples."


def name_file(meaning: Meaning | None) -> str:
    """The file that says what values mean; `classes.yaml` where none does."""
    path = Path(meaning.origin) if meaning else Path("classes.yaml")
    return path.name if path.suffix.lower() in (".yaml", ".yml", ".txt", ".csv") else "classes.yaml"


def say_where(meaning: Meaning | None) -> str:
    """Where all lines of a `classes.yaml` are to be written."""
    name = name_file(meaning)
    if name.endswith((".txt", ".csv")):
        return f"Write a file classes.yaml into the folder, which then counts instead of {name}:"
    return f"Write this into {name}:"


def ask_for_colours(colours: Values, proposal: Meaning | None, meaning: Meaning) -> str:
    """Which colour is which class only the owner knows: colours with their shares, in no form that could be pasted."""
    if proposal is None:
        return (
            "So many colours are no classes but a photograph, smoothing or a lossy format. Export the masks anew as "
            "PNG without smoothing."
        )
    names, shares = meaning.label_set.names, colours.shares()
    found = zip(pack_colours(proposal.label_set.colours).tolist(), proposal.label_set.colours, strict=True)
    more = "" if len(proposal.label_set) <= len(names) else " Colours without a class belong under 'ignore'."
    return "\n".join(
        [
            "Only you know which colour is which class. The most frequent colours, with their shares of all pixels:",
            *(f"- [{', '.join(map(str, colour))}]: {shares[value]}" for value, colour in found),
            f"The names are {', '.join(names)}.",
            f"Write into {name_file(meaning)} the key 'colours' with one [red, green, blue] for each name, in the "
            f"order of the names, and 'masks: colours'.{more}",
            "Or: `--fix OUT` writes a copy with ids, whose classes have placeholders for names (class 0 and so on), "
            "to be renamed by you.",
        ]
    )


def advise_few_painted(is_known: bool) -> str:
    """Of masks that are painted among others that hold ids."""
    mended = "`--fix OUT` writes a copy with ids for the colours that the classes have."
    return f"The other masks hold ids. Save these anew with ids, too; {mended if is_known else _WITHOUT}"


def advise_colours(strays: Values, meaning: Meaning, *, is_grey: bool) -> str:
    """Of colours without a meaning; `is_grey` says that the masks with them may hold ids."""
    colours = [unpack_colour(value) for value in list(strays.pixels)[:MAX_LISTED]]
    hint = "\nIf the masks hold ids instead of colours, remove 'masks: colours'." if is_grey else ""
    name = name_file(meaning)
    if name.endswith(".txt"):
        red, green, blue = colours[0]
        return (
            f"If they are classes, add a line for each to {name}, such as\nNAME:{red},{green},{blue}::\n"
            "What has no class is named void, ignore or ignored there."
        )
    ignored = [list(colour) for colour in [*meaning.ignored_colours, *colours]]
    return (
        f"If they are classes, add names and colours to {name}; if they have no class, add the line\n"
        f"ignore: {ignored}{hint}"
    )


def advise_ids(strays: Values, present: Values, meaning: Meaning) -> str:
    """Of ids without a meaning; `present` are the ids of all masks."""
    count = len(meaning.label_set)
    values = _find_values(present, meaning)
    if values:
        return _write_in(
            "If these are the classes in the order of the names,",
            replace(meaning, values=values),
            f"values: {[*values]}",
        )
    stray = sorted(strays.pixels)
    if stray == [count] and 0 in present.pixels and meaning.values == tuple(range(count)):
        return _advise_shifted(count, meaning)
    return _advise_ignoring(stray, meaning)


def _advise_shifted(count: int, meaning: Meaning) -> str:
    """Of ids from 0 to as many as there are names: 0 is no class, or one without a name, or the last one has none."""
    values = tuple(range(1, count + 1))
    shifted = replace(meaning, values=values, ignored_ids=(0,))
    condition = f"If 0 is unlabelled and the names are those of 1 to {count},"
    where = _write_in(condition, shifted, f"values: {[*values]}\nignore: [0]")
    return (
        f"There are {count + 1} ids, 0 to {count}, for {count} names. {where}\n"
        f"If 0 is a class (background), put its name in front of the others; if {count} is one, at the end."
    )


def _find_values(present: Values, meaning: Meaning) -> tuple[int, ...]:
    """The ids of the classes in order, where there are as many as names and they cannot be meant as they are."""
    count = len(meaning.label_set)
    if meaning.values != tuple(range(count)) or meaning.ignored_ids:
        return ()
    everything = sorted(present.pixels)
    void = meaning.label_set.ignore_index
    for found in (everything, [value for value in everything if value != void]):
        valid = [value for value in found if value < count]
        if len(found) == count and (2 * len(valid) < count or valid == [0]):
            return tuple(found)
    return ()


def _advise_ignoring(stray: Sequence[int], meaning: Meaning) -> str:
    if len(stray) > MAX_LISTED:
        return "So many ids are no classes: the masks may be pictures of something else, or smoothed."
    it, has, is_class = ("it", "has", "is a class") if len(stray) == 1 else ("they", "have", "are classes")
    ignored = (*meaning.ignored_ids, *stray)
    where = _write_in(f"If {it} {has} no class,", replace(meaning, ignored_ids=ignored), f"ignore: {[*ignored]}")
    name = name_file(meaning)
    if name.endswith(".csv"):
        return f"{where}\nIf {it} {is_class}, add to {name} a line for each id, such as\n{stray[0]}, NAME"
    return (
        f"{where}\nIf {it} {is_class}, add the names to {name}: the id of a name is its place, from 0 on, unless "
        "'values' lists the ids of all names in their order."
    )


def _write_in(condition: str, meaning: Meaning, line: str) -> str:
    """To write a line into the file that counts, or where that has no such line a whole file in its place."""
    name = name_file(meaning)
    if name.endswith((".txt", ".csv")):
        where = say_where(meaning)
        return f"{condition} {where[0].lower()}{where[1:]}\n{write_classes(meaning).strip()}"
    return f"{condition} write into {name}\n{line}"
