"""Deep supervision: classifiers on the decoder's coarser stages, in training only.

Shape letters: N batch, K classes, H and W height and width of the image.
"""

from __future__ import annotations

from torch import Tensor, nn

from refinenet.models.decoder import upsample
from refinenet.models.network import Network


class DeepSupervision(nn.Module):
    """A network with further classifiers, 1x1 convolutions, at the decoder's strides 32, 16 and 8.

    Source: Lee et al., Deeply-Supervised Nets, 2015. The network itself is unchanged and is saved alone: its weights
    are shared, not copied.

    Args:
        network: Network to train, in place.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        widths = network.decoder.stage_channels[:-1]
        classes, device = network.architecture.num_classes, network.mean.device
        self.classifiers = nn.ModuleList(nn.Conv2d(width, classes, kernel_size=1, device=device) for width in widths)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return logits `(N, K, H, W)`: the network's own, then those of strides 8, 16, 32.

        Args:
            images: `(N, 3, H, W)` float32 RGB in [0, 1].
        """
        *coarser, finest = self.network.decoder.stages(self.network.encode(images))
        logits = [self.network.predict(finest)]
        logits += [classify(stage) for classify, stage in zip(self.classifiers, coarser, strict=True)][::-1]
        return tuple(upsample(stage, images, align_corners=False) for stage in logits)
