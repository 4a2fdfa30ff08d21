"""The commands `refinenet eval` and `refinenet calibrate`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from refinenet.cli.options import (
    DATA,
    DATASET_HELP,
    REPORTS,
    AsJson,
    Backend,
    ClassSet,
    Device,
    Model,
    Precision,
    Root,
    check_table_name,
    default_model_notice,
    is_given,
    read_size,
    refuse_early,
    refuse_idle_options,
)
from refinenet.io.console import is_first_process, print_note, say

if TYPE_CHECKING:
    from refinenet.evaluation.metric_tables import By
    from refinenet.evaluation.results import Evaluation
    from refinenet.evaluation.submission import Submission
    from refinenet.inference.protocol import Protocol

INFERENCE = "Inference protocol"
INSTEAD = "Comparisons, other predictions, submissions"
_OF_COMPARE = {"compare", "as_json"}
_OF_UNLABELLED = {"dataset", "root", "split", "model", "submission", "device", "backend", "precision", "as_json"}
_OF_UNLABELLED |= {"protocol", "scales", "flip", "window", "overlap"}
_OF_PREDICTIONS = {"predictions", "dataset", "root", "classes", "split", "output", "report", "check", "as_json"}
_OF_PREDICTIONS |= {"table", "table_by"}


def evaluate(
    context: typer.Context,
    dataset: Annotated[str | None, typer.Option("--dataset", "-d", help=DATASET_HELP)] = None,
    root: Root = None,
    classes: ClassSet = None,
    split: Annotated[str, typer.Option(help="Split of the dataset.")] = "val",
    model: Model = "camvid",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the metrics to this JSON file.", rich_help_panel=REPORTS),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="Write a table of the metrics to this .csv or .parquet file.", rich_help_panel=REPORTS),
    ] = None,
    table_by: Annotated[
        Literal["class", "image", "image_class"] | None,
        typer.Option(
            metavar="BY",
            help="What each row of the table describes: class, image, or image_class (both). Default: class, or image "
            "for models without classes.",
            rich_help_panel=REPORTS,
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write an HTML report with images to this folder.", rich_help_panel=REPORTS)
    ] = None,
    protocol: Annotated[
        Literal["plain", "paper"],
        typer.Option(
            metavar="PROTOCOL",
            help="plain: whole images in one pass; paper: as in the network's paper.",
            rich_help_panel=INFERENCE,
        ),
    ] = "plain",
    scales: Annotated[
        str | None, typer.Option(help="Scales to average over, such as 0.5,1,1.5.", rich_help_panel=INFERENCE)
    ] = None,
    flip: Annotated[
        bool, typer.Option("--flip", help="Also average over mirrored images.", rich_help_panel=INFERENCE)
    ] = False,
    window: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="Size of sliding windows, such as 512x512.", rich_help_panel=INFERENCE),
    ] = None,
    overlap: Annotated[
        float | None,
        typer.Option(
            help="Minimum overlap of windows, as a fraction of their side. Default: 0.5 (0.75 in deploy).",
            rich_help_panel=INFERENCE,
        ),
    ] = None,
    abstain_below: Annotated[
        float,
        typer.Option(
            help="Assign no class to pixels with a confidence (0 to 1) below this value.", rich_help_panel=INFERENCE
        ),
    ] = 0.0,
    device: Device = None,
    backend: Backend = "auto",
    precision: Precision = "float32",
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="A.json B.json",
            help="Compare two files written by --output, with significance tests, instead of evaluating.",
            rich_help_panel=INSTEAD,
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Evaluate a folder of PNG files with class ids, named like the images, instead of running a model.",
            rich_help_panel=INSTEAD,
        ),
    ] = None,
    submission: Annotated[
        Path | None,
        typer.Option(
            help="Write an archive for the test server of cityscapes, voc or ade20k; usually with --split test.",
            rich_help_panel=INSTEAD,
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check/--no-check", help="Check a sample of the folder's masks first.", rich_help_panel=DATA),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Evaluate a model, or stored predictions, on a dataset; or compare two evaluations."""
    if output is not None and output.suffix.lower() != ".json":
        raise typer.BadParameter(f"Metrics are written to a .json file, not to {str(output)!r}.", param_hint="--output")
    if compare is not None:
        refuse_idle_options(context, _OF_COMPARE, "--compare", "Finished evaluations are compared")
        _compare(*compare, as_json=as_json)
        return
    if dataset is None:
        raise typer.BadParameter(
            "Pass a dataset to evaluate on, or compare two results with --compare.", param_hint="--dataset"
        )
    _check_table(context, table)
    on: dict[str, Any] = {"root": root, "split": split, "classes": classes}
    on |= {"output_file": output, "report": report, "progress": not as_json, "check": check}
    if predictions is not None:
        refuse_idle_options(context, _OF_PREDICTIONS, "--predictions", "Stored predictions are evaluated")
        from refinenet.evaluation.pipeline import evaluate_predictions

        result: Evaluation | Submission = evaluate_predictions(dataset, predictions, **on)
    else:
        from refinenet.datasets.catalog import is_unlabelled

        to_submit = submission if is_unlabelled(dataset, split) else None
        if to_submit is not None:
            refuse_idle_options(context, _OF_UNLABELLED, f"--split {split}", "This split has no labels to evaluate on")
        # Before the import of PyTorch and the model: wrong options are reported at once.
        chosen = _choose_protocol(protocol, scales, flip, window, overlap)
        refuse_early("Evaluation", dataset, root, classes, split)
        from refinenet.api import RefineNet

        network = RefineNet(model=model, device=device, backend=backend, precision=precision)
        if to_submit is not None:
            result = network.submit(dataset, to_submit, root, split, chosen, progress=not as_json)
        else:
            result = network.eval(dataset, protocol=chosen, abstain_below=abstain_below, submission=submission, **on)
        default_model_notice(context, model)()
    if table is not None and is_first_process():
        _write_table(result, table, table_by)
        print_note(f"Wrote {table}.", enabled=not as_json)
    if as_json:
        say(result.to_dict())


