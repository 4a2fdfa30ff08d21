"""The command `refinenet quantise`."""

from pathlib import Path
from typing import Annotated

import typer

from refinenet.cli.options import DATASET_HELP, AsJson, CalibrationSplit, ClassSet, MaxDrop, MaxRise, Root, refuse_early
from refinenet.io.console import say


def quantise(
    model: Annotated[str, typer.Argument(help="The model file, or the name of a bundled model.", show_default=False)],
    dataset: Annotated[str, typer.Option("--dataset", "-d", help=DATASET_HELP, show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The model file to write. Default: MODEL itself.", show_default=False),
    ] = None,
    root: Root = None,
    classes: ClassSet = None,
    split: Annotated[str, typer.Option(help="Split on which the loss of accuracy is measured.")] = "val",
    calibration_split: CalibrationSplit = "train",
    max_drop: MaxDrop = 0.005,
    max_rise: MaxRise = 0.05,
    as_json: AsJson = False,
) -> None:
    """Prepare a model file for int8 (--precision int8).

    The dataset is needed only for this step; afterwards the file runs in int8 on any machine with OpenVINO.
    """
    from refinenet.io.files import refuse_unwritable
    from refinenet.models.files.model_card import BUNDLED

    target = Path(model) if output is None else output
    if target.suffix != ".safetensors":
        advice = "" if output is not None or model not in BUNDLED else " Pass --output for a bundled model."
        raise typer.BadParameter(
            f"A model file must end in .safetensors, unlike {str(target)!r}.{advice}",
            param_hint="MODEL" if output is None else "--output",
        )
    refuse_unwritable(target)  # before the work, which would be lost
    refuse_early("Quantisation", dataset, root, classes, split)
    from refinenet.api import RefineNet

    network = RefineNet(model=model, device="cpu", backend="pytorch")
    from refinenet.models.files.model_file import read_dtype  # imports PyTorch

    record = network.quantise(
        dataset,
        root=root,
        split=split,
        classes=classes,
        calibration_split=calibration_split,
        max_drop=max_drop,
        max_rise=max_rise,
        progress=not as_json,
    )
    network.save(target, dtype=read_dtype(model))
    facts = {"model": str(target), "kept_in_float": list(record.kept), **record.scores}
    if as_json:
        say(facts)
        return
    before, after = facts["miou_before"], facts["miou_after"]
    scores = "" if before is None else f"mIoU {100 * before:.2f} % in float32, {100 * after:.2f} % in int8, "
    say(
        f"{scores}on {facts['images']} images; {len(record.layers)} layers in int8, {len(record.kept)} stay in "
        f"floating point. Model: {target}"
    )
