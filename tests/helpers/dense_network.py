"""A network with outputs of all kinds, whose values spread over their ranges although it is untrained."""

from __future__ import annotations

from typing import Any

import torch
from model_parts import SMALL_DECODER

from refinenet import RefineNet

OUTPUTS = "classes,depth:0.5:80,normals,soil=regression[height:m,moisture:%],far=depth~laplace:1:900"
_SPREADS = {"depth": (20.0, 30.0), "far": (500.0, 300.0), "soil": (3.0, 20.0)}
"""Standard deviation and mean of the values of each output."""


def new_network(outputs: str = OUTPUTS) -> RefineNet:
    """Return the network, with three classes if it has any."""
    classes = 3 if "classes" in outputs else None
    small: dict[str, Any] = {"encoder": "test_resnet", "decoder": SMALL_DECODER, "device": "cpu", "backend": "pytorch"}
    r = RefineNet(num_classes=classes, outputs=outputs, seed=3, **small)
    with torch.no_grad():
        for name, (deviation, mean) in _SPREADS.items():
            if name in r.network.heads:
                r.network.get_buffer(f"heads.{name}.scale").fill_(deviation)
                r.network.get_buffer(f"heads.{name}.offset").fill_(mean)
    return r
