"""RefineNet and Light-Weight RefineNet: high-resolution semantic segmentation to train, evaluate and deploy.

    from refinenet import RefineNet

    r = RefineNet(model="camvid")
    segmentation = r.segment("street.jpg")

Imports are lazy: `import refinenet` takes milliseconds, creating the first network seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from refinenet._version import __version__

if TYPE_CHECKING:
    from refinenet.api import RefineNet
    from refinenet.evaluation.pipeline import evaluate_predictions
    from refinenet.inference.segmentation import Segmentation
    from refinenet.labels import LabelSet

__all__ = ["LabelSet", "RefineNet", "Segmentation", "__version__", "evaluate_predictions"]

_HOMES = {
    "LabelSet": "refinenet.labels",
    "RefineNet": "refinenet.api",
    "Segmentation": "refinenet.inference.segmentation",
    "evaluate_predictions": "refinenet.evaluation.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
