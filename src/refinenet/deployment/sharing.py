"""A model that can be shared: on the Hugging Face Hub, with a model card, a certificate and an example picture."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from refinenet import models
from refinenet.datasets import street_scenes
from refinenet.datasets.catalog import PUBLISHED
from refinenet.deployment.segmentation_model import SegmentationModel
from refinenet.io.console import print_note
from refinenet.io.drawing.legend import add_legend
from refinenet.io.images.codec import ImageSource, encode
from refinenet.models.files.hub import MODEL_FILE, HubAddress, push
from refinenet.models.files.licences import choose_licence
from refinenet.models.files.model_card import CERTIFICATE_ENDING, ModelCard

PICTURE = "example.jpg"
_MAX_CERTIFICATE = 1024**2
"""Maximum bytes of a certificate."""


class SharedModel(SegmentationModel):
    """A model with methods to share it: as one file, and on the hub."""

    def save(
        self,
        path: str | os.PathLike[str],
        dtype: Literal["float32", "float16"] = "float32",
        licence: str | None = None,
    ) -> Path:
        """Write the model to one file, which `RefineNet(model=path)` loads without further arguments.

        Args:
            path: File to write, usually `.safetensors`; missing folders are created.
            dtype: "float16" halves the size of the file.
            licence: Licence to record in the file; by default that of the loaded model.

        Raises:
            ValueError: a weight is not a finite number, or the model is an exported graph.
            OSError: the file cannot be written.
        """
        card = self.card if licence is None else replace(self.card, licence=licence)
        self._card = models.save(path, self.network, card, dtype)
        return Path(path)

    def push_to_hub(
        self,
        repository: str,
        licence: str | None = None,
        example: ImageSource | None = None,
        certificate: str | os.PathLike[str] | None = None,
        private: bool = False,
        message: str = "Upload a RefineNet",
    ) -> str:
        """Upload the model to the Hugging Face Hub: model file, model card, example picture, and a certificate.

        Args:
            repository: "owner/name"; created if it does not exist.
            licence: Identifier such as "cc-by-nc-4.0"; by default the licence text of the model file. It must be at
                least as strict as that licence, and as the terms of the published dataset that the model was trained
                on.
            example: Image for the example picture, by default a synthetic street (none for models of other bands).
            certificate: Certificate of an export of the same weights.
            private: Whether a new repository is private.
            message: Message of the commit.

        Returns:
            The address, pinned to the new commit: `RefineNet(model=address)` always loads these weights.

        Raises:
            ValueError: the name, the licence or the certificate is not allowed, the model is an exported graph, or you
                may not write there (`hf auth login`).
            OSError: the hub cannot be reached, or a file cannot be read.
        """
        network, address = self.network, HubAddress.parse(repository)
        chosen = choose_licence(licence, self.card.licence, _terms(self.card.recipe))
        files: dict[str, Path | bytes] = {}
        picture = self._draw_example(example)
        if picture is not None:
            files[PICTURE] = picture
        with tempfile.TemporaryDirectory(prefix="refinenet-") as folder:
            path = Path(folder) / MODEL_FILE
            card = models.save(path, network, self.card, "float32")
            files[MODEL_FILE] = path
            if certificate is not None:
                files[MODEL_FILE + CERTIFICATE_ENDING] = _read_certificate(Path(certificate), card)
            text = models.write_hub_card(card, address.repository, chosen, picture=PICTURE if picture else None)
            files["README.md"] = text.encode()
            pushed = str(push(repository, files, message=message, private=private))
        print_note(f"{address.repository}: {', '.join(sorted(files))}. RefineNet(model={pushed!r})")
        return pushed

    def _draw_example(self, example: ImageSource | None) -> bytes | None:
        """Return a JPEG of an image with what is found in it, beside the bare result; None without an image to show."""
        if example is None and self.card.architecture.bands:
            return None
        image = street_scenes.draw_street(8, 360, 480)[0] if example is None else example
        if not len(self.label_set):
            picture = self.deploy(image=image)
            return encode(picture, ".jpg") if picture.ndim == 3 and picture.dtype == np.uint8 else None
        found = self.segment(image)
        panels = np.concatenate([found.overlay, found.colour], axis=1)
        return encode(add_legend(panels, found.label_set, found.areas), ".jpg")


def _terms(recipe: Mapping[str, Any]) -> Iterator[str]:
    """Yield the licences of the published datasets that a model, and the models it started from, were trained on."""
    name = str(recipe.get("dataset", "")).partition(":")[0]
    if name in PUBLISHED:
        yield PUBLISHED[name].info.licence
    if isinstance(recipe.get("started_from"), Mapping):
        yield from _terms(recipe["started_from"])


def _read_certificate(path: Path, card: ModelCard) -> bytes:
    """Read a certificate of an export, and check that it is of these weights.

    Raises:
        ValueError: It is not, or no certificate at all.
    """
    if path.stat().st_size > _MAX_CERTIFICATE:
        raise ValueError(f"{path} has more than {_MAX_CERTIFICATE:,} bytes: it is not a certificate.")
    content = path.read_bytes()
    try:
        weights = json.loads(content)["model"]["weights_sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not a certificate that `refinenet export` wrote.") from error
    if weights != card.weights_sha256:
        raise ValueError(
            f"{path} certifies the export of different weights ({weights}), not of these ({card.weights_sha256}). "
            "Export this model again."
        )
    return content
