"""Another network's probabilities as targets.

Shape letters: N images, K classes, H height, W width.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def soft_target_total(
    logits: Tensor, teacher_logits: Tensor, labels: Tensor, ignore_index: int, temperature: float
) -> Tensor:
    """Kullback-Leibler divergence of the network's probabilities from the teacher's, times the temperature squared.

    Source: Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network, 2015: the square keeps the gradients'
    size when the temperature is changed.

    Args:
        logits: `(N, K, H, W)` float32 or float64.
        teacher_logits: `(N, K, H, W)`; no gradients flow there.
        labels: `(N, H, W)` int64; only whether a pixel is void matters.
        ignore_index: The id of pixels that do not count, such as padding.
        temperature: What both logits are divided by.

    Returns:
        A scalar, the sum over the labelled pixels, in nats.
    """
    targets = (teacher_logits.detach().to(logits.dtype) / temperature).log_softmax(1)
    guess = (logits / temperature).log_softmax(1)
    divergence = functional.kl_div(guess, targets, reduction="none", log_target=True).sum(1)
    return temperature**2 * divergence.where(labels != ignore_index, 0).sum()
