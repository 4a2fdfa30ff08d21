"""The figures of README and documentation: all are made by `make figures`, and the quick ones are as committed."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from block_drawings import FILLS, drawings
from figures import DOCS, FIGURES, Figure, check, compare
from PIL import Image

QUICK = [figure for figure in FIGURES if figure.seconds <= 5]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("figure", QUICK, ids=lambda figure: Path(figure.path).name)
def test_committed_figures_are_what_is_made_today(figure: Figure, tmp_path: Path) -> None:
    assert check(figure, tmp_path) is None


def test_every_picture_of_the_pages_is_made_and_every_figure_is_shown() -> None:
    pages = [DOCS.parent / "README.md", *(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)]
    shown = {
        (page.parent / link).resolve()
        for page in pages
        for link in re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", page.read_text("utf-8"))
    }
    assert shown == {DOCS / figure.path for figure in FIGURES}


def test_a_picture_beyond_its_tolerance_is_reported(tmp_path: Path) -> None:
    pixels = np.full((4, 5, 3), 100, np.uint8)
    for name, picture in {"old": pixels, "near": pixels + 1, "far": pixels + 3, "wide": pixels[:2]}.items():
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    problems = {name: compare(tmp_path / "old.png", tmp_path / f"{name}.png", 2.0) for name in ("near", "far", "wide")}
    assert problems == {
        "near": None,
        "far": "is off by 3.00, more than 2.0",
        "wide": "has 5x4 pixels, and 5x2 when made anew",
    }
    assert compare(tmp_path / "old.png", tmp_path / "near.png", 0) == "differs"
    assert compare(tmp_path / "none.png", tmp_path / "near.png", 2.0) == "is missing"


@pytest.mark.parametrize("name", drawings())
def test_texts_of_drawings_lie_in_boxes_that_do_not_overlap(name: str) -> None:
    """Only then are they readable on pages of any colour."""
    root = ElementTree.fromstring(drawings()[name])
    boxes = [[float(box.attrib[key]) for key in ("x", "y", "width", "height")] for box in root.iter(f"{SVG}rect")]
    for text in root.iter(f"{SVG}text"):
        x, y, half = float(text.attrib["x"]), float(text.attrib["y"]), 3.6 * len(text.text or "")
        assert any(a <= x - half and x + half <= a + w and b < y < b + h for a, b, w, h in boxes), text.text
    for index, (a, b, w, h) in enumerate(boxes):
        assert 0 <= a < a + w <= float(root.attrib["width"])
        assert 0 <= b < b + h <= float(root.attrib["height"])
        for c, d, u, v in boxes[:index]:
            assert a + w < c or c + u < a or b + h < d or d + v < b


def _luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` (WCAG 2.2)."""
    values = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


@pytest.mark.parametrize("colour", FILLS.values())
def test_white_text_on_boxes_is_readable(colour: str) -> None:
    assert 1.05 / (_luminance(colour) + 0.05) > 5
