"""The command `refinenet info`: a model, or this installation and machine."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from refinenet.cli.options import AsJson
from refinenet.io.console import print_note, print_table, say

if TYPE_CHECKING:
    from refinenet.api import RefineNet

_TRAINING = ("dataset", "train_images", "epoch", "epochs")
"""Fields of a recipe that are shown; `--json` has all."""


def info(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A model file, an exported file, or a bundled model, such as camvid or streets.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a model's architecture, classes, scores and licence, or details of this installation.

    Without MODEL, show versions, devices, backends, extras and caches.
    """
    if model is None:
        _show_system(as_json)
        return
    from refinenet.api import RefineNet

    network = RefineNet(model=model, device="cpu")
    facts = _describe_model(network, model)
    if as_json:
        say(facts)
        return
    short = {**facts, "recipe": {key: facts["recipe"][key] for key in _TRAINING if key in facts["recipe"]}}
    _print(model, short)
    if len(facts["recipe"]) > len(short["recipe"]):
        print_note(f"--json shows all {len(facts['recipe'])} entries of the recipe.")


def _describe_model(network: "RefineNet", model: str) -> dict[str, Any]:
    card = network.card
    return {
        **card.architecture.to_dict(),
        **({} if network.parameters is None else {"parameters": network.parameters}),
        "classes": list(card.label_set.names),
        "scores": dict(card.scores),
        **(_read_certificate(model) if network.parameters is None else {}),
        **({} if card.int8 is None else {"int8": {**card.int8.scores, "kept_in_float": list(card.int8.kept)}}),
        "licence": card.licence,
        "recipe": dict(card.recipe),
        "temperature": card.temperature,
        **({} if card.value_range is None else {"value_range": list(card.value_range)}),
        **({} if card.longest_side is None else {"longest_side": card.longest_side}),
        "weights_sha256": card.weights_sha256,
    }


def _read_certificate(model: str) -> dict[str, Any]:
    """Return what the certificate beside an exported file says of this file, such as the scores of int8."""
    from refinenet.models.files.model_card import CERTIFICATE_ENDING

    path = Path(f"{model}{CERTIFICATE_ENDING}")
    if not path.is_file():
        return {}
    found = json.loads(path.read_text("utf-8"))
    known = {key: found.get(key) for key in ("format", "precision", "kept_in_float", "dataset") if found.get(key)}
    sizes = [facts["bytes"] for facts in found["files"].values()]
    return {"export": {**known, "bytes": sum(sizes)}}


def _show_system(as_json: bool) -> None:
    from refinenet.cli.system import describe_system

    found = describe_system()
    if as_json:
        say(found)
    else:
        _print("refinenet", found)


def _print(title: str, facts: Mapping[str, Any]) -> None:
    print_table(title, ["", ""], [[key, _show(value)] for key, value in facts.items()], is_of_text=True)


def _show(value: Any) -> str:
    return "\n".join(_lines(value)) if isinstance(value, Mapping) else _in_line(value)


def _lines(values: Mapping[str, Any]) -> Iterator[str]:
    from refinenet.models.files.file_checks import printable

    if not values:
        yield "none"
    for key, item in values.items():
        yield f"{printable(key)}: {_in_line(item)}"


def _in_line(value: Any) -> str:
    from refinenet.models.files.file_checks import printable

    if isinstance(value, Mapping):
        return ", ".join(f"{printable(key)} {_in_line(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_in_line, value)) or "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return printable(str(value), limit=10_000)
