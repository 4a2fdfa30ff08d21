"""Kinds of results: the table from which files, videos, large images and the command line are served.

A new kind of picture of classes is a function that renders it, a row of `OUTPUT_KINDS`, and its name in `Output`. A
new kind of file of classes, for other programs, is a function that packs it and a row with the function as `pack`. A
new kind of file of other outputs is a module with its functions and a row. NumPy is imported where it is needed,
because `--help` reads the table.

Shape letters: H height, W width, D channels of an output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, get_args

from refinenet.outputs import CLASS_KIND

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from refinenet.inference.prediction import Prediction
    from refinenet.inference.segmentation import Segmentation
    from refinenet.inference.values.subject import Subject
    from refinenet.labels import LabelSet

Output = Literal["labels", "colour", "overlay", "confidence", "palette"]
"""Kinds of pictures of classes, for annotations."""
OUTPUTS: tuple[Output, ...] = get_args(Output)
Kind = str
"""A key of `OUTPUT_KINDS`; or one with the name of an output or a quantity, such as "depth:far" or "values:height"."""
POLYGONS = "polygons"
"""Short for all kinds that hold polygons."""
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
_PICTURE_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".tif": "image/tiff"}
"""Media types of pictures."""
NAME_MARK = ":"
"""Between a kind and the name of an output."""


def deferred(function: str) -> Callable[..., Any]:
    """Return a function, given as "module:name", whose module is imported when it is first called."""
    module, _, name = function.partition(":")

    def call(*arguments: Any) -> Any:
        return getattr(import_module(module), name)(*arguments)

    return call


@dataclass(frozen=True, kw_only=True)
class PixelForm:
    """Pixels of the picture files of an output of values."""

    draw: Callable[[npt.NDArray[np.float32], Subject], npt.NDArray[Any]]
    """Returns the pixels, `(H, W)` or `(H, W, D)`, of the values `(D, H, W)`. Large images are drawn in blocks: a
    pixel depends on its own values alone."""
    dtype: Literal["uint8", "uint16", "float32"]
    channels: int | None = None
    """Channels of the pixels: 1 for `(H, W)`; None for those of the output."""
    no_data: float | None = None
    """Value of pixels without data; None if there is none."""
    describe: Callable[[Subject], Mapping[str, str]] = lambda _: {}
    """Returns texts for the file that say what its numbers mean."""
    check: Callable[[Subject], None] = lambda _: None
    """Raises ValueError if the output cannot be drawn like this."""
    options: tuple[str, ...] = ()
    """Fields of `RenderOptions` that it depends on."""
    frame: Callable[[npt.NDArray[Any], Subject], npt.NDArray[Any]] | None = None
    """Returns the picture with a legend, in files of one image and in videos."""
    find_limits: Callable[[npt.NDArray[np.float32], Subject], Subject] | None = None
    """Returns the subject with the values at both ends of its colours, which blocks and frames share."""


@dataclass(frozen=True, kw_only=True)
class OutputKind:
    """Description of a kind of results."""

    of: str = CLASS_KIND
    """Kind of the outputs that it shows, a key of `refinenet.outputs.KINDS`."""
    render: Callable[[Segmentation], npt.NDArray[Any]] | None = None
    """Returns the picture of classes; None for other outputs, and for files for other programs. Large images are
    rendered in blocks: a value that depends on other pixels would change where blocks meet."""
    pack: Callable[[Segmentation, str], bytes] | None = None
    """Returns the content of a file of classes for other programs, given the name of the image; None for pictures, and
    for other outputs."""
    require: Callable[[], object] = lambda: None
    """Raises ValueError if a package that it needs is not installed."""
    suffix: str = ".png"
    """Suffix of its files, unless the user chooses another one."""
    media_type: str | None = None
    """Media type of its files other than pictures, which the server states; None for application/octet-stream."""
    channels: int = 1
    """Channels of the picture: 1 for `(H, W)`, 3 for `(H, W, 3)`."""
    holds_ids: bool = False
    """Whether its values are class ids, of the type of label maps; other pictures of classes are uint8."""
    has_palette: bool = False
    """Whether its files store the classes' colours as a palette."""
    survives_jpeg: bool = False
    """Whether it may be compressed as JPEG."""
    has_polygons: bool = False
    """Whether "polygons" stands for it, too."""
    forms: Mapping[str, PixelForm] = field(default_factory=dict)
    """Pixels of the picture files of values, by suffix; ".tif" stands for ".tiff", too."""
    contents: Mapping[str, Callable[[Prediction, Subject], bytes]] = field(default_factory=dict)
    """Functions that return the content of other files of values, by suffix."""
    options: tuple[str, ...] = ()
    """Fields of `RenderOptions` that pictures of classes, or the files in `contents`, depend on."""
    check: Callable[[Subject], None] = lambda _: None
    """Raises ValueError if options are missing."""
    read: Callable[[Prediction, str], npt.NDArray[np.float32]] = lambda prediction, name: prediction[name]
    """Returns the values of an output by its name, `(D, H, W)`."""
    colours: str = "plasma"
    """Colours of its pictures, a name of `io.drawing.colour_bar.COLOUR_MAPS`."""
    prefix: str = ""
    """Words before the names of its quantities."""
    scale: float | None = None
    """Stored value of one unit in files of integers, unless the user chooses another one."""
    is_usual: bool = False
    """Whether it is written for networks without classes, if the user chooses nothing."""
    remark: str = ""
    """Remark beside its name in the help of the command line."""

    def __post_init__(self) -> None:
        ways = (self.render, self.pack, self.forms or self.contents)
        assert [bool(way) for way in ways].count(True) == 1, "a kind has render, or pack, or forms and contents"
        assert self.shows_values == bool(self.forms or self.contents), "forms and contents are for values alone"

    def options_of(self, suffix: str) -> tuple[str, ...]:
        """Return the fields of `RenderOptions` that have an effect on its files of a suffix."""
        if self.is_picture or suffix in self.contents:
            return self.options
        return self.forms[suffix].options if suffix in self.forms else ()

    def media_type_of(self, suffix: str) -> str:
        """Return the media type of its files of a suffix, ".tif" instead of ".tiff"."""
        return _PICTURE_TYPES.get(suffix, self.media_type or "application/octet-stream")

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of its files of one image, in lower case; ".tif" stands for ".tiff", too."""
        if self.is_picture:
            return tuple(suffix for suffix in PICTURE_SUFFIXES if suffix == ".png" or self.survives_jpeg)
        return (*self.forms, *self.contents) if self.shows_values else (self.suffix,)

    @property
    def is_picture(self) -> bool:
        """Whether it is a picture of classes."""
        return self.render is not None

    @property
    def shows_values(self) -> bool:
        """Whether it shows an output of values."""
        return self.of != CLASS_KIND

    @property
    def may_be_video(self) -> bool:
        """Whether its meaning survives the compression of videos."""
        return ".jpg" in self.forms if self.shows_values else self.is_picture and not self.holds_ids

    def shape(self, height: int, width: int) -> tuple[int, ...]:
        """Return the shape of the picture of an image."""
        return (height, width) if self.channels == 1 else (height, width, self.channels)

    def dtype(self, label_set: LabelSet) -> type[np.uint8 | np.uint16]:
        """Return the type of its values."""
        import numpy as np

        return label_set.dtype if self.holds_ids else np.uint8

    def no_data(self, label_set: LabelSet) -> int | None:
        """Return the value of pixels without a class; None if there is none."""
        return label_set.ignore_index if self.holds_ids else None


def _render_confidence(segmentation: Segmentation) -> npt.NDArray[np.uint8]:
    """Return `(H, W)` uint8, 255 for certain."""
    import numpy as np

    return np.rint(segmentation.confidence * 255).astype(np.uint8)


_FILES = "refinenet.inference.class_files"
_QUANTITIES = "refinenet.inference.values.quantities"
_NORMALS = "refinenet.inference.values.normals"
_CLOUD = "refinenet.inference.values.point_cloud"

_NUMBERS = PixelForm(
    draw=deferred(f"{_QUANTITIES}:as_numbers"),
    dtype="float32",
    no_data=float("nan"),
    describe=deferred(f"{_QUANTITIES}:describe_numbers"),
)
_INTEGERS = PixelForm(
    draw=deferred(f"{_QUANTITIES}:as_integers"),
    dtype="uint16",
    channels=1,
    no_data=0,
    describe=deferred(f"{_QUANTITIES}:describe_integers"),
    check=deferred(f"{_QUANTITIES}:check_integers"),
    options=("scale",),
)
_PAINTED = PixelForm(
    draw=deferred(f"{_QUANTITIES}:paint_quantity"),
    dtype="uint8",
    channels=3,
    describe=deferred(f"{_QUANTITIES}:describe_colours"),
    check=deferred(f"{_QUANTITIES}:check_single"),
    frame=deferred(f"{_QUANTITIES}:add_colour_bar"),
    find_limits=deferred(f"{_QUANTITIES}:with_limits"),
    options=("limits",),
)
_NORMAL_COLOURS = PixelForm(
    draw=deferred(f"{_NORMALS}:paint_normals"),
    dtype="uint8",
    channels=3,
    describe=deferred(f"{_NORMALS}:describe_normals"),
)
OVERLAY_OPTIONS = ("opacity", "outline", "legend", "show", "hide")
"""Fields of `RenderOptions` for overlays, which `io.OverlayStyle` has, too."""

_ARRAYS = {".npz": deferred(f"{_QUANTITIES}:pack_values")}
_PICTURES = {".png": _PAINTED, ".jpg": _PAINTED, ".jpeg": _PAINTED, ".tif": _PAINTED}

_DEVIATIONS: dict[str, Any] = {
    "forms": {**_PICTURES, ".tif": _NUMBERS},
    "contents": _ARRAYS,
    "check": deferred(f"{_QUANTITIES}:check_likelihood"),
    "read": lambda prediction, name: prediction.deviation(name),
    "colours": "error",
    "prefix": "deviation of ",
}

OUTPUT_KINDS: dict[str, OutputKind] = {
    "labels": OutputKind(render=attrgetter("labels"), holds_ids=True, remark="default for .png"),
    "colour": OutputKind(render=attrgetter("colour"), channels=3, survives_jpeg=True, remark="default for .jpg"),
    "overlay": OutputKind(render=attrgetter("overlay"), channels=3, survives_jpeg=True, options=OVERLAY_OPTIONS),
    "confidence": OutputKind(render=_render_confidence),
    "palette": OutputKind(render=attrgetter("palette"), holds_ids=True, has_palette=True),
    "probabilities": OutputKind(suffix=".npz", pack=deferred(f"{_FILES}:pack_probabilities"), remark=".npz"),
    "coco": OutputKind(
        suffix=".json", media_type="application/json", pack=deferred(f"{_FILES}:pack_coco"), has_polygons=True
    ),
    "geojson": OutputKind(
        suffix=".geojson",
        media_type="application/geo+json",
        pack=deferred(f"{_FILES}:pack_geojson"),
        require=deferred("refinenet.inference.regions:require_features"),
        has_polygons=True,
    ),
    "depth": OutputKind(
        of="depth",
        forms={".png": _INTEGERS, ".tif": _NUMBERS},
        contents=_ARRAYS,
        scale=1000,
        remark=".png in millimetres, .tif in metres, .npz",
    ),
    "depth_colour": OutputKind(of="depth", forms=_PICTURES, colours="near_bright", is_usual=True),
    "depth_deviation": OutputKind(of="depth", **_DEVIATIONS),
    "cloud": OutputKind(
        of="depth",
        suffix=".ply",
        contents={".ply": deferred(f"{_CLOUD}:pack_cloud")},
        check=deferred(f"{_CLOUD}:check_cloud"),
        options=("intrinsics",),
        remark=".ply, needs --intrinsics",
    ),
    "normals": OutputKind(
        of="normals",
        forms={".png": _NORMAL_COLOURS, ".jpg": _NORMAL_COLOURS, ".jpeg": _NORMAL_COLOURS, ".tif": _NUMBERS},
        contents=_ARRAYS,
        is_usual=True,
        remark=".png, .tif, .npz",
    ),
    "values": OutputKind(
        of="regression",
        suffix=".npz",
        forms={".tif": _NUMBERS, ".png": _INTEGERS},
        contents=_ARRAYS,
        remark="quantities as .npz, .tif, .png",
    ),
    "values_colour": OutputKind(of="regression", forms=_PICTURES, is_usual=True),
    "values_deviation": OutputKind(of="regression", **_DEVIATIONS),
}
"""All kinds by name, in the order in which results are written."""


def find_colours(kind: str) -> str:
    """Return the colour map of the usual picture of a kind of outputs, one of `colour_bar.COLOUR_MAPS`."""
    return next((row.colours for row in OUTPUT_KINDS.values() if row.of == kind and row.is_usual), OutputKind.colours)


def split_kind(kind: Kind) -> tuple[str, str]:
    """Return the key of `OUTPUT_KINDS` in a kind, and the name of an output or a quantity; "" for the first one."""
    key, _, name = kind.partition(NAME_MARK)
    return key, name


def file_word(kind: Kind) -> str:
    """Return the kind as part of the name of a file or a folder."""
    return kind.replace(NAME_MARK, "_")


def is_of_values(kind: Kind) -> bool:
    """Return whether a kind is known and shows an output of values."""
    row = OUTPUT_KINDS.get(split_kind(kind)[0])
    return row is not None and row.shows_values
