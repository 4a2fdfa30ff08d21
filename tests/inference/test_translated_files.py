"""Model files whose translation is in the cache: they predict without PyTorch, and are networks when asked for one."""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from model_parts import NARROW_CARD, Parts, narrow_network
from translations import save_small, translated

import refinenet
from refinenet import RefineNet
from refinenet.datasets import draw_street
from refinenet.models.files.model_file import save
from refinenet.models.files.tensor_files import digest
from refinenet.models.recognition import recognise

pytest.importorskip("openvino")

STREET = draw_street(3, 72, 100)[0]
SEGMENT = """
import sys, json
import numpy as np
from refinenet import RefineNet
from refinenet.datasets import draw_street

r = RefineNet(model=sys.argv[1], device=sys.argv[2] or None)
labels = r.segment(draw_street(3, 72, 100)[0]).labels
had = "torch" in sys.modules
count = r.parameters
print(json.dumps([labels.tolist(), had, count, "torch" in sys.modules]))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file that was translated for OpenVINO."""
    return save_small(tmp_path_factory.mktemp("model") / "small.safetensors", "openvino")


def segment_elsewhere(model: Path | str, device: str = "") -> tuple[list[list[int]], bool, int, bool]:
    """Segment a street in a new process: labels, whether PyTorch was imported, parameters, and whether it is then."""
    done = subprocess.run(
        [sys.executable, "-c", SEGMENT, str(model), device],
        capture_output=True,
        check=True,
        env={**os.environ, "REFINENET_BACKEND": "openvino"},
    )
    labels, had, count, has = json.loads(done.stdout)
    return labels, had, count, has


@pytest.mark.parametrize("device", ["", "cpu"])
def test_a_translated_file_predicts_without_pytorch_what_pytorch_predicts(model: Path, device: str) -> None:
    if not device and torch.cuda.is_available():
        pytest.skip("the network would run on the GPU")
    labels, had_pytorch, parameters, has_pytorch = segment_elsewhere(model, device)
    network = RefineNet(model=model, backend="pytorch", device="cpu")
    assert np.mean(np.array(labels) == network.segment(STREET).labels) > 0.999
    assert (had_pytorch, has_pytorch) == (False, True)
    assert parameters == sum(each.numel() for each in narrow_network().parameters())


def test_the_bundled_model_needs_neither_pytorch_nor_a_translation() -> None:
    labels, had_pytorch, *_ = segment_elsewhere("camvid", "cpu")
    expected = RefineNet(model="camvid", backend="pytorch", device="cpu").segment(STREET).labels
    assert np.mean(np.array(labels) == expected) > 0.999
    assert not had_pytorch


def test_the_card_of_the_bundled_model_is_that_of_its_file() -> None:
    opened = RefineNet(model="camvid", device="cpu")
    card = opened.card
    assert card.int8 is not None
    assert card == RefineNet(model="camvid", backend="pytorch", device="cpu").card
    assert opened.network is not None
    assert opened.card == card


def test_damage_to_the_card_of_the_bundled_model_is_found(tmp_path: Path) -> None:
    """The graph beside the model file is sound, and runs only for the card that it was made with."""
    package = shutil.copytree(
        Path(refinenet.__file__).parent, tmp_path / "refinenet", ignore=shutil.ignore_patterns("__pycache__")
    )
    file = package / "models" / "pretrained" / "camvid.safetensors"
    content = file.read_bytes()
    damaged = content.replace(rb"\"Sky\"", rb"\"Sea\"", 1)
    assert damaged != content
    file.write_bytes(damaged)
    done = subprocess.run(
        [sys.executable, "-c", SEGMENT, "camvid", "cpu"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "REFINENET_BACKEND": "openvino"},
    )
    assert done.returncode == 1
    assert "camvid.safetensors" in done.stderr
    assert "it is damaged: its header has the SHA-256" in done.stderr


def test_a_file_that_was_not_translated_is_loaded(tmp_path: Path) -> None:
    network = narrow_network()
    with torch.no_grad():
        network.classifier.weight.mul_(0.5)
    save(tmp_path / "other.safetensors", network, NARROW_CARD, "float32")
    opened = RefineNet(model=tmp_path / "other.safetensors", backend="openvino", device="cpu")
    assert opened.network.state_dict().keys() == network.state_dict().keys()
    plain = RefineNet(model=tmp_path / "other.safetensors", backend="pytorch", device="cpu").segment(STREET)
    assert np.mean(opened.segment(STREET).labels == plain.labels) > 0.999


def test_changed_weights_change_the_prediction(model: Path) -> None:
    opened = RefineNet(model=model, backend="openvino", device="cpu")
    before = opened.segment(STREET)
    assert opened.card.weights_sha256
    bias = opened.network.classifier.bias
    assert bias is not None
    with torch.no_grad():
        bias[1] += 1000
    assert (opened.segment(STREET).labels == 1).all() > (before.labels == 1).all()
    assert opened.card.weights_sha256 == ""


