"""Mutations of files that this package reads: each is refused, or everything read is as it was.

python tests/faults/mutations.py 10000 1        # count of each kind of file, seed
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from refinenet.export.loading.checksum import is_sealed
from refinenet.export.loading.loader import _check_certificate, _read
from refinenet.export.loading.onnx import check_onnx
from refinenet.export.loading.openvino import check_openvino
from refinenet.inference.backends.translation import private_cache
from refinenet.io.sealed_folder import read_checksummed, write_checksummed
from refinenet.labels import LabelSet
from refinenet.models.architecture import Architecture
from refinenet.models.files.model_card import ModelCard, read_header
from refinenet.models.files.model_file import load, save
from refinenet.models.files.tensor_files import digest, read_checkpoint
from refinenet.models.network import Network

STORED = Path(__file__).parents[1] / "stored" / "1.0.0a1.tar.xz"
CARD = ModelCard(
    architecture=Architecture(model_type="lightweight", encoder="test_resnet", num_classes=3),
    label_set=LabelSet(names=("road", "sky", "Straße"), colours=((128, 64, 128), (70, 130, 180), (1, 2, 3))),
    scores={"miou": 0.6625, "split": "val"},
    licence="BSD-3-Clause",
    recipe={"epochs": 3},
    temperature=1.25,
)


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Flip a bit, replace a byte, cut, insert, swap two blocks, or double one; half near the start or the end."""
    size, changed = len(content), bytearray(content)
    near = min(size, 20_000)
    place = chance.choice((chance.randrange(size), chance.randrange(near), size - 1 - chance.randrange(near)))
    length = chance.choice((1, 8, 100, 5000))
    kind = chance.choice(("flip", "replace", "cut", "insert", "swap", "double"))
    if kind == "flip":
        changed[place] ^= 1 << chance.randrange(8)
    elif kind == "replace":
        changed[place] = chance.randrange(256)
    elif kind == "cut":
        del changed[place:]
    elif kind == "insert":
        changed[place:place] = chance.randbytes(length)
    elif kind == "swap":
        other = chance.randrange(size)
        first, second = sorted((place, other))
        length = min(length, second - first, size - second)
        changed[first : first + length], changed[second : second + length] = (
            changed[second : second + length],
            changed[first : first + length],
        )
    else:
        changed[place:place] = changed[place : place + length]
    return bytes(changed)


def read_model(path: Path) -> object:
    network, card = load(path)
    return digest(network.state_dict()), card


def read_published(path: Path) -> object:
    return digest(read_checkpoint(path))


def read_run(path: Path) -> object:
    return read_checksummed(path.parent)


def read_cache(path: Path) -> object:
    files = private_cache.read_cached(path.parent, "it is translated again")
    if files is None:
        raise ValueError("it is translated again")
    return files


def read_export(path: Path) -> object:
    """Check an exported file as `loader.open_exported`, without a process for each."""
    name = path.name.removesuffix(".certificate.json")
    graph = path.with_name(name).with_suffix(".onnx" if "onnx" in name else ".xml")
    files = _read(graph)
    _check_certificate(graph, files)
    checked = (check_onnx if len(files) == 1 else check_openvino)(*files.values())
    is_sealed(list(files.values()), checked.entries)
    card, preprocessing = read_header({"refinenet": checked.header})
    return checked.files, checked.result, checked.channels, card, json.dumps(preprocessing)


def mutate_each(path: Path, read: Callable[[Path], object], number: int, seed: int) -> Iterator[str]:
    """Yield for each mutation of a file whether it was refused, made no difference, or changed something silently."""
    beside = {other: other.read_bytes() for other in path.parent.iterdir()}
    expected, chance = read(path), random.Random(seed)
    for _ in range(number):
        path.parent.mkdir(exist_ok=True)
        for other, content in beside.items():
            other.write_bytes(mutate(content, chance) if other == path else content)
            other.chmod(0o600)
        try:
            yield "equal" if read(path) == expected else "SILENT"
        except ValueError:
            yield "refused"
        except Exception as error:  # noqa: BLE001 - what else is raised is what is looked for
            yield f"CRASH {error!r}"[:200]
    path.parent.mkdir(exist_ok=True)
    for other, content in beside.items():
        other.write_bytes(content)


def mutate_all(kinds: Sequence[str], number: int, seed: int, results: Connection) -> None:
    """Send the kind of file and what became of each mutation."""
    sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  (of this process, to its end)
    with tempfile.TemporaryDirectory() as name:
        files = make_files(Path(name))
        for kind in kinds or files:
            results.send((kind, "begun"))
            for found in mutate_each(*files[kind], number, seed):
                results.send((kind, found))
        results.send(("", "ended"))


def run(number: int, seed: int, kinds: Sequence[str] = ()) -> dict[str, Counter[str]]:
    """Count what became of the mutations of each kind of file, or of some.

    They are read in a process of their own, so that a crash of the interpreter is counted, too; it ends the count.
    """
    table: dict[str, Counter[str]] = {}
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=mutate_all, args=(kinds, number, seed, sender))
    process.start()
    sender.close()
    kind, found = "", ""
    try:
        while found != "ended":
            kind, found = receiver.recv()
            if found == "begun":
                table[kind] = Counter()
            elif kind:
                table[kind][found] += 1
    except EOFError:
        table.setdefault(kind, Counter())["CRASH of the process"] += 1
    process.join()
    return table


def make_files(folder: Path) -> dict[str, tuple[Path, Callable[[Path], object]]]:
    """A good file of each kind, in folders apart, and what reads it."""
    for name in ("model", "published", "onnx", "xml"):
        (folder / name).mkdir()
    save(folder / "model" / "model.safetensors", Network(CARD.architecture), CARD, "float16")
    weights = {f"layer{k}": torch.randn(50, 20) for k in range(20)}
    torch.save({"state_dict": weights}, folder / "published" / "published.pth")
    for name in ("step", "cache"):
        content = random.Random(0).randbytes(20_000)
        write_checksummed(folder / name, 7, {"network.xml": content[:9000], "network.bin": content})
    (folder / "cache").chmod(0o700)
    with tarfile.open(STORED) as archive:
        for member in archive.getmembers():
            file = Path(member.name).name
            stored = archive.extractfile(member)
            if file.startswith("exported.") and stored is not None:
                kind = "onnx" if "onnx" in file else "xml"
                (folder / kind / file).write_bytes(stored.read())
    return {
        "model file": (folder / "model" / "model.safetensors", read_model),
        "published archive": (folder / "published" / "published.pth", read_published),
        "run checkpoint": (folder / "step" / "network.bin", read_run),
        "run checkpoint's checksums": (folder / "step" / "meta.json", read_run),
        "translation cache": (folder / "cache" / "network.xml", read_cache),
        "translation cache's checksums": (folder / "cache" / "meta.json", read_cache),
        ".onnx": (folder / "onnx" / "exported.onnx", read_export),
        ".onnx's certificate": (folder / "onnx" / "exported.onnx.certificate.json", read_export),
        ".xml": (folder / "xml" / "exported.xml", read_export),
        ".bin": (folder / "xml" / "exported.bin", read_export),
        ".xml's certificate": (folder / "xml" / "exported.xml.certificate.json", read_export),
    }


if __name__ == "__main__":
    for kind, found in run(int(sys.argv[1]), int(sys.argv[2]), tuple(sys.argv[3:])).items():
        print(kind, dict(found), flush=True)
