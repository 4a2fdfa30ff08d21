"""How training images are varied: every setting, its meaning and its range. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from types import UnionType

from refinenet.settings import find_outside, is_within

_NUMBERS = {
    "rotation": (0, 180),
    "class_crops": (0, 1),
    "hue": (0, 0.5),
    "gamma": (0, 4),
    "blur": (0, 1),
    "cutout": (0, 1),
    "paste_classes": (0, 1),
    "cut_mix": (0, 1),
    "paste_rare": (0, 1),
    "rare_below": (0, 1),
}


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """How training images are varied. By default they are resized, cropped, mirrored and change their colours.

    Raises:
        ValueError: a value out of its range.
    """

    crop_size: tuple[int, int] = (320, 320)
    """Height and width, in pixels, of what the network sees; smaller images are padded with void."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Images are resized by a factor drawn from this range."""
    rotation: float = 0.0
    """Largest angle, in degrees to either side, that images are turned by; what then lies outside them is void."""
    class_crops: float = 0.5
    """Share of the crops that are laid over a pixel of a class drawn evenly from those in the image, so that rare
    classes are seen as often as others."""
    flip: bool = True
    """Whether half of the images are mirrored left to right."""
    colour_jitter: float = 0.3
    """Largest relative change of brightness, contrast and saturation; 0 for none."""
    hue: float = 0.0
    """Largest turn of the colour circle to either side, as a part of the whole circle; 0 for none, 0.5 for any hue."""
    gamma: float = 0.0
    """Images are raised to a power drawn from 1 / (1 + gamma) to 1 + gamma, evenly on a logarithmic scale."""
    blur: float = 0.0
    """Probability that an image is blurred (`colour.BLUR_SIGMAS`)."""
    cutout: float = 0.0
    """Probability that a rectangle of an image is covered; what lies below becomes void (`occlusion`)."""
    paste_classes: float = 0.0
    """Probability that an image gets classes of another image pasted over its own pixels, half of those that are there
    (ClassMix; Olsson et al., 2021)."""
    cut_mix: float = 0.0
    """Probability that a rectangle of an image is replaced by that of another image (CutMix; Yun et al., 2019)."""
    paste_rare: float = 0.0
    """Probability that the rare classes of another image are pasted over an image (copy-paste; Ghiasi et al., 2021)."""
    rare_below: float = 0.02
    """Classes with a smaller share of the labelled pixels are rare, for `paste_rare`."""

    def __post_init__(self) -> None:
        problems = self.problems()
        if problems:
            raise ValueError("; ".join(problems) + ".")

    def problems(self) -> list[str]:
        """What is wrong with the values, all of it."""
        problems = []
        if not _is_pair(self.crop_size, int) or min(self.crop_size) < 1:
            problems.append(f"crop_size is height and width, whole numbers from 1 up, not {self.crop_size!r}")
        if not _is_pair(self.scale, int | float) or not 0.05 <= self.scale[0] <= self.scale[1] <= 20:
            problems.append(f"scale is a range within 0.05 to 20, lower end first, not {self.scale!r}")
        if not isinstance(self.flip, bool):
            problems.append(f"flip is True or False, not {self.flip!r}")
        if not is_within(self.colour_jitter, 0, 1) or self.colour_jitter == 1:
            problems.append(f"colour_jitter is at least 0 and below 1, not {self.colour_jitter!r}")
        return [*problems, *find_outside(self, _NUMBERS)]


def _is_pair(value: object, kind: type | UnionType) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(isinstance(part, kind) and not isinstance(part, bool) for part in value)
    )
