"""Augmentation of training images with their ground truth, combined by `pipeline.Augmentation`.

`geometry` moves images and label maps, `targets` says what happens to depths and normals there, `colour` changes
colours, `mixing` pastes parts of other images.
"""

from refinenet.training.augmentation.config import AugmentationConfig

__all__ = ["AugmentationConfig"]
