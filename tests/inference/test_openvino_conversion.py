"""Programs that are converted without being traced again give PyTorch's results, and others are converted, too."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import _pytree

openvino = pytest.importorskip("openvino", reason="pip install 'refinenet-torch[openvino]'")

from refinenet.inference.backends.translation.bicubic import resize_bicubic  # noqa: E402 - after the check for OpenVINO
from refinenet.inference.backends.translation.openvino_conversion import convert_program  # noqa: E402 - needs OpenVINO


class _Block(nn.Module):
    """Every operation that is replaced, and a value that is read again after it was changed in place, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, stride=2, padding=1, groups=1)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.5)
        nn.init.normal_(self.norm.get_buffer("running_mean"))
        nn.init.uniform_(self.norm.get_buffer("running_var"), 0.5, 2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.norm(self.convolution(functional.pad(images, (1, 0, 2, 1))))
        rectified = functional.relu_(maps)
        pooled = functional.max_pool2d(self.dropout(rectified), 3, stride=1, padding=1)
        maps.add_(images[:, :1, :1, :1])
        return pooled + maps, (rectified * 100).to(torch.uint8)


class _Mirrored(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return functional.pad(images, (1, 2, 1, 2), mode="reflect") * 2


def check(module: nn.Module, shapes: Sequence[tuple[int, ...]]) -> None:
    free = torch.export.Dim.DYNAMIC
    sizes = {"images": {0: free, 2: free, 3: free}}
    program = torch.export.export(module.eval(), (torch.zeros(2, 3, 17, 21),), dynamic_shapes=sizes)
    converted = openvino.compile_model(convert_program(program), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for shape in shapes:
        images = torch.rand(shape, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            expected = module(images)
        for found, tensor in zip(converted([images.numpy()]).values(), _pytree.tree_leaves(expected), strict=True):
            torch.testing.assert_close(torch.from_numpy(found.copy()), tensor, rtol=1e-4, atol=1e-5)


def test_a_program_is_converted_without_being_traced_again(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.delattr(torch.export.ExportedProgram, "run_decompositions")
    check(_Block(), [(1, 3, 9, 12), (3, 3, 20, 7)])


def test_a_program_with_other_operations_is_converted() -> None:
    check(_Mirrored(), [(1, 3, 9, 12)])


class _Resized(nn.Module):
    """A position embedding at the size of the image, as in vision transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(1, 4, 5, 6, generator=torch.Generator().manual_seed(3)))

    def forward(self, images: Tensor) -> Tensor:
        size = [(side + 7) // 8 for side in images.shape[-2:]]
        return functional.interpolate(self.embedding, size=size, mode="bicubic", antialias=True)


def test_bicubic_resizing_with_antialiasing_is_converted() -> None:
    check(_Resized(), [(1, 3, 1, 2), (2, 3, 80, 30)])


@pytest.mark.parametrize("size", [(5, 6), (9, 2), (1, 40)])
def test_bicubic_resizing_is_that_of_pytorch(size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, 5, 6, generator=torch.Generator().manual_seed(4))
    expected = functional.interpolate(images, size=size, mode="bicubic", antialias=True)
    torch.testing.assert_close(resize_bicubic(images, size), expected, rtol=1e-4, atol=1e-5)
