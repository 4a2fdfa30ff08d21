"""A page for colleagues: an image in, its overlay and the areas of its classes out. Needs `pip install gradio`."""

import gradio
import numpy as np

from refinenet import RefineNet

model = RefineNet(model="camvid")


def segment(image: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    """Return the overlay, `(H, W, 3)` uint8 RGB, and the share of each class that occurs."""
    found = model.segment(image)
    return found.overlay, {name: area for name, area in found.areas.items() if area > 0}


results = [gradio.Image(label="Overlay", format="png"), gradio.Label(label="Areas")]
app = gradio.Interface(segment, gradio.Image(), results)

if __name__ == "__main__":
    app.launch()
