"""A small model file, taken apart and put together again by means that are not the package's own."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from refinenet.labels import LabelSet
from refinenet.models.architecture import Architecture
from refinenet.models.files.model_card import ModelCard
from refinenet.models.network import Network

SMALL_DECODER: dict[str, Any] = {"widths": [16] * 4, "cascade": [1, 1, 2, 2], "pooling_links": 1}
"""Two narrow blocks with every kind of operation: what takes a minute to compile, trace or translate takes seconds."""
LABELS = LabelSet(names=("road", "sky", "Straße"), colours=((128, 64, 128), (70, 130, 180), (1, 2, 3)))
CARD = ModelCard(
    architecture=Architecture(model_type="lightweight", encoder="test_resnet", num_classes=3),
    label_set=LABELS,
    scores={"dataset": "camvid", "split": "val", "miou": 0.6625, "protocol": "480x360, single scale"},
    licence="BSD-3-Clause",
    recipe={"epochs": 3, "learning_rate": 0.0005, "crop": [320, 240]},
)


NARROW_CARD = replace(CARD, architecture=replace(CARD.architecture, decoder_options=SMALL_DECODER))
"""Of what is translated, or runs hundreds of times; files of such networks have a later version of the format."""


def small_network(card: ModelCard = CARD) -> Network:
    """A network in whose answer every tensor has a part, the batch norms' statistics too."""
    torch.manual_seed(4)
    network = Network(card.architecture).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network


def narrow_network() -> Network:
    """The same with the decoder of `NARROW_CARD`."""
    return small_network(NARROW_CARD)


@dataclass
class Parts:
    """A model file: 8 bytes of length, the JSON header, the tensors' bytes."""

    header: dict[str, Any]
    """Of each tensor its type, shape and place; strings under `__metadata__`, where our JSON is left out."""
    ours: dict[str, Any]
    """Our JSON object, parsed."""
    body: bytes = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> Parts:
        content = path.read_bytes()
        end = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:end])
        return cls(header=header, ours=json.loads(header["__metadata__"].pop("refinenet")), body=content[end:])

    def write(self, path: Path) -> None:
        """Write with the hash that belongs to the header, so that a lie is not damage, too."""
        if "header_sha256" in self.ours:
            self.ours["header_sha256"] = "0" * 64
            content = json.dumps(self._with_texts(json.dumps(self.ours)), sort_keys=True).encode()
            self.ours["header_sha256"] = hashlib.sha256(content).hexdigest()
        self.write_texts(path, json.dumps(self.ours))

    def write_texts(self, path: Path, ours: str) -> None:
        """Write with any text in our JSON's place."""
        header = json.dumps(self._with_texts(ours)).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + self.body)

    def _with_texts(self, ours: str) -> dict[str, Any]:
        return {**self.header, "__metadata__": {**self.header["__metadata__"], "refinenet": ours}}
