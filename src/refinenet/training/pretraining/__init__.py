"""Pre-training of encoders: on images sorted into folders by class, so that a new encoder needs no download.

An `ImageClassifier` learns to tell the classes apart; its encoder is then what a RefineNet starts with.
"""

from refinenet.training.pretraining.run import PretrainResult, pretrain_encoder

__all__ = ["PretrainResult", "pretrain_encoder"]
