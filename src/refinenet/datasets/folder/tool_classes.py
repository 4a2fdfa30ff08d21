"""What the values in mask files mean, as the annotation tools CVAT and Roboflow write it."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from refinenet.datasets.folder.classes_file import Meaning, as_colour, of_colours, of_ids
from refinenet.datasets.formats.label_names import is_void
from refinenet.labels import Colour, LabelSet, voc_colours


def read_label_map(path: Path) -> Meaning:
    """What CVAT's `labelmap.txt` says: lines `label:red,green,blue:parts:actions`, and remarks behind `#`.

    Masks are painted in these colours. A label that means void (`label_names.is_void`) has no class.

    Source: https://docs.cvat.ai/docs/dataset_management/formats/format-smask

    Raises:
        ValueError: a line is none of these, or a name or colour stands twice.
        OSError: it cannot be read.
    """
    colours: dict[str, Colour] = {}
    try:
        for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), start=1):
            if line.strip() and not line.startswith("#"):
                name, colour = _parse_label(line, number)
                if name in colours:
                    raise ValueError(f"line {number} names {name!r} a second time.")
                colours[name] = colour
        classes = {name: colour for name, colour in colours.items() if not is_void(name)}
        ignored = [colour for name, colour in colours.items() if name not in classes]
        label_set = LabelSet(names=tuple(classes), colours=tuple(classes.values()))
        return of_colours(label_set, ignored, str(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _parse_label(line: str, number: int) -> tuple[str, Colour]:
    found = re.fullmatch(r"\s*(.+?)\s*:\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*(:[^:]*){0,2}", line)
    if found is None:
        raise ValueError(f"line {number} is {line!r}, not label:red,green,blue:: with each from 0 to 255.")
    return found[1], as_colour([int(found[k]) for k in (2, 3, 4)])


def read_roboflow_classes(path: Path) -> Meaning:
    """What Roboflow's `_classes.csv` says: a header `Pixel Value, Class`, then lines such as `0, background`.

    Raises:
        ValueError: a line is none of these, or a name or value stands twice.
        OSError: it cannot be read.
    """
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(path.read_text("utf-8-sig").splitlines())]
        rows = [row for row in rows if any(row)]
        if not rows or [cell.lower() for cell in rows[0]] != ["pixel value", "class"]:
            raise ValueError(f"its first line is 'Pixel Value, Class', not {rows[0] if rows else 'missing'}.")
        for row in rows[1:]:
            if len(row) != 2 or not row[0].isdecimal():
                raise ValueError(f"a line is an id and a name, such as '0, background', not {', '.join(row)!r}.")
        names = tuple(name for _, name in rows[1:])
        label_set = LabelSet(names=names, colours=voc_colours(len(names)))
        return of_ids(label_set, [int(value) for value, _ in rows[1:]], [], str(path))
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: {error}") from error
