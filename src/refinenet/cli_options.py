"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DATASET_HELP = "A name (see `refinenet data list`), or a folder or YAML file of your own."

Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; by default a GPU where there is one.")]
Root = Annotated[Path | None, typer.Option(help="Where a dataset known by name lies.")]
ClassSet = Annotated[
    str | None, typer.Option(help="Set of classes of a dataset that has two: stuff for coco, 59 for context.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines, and no progress.")]
