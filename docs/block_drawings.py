"""Drawings of the networks and their blocks as SVG, for `docs/explanation/networks.md`; `figures.py` writes them.

Text stands only inside filled boxes, and lines are grey, so a drawing is readable on light and dark pages alike.
Widths, kernels and numbers of units and links are those of the decoder's configurations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

from refinenet.models.decoder_config import FULL, LIGHTWEIGHT, DecoderConfig

Point = tuple[float, float]

FILLS = {
    "map": "#57606a",
    "convolution": "#2f6fb3",
    "activation": "#8f5a0c",
    "pooling": "#1f7a4d",
    "resizing": "#a3405a",
    "sum": "#7a3e9d",
}
"""Colour of a box by what it stands for. White text on each has a contrast of at least 5:1 (WCAG AA asks for 4.5:1)."""
LINE = "#7d8590"

_HEIGHT = 44
_RADIUS = 15
_GAP = 22
"""Space between two boxes, for an arrow."""


@dataclass(kw_only=True)
class Drawing:
    """An SVG that grows by boxes and arrows; all positions in pixels, y down."""

    width: float
    height: float
    title: str
    """What readers hear who cannot see it."""
    _lines: list[str] = field(default_factory=list)
    _boxes: list[str] = field(default_factory=list)

    def box(self, centre: Point, text: str, kind: str, width: float = 92) -> None:
        """Draw a box with one or two lines of text; `kind` is a key of `FILLS`."""
        x, y = centre
        self._boxes.append(
            f'<rect x="{x - width / 2:g}" y="{y - _HEIGHT / 2:g}" width="{width:g}" height="{_HEIGHT}" rx="6"'
            f' fill="{FILLS[kind]}"/>'
        )
        lines = text.split("\n")
        for number, line in enumerate(lines):
            baseline = y + 5 + 17 * (number - (len(lines) - 1) / 2)
            self._boxes.append(f'<text x="{x:g}" y="{baseline:g}">{escape(line)}</text>')

    def plus(self, centre: Point) -> None:
        """Draw the sum of the arrows that end there."""
        x, y = centre
        self._boxes.append(f'<circle cx="{x:g}" cy="{y:g}" r="{_RADIUS}" fill="{FILLS["sum"]}"/>')
        self._boxes.append(f'<path d="M{x - 7:g} {y:g}h14M{x:g} {y - 7:g}v14" stroke="#fff" stroke-width="2.5"/>')

    def arrow(self, *points: Point) -> None:
        """Draw an arrow along points."""
        path = "L".join(f"{x:g} {y:g}" for x, y in points)
        self._lines.append(f'<path d="M{path}" marker-end="url(#head)"/>')

    def row(self, start: Point, *boxes: tuple[str, str, float]) -> list[float]:
        """Draw boxes (text, kind, width) from left to right, joined by arrows; "+" is a sum.

        Args:
            start: The left end of the first box, and the middle of the row.
            boxes: Text, kind and width of each box.

        Returns:
            The x of the centres of the boxes, and of the right end of the last one.
        """
        left, y = start
        centres: list[float] = []
        for text, kind, width in boxes:
            if centres:
                self.arrow((left - _GAP, y), (left, y))
            centres.append(left + width / 2)
            if kind == "sum":
                self.plus((centres[-1], y))
            else:
                self.box((centres[-1], y), text, kind, width)
            left += width + _GAP
        return [*centres, left - _GAP]

    def svg(self) -> str:
        """Return the file's text."""
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:g} {self.height:g}"'
                f' width="{self.width:g}" height="{self.height:g}" role="img">',
                f"<title>{escape(self.title)}</title>",
                '<marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7"'
                f' orient="auto"><path d="M0 0L8 4L0 8z" fill="{LINE}"/></marker>',
                f'<g fill="none" stroke="{LINE}" stroke-width="2">',
                *self._lines,
                "</g>",
                '<g fill="#fff" text-anchor="middle" font-family="system-ui, Helvetica, Arial, sans-serif"'
                ' font-size="14">',
                *self._boxes,
                "</g>",
                "</svg>\n",
            ]
        )


PLUS = ("+", "sum", 2 * _RADIUS)


def _convolution(config: DecoderConfig, rest: str = "") -> str:
    name = f"conv {config.kernel_size}x{config.kernel_size}"
    return f"{name}\n{rest}" if rest else name


def draw_residual_conv_unit() -> str:
    """Return the drawing of a residual conv unit of the full network."""
    drawing = Drawing(width=600, height=110, title="Residual conv unit: two convolutions, each after a ReLU, and a sum")
    relu = ("ReLU", "activation", 60)
    convolution = (_convolution(FULL), "convolution", 84)
    y = 74
    centres = drawing.row((8, y), ("map", "map", 54), relu, convolution, relu, convolution, PLUS, ("map", "map", 54))
    split = 8 + 54 + _GAP / 2 - 3
    drawing.arrow((split, y), (split, 24), (centres[5], 24), (centres[5], y - _RADIUS))
    return drawing.svg()


def draw_fusion() -> str:
    """Return the drawing of the fusion of an encoder's map with the coarser block."""
    drawing = Drawing(
        width=500, height=150, title="Fusion: each map is convolved, the coarser one resized, then summed"
    )
    top, bottom = 30, 118
    finer = drawing.row((8, top), ("encoder's map\nh x w", "map", 116), (_convolution(FULL), "convolution", 84))
    coarser = drawing.row(
        (8, bottom),
        ("coarser block\nh/2 x w/2", "map", 116),
        (_convolution(FULL), "convolution", 84),
        ("resize\nto h x w", "resizing", 84),
    )
    x = coarser[-1] + _GAP + _RADIUS
    drawing.arrow((finer[-1], top), (x, top), (x, 74 - _RADIUS))
    drawing.arrow((coarser[-1], bottom), (x, bottom), (x, 74 + _RADIUS))
    drawing.plus((x, 74))
    drawing.arrow((x + _RADIUS, 74), (x + _RADIUS + _GAP, 74))
    drawing.row((x + _RADIUS + _GAP, 74), ("map\nh x w", "map", 66))
    return drawing.svg()


