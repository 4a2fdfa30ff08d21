"""The commands `refinenet data ...`: list, prepare, inspect, check and split datasets."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from refinenet.cli.examples import epilog
from refinenet.cli.options import AsJson, Root
from refinenet.io.console import print_note, say

if TYPE_CHECKING:
    from refinenet.datasets.preparation import PrepareReport

app = typer.Typer(
    help="List, prepare, inspect, check and split datasets.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Source = Annotated[str, typer.Argument(help="A dataset's name, or your own folder or YAML file.")]
Workers = Annotated[int | None, typer.Option(min=0, metavar="N", help="Number of processes. Default: one per core.")]


@app.command("list", epilog=epilog("data list"))
def list_datasets(as_json: AsJson = False) -> None:
    """List the published datasets: images, size, licence, and whether they are on this machine."""
    from refinenet.datasets.preparation import list_datasets as find_datasets

    found = find_datasets()
    if as_json:
        say([asdict(dataset) for dataset in found])
        return
    for dataset in found:
        images = ", ".join(f"{split} {count:,}" for split, count in dataset.images.items())
        say(f"{dataset.name:<12} {dataset.title}; {images} images; {dataset.size}; {dataset.page}")
        say(f"{'':<12} {dataset.licence}. In {dataset.root}: {dataset.state}.")
    say("`streets` needs no files. `refinenet data prepare NAME` downloads a dataset, or explains how to get it.")


@app.command(epilog=epilog("data prepare"))
def prepare(
    name: Annotated[str, typer.Argument(help="A dataset's name; see `refinenet data list`.")],
    root: Root = None,
    mirror: Annotated[
        str | None, typer.Option(help="Download the files from this address instead of the official one.")
    ] = None,
    no_download: Annotated[
        bool, typer.Option("--no-download", help="Only convert files that are already there.")
    ] = False,
    remove_archives: Annotated[
        bool, typer.Option("--remove-archives", help="Delete each archive after unpacking it.")
    ] = False,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Download and unpack a published dataset, and convert masks that are slow to read."""
    from refinenet.datasets.catalog import find_root
    from refinenet.datasets.preparation import prepare as make_ready

    report = make_ready(
        name,
        find_root(name, root),
        mirror=mirror,
        download=not no_download,
        keep_archives=not remove_archives,
        workers=workers,
        progress=not as_json,
    )
    if as_json:
        say({**asdict(report), "root": str(report.root)})
    else:
        _print_prepared(report)
    if report.problems:
        raise typer.Exit(1)


def _print_prepared(report: "PrepareReport") -> None:
    from refinenet.io.console import print_table

    rows = [[s.split, "-" if s.images is None else f"{s.images:,}", s.note] for s in report.splits]
    print_table(f"{report.name} in {report.root}", ["split", "images", ""], rows)
    for problem in report.problems:
        print_note(problem)


@app.command(epilog=epilog("data info"))
def info(
    source: Source,
    root: Root = None,
    sheet: Annotated[
        Path | None,
        typer.Option(help="Write a contact sheet (images, overlays, other ground truth, legend) as .png or .jpg."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split to show on the sheet. Default: train.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Maximum number of images on the sheet.")] = 12,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Show image counts, sizes, class frequencies and class weights of a dataset."""
    from refinenet.datasets.info import describe, write_contact_sheet

    found = describe(source, root=root, workers=workers, progress=not as_json)
    if as_json:
        say(found.to_dict())
    else:
        found.print()
    if sheet is not None:  # last, since the tables are of use even where a sheet cannot be drawn
        write_contact_sheet(sheet, source, root=root, split=split, count=count, info=found, workers=workers)
        print_note(f"Wrote {sheet}.", enabled=not as_json)


@app.command(epilog=epilog("data check"))
def check(
    source: Source,
    root: Root = None,
    fix: Annotated[
        Path | None, typer.Option(help="Write a repaired copy to this new folder: images/, masks/, classes.yaml.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Check only a sample, as training does.")] = False,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Check a dataset for errors before training.

    The exit code is 0 if training can start (with --fix, on the repaired copy), otherwise 1. Warnings do not affect it.
    """
    from refinenet.datasets import doctor

    if fix is not None:
        doctor.check_target(source, fix, root=root)
    examination = doctor.examine(source, root=root, quick=quick, workers=workers, progress=not as_json)
    report = examination.report
    values: dict[str, Any] = report.to_dict()
    if not as_json:
        report.print(offer_fix=fix is None)
    try:
        if fix is not None:
            changes = doctor.fix(examination, fix, workers=workers, progress=not as_json)
            values["changes"] = changes.to_dict()
            report = doctor.check(fix, quick=True, workers=workers, progress=not as_json)
            values["copy"] = report.to_dict()
            if not as_json:
                changes.print()
                say(report.text() or f"Training can start on {fix}.")
    finally:  # the report is of use even where the copy fails
        if as_json:
            say(values)
    if report.stops_training:
        raise typer.Exit(1)


@app.command(epilog=epilog("data split"))
def split(
    folder: Annotated[Path, typer.Argument(help="A folder with images/ and masks/, without splits.")],
    val: Annotated[float, typer.Option(min=0, max=1, help="Share of images for validation.")] = 0.2,
    test: Annotated[float, typer.Option(min=0, max=1, help="Share of images for testing.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the split.")] = 0,
    group: Annotated[
        str | None,
        typer.Option(
            help="Regular expression; images whose names have the same text in its first capture group stay together. "
            "By default, images whose names differ only in the last number (such as frames of one video) stay together."
        ),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the files of an earlier split.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write train.txt, val.txt and, with --test, test.txt: a reproducible split that keeps video frames together."""
    from refinenet.datasets.split import split_folder

    parts = split_folder(folder, val=val, test=test, seed=seed, group=group, replace=replace)
    if as_json:
        say({name: list(stems) for name, stems in parts.items()})
        return
    for name, stems in parts.items():
        say(f"{folder / name}.txt: {len(stems)} images")
