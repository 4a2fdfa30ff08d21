"""Augmentation of training images: one module for each kind, combined by `pipeline.Augmentation`."""

from refinenet.training.augmentation.config import AugmentationConfig

__all__ = ["AugmentationConfig"]
