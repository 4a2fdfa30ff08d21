"""The table of backends: a row that nobody has built in is chosen, checked and replaced as the others are."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

import numpy as np
import pytest

from refinenet import RefineNet
from refinenet.inference import backends
from refinenet.inference.backends import BACKENDS, BackendSpec
from refinenet.inference.backends.base import BackendError, BackendName
from refinenet.io.arrays import Array

pytestmark = pytest.mark.filterwarnings("ignore:This network is untrained")
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)


class Powerless:
    """A backend that finds out at the first image that it cannot run the network."""

    device = "cpu"

    def __call__(self, images: Array) -> Array:
        raise BackendError("No power.")


def refuse(*_: Any) -> Any:
    raise BackendError("No power.")


def add_backend(monkeypatch: pytest.MonkeyPatch, **row: Any) -> None:
    """Put a row before the others."""
    spec = BackendSpec(**{"precisions": ("float32",), "package": "numpy", "is_fast_on_cpu": True, **row})
    rows: dict[Any, BackendSpec] = {"new": spec, **BACKENDS}
    monkeypatch.setattr(backends, "BACKENDS", rows)
    monkeypatch.delenv("REFINENET_BACKEND")


def open_small(**options: Any) -> RefineNet:
    return RefineNet(**{"encoder": "test_resnet", "num_classes": 3, "device": "cpu", "seed": 1, **options})


@pytest.mark.parametrize("open_it", [lambda *_: Powerless(), refuse], ids=["at the first image", "when opened"])
def test_pytorch_replaces_any_backend_that_auto_chose_and_that_fails(
    monkeypatch: pytest.MonkeyPatch, open_it: Callable[..., Any]
) -> None:
    expected = open_small(backend="pytorch").segment(IMAGE).labels
    add_backend(monkeypatch, open=open_it)
    model = open_small()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: model.segment(IMAGE).labels, range(8)))
    assert all((labels == expected).all() for labels in found)
    unpickled = pickle.loads(pickle.dumps(model))  # noqa: S301  (written here)
    for other in (copy.deepcopy(model), unpickled):
        assert (other.segment(IMAGE).labels == expected).all()
    with pytest.raises(BackendError, match="No power"):
        open_small(backend="new").segment(IMAGE)


def test_what_a_row_needs_is_checked_before_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    add_backend(monkeypatch, open=lambda *_: Powerless())
    with pytest.raises(
        ValueError, match="The backend new runs on the CPU, but the network is on meta: choose device='cpu'"
    ):
        open_small(backend="new", device="meta")
    with pytest.raises(ValueError, match="The backend onnxruntime runs on the CPU, but the network is on meta"):
        open_small(backend="onnxruntime", device="meta")
    monkeypatch.undo()
    add_backend(monkeypatch, open=lambda *_: Powerless(), package="no_such_package")
    with pytest.raises(ValueError, match="backend new needs no_such_package, which is not installed: pip install no_"):
        open_small(backend="new")
    assert (open_small().segment(IMAGE).labels == open_small(backend="pytorch").segment(IMAGE).labels).all()


def test_the_annotation_and_the_docstring_name_the_rows() -> None:
    assert get_args(BackendName) == tuple(BACKENDS)
    assert all(f'"{name}"' in str(RefineNet.__doc__) for name in BACKENDS)


def test_one_note_says_why(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    add_backend(monkeypatch, open=lambda *_: Powerless())
    model = open_small()
    capsys.readouterr()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: model.segment(IMAGE), range(8)))
    assert capsys.readouterr().err.count("No power. PyTorch runs the network instead.") == 1
