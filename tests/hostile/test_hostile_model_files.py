"""Damaged and hostile model files: an error that says what is wrong, never other weights than the saved ones."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from model_parts import CARD, Parts, small_network

from refinenet import RefineNet
from refinenet.models.files.model_file import load, save
from refinenet.models.files.tensor_files import digest


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model file, not to be changed."""
    path = tmp_path_factory.mktemp("good") / "model.safetensors"
    save(path, small_network(), CARD, "float16")
    return path


def refuse(path: Path, message: str) -> None:
    """Assert that a file is refused by name, for this reason, in words that are safe to print."""
    with pytest.raises(ValueError, match=message) as refused:
        RefineNet(model=path)
    assert str(path) in str(refused.value)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 3000


def test_bit_flips_are_noticed_or_harmless(good: Path, tmp_path: Path) -> None:
    content, expected = good.read_bytes(), digest(load(good)[0].state_dict())
    body = 8 + int.from_bytes(content[:8], "little")
    chance, path, noticed = random.Random(8), tmp_path / "flipped.safetensors", 0
    # Half of the 200 places in the header, which is one part in a hundred of the file.
    for place in [chance.randrange(body if attempt % 2 else len(content)) for attempt in range(200)]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        try:
            network, card = load(path)
        except ValueError:
            noticed += 1
            continue
        assert place < body, f"a change of the weights at byte {place} went unnoticed"
        assert digest(network.state_dict()) == expected
        assert replace(card, weights_sha256="") == CARD
    assert noticed >= 150


