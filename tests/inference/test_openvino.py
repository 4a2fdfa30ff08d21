"""OpenVINO gives PyTorch's answer, for every size and after every change of a weight, and keeps what it translated."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CommandLine
from model_parts import narrow_network
from PIL import Image
from torch.nn import functional
from translations import save_small, translated

from refinenet import RefineNet
from refinenet.datasets.street_scenes import draw_street
from refinenet.inference.backends import BACKENDS
from refinenet.inference.backends.exported import GraphBackend
from refinenet.inference.backends.fallback import AutoBackend
from refinenet.inference.backends.graph import Graph
from refinenet.inference.backends.pytorch import PyTorchBackend
from refinenet.inference.backends.translation.private_cache import read_cached, write_cached
from refinenet.inference.backends.translation.translated import TranslatedBackend
from refinenet.inference.backends.translation.translation_cache import read_or_translate
from refinenet.io.sealed_folder import write_checksummed
from refinenet.models.network import Network

pytest.importorskip("openvino", reason="pip install 'refinenet-torch[openvino]'")


@pytest.fixture(scope="module")
def backend() -> TranslatedBackend:
    translated(narrow_network())
    return TranslatedBackend(narrow_network(), "openvino")


def difference(backend: TranslatedBackend, shape: tuple[int, ...]) -> float:
    """The largest difference of logits from PyTorch's, as a share of their range."""
    images = torch.rand(shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = backend.network(images)
    found = functional.interpolate(backend(images), images.shape[-2:], mode="bilinear")
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / (expected.max() - expected.min()))


@pytest.mark.parametrize("shape", [(1, 3, 45, 70), (1, 3, 1, 1), (3, 3, 33, 8), (2, 3, 7, 129)])
def test_logits_are_those_of_pytorch_at_any_size(backend: TranslatedBackend, shape: tuple[int, ...]) -> None:
    assert difference(backend, shape) < 1e-4


def test_what_another_process_has_cached_meanwhile_is_kept_silently(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "cache" / "openvino" / ("0" * 32)
    write_cached({"graph.xml": b"first"}, folder)
    write_cached({"graph.xml": b"second"}, folder)
    assert read_cached(folder, "") == {"graph.xml": b"first"}
    assert capsys.readouterr().err == ""


def test_a_changed_weight_is_seen_and_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    translated(narrow_network())
    backend = TranslatedBackend(narrow_network(), "openvino")
    assert difference(backend, (1, 3, 20, 20)) < 1e-4
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REFINENET_CACHE", str(tmp_path / "file"))
    capsys.readouterr()
    with torch.no_grad():
        for bias in backend.network.classifier.parameters():
            bias.mul_(-2)
    assert difference(backend, (1, 3, 20, 20)) < 1e-4
    told = capsys.readouterr().err
    assert "Preparing the network" in told
    assert "cannot be cached" in told


def test_the_next_process_finds_it_and_a_damaged_one_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The time that a translation takes is saved: what translates here only says that it was asked."""
    good = translated(narrow_network())
    asked: list[Network] = []

    def translate(network: Network) -> Graph:
        asked.append(network)
        return good

    def read() -> dict[str, bytes]:
        return dict(read_or_translate(narrow_network(), translate, "openvino", "OpenVINO").files)

    monkeypatch.setenv("REFINENET_CACHE", str(tmp_path))
    assert read() == dict(good.files)
    assert (
        "Preparing the network for OpenVINO; this takes a few seconds. The result is cached for later runs."
        in capsys.readouterr().err
    )
    assert read() == dict(good.files)
    assert difference(TranslatedBackend(narrow_network(), "openvino"), (1, 3, 9, 9)) < 1e-4
    assert capsys.readouterr().err == ""
    (kept,) = (tmp_path / "openvino").glob("*/network.bin")
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1  # in the middle of a weight: only its hash tells
    kept.write_bytes(content)
    assert len(asked) == 1
    assert read() == dict(good.files)
    assert len(asked) == 2
    assert "damaged" in capsys.readouterr().err
    assert read() == dict(good.files)
    assert len(asked) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="the package keeps its identifier elsewhere")
@pytest.mark.parametrize(
    "function", ["inference.backends.graph.require_openvino", "export.quantisation.int8.require_nncf"]
)
def test_no_usage_data_are_sent(function: str, tmp_path: Path) -> None:
    """OpenVINO's telemetry writes an identifier and a count to the home folder when it is ready to send."""
    pytest.importorskip("nncf", reason="pip install 'refinenet-torch[int8]'")
    module, _, name = function.rpartition(".")
    code = f"import os; from refinenet.{module} import {name}; {name}(); print(os.environ.get('CI'))"
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "TF_BUILD", "JENKINS_URL")}
    environment["HOME"] = str(tmp_path)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"  # only the import is told that it is in continuous integration
    assert not (tmp_path / "intel").exists()


