"""Targets under augmentation: what happens to depths, normals and quantities where an image is moved.

A target is moved like the label map, by its nearest pixel, and has no ground truth (NaN) where the label map is void.
Mirroring changes the sign of the x of normals, a rotation turns them, and enlarging divides depths by its factor: the
network cannot tell an enlarged image from one that was taken nearer. Zoom leaves normals as they are.

Shape letters: D channels of all targets together, h and w height and width of the crop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from refinenet.outputs import OutputSpec


@dataclass(frozen=True, kw_only=True)
class TargetRules:
    """Channels of the targets whose values change where an image is moved."""

    mirrored: tuple[int, ...] = ()
    """Channels whose sign changes where the image is mirrored."""
    rotated: tuple[tuple[int, int], ...] = ()
    """Pairs of channels that are the x and y (down) of directions in the image."""
    zoomed: tuple[int, ...] = ()
    """Channels that are divided by the factor by which the image is enlarged."""

    @classmethod
    def of(cls, specs: Sequence[OutputSpec]) -> TargetRules:
        """Return the rules of targets whose channels follow each other."""
        mirrored: list[int] = []
        rotated: list[tuple[int, int]] = []
        zoomed: list[int] = []
        first = 0
        for spec in specs:
            info, count = spec.info, spec.count_channels(0)
            mirrored += [first + channel for channel in info.mirrored_channels]
            if info.rotated_channels is not None:
                rotated.append((first + info.rotated_channels[0], first + info.rotated_channels[1]))
            zoomed += range(first, first + count) if info.shrinks_with_zoom else ()
            first += count
        return cls(mirrored=tuple(mirrored), rotated=tuple(rotated), zoomed=tuple(zoomed))

    def zoom(self, targets: Tensor, factor: float) -> Tensor:
        """Return targets `(D, h, w)` of an image that was enlarged by a factor."""
        if not self.zoomed:
            return targets
        changed = targets.clone()
        changed[list(self.zoomed)] /= factor
        return changed

    def mirror(self, targets: Tensor) -> Tensor:
        """Return targets `(D, h, w)`, already mirrored as maps, with the values of the mirrored image."""
        changed = targets.clone()
        changed[list(self.mirrored)] *= -1
        return changed

    def rotate(self, targets: Tensor, angle: float) -> Tensor:
        """Return targets `(D, h, w)`, already rotated as maps, with the values of an image rotated counter-clockwise.

        Args:
            targets: The targets.
            angle: Angle in radians.
        """
        changed, cosine, sine = targets.clone(), math.cos(angle), math.sin(angle)
        for x, y in self.rotated:
            # y points down: counter-clockwise on the screen turns (1, 0) to (0, -1).
            changed[x] = cosine * targets[x] + sine * targets[y]
            changed[y] = cosine * targets[y] - sine * targets[x]
        return changed


NO_RULES = TargetRules()