def test_truncations_are_noticed(good: Path, tmp_path: Path) -> None:
    content, path = good.read_bytes(), tmp_path / "cut.safetensors"
    body = 8 + int.from_bytes(content[:8], "little")
    lengths = {*range(10), body // 2, body - 1, body, body + 1, len(content) - 1, *range(0, len(content), 100_003)}
    for length in sorted(lengths):
        path.write_bytes(content[:length])
        refuse(path, "damaged|has 0 bytes|not a safetensors")


def test_trailing_bytes_are_noticed(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "long.safetensors"
    path.write_bytes(good.read_bytes() + b"\0")
    refuse(path, "damaged")


@pytest.mark.parametrize("length", [0, 1, 2**20, 10 * 2**20 + 1, 2**31, 2**63, 2**64 - 1])
def test_header_length_that_lies(length: int, good: Path, tmp_path: Path) -> None:
    path = tmp_path / "lie.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + good.read_bytes()[8:])
    refuse(path, "damaged")


@pytest.mark.parametrize(
    "header",
    [
        b"{", b"{]", b"{}", b'{"a": 1}', b"{\xff\xfe}", b"[" * 200_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"__metadata__": null}', b'{"__metadata__": {"refinenet": 5}}', b'{"__metadata__": {}, "__metadata__": {}}',
        b'{"a": {"dtype": "F4096", "shape": [1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [0, 9223372036854775808], "data_offsets": [0, 0]}}',
        b'{"a": {"dtype": "F32", "shape": [4194305, 4194305, 211106198978564], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, '
        b'"b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
    ],
)  # fmt: skip
def test_header_that_is_none(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "none.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    refuse(path, "damaged|not a usable model file of this package")


def test_tensor_named_twice_is_refused(good: Path, tmp_path: Path) -> None:
    content, path = good.read_bytes(), tmp_path / "twice.safetensors"
    end = 8 + int.from_bytes(content[:8], "little")
    mean = json.dumps(json.loads(content[8:end])["mean"])
    header = content[8:end].rstrip()[:-1] + b', "mean": ' + mean.encode() + b"}"
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[end:])
    refuse(path, "a name occurs twice")


def set_first_value(parts: Parts, name: str, value: float) -> None:
    place = parts.header[name]
    assert place["dtype"] == "F32"
    start = place["data_offsets"][0]
    parts.body = parts.body[:start] + np.float32(value).tobytes() + parts.body[start + 4 :]


def rename(parts: Parts, old: str, new: str) -> None:
    parts.header[new] = parts.header.pop(old)


def reshape(parts: Parts, name: str, shape: list[int]) -> None:
    parts.header[name]["shape"] = shape


TENSOR_LIES: dict[str, tuple[Callable[[Parts], None], str]] = {
    "nan": (lambda parts: set_first_value(parts, "classifier.bias", np.nan), r"not finite numbers: classifier\.bias"),
    "infinity": (lambda parts: set_first_value(parts, "std", np.inf), "not finite numbers: std"),
    "changed": (lambda parts: set_first_value(parts, "classifier.bias", 9.5), "damaged: its weights have the SHA-256"),
    "renamed": (lambda parts: rename(parts, "classifier.bias", "classifier.b\x1b[2Jias"),
                r"1 missing: classifier\.bias; 1 unexpected: classifier\.b\\x1b\[2Jias"),
    "misshapen": (lambda parts: reshape(parts, "mean", [3]), r"mean \(3,\) instead of \(3, 1, 1\)"),
    "swapped axes": (lambda parts: reshape(parts, "classifier.weight", [256, 3, 3, 3]),
                     r"classifier\.weight \(256, 3, 3, 3\) instead of \(3, 256, 3, 3\)"),
    "retyped": (lambda parts: parts.header["classifier.bias"].update(dtype="I32"), r"classifier\.bias torch\.int32"),
    "bfloat16 for float16": (lambda parts: parts.header["classifier.weight"].update(dtype="BF16"), "SHA-256"),
}  # fmt: skip


@pytest.mark.parametrize("lie", TENSOR_LIES)
def test_lies_about_tensors(lie: str, good: Path, tmp_path: Path) -> None:
    change, message = TENSOR_LIES[lie]
    parts, path = Parts.read(good), tmp_path / "lie.safetensors"
    change(parts)
    parts.write(path)
    refuse(path, message)


def test_missing_and_extra_tensors_are_named(good: Path, tmp_path: Path) -> None:
    tensors = safetensors.torch.load(good.read_bytes())
    ours = {**Parts.read(good).ours, "format_version": 1}
    del ours["header_sha256"]
    metadata = {"refinenet": json.dumps(ours)}
    path = tmp_path / "other.safetensors"
    del tensors["std"], tensors["classifier.bias"]
    tensors["depth.bias"] = torch.zeros(3)
    safetensors.torch.save_file(tensors, path, metadata)
    refuse(path, r"2 missing: classifier\.bias, std; 1 unexpected: depth\.bias")


# Where in our JSON, what comes there instead (None takes it out), and what the error says.
HEADER_LIES: list[tuple[str, Any, str]] = [
    ("unknown", 1, "exactly the entries"),
    ("scores", None, "exactly the entries"),
    ("format_version", 4, "format version is 4, this package reads 1, 2 and 3"),
    ("format_version", 0, "format version is 0"),
    ("format_version", "1", "format version is '1'"),
    ("format_version", 1.0, "format version is 1.0"),
    ("format_version", True, "format version is True"),
    ("format_version", None, "format version is None"),
    ("format_version", "\x1b[2J" * 10**5, r"format version is '\\x1b\[2J"),
    ("licence", 5, "'licence' is not a str"),
    ("scores", [], "'scores' is not a dict"),
    ("architecture", "resnet50", "'architecture' is not a dict"),
    ("preprocessing", "none", "'preprocessing' is not a dict"),
    ("weights_sha256", "0" * 64, "header says 0000"),
    ("weights_sha256", "", "header says"),
    ("architecture.depth", 50, "depth"),
    ("architecture.encoder", None, "encoder"),
    ("architecture.encoder", ["test_resnet"], "encoder must be a timm model name"),
    ("architecture.encoder", "../../etc/passwd", "no encoder named"),
    ("architecture.encoder", "https://example.org/model", "no encoder named"),
    ("architecture.encoder", "mixer_s32_224", "does not fit"),
    ("architecture.encoder", "vit_tiny_patch16_224", "do not fit"),
    ("architecture.encoder", "x" * 10**6, "no encoder named"),
    ("architecture.encoder", "resnet50", "do not fit"),
    ("architecture.model_type", "full", "do not fit"),
    ("architecture.model_type", "huge", "model_type must be one of"),
    ("architecture.model_type", {}, "model_type must be one of"),
    ("architecture.num_classes", 4, "label set names 3 classes, but the network has 4"),
    *((("architecture.num_classes", value, "num_classes must be a whole number from 1 to 65535"))
      for value in (10**9, 0, -1, 1.5, 3.0, "3", True, [3], 10**400)),
    ("label_set.names", ["road", "sky"], "names and 3 colours"),
    ("label_set.names", ["road", "sky", "a\x1b[31mb"], "class 2"),
    ("label_set.names", ["road", "sky", "nul\0"], "class 2"),
    ("label_set.names", ["road", "sky", "new\nline"], "class 2"),
    ("label_set.names", ["road", "sky", "\u202eright to left"], "class 2"),
    ("label_set.names", ["road", "sky", " "], "class 2"),
    ("label_set.names", ["road", "sky", "x" * 10**6], "class 2"),
    ("label_set.names", ["road", "sky", "sky"], "more than once"),
    ("label_set.names", ["road", "sky", 5], "class 2"),
    ("label_set.names", "abc", "must be lists"),
    ("label_set.colours", [[0, 0, 0], [0, 0, 256], [1, 2, 3]], "colour of class 1"),
    ("label_set.ignore_index", 0, "ignore index"),
    ("label_set.extra", 0, "exactly the keys"),
    ("preprocessing.channel_order", "BGR", "is inconsistent"),
    ("preprocessing.mean", [0.485, 0.456, 0.406], "is inconsistent"),
]  # fmt: skip


@pytest.mark.parametrize(("where", "value", "message"), HEADER_LIES)
def test_lies_in_our_header(where: str, value: Any, message: str, good: Path, tmp_path: Path) -> None:
    parts, path = Parts.read(good), tmp_path / "lie.safetensors"
    section, _, key = where.rpartition(".")
    target = parts.ours[section] if section else parts.ours
    if value is None:
        del target[key]
    else:
        target[key] = value
    parts.write(path)
    refuse(path, message)


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "5", "{", '{"format_version": 1, "format_version": 1}', "[" * 10**5, '{"a":' * 10**5],
)
def test_our_header_that_is_none(text: str, good: Path, tmp_path: Path) -> None:
    path = tmp_path / "none.safetensors"
    Parts.read(good).write_texts(path, text)
    refuse(path, "not a usable model file of this package")


