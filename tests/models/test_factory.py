"""The first argument of `RefineNet`: a type of network, or a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from refinenet import RefineNet


def test_a_model_may_be_the_first_argument(tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    written = RefineNet("lightweight", encoder="test_resnet", num_classes=3, device="cpu")
    written.save(file)
    assert repr(written).startswith("RefineNet(lightweight, test_resnet, 3 classes, untrained, cpu, ")
    for first in (file, str(file)):
        read = RefineNet(first, device="cpu")
        assert read.card.weights_sha256 == written.card.weights_sha256
        assert "untrained" not in repr(read)
    with pytest.raises(ValueError, match=r"model_type must be one of full, lightweight, not 'camvd'.*model="):
        RefineNet("camvd")
    with pytest.raises(FileNotFoundError, match=r"missing\.safetensors"):
        RefineNet("missing.safetensors")


def test_a_bundled_model_may_be_the_first_argument(camvid_model: RefineNet) -> None:
    assert RefineNet("camvid", device="cpu").card == camvid_model.card