def test_one_of_several_threads_loads_the_network(model: Path) -> None:
    opened = RefineNet(model=model, backend="openvino", device="cpu")
    with ThreadPoolExecutor(4) as threads:
        networks = list(threads.map(lambda _: opened.network, range(4)))
    assert all(each is networks[0] for each in networks)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])  # noqa: S301 - our own bytes
def test_copies_predict_the_same_and_have_a_network(model: Path, duplicate: object) -> None:
    opened = RefineNet(model=model, backend="openvino", device="cpu")
    copied = duplicate(opened)  # type: ignore[operator] # a function
    assert np.array_equal(copied.segment(STREET).labels, opened.segment(STREET).labels)
    assert copied.network is not opened.network


def test_new_class_names_survive_the_loading_of_the_network(model: Path) -> None:
    opened = RefineNet(model=model, backend="openvino", device="cpu")
    names = ("a", "b", "c")
    opened.label_set = type(opened.label_set)(names=names, colours=opened.label_set.colours)
    _ = opened.network
    assert opened.label_set.names == names


def test_a_damaged_file_is_refused_although_its_translation_is_there(model: Path, tmp_path: Path) -> None:
    content = bytearray(model.read_bytes())
    content[-3] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged\.safetensors is damaged: its weights have the SHA-256"):
        RefineNet(model=tmp_path / "damaged.safetensors", backend="openvino", device="cpu")


def test_a_header_that_contradicts_the_weights_is_refused(model: Path, tmp_path: Path) -> None:
    parts = Parts.read(model)
    parts.ours["preprocessing"]["mean"] = [0.1, 0.2, 0.3]
    parts.write(tmp_path / "other.safetensors")
    assert recognise(tmp_path / "other.safetensors") is None
    with pytest.raises(ValueError, match="is inconsistent: its header describes the preprocessing"):
        RefineNet(model=tmp_path / "other.safetensors", backend="openvino", device="cpu")


def test_the_network_of_a_file_in_half_precision_is_recognised(tmp_path: Path) -> None:
    network = narrow_network()
    save(tmp_path / "half.safetensors", network, NARROW_CARD, "float16")
    loaded = RefineNet(model=tmp_path / "half.safetensors", backend="pytorch", device="cpu")
    recognised = recognise(tmp_path / "half.safetensors")
    assert recognised is not None
    assert recognised[1] == digest(loaded.network.state_dict())
    assert recognised[0] == loaded.card


@pytest.mark.parametrize(
    "arguments",
    [{"outputs": "classes,depth:0.5:80"}, {"bands": "red,green,blue,nir:0:4095"}, {"backend": "pytorch"}],
)
def test_what_the_translation_cannot_do_loads_the_network(model: Path, arguments: dict[str, str]) -> None:
    opened = RefineNet(model=model, device="cpu", **{"backend": "openvino", **arguments})  # type: ignore[arg-type] # of several types
    names = [spec.name for spec in opened.outputs]
    assert names == (["classes", "depth"] if "outputs" in arguments else ["classes"])
    assert len(opened.card.architecture.band_names) == (4 if "bands" in arguments else 3)


def test_arguments_that_contradict_the_file_are_refused(model: Path) -> None:
    with pytest.raises(ValueError, match="num_classes"):
        RefineNet(model=model, num_classes=7, device="cpu", backend="openvino")


def test_translations_of_the_cache_are_those_of_the_same_weights(model: Path) -> None:
    recognised = recognise(model)
    assert recognised is not None
    assert recognised[1] == digest(narrow_network().state_dict())
    assert RefineNet(model=model, device="cpu")._weights_sha256 == recognised[0].weights_sha256
    assert translated(narrow_network()).kind == "openvino"


def test_a_file_that_has_changed_meanwhile_is_not_loaded_under_the_old_card(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    path.write_bytes(model.read_bytes())
    opened = RefineNet(model=path, backend="openvino", device="cpu")
    network = narrow_network()
    with torch.no_grad():
        network.classifier.weight.mul_(0.5)
    save(path, network, NARROW_CARD, "float32")
    with pytest.raises(ValueError, match=r"best\.safetensors has changed since it was opened: open it again"):
        _ = opened.network
    assert opened.segment(STREET).labels.shape == STREET.shape[:2]


def test_the_network_is_found_from_another_working_folder(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)
    opened = RefineNet(model=model.name, backend="openvino", device="cpu")
    monkeypatch.chdir(tmp_path)
    assert opened.parameters


def test_the_translation_goes_on_when_the_network_is_only_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    opened = RefineNet(model="camvid", device="cpu")
    before = opened.predict(STREET).labels
    assert opened.parameters
    assert np.array_equal(opened.predict(STREET).labels, before)
    assert "Preparing" not in capsys.readouterr().err