def test_bfloat16_is_close() -> None:
    translated(narrow_network())
    rough = TranslatedBackend(narrow_network(), "openvino", "bfloat16")
    assert difference(rough, (1, 3, 45, 70)) < 0.1


def test_the_command_line_writes_the_same_labels(run_refinenet: CommandLine, tmp_path: Path) -> None:
    Image.fromarray(draw_street(3, 90, 120)[0]).save(tmp_path / "street.png")
    save_small(tmp_path / "model.safetensors", "openvino")
    for backend in ("pytorch", "openvino"):
        options = ["--model", "model.safetensors", "--backend", backend, "-o", f"{backend}.png"]
        done = run_refinenet("deploy", "street.png", *options)
        assert done.returncode == 0, done.stderr
    first, second = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("pytorch", "openvino"))
    assert (first == second).mean() >= 0.999


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backend": "tensorflow"}, f"one of auto, {', '.join(BACKENDS)}, not 'tensorflow'"),
        ({"precision": "int4"}, "one of float32, bfloat16, float16, int8, not 'int4'"),
        (
            {"backend": "onnxruntime", "precision": "bfloat16"},
            "does not support bfloat16. Backends with their precisions: pytorch",
        ),
    ],
)
def test_what_no_backend_is_is_refused(options: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RefineNet(encoder="test_resnet", num_classes=2, **options)  # type: ignore[arg-type]


def test_by_default_a_cpu_runs_openvino_and_pytorch_where_that_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """And the environment says what is taken instead."""
    monkeypatch.delenv("REFINENET_BACKEND")
    path = save_small(tmp_path / "small.safetensors", "openvino")
    pixels = draw_street(1, 40, 60)[0]
    by_default, by_pytorch = RefineNet(model=path, device="cpu"), RefineNet(model=path, device="cpu", backend="pytorch")
    assert (by_default.segment(pixels).labels == by_pytorch.segment(pixels).labels).mean() >= 0.999
    assert isinstance(by_default._segmenter.backend, GraphBackend)
    _ = by_default.network
    engine = by_default._segmenter.backend
    assert isinstance(engine, AutoBackend)
    assert isinstance(engine._backend, TranslatedBackend)
    monkeypatch.setenv("REFINENET_BACKEND", "pytorch")
    assert isinstance(RefineNet(model=path, device="cpu")._segmenter.backend, PyTorchBackend)
    monkeypatch.delenv("REFINENET_BACKEND")
    odd = RefineNet(model=path, device="cpu")
    with torch.no_grad():
        for parameter in odd.network.classifier.parameters():
            parameter.mul_(2)  # not those weights whose translation is known, and the same labels
    # What is done hangs on the values in the maps, which no graph of them knows.
    odd.network.classifier.register_forward_hook(lambda *call: call[2] if float(call[2].sum()) > -1e30 else -call[2])
    capsys.readouterr()
    assert (odd.segment(pixels).labels == by_pytorch.segment(pixels).labels).all()
    assert "PyTorch runs the network instead." in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows separates the caches of users by other means")
def test_translations_that_another_user_could_have_changed_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their hashes prove nothing: whoever may write to a folder may compute them, too."""
    good = dict(translated(narrow_network()).files)
    translations: list[Network] = []

    def read() -> bytes:
        def translate(fused: Network) -> Graph:
            translations.append(fused)
            return Graph(good)

        network = narrow_network()
        return read_or_translate(network, translate, "openvino", "OpenVINO").files["network.bin"]

    planted = tmp_path / "open"
    monkeypatch.setenv("REFINENET_CACHE", str(planted))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert read() == read() == good["network.bin"]
    assert len(translations) == 1  # the second time it is cached
    (entry,) = (planted / "openvino").iterdir()
    shutil.rmtree(entry)
    write_checksummed(entry, 0, {**good, "network.bin": bytes(len(good["network.bin"]))})
    entry.chmod(0o777)
    capsys.readouterr()
    assert read() == good["network.bin"]
    assert "other users may write to" in capsys.readouterr().err
    planted.chmod(0o777)
    assert read() == read() == good["network.bin"]
    assert f"translated networks in {planted} are not used" in " ".join(capsys.readouterr().err.split())
    assert len(translations) == 3
    assert [path.name for path in (tmp_path / "home" / ".cache" / "refinenet").iterdir()] == ["openvino"]
