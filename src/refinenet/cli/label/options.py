"""Options of several commands `refinenet label ...`."""

from pathlib import Path
from typing import Annotated

import typer

DRAFTS = "Draft labels"
"""Title of the group of options about the files for annotation tools."""

Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="Annotation tool: cvat (Segmentation mask 1.1), coco (one JSON file, also for CVAT), label-studio, "
        "labelme, roboflow, supervisely, or png (ids).",
        rich_help_panel=DRAFTS,
    ),
]
Shapes = Annotated[
    str | None,
    typer.Option(
        metavar="SHAPES",
        help="masks or polygons. Default: polygons for coco, labelme and roboflow, masks for the others.",
        rich_help_panel=DRAFTS,
    ),
]
Simplify = Annotated[
    float,
    typer.Option(
        min=0,
        metavar="PIXELS",
        help="Simplify polygons by at most this distance in pixels; adjacent regions keep a shared border. 0 keeps "
        "outlines exact.",
        rich_help_panel=DRAFTS,
    ),
]
MinArea = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="PIXELS",
        help="Merge regions of fewer pixels into the neighbour with the longest shared border.",
        rich_help_panel=DRAFTS,
    ),
]
MinConfidence = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        metavar="SHARE",
        help="Mark pixels below this confidence as void, for you to label.",
        rich_help_panel=DRAFTS,
    ),
]
FirstId = Annotated[
    int, typer.Option(min=0, metavar="ID", help="Id of the first class in COCO files.", rich_help_panel=DRAFTS)
]
ImagePrefix = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="Prefix of the image URLs in Label Studio. Default: /data/local-files/?d=FOLDER/",
        rich_help_panel=DRAFTS,
    ),
]
Recursive = Annotated[bool, typer.Option("--recursive", help="Include subfolders.")]
Drafts = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder written by `refinenet label write`, `next` or `errors`; it records where the images are and is "
        "used to find the pixels you changed.",
    ),
]
