"""Sizes of the papers' networks: parameters, and multiply-adds for one image.

    python benchmarks/networks.py [--size 512] [--classes 21]

Counted on the networks themselves, without allocating weights. Multiply-adds are those of convolutions, half
of PyTorch's floating point operations, up to the logits at a quarter of the image's size.
"""

from __future__ import annotations

import argparse

import torch
from torch.utils.flop_counter import FlopCounterMode

from refinenet.io.console import print_table
from refinenet.models.architecture import Architecture, ModelType
from refinenet.models.network import Network

NETWORKS: tuple[tuple[ModelType, str], ...] = (
    ("full", "resnet50"),
    ("full", "resnet101"),
    ("full", "resnet152"),
    ("lightweight", "resnet50"),
    ("lightweight", "resnet101"),
    ("lightweight", "resnet152"),
    ("lightweight", "mobilenetv2_100"),
)


@torch.no_grad()
def count(model_type: ModelType, encoder: str, classes: int, size: int) -> tuple[int, int]:
    """Count parameters, and multiply-adds for an image of `size` by `size` pixels."""
    with torch.device("meta"):
        network = Network(Architecture(model_type=model_type, encoder=encoder, num_classes=classes)).eval()
        images = torch.empty(1, 3, size, size)
    with FlopCounterMode(display=False) as counter:
        network.logits(images)
    return sum(values.numel() for values in network.parameters()), counter.get_total_flops() // 2


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size", type=int, default=512)
    options.add_argument("--classes", type=int, default=21)
    arguments = options.parse_args()
    rows = []
    for model_type, encoder in NETWORKS:
        parameters, operations = count(model_type, encoder, arguments.classes, arguments.size)
        rows.append([f"{model_type}, {encoder}", f"{parameters / 1e6:.2f} M", f"{operations / 1e9:.1f} G"])
    size = f"{arguments.size}x{arguments.size}"
    columns = ["network", f"parameters ({arguments.classes} classes)", f"multiply-adds at {size}"]
    print_table("RefineNets", columns, rows)


if __name__ == "__main__":
    main()