def draw_chained_residual_pooling() -> str:
    """Return the drawing of chained residual pooling."""
    pitch = 70
    sums = 420
    links = FULL.pooling_links
    title = (
        f"Chained residual pooling: {links} links of pooling and convolution, each reads the one before, all are summed"
    )
    drawing = Drawing(width=480, height=pitch * (links + 2) - 4, title=title)
    rows = [30 + pitch * number for number in range(links + 2)]
    drawing.row((8, rows[0]), ("ReLU", "activation", 92))
    drawing.arrow((100, rows[0]), (sums, rows[0]), (sums, rows[1] - _RADIUS))
    for number, y in enumerate(rows[1:-1]):
        drawing.row((8, y), ("max pool 5x5\nstride 1", "pooling", 120), (_convolution(FULL), "convolution", 92))
        if number == 0:
            drawing.arrow((68, rows[0] + 22), (68, y - 22))
        drawing.arrow((242, y), (sums - _RADIUS, y))
        drawing.plus((sums, y))
        if y != rows[-2]:
            between = y + pitch / 2
            drawing.arrow((290, y), (290, between), (68, between), (68, y + pitch - 22))
        drawing.arrow((sums, y + _RADIUS), (sums, y + pitch - (_RADIUS if y != rows[-2] else 22)))
    drawing.box((sums, rows[-1]), "map", "map", 92)
    return drawing.svg()


_PITCH = 112
_CONVOLUTION, _ADAPTATION, _SUM, _POOLING, _OUTPUT = 164, 270, 349, 424, 530
"""The x of the columns of a network: encoder's maps, then the parts of the blocks."""


def draw_network(config: DecoderConfig, name: str) -> str:
    """Return the drawing of a whole network: encoder, four RefineBlocks from the bottom up, head."""
    rows = [30 + _PITCH * number for number in range(5)]
    drawing = Drawing(width=600, height=rows[-1] + 30, title=f"{name}: encoder, four RefineBlocks, head")
    drawing.box((54, rows[0]), "image", "map")
    for stride, (above, below) in zip((4, 8, 16, 32), pairwise(rows), strict=True):
        drawing.arrow((54, above + 22), (54, below - 22))
        drawing.box((54, below), f"encoder\n1/{stride}", "map")
    for level, y in enumerate(reversed(rows[1:])):
        _draw_block(drawing, config, level, y)
    dropout = f"dropout {config.classifier_dropout}," if config.classifier_dropout else "head:"
    drawing.box((_OUTPUT, rows[0]), f"{dropout}\nconv 3x3", "convolution", 104)
    drawing.box((_POOLING, rows[0]), "logits\n1/4", "map", 76)
    drawing.arrow((_OUTPUT - 52, rows[0]), (_POOLING + 38, rows[0]))
    return drawing.svg()


def _draw_block(drawing: Drawing, config: DecoderConfig, level: int, y: float) -> None:
    """Draw the RefineBlock of the map at stride 32 / 2^level, and the way up from it."""
    is_first, is_last = level == 0, level == len(config.widths) - 1
    units = [f"{config.adaptive_units} RCU"] if config.adaptive_units else []
    fusion = [] if is_first or not config.fusion_convolution else [_convolution(config)]
    results = [f"{config.output_units} RCU"] if config.output_units else []
    projection = [] if is_last else [f"conv, {config.widths[level + 1]}" if results else _convolution(config)]
    parts = [
        (_CONVOLUTION, 84, _convolution(config, f"{config.widths[level]} ch."), "convolution"),
        (_ADAPTATION, 84, ",\n".join(units + fusion), "convolution"),
        (_SUM, 2 * _RADIUS, "" if is_first else "+", "sum"),
        (_POOLING, 76, "ReLU,\nCRP", "pooling"),
        (_OUTPUT, 92, ",\n".join(results + projection), "convolution"),
    ]
    right = 54 + 46.0
    for x, width, text, kind in parts:
        if not text:
            continue
        drawing.arrow((right, y), (x - width / 2, y))
        if kind == "sum":
            drawing.plus((x, y))
        else:
            drawing.box((x, y), text, kind, width)
        right = x + width / 2
    start = (_OUTPUT, y - 22) if right > _OUTPUT else (right, y)
    if is_last:
        drawing.arrow(start, (_OUTPUT, y), (_OUTPUT, y - _PITCH + 22))
        return
    between = y - _PITCH / 2
    drawing.arrow(start, (_OUTPUT, between), (_POOLING + 46, between))
    drawing.box((_POOLING, between), "resize x2", "resizing")
    drawing.arrow((_POOLING - 46, between), (_SUM, between), (_SUM, y - _PITCH + _RADIUS))


def drawings() -> dict[str, str]:
    """Return the text of every drawing by the name of its file."""
    return {
        "network-full.svg": draw_network(FULL, "RefineNet"),
        "network-lightweight.svg": draw_network(LIGHTWEIGHT, "Light-Weight RefineNet"),
        "residual-conv-unit.svg": draw_residual_conv_unit(),
        "fusion.svg": draw_fusion(),
        "chained-residual-pooling.svg": draw_chained_residual_pooling(),
    }
