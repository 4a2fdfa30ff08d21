"""Model card of a repository on the Hugging Face Hub: metadata in YAML, and a page in Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import yaml

from refinenet.io.files import quote_controls
from refinenet.models.files.licences import KNOWN
from refinenet.models.files.model_card import ModelCard

_METRICS: Mapping[str, tuple[str, str]] = {
    "miou": ("mean_iou", "Mean IoU"),
    "pixel_accuracy": ("accuracy", "Pixel accuracy"),
}
"""Types and names of metrics in the index of the hub, by their names in model files; others keep their own."""
_CONDITIONS = ("dataset", "split", "images", "protocol")
"""Entries of scores that say how the others were measured."""
_TAGS = ("refinenet", "semantic-segmentation", "dense-prediction")


def write_hub_card(card: ModelCard, repository: str, licence: str, *, picture: str | None) -> str:
    """Return the text of `README.md`: metadata between lines of hyphens, and the page.

    Args:
        card: Card of the model.
        repository: Owner and name, separated by a slash.
        licence: What `licences.choose_licence` returned.
        picture: Name of the example picture in the repository, if there is one.
    """
    metadata = yaml.safe_dump(_metadata(card, repository, licence), sort_keys=False, allow_unicode=True)
    parts = [
        f"# {repository.partition('/')[2]}",
        f"A {'RefineNet' if card.architecture.model_type == 'full' else 'Light-Weight RefineNet'} on "
        f"{_plain(card.architecture.encoder)}, trained with [refinenet](https://pypi.org/project/refinenet-torch/).",
        *([f"![An image and what the model finds in it]({picture})"] if picture else []),
        f"```python\nfrom refinenet import RefineNet\n\nr = RefineNet(model='hf://{repository}')\n"
        'r.deploy(image_file="photo.jpg", output_file="segmented.jpg")\n```',
        "`pip install 'refinenet-torch[hub]'` first. The file is read as data: nothing in it is executed.",
        *_describe_outputs(card),
        *_describe_scores(card),
        f"## Licence\n\n{_plain(licence)}",
        *([] if licence == card.licence else [f"The model file says: {_plain(card.licence)}"]),
        f"## File\n\nSHA-256 of the weights: `{card.weights_sha256}`",
    ]
    return f"---\n{metadata}---\n\n" + "\n\n".join(parts) + "\n"


def _metadata(card: ModelCard, repository: str, licence: str) -> dict[str, Any]:
    datasets = [_dataset_name(card)] if "dataset" in card.scores else []
    if licence in KNOWN:
        terms = {"license": licence}
    else:
        terms = {"license": "other", "license_name": _slug(licence), "license_link": "README.md#licence"}
    measured = _measured(card)
    return {
        "library_name": "refinenet",
        "pipeline_tag": "image-segmentation",
        "tags": list(_TAGS),
        **terms,
        **({"datasets": datasets} if datasets else {}),
        **({"metrics": sorted(_identify(name)[0] for name in measured)} if measured else {}),
        **({"model-index": [_index(card, repository, measured)]} if measured and datasets else {}),
    }


def _index(card: ModelCard, repository: str, measured: Mapping[str, float]) -> dict[str, Any]:
    """Return the results in the form of the hub's index: task, dataset, and metrics with their conditions."""
    dataset = _dataset_name(card)
    conditions = {key: card.scores[key] for key in ("protocol", "images") if key in card.scores}
    split = {"split": card.scores["split"]} if "split" in card.scores else {}
    arguments = {"args": conditions} if conditions else {}
    metrics = [
        {"type": _identify(metric)[0], "name": _identify(metric)[1], "value": value, **arguments}
        for metric, value in measured.items()
    ]
    task = {"type": "image-segmentation", "name": "Semantic segmentation"}
    result = {"task": task, "dataset": {"type": dataset, "name": dataset, **split}, "metrics": metrics}
    return {"name": repository.partition("/")[2], "results": [result]}


def _dataset_name(card: ModelCard) -> str:
    """Return the name of the dataset of the scores; of a folder the last part, as the others are nobody's business."""
    return PurePath(str(card.scores["dataset"])).name


def _measured(card: ModelCard) -> dict[str, float]:
    """Return the metrics of a card, without the conditions that they were measured under."""
    return {
        name: float(value)
        for name, value in card.scores.items()
        if name not in _CONDITIONS and isinstance(value, float | int) and not isinstance(value, bool)
    }


def _identify(metric: str) -> tuple[str, str]:
    """Return type and name of a metric in the index of the hub."""
    return _METRICS.get(metric, (metric, metric))


def _describe_outputs(card: ModelCard) -> list[str]:
    outputs = ", ".join(f"`{spec.to_text()}`" for spec in card.architecture.outputs)
    names = ", ".join(_plain(name) for name in card.label_set.names)
    text = f"## What it predicts\n\nOutputs: {outputs}. Images: {_plain(', '.join(card.architecture.band_names))}."
    return [text, *([f"{len(card.label_set)} classes: {names}."] if names else [])]


def _describe_scores(card: ModelCard) -> list[str]:
    measured = _measured(card)
    if not measured:
        return ["## Scores\n\nNone were measured with these weights."]
    rows = "\n".join(f"| {_identify(name)[1]} | {value:.4f} |" for name, value in measured.items())
    shown = {**card.scores} | ({"dataset": _dataset_name(card)} if "dataset" in card.scores else {})
    conditions = "; ".join(f"{key}: {_plain(str(shown[key]))}" for key in _CONDITIONS if key in shown)
    return [
        "## Scores\n\n| metric | value |\n|---|---|\n" + rows,
        *([f"Measured with {conditions}."] if conditions else []),
    ]


def _plain(text: str) -> str:
    """Escape what Markdown would take for markup, and control characters."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", quote_controls(text))


def _slug(text: str) -> str:
    """Return a short name of a licence that has no identifier, as the hub wants it."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60].rstrip("-") or "other"
