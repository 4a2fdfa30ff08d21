"""Parity of our networks with the published ones, for the published weights."""

from pathlib import Path

import pytest
import torch
from published import BLOCKS, CASES, expected_logits, image, published_shapes, published_weights, resnet_shapes

from refinenet import RefineNet

MODELS = {
    "lightweight_mobilenetv2_voc": ("lightweight", "mobilenetv2_100", 21),
    "lightweight_50_voc": ("lightweight", "resnet50", 21),
    "acrv_full_50": ("full", "resnet50", 40),
    "full_101_voc": ("full", "resnet101", 21),
}


@pytest.mark.parametrize("case", CASES)
def test_published_network_and_ours_agree(case: str, tmp_path: Path) -> None:
    path = tmp_path / "published.pth.tar"
    torch.save(published_weights(case), path)
    model = RefineNet(model=path, device="cpu")
    path.unlink()  # up to half a gigabyte
    found = model.network.architecture
    assert (found.model_type, found.encoder, found.num_classes) == MODELS[case]
    with torch.inference_mode():
        logits = model.network.logits(image())
    expected = expected_logits(case)
    assert logits.shape == expected.shape
    assert (logits - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("case", [case for case in CASES if "mobilenet" not in case])
def test_our_spelling_of_the_formats_is_the_recorded_one(case: str) -> None:
    model_type, encoder, num_classes = MODELS[case]
    depth = int(encoder.removeprefix("resnet"))
    assert depth in BLOCKS
    assert resnet_shapes(model_type, depth, num_classes) == published_shapes(case)
