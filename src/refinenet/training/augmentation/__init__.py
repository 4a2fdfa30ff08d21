"""How training images are varied: a file for each kind, `AugmentationConfig` and `Augmentation` over all of them."""

from refinenet.training.augmentation.config import AugmentationConfig

__all__ = ["AugmentationConfig"]