def test_not_a_number_in_our_header_is_refused(good: Path, tmp_path: Path) -> None:
    parts, path = Parts.read(good), tmp_path / "nan.safetensors"
    parts.ours["scores"]["miou"] = float("nan")
    parts.write(path)
    refuse(path, "NaN is not a JSON number")


def test_file_put_together_again_is_the_same_model(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "again.safetensors"
    Parts.read(good).write(path)
    assert digest(load(path)[0].state_dict()) == digest(load(good)[0].state_dict())


@pytest.mark.parametrize("text", [b"Stra", b"road", b"BSD-3", b"0.6625", b"0.0005", b"epochs", b"128", b"255", b"1.0"])
def test_every_word_of_the_header_is_sealed(text: bytes, good: Path, tmp_path: Path) -> None:
    content, path = bytearray(good.read_bytes()), tmp_path / "flipped.safetensors"
    content[content.index(text) + len(text) - 1] ^= 1
    path.write_bytes(content)
    refuse(path, "damaged|is inconsistent|not a usable model file")


def test_a_header_without_its_hash_is_refused(good: Path, tmp_path: Path) -> None:
    parts, path = Parts.read(good), tmp_path / "unsealed.safetensors"
    del parts.ours["header_sha256"]
    parts.write(path)
    refuse(path, "no 'header_sha256'")
    parts.ours |= {"format_version": 1, "licence": "another"}
    parts.write(path)
    assert RefineNet(model=path).card.licence == "another"  # version 1 had no hash, and is read as before
    parts.ours["header_sha256"] = "0" * 64  # a damaged version number does not open a sealed header
    parts.write(path)
    refuse(path, "exactly the entries")
