"""Settings of the augmentation of training images. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from refinenet.settings import Range, Rule, Settings

CropSize = Annotated[
    tuple[int, int], Rule(lambda size: min(size) >= 1, "height and width, whole numbers of at least 1")
]
ScaleRange = Annotated[
    tuple[float, float],
    Rule(lambda scale: 0.05 <= scale[0] <= scale[1] <= 20, "a range within 0.05 to 20, lower end first"),
]
Probability = Annotated[float, Range(0, 1)]


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig(Settings):
    """Augmentation of training images. By default they are resized, cropped and mirrored, and their colours vary.

    Raises:
        ValueError: A value is out of its range; all problems are reported together.
    """

    crop_size: CropSize = (320, 320)
    """Height and width, in pixels, of the crops that the network sees; smaller images are padded with void."""
    scale: ScaleRange = (0.5, 2.0)
    """Range of the random factor by which images are resized."""
    rotation: Annotated[float, Range(0, 180)] = 0.0
    """Largest rotation in degrees to either side; pixels from outside the image become void."""
    class_crops: Probability = 0.5
    """Share of the crops that are placed over a pixel of a class drawn uniformly from those in the image, so that rare
    classes are seen as often as others."""
    flip: bool = True
    """Whether half of the images are mirrored left to right."""
    colour_jitter: Annotated[float, Range(0, below=1)] = 0.3
    """Largest relative change of brightness, contrast and saturation; 0 for none."""
    hue: Annotated[float, Range(0, 0.5)] = 0.0
    """Largest shift of the hue in either direction, as a fraction of the colour circle; 0 for none, 0.5 for any hue."""
    gamma: Annotated[float, Range(0, 4)] = 0.0
    """Pixel values are raised to a power drawn from 1 / (1 + gamma) to 1 + gamma, uniformly on a logarithmic scale."""
    blur: Probability = 0.0
    """Probability that an image is blurred, by a Gaussian with a standard deviation of 0.3 to 2 pixels."""
    cutout: Probability = 0.0
    """Probability that a rectangle of an image is covered with the mean colour; the labels below it become void
    (DeVries and Taylor, 2017)."""
    paste_classes: Probability = 0.0
    """Probability that half of the classes of another image are pasted over an image (ClassMix; Olsson et al.,
    2021)."""
    cut_mix: Probability = 0.0
    """Probability that a rectangle of an image is replaced by the same rectangle of another image (CutMix; Yun et al.,
    2019)."""
    paste_rare: Probability = 0.0
    """Probability that the rare classes of another image are pasted over an image (copy-paste; Ghiasi et al., 2021)."""
    rare_below: Probability = 0.02
    """Share of the labelled pixels below which a class is rare, for `paste_rare`."""
