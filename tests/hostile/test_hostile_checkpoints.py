"""`torch.save` files from strangers: nothing in them is run, and every failure is one kind of error."""

import io
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from published import published_weights

from refinenet import RefineNet
from refinenet.models.files.tensor_files import read_checkpoint

Saver = Callable[[object, Path], None]


class Runs:
    """Unpickled, it calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.call


class SetsState:
    """Unpickled, it calls a function by the opcode BUILD."""

    def __init__(self, state: object) -> None:
        self.state = state

    def __reduce__(self) -> tuple[Any, ...]:
        return (Exception, (), {"attribute": self.state})


def payloads(canary: Path) -> dict[str, object]:
    """Objects that write `canary` when they are unpickled."""
    code = f"open({str(canary)!r}, 'w').close()"
    return {
        "os.system": Runs(os.system, f"touch '{canary}'"),
        "exec": Runs(exec, code),
        "eval": Runs(eval, code),
        "open": Runs(open, str(canary), "w"),
        "Path.touch": Runs(Path.touch, canary),
        "torch.save": Runs(torch.save, 1, str(canary)),
        "state": SetsState(Runs(exec, code)),
    }


def save_zip(content: object, path: Path) -> None:
    torch.save(content, path)


def save_legacy(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_pickle(protocol: int) -> Saver:
    def save(content: object, path: Path) -> None:
        path.write_bytes(pickle.dumps(content, protocol))

    return save


def save_before_a_checkpoint(content: object, path: Path) -> None:
    rest = io.BytesIO()
    torch.save({"segm.weight": torch.zeros(1)}, rest, _use_new_zipfile_serialization=False)
    path.write_bytes(pickle.dumps(content) + rest.getvalue())


SAVERS: dict[str, Saver] = {
    "zip": save_zip,
    "legacy": save_legacy,
    "before a checkpoint": save_before_a_checkpoint,
    **{f"pickle {protocol}": save_pickle(protocol) for protocol in range(6)},
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("saver", SAVERS)
@pytest.mark.parametrize("kind", payloads(Path()))
def test_code_in_a_model_file_is_never_run(kind: str, saver: str, suffix: str, tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / f"model{suffix}"
    content = {"model": {"segm.weight": torch.zeros(1)}, "epoch": payloads(canary)[kind]}
    SAVERS[saver](content if saver in ("zip", "legacy") else content["epoch"], path)
    with pytest.raises(ValueError, match="code in model files is never run"):
        RefineNet(model=path)
    with pytest.raises(ValueError, match="code in model files is never run"):
        RefineNet(encoder="mobilenetv2_100", encoder_weights=path)
    assert not canary.exists()


@pytest.mark.parametrize("kind", payloads(Path()))
def test_those_payloads_do_run_where_code_is_allowed(kind: str, tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "model.pth"
    torch.save({"epoch": payloads(canary)[kind]}, path)
    torch.load(path, weights_only=False)  # on purpose: else the canary's silence elsewhere would prove nothing
    assert canary.exists()


def test_hostile_names_cannot_steer_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(b"\x80\x02c\x1b[2J\x1b]0;title\x07\nsystem\n)R.")
    with pytest.raises(ValueError, match="never run") as refused:
        RefineNet(model=path)
    assert str(refused.value).isprintable()


def test_tensor_that_claims_terabytes_is_refused_by_its_shape(tmp_path: Path) -> None:
    weights = published_weights("lightweight_mobilenetv2_voc")
    path = tmp_path / "model.pth"
    torch.save({**weights, "conv8.weight": torch.zeros(1).expand(256, 320, 2**20, 2**20)}, path)
    with pytest.raises(ValueError, match=r"conv8\.weight \(256, 320, 1048576, 1048576\) instead of"):
        RefineNet(model=path)


def test_archive_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        with archive.open("archive/data/0", "w", force_zip64=True) as stream:
            for _ in range(33):
                stream.write(bytes(2**26))
    assert path.stat().st_size < 16 * 2**20
    with pytest.raises(ValueError, match="unpacked, it has 22"):
        RefineNet(model=path)


@pytest.mark.parametrize("content", [b"", b"\x00", b"PK\x03\x04", b"\x80\x02", b"{}", b"not a model at all\n" * 100])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_no_checkpoint_is_refused(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\."):
        RefineNet(model=path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_damaged_checkpoints_raise_one_kind_of_error(legacy: bool, tmp_path: Path) -> None:
    whole = io.BytesIO()
    content = {"state_dict": {f"layer.{index}": torch.ones(3) for index in range(5)}, "best": 0.5}
    torch.save(content, whole, _use_new_zipfile_serialization=not legacy)
    path, chance, survived = tmp_path / "model.pth", random.Random(3), 0
    for attempt in range(400):
        damaged = bytearray(whole.getvalue())
        if attempt % 4 == 0:
            del damaged[chance.randrange(len(damaged)) :]
        else:
            for _ in range(chance.randint(1, 3)):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            survived += all(isinstance(tensor, torch.Tensor) for tensor in read_checkpoint(path).values())
        except ValueError:
            continue
    assert survived < 390


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9])
def test_a_flipped_bit_in_an_archive_never_changes_weights(share: float, tmp_path: Path) -> None:
    path = tmp_path / "model.pth.tar"
    weights = {"layer": torch.arange(5000, dtype=torch.float32)}
    torch.save(weights, path)
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 0x40
    path.write_bytes(content)
    with suppress(ValueError):
        assert torch.equal(read_checkpoint(path)["layer"], weights["layer"])


def test_a_changed_weight_is_named_by_its_part(tmp_path: Path) -> None:
    path = tmp_path / "model.pth.tar"
    torch.save({"layer": torch.full((100,), 3.25)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(bytes(torch.full((2,), 3.25).numpy().tobytes())) + 1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"CRC-32 of its part '.*data/0' differs"):
        read_checkpoint(path)


def test_a_format_without_checksums_is_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save_legacy({"layer": torch.ones(3)}, tmp_path / "old.pth")
    read_checkpoint(tmp_path / "old.pth")
    assert "has no checksums" in capfd.readouterr().err
    save_zip({"layer": torch.ones(3)}, tmp_path / "new.pth")
    read_checkpoint(tmp_path / "new.pth")
    assert capfd.readouterr().err == ""


def test_no_flipped_bit_in_a_table_of_contents_changes_weights(tmp_path: Path) -> None:
    """Every bit of the entry of a tensor: one of them makes PyTorch take its part for a folder and read nothing."""
    path = tmp_path / "model.pth.tar"
    weights = torch.arange(1, 11, dtype=torch.float32)
    torch.save({"layer": weights}, path)
    content = bytearray(path.read_bytes())
    name = content.rindex(b"data/0")
    entry = content.rindex(b"PK\x01\x02", 0, name)
    for bit in range(8 * (name + 6 - entry)):
        content[entry + bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        with suppress(ValueError):
            assert torch.equal(read_checkpoint(path)["layer"], weights), bit
        content[entry + bit // 8] ^= 1 << bit % 8
