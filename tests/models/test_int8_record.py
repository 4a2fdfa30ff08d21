"""The record of int8 in a model file: what is stored is read again exactly, and nothing else is accepted."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from refinenet.models.files.int8_record import Int8Record, QuantisedLayer, QuantisedMap

NODE, OTHER = "0123456789abcdef", "fedcba9876543210"
THIRD = float(np.float32(1 / 3))


def record() -> Int8Record:
    return Int8Record(
        network_sha256="a" * 64,
        maps=(
            QuantisedMap(node=NODE, low=(-THIRD,), high=(1.0,)),
            QuantisedMap(node=OTHER, low=(0.0, -2.0), high=(THIRD, 3.0), readers=((NODE, 0), (OTHER, 1))),
        ),
        layers=(
            QuantisedLayer(weights="encoder.stem.weight", stretch=2, correction=(THIRD, 0.0)),
            QuantisedLayer(weights="classifier.weight", stretch=1),
        ),
        kept=("Convolution a (3 to 16 channels, 3x3)",),
        difference=0.01,
        scores={"miou_before": 0.5, "miou_after": 0.49},
        made={"nncf": "3.4.0"},
    )


def test_a_record_survives_json() -> None:
    stored = json.loads(json.dumps(record().to_dict()))
    assert Int8Record.from_dict(stored) == record()


def test_the_digest_is_that_of_the_network_and_not_of_its_scores() -> None:
    stored = record().to_dict()
    assert Int8Record.from_dict({**stored, "scores": {}, "made": {}}).digest() == record().digest()
    assert Int8Record.from_dict({**stored, "maps": stored["maps"][:1]}).digest() != record().digest()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "has version 2, this package reads 1"),
        ({"network_sha256": "abc"}, "needs the SHA-256"),
        ({"layers": []}, "from 1 to 10000 layers"),
        ({"layers": [["a.weight", 1, ""], ["a.weight", 1, ""]]}, "names a layer twice"),
        ({"layers": [["a.weight", 3, ""]]}, "stretched by one of"),
        ({"layers": [["a.weight", 1, "?"]]}, "not in base64"),
        ({"layers": [["a.weight", 1, "AADAfw=="]]}, "not finite"),  # float32 nan
        ({"maps": [[NODE, "AACAPw==", "AAAAAA=="]]}, "two finite numbers, the lower one first"),  # from 1 to 0
        ({"maps": [[NODE, "", ""]]}, "as many minima as maxima"),
        ({"maps": [["../etc", "AAAAAA==", "AACAPw=="]]}, "16 hexadecimal digits"),
        ({"maps": [[NODE, "AAAAAA==", "AACAPw==", [[OTHER, -1]]]]}, "whole number of at least 0"),
        ({"difference": -1.0}, "number of at least 0"),
        ({"kept_in_float": [1]}, "must be strings"),
    ],
)
def test_other_values_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Int8Record.from_dict({**record().to_dict(), **changes})


def test_missing_entries_are_named() -> None:
    stored = record().to_dict()
    del stored["maps"], stored["made"]
    with pytest.raises(ValueError, match="lacks maps, made"):
        Int8Record.from_dict(stored)
