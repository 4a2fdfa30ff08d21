"""The command `refinenet convert`."""

from pathlib import Path
from typing import Annotated

import typer

from refinenet.cli.options import AsJson
from refinenet.io.console import say


def convert(
    source: Annotated[Path, typer.Argument(help="A published checkpoint, a MatConvNet .mat file, or a model file.")],
    target: Annotated[Path, typer.Argument(help="The model file to write, usually with the suffix .safetensors.")],
    half: Annotated[bool, typer.Option("--half", help="Store the weights in float16.")] = False,
    licence: Annotated[
        str | None, typer.Option(help="Licence to record in the new file. Default: that of the source.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Names of the classes: the name of a dataset, or a classes.yaml file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Convert a published checkpoint to a model file."""
    from refinenet.io.files import refuse_same_file

    refuse_same_file(source, target)
    from refinenet.api import RefineNet

    network = RefineNet(model=str(source), device="cpu")
    if classes is not None:
        from refinenet.datasets.catalog import read_classes

        network.label_set = read_classes(classes)
    network.save(target, "float16" if half else "float32", licence)
    facts = {"model": str(target), **network.card.architecture.to_dict()}
    say(facts if as_json else ", ".join(f"{key} {value}" for key, value in facts.items()))
