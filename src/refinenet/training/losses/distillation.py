"""Knowledge distillation: another network's probabilities as soft targets.

Shape letters: N images, K classes, H height, W width.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def soft_target_total(
    logits: Tensor, teacher_logits: Tensor, labels: Tensor, ignore_index: int, temperature: float
) -> Tensor:
    """Return the Kullback-Leibler divergence from the teacher's probabilities, times the temperature squared.

    Source: Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network, 2015. Gradients of the divergence
    shrink with the square of the temperature; the factor keeps their size.

    Args:
        logits: `(N, K, H, W)` float32 or float64.
        teacher_logits: `(N, K, H, W)`; detached.
        labels: `(N, H, W)` int64; only used to leave out void pixels.
        ignore_index: Id of pixels that do not count, such as padding.
        temperature: Divisor of both logits.

    Returns:
        A scalar, the sum over the labelled pixels, in nats.
    """
    targets = (teacher_logits.detach().to(logits.dtype) / temperature).log_softmax(1)
    predictions = (logits / temperature).log_softmax(1)
    divergence = functional.kl_div(predictions, targets, reduction="none", log_target=True).sum(1)
    return temperature**2 * divergence.where(labels != ignore_index, 0).sum()
