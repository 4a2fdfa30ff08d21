"""The example with Gradio, which no extra installs: skipped without it."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from refinenet import RefineNet

EXAMPLE = Path(__file__).parents[2] / "examples" / "gradio_app.py"


def test_the_page_shows_overlay_and_areas(
    street: npt.NDArray[np.uint8], camvid_model: RefineNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The function, and the forms in which Gradio passes an image to it and shows what it returns."""
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    gradio = pytest.importorskip("gradio", reason="pip install gradio")
    names = runpy.run_path(str(EXAMPLE))
    overlay, areas = names["segment"](street)
    expected = camvid_model.segment(street)
    assert np.array_equal(overlay, expected.overlay)
    assert areas == {name: area for name, area in expected.areas.items() if area > 0}
    assert sum(areas.values()) == pytest.approx(1)
    (image,), (picture, label) = names["app"].input_components, names["app"].output_components
    assert isinstance(image, gradio.Image)
    assert (image.type, image.image_mode) == ("numpy", "RGB")
    assert isinstance(picture, gradio.Image)
    shown = label.postprocess(areas).confidences
    assert {each.label: each.confidence for each in shown} == areas
