"""The commands for models on the Hugging Face Hub: `refinenet push` and `refinenet pull`."""

from pathlib import Path
from typing import Annotated

import typer

from refinenet.cli.options import AsJson
from refinenet.io.console import say


def push(
    model: Annotated[str, typer.Argument(help="The model file to share.", show_default=False)],
    repository: Annotated[
        str, typer.Argument(help="owner/name on the Hugging Face Hub; created if missing.", show_default=False)
    ],
    licence: Annotated[
        str | None,
        typer.Option(
            help="Identifier of a licence, such as cc-by-nc-4.0, at least as strict as those of the model file and its "
            "training data. Default: the licence text of the model file."
        ),
    ] = None,
    example: Annotated[
        Path | None, typer.Option(help="Image for the example picture. Default: a synthetic street scene.")
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(help="Certificate of an export of the same weights. Default: MODEL.certificate.json, if any."),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    message: Annotated[str, typer.Option(help="Commit message.")] = "Upload a RefineNet",
    as_json: AsJson = False,
) -> None:
    """Share a model on the Hugging Face Hub: model file, model card, example picture."""
    from refinenet.api import RefineNet
    from refinenet.models.files.model_card import CERTIFICATE_ENDING

    beside = Path(f"{model}{CERTIFICATE_ENDING}")
    address = RefineNet(model=model, device="cpu", backend="pytorch").push_to_hub(
        repository,
        licence=licence,
        example=example,
        certificate=beside if certificate is None and beside.exists() else certificate,
        private=private,
        message=message,
    )
    say({"model": address} if as_json else address)


def pull(
    model: Annotated[
        str, typer.Argument(help="owner/name, or owner/name@revision: a branch, tag or commit.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The model file to write.", show_default=False)],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Download a model from the Hugging Face Hub, check it, and save it."""
    from refinenet.io.files import refuse_to_replace, write_atomically
    from refinenet.models.files.hub import HubAddress, fetch_model
    from refinenet.models.files.model_file import load

    if not overwrite:
        refuse_to_replace([output])
    found = fetch_model(str(HubAddress.parse(model)))
    load(found.path)  # the file's own hashes
    write_atomically(output, found.path.read_bytes())
    facts = {"output": str(output), "model": str(found.address), "sha256": found.sha256}
    say(facts if as_json else f"{output}: {found.address}, SHA-256 {found.sha256}")
