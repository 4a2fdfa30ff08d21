"""Augmentation of training images with their ground truth, combined by `pipeline.Augmentation`.

`geometry` moves images and label maps, `targets` adapts depths and normals to these moves, `colour` changes colours,
and `mixing` pastes parts of other images.
"""

from refinenet.training.augmentation.config import AugmentationConfig

__all__ = ["AugmentationConfig"]