def _check_table(context: typer.Context, table: Path | None) -> None:
    """Check, before the evaluation, that its table can be written."""
    if table is None:
        if is_given(context, "table_by"):
            raise typer.BadParameter("It has an effect only with --table.", param_hint="--table-by")
        return
    from refinenet.io.files import refuse_unwritable

    check_table_name(table)
    refuse_unwritable(table)


def _write_table(result: "Evaluation | Submission", table: Path, by: "By | None") -> None:
    from refinenet.evaluation.results import Evaluation

    assert isinstance(result, Evaluation)  # --table is refused where nothing is evaluated
    result.save_table(table, by or ("class" if result.label_set.names else "image"))


def calibrate(
    context: typer.Context,
    dataset: Annotated[str, typer.Option("--dataset", "-d", help=DATASET_HELP)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The model file to write.")],
    root: Root = None,
    classes: ClassSet = None,
    split: Annotated[str, typer.Option(help="Split to calibrate on; do not use the training split.")] = "val",
    model: Model = "camvid",
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Calibrate a model's confidence by temperature scaling, and write the calibrated model."""
    from refinenet.api import RefineNet
    from refinenet.io.files import refuse_same_file, refuse_unwritable

    if output.suffix != ".safetensors":
        raise typer.BadParameter(f"A model file must end in .safetensors, not {str(output)!r}.", param_hint="--output")
    # Before the pass over the dataset, whose result would be lost.
    refuse_same_file(model, output)
    refuse_unwritable(output)
    refuse_early("Calibration", dataset, root, classes, split)
    network = RefineNet(model=model, device=device)
    fitted = network.calibrate(dataset, root=root, split=split, classes=classes, progress=not as_json)
    network.save(output)
    default_model_notice(context, model)()
    if as_json:
        say({"model": str(output), **asdict(fitted)})
        return
    say(
        f"Temperature {fitted.value:.3f}, fitted to {fitted.pixels:,} pixels of {fitted.images:,} images. Calibration "
        f"error on these pixels: {100 * fitted.error_before:.2f} % before, {100 * fitted.error_after:.2f} % after. "
        f"Model: {output}"
    )


def _compare(first: Path, second: Path, *, as_json: bool) -> None:
    from refinenet.evaluation.comparison import compare

    found = compare(first, second)
    if as_json:
        say(found.to_dict())
    else:
        found.print()


def _choose_protocol(
    name: Literal["plain", "paper"], scales: str | None, flip: bool, window: str | None, overlap: float | None
) -> "Protocol | Literal['plain', 'paper']":
    if scales is None and window is None and overlap is None and not flip:
        return name
    if name == "paper":
        raise typer.BadParameter(
            "It sets --scales, --flip, --window and --overlap itself.", param_hint="--protocol paper"
        )
    if overlap is not None and window is None:
        raise typer.BadParameter("It has an effect only with --window.", param_hint="--overlap")
    from refinenet.inference.protocol import PLAIN, Protocol

    return Protocol(
        scales=PLAIN.scales if scales is None else _read_scales(scales),
        flip=flip,
        window=None if window is None else read_size(window),
        overlap=PLAIN.overlap if overlap is None else overlap,
    )


def _read_scales(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a list of numbers such as 0.5,1,1.5.", param_hint="--scales"
        ) from None
