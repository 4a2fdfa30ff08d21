"""Weights of several tasks that are learnt with them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from refinenet.outputs import CLASS_KIND


class TaskWeights(nn.Module):
    """Uncertainty of each task, by which its loss is weighted.

    A task with the loss L, at least 0, and the log variance s, which begins at 0, adds exp(-s) L + s / 2 if it is that
    of classes and exp(-s) L / 2 + s / 2 if its values are numbers. The larger the loss, the smaller its weight becomes:
    s is at its best where it is the logarithm of 2 L, or of L. The formula for numbers is derived for squared errors
    and used for all of their losses. It is no use for likelihoods with a log scale, which weight themselves and may be
    negative, so that s would fall for ever.

    Source: Kendall, Gal, Cipolla, Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and
    Semantics, 2018, equations 7 and 10.

    Args:
        kinds: Kind of each task, one of `KINDS`, by its name.

    Raises:
        ValueError: There is no task.
    """

    factors: Tensor
    """`(T,)` float32: factor of exp(-s) L of each task, 1 or 1/2."""

    def __init__(self, kinds: Mapping[str, str]) -> None:
        super().__init__()
        if not kinds:
            raise ValueError("Weights of tasks need at least one task.")
        self.names = tuple(kinds)
        self.log_variances = nn.Parameter(torch.zeros(len(kinds)))
        """`(T,)` float32: log variance of each task, in the order of `names`; weight decay would draw them to 0."""
        factors = torch.tensor([1.0 if kind == CLASS_KIND else 0.5 for kind in kinds.values()])
        self.register_buffer("factors", factors, persistent=False)

    def combine(self, losses: Mapping[str, Tensor], share: float = 1.0) -> Tensor:
        """Return the weighted sum of the losses of tasks.

        Args:
            losses: Scalars of at least 0 by the name of a task. Leave out the tasks without truth in the whole batch:
                a loss of 0 would raise their weight, while for those left out nothing is learnt.
            share: Share of the batch whose losses these are, in [0, 1]; the shares of all parts, in all processes, add
                up to 1, so that s / 2 is added once per batch.

        Returns:
            A scalar; 0 with zero gradients if there is no loss.

        Raises:
            ValueError: A name is not that of a task.
        """
        unknown = sorted(set(losses) - set(self.names))
        if unknown:
            raise ValueError(f"Tasks are {', '.join(self.names)}, not {', '.join(unknown)}.")
        terms = [0 * self.log_variances.sum()]
        for name, log_variance, factor in zip(self.names, self.log_variances, self.factors, strict=True):
            if name in losses:
                terms.append(factor * torch.exp(-log_variance) * losses[name] + share * log_variance / 2)
        return torch.stack(terms).sum()
