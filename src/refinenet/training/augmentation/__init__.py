"""Augmentation of training images: one file for each kind, `pipeline.Augmentation` over all of them."""

from refinenet.training.augmentation.config import AugmentationConfig

__all__ = ["AugmentationConfig"]
