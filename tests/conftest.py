"""What tests share: drawn pictures, a small model, and the command line run as users run it."""

from __future__ import annotations

import os

# Container images often forbid bytecode files; each of the processes that tests start would then compile PyTorch, timm
# and SymPy anew, which takes longer than all else that they do to start.
os.environ["PYTHONDONTWRITEBYTECODE"] = ""

# Before PyTorch is imported, here and in the processes that tests start: on a busy machine its threads wait for each
# other far longer than they work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Most tests make a network that nobody runs twice: translating each for OpenVINO would take minutes. Those of the
# default say so themselves.
os.environ["REFINENET_BACKEND"] = "pytorch"

import gc
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import warm_start
from drawn_streets import draw_street, keep_streets
from hostile_files import SECRET
from hostile_server import HostileServer, hostile_server
from PIL import Image

from refinenet import RefineNet
from refinenet.cli import main

# A shell's background jobs are born deaf to Ctrl-C, and their children, too: those of the tests are to hear it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

keep_streets()

# Nothing in the tests may reach for a network; a hub that is asked nevertheless says no at once.
os.environ["HF_HUB_OFFLINE"] = "1"

CommandLine = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session", autouse=True)
def _translations(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let all processes of the session find each other's translated networks; see `translations`."""
    root = tmp_path_factory.getbasetemp()
    shared = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    os.environ["REFINENET_CACHE"] = str(shared / "translations")


@pytest.fixture(scope="session")
def street() -> npt.NDArray[np.uint8]:
    """A drawn street, `(90, 120, 3)` uint8 RGB."""
    return draw_street(3, 90, 120)[0]


@pytest.fixture(scope="session")
def street_file(street: npt.NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn street as a JPEG file."""
    path = tmp_path_factory.mktemp("street") / "street.jpg"
    Image.fromarray(street).save(path, quality=95)
    return path


@pytest.fixture(scope="session")
def camvid_model() -> RefineNet:
    """The model that ships inside the package; tests only read it."""
    return RefineNet(model="camvid", device="cpu")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `a.jpg`, `b.png` (not an image), `c.png`, `deep/a.jpg`, `deep/er/d.jpg`."""
    root = tmp_path_factory.mktemp("pictures") / "in"
    for number, name in enumerate(("a.jpg", "c.png", "deep/a.jpg", "deep/er/d.jpg")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_street(number, 48, 64)[0]).save(root / name)
    (root / "b.png").write_bytes(b"no image")
    return root


@pytest.fixture
def here(tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a copy of the pictures but for the bad one."""
    shutil.copytree(pictures, tmp_path / "in")
    (tmp_path / "in" / "b.png").unlink()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def drawn_folder(tmp_path: Path) -> Path:
    """A folder of one's own with three classes, palette masks, and no splits."""
    root = tmp_path / "mine"
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for seed in range(6):
        image, labels = draw_street(seed, 60, 80)
        classes = np.select([labels == 0, labels == 3], [1, 2], 0).astype(np.uint8)
        Image.fromarray(image).save(root / "images" / f"{seed}.jpg")
        Image.fromarray(classes).save(root / "masks" / f"{seed}.png")
    (root / "classes.yaml").write_text("names: [other, sky, road]\n")
    return root


@pytest.fixture
def run_refinenet(tmp_path: Path) -> CommandLine:
    """Runs `refinenet ARGUMENTS` in a folder of its own and returns what it printed and its exit code."""

    def run(*arguments: str | Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "refinenet", *map(str, arguments)]
        return warm_start.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=timeout)

    return run


@pytest.fixture
def call_refinenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Runs `refinenet ARGUMENTS` in this process, in a folder of its own: where only its words and exit code matter."""

    def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        words = ["refinenet", *map(str, arguments)]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", words)
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ending:
            main()
        return subprocess.CompletedProcess(words, int(ending.value.code or 0), *capsys.readouterr())

    return call


LONGEST = (
    *("docs/test_page_examples", "deployment/test_ray_engine", "end_to_end/test_readme", "export/test_export"),
    *("export/test_quantisation", "export/test_recording", "export/test_exported_outputs", "inference/test_compiled"),
    *("hostile/test_hostile_exports", "datasets/test_mask_truth", "training/test_stages", "training/test_loader"),
    *("models/test_matconvnet", "training/test_distributed", "datasets/test_doctor_fix", "docs/test_notebooks"),
    *("datasets/test_doctor_targets", "inference/test_threads", "inference/test_openvino"),
    "models/test_published_encoders",
)
"""The files that take longest, the first most; `pytest --durations 0` and a glance once in a while keep this right."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files begin first, so that at the end no process waits long for another."""
    places = {f"tests/{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(LONGEST)))
    # A million objects of libraries and tests stay to the end. To look through them again and again, and to collect so
    # often, takes an eighth of the time in which PyTorch traces a network, which makes many more.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def pytest_unconfigure() -> None:
    """Free at the end what is to be freed: extension modules print what else they find left over."""
    gc.unfreeze()


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A file that hostile ones point to; it, and all that lies around, is afterwards as it was."""
    path = tmp_path / "canary.bin"
    path.write_text(SECRET * 1000)
    yield path
    assert path.read_text() == SECRET * 1000
    assert not any(tmp_path.rglob("made_by*"))


@pytest.fixture
def warm_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sandbox for exported files is forked from a process that has imported the engines; see `warm_start`."""
    monkeypatch.setattr(subprocess, "run", warm_start.run)


@pytest.fixture
def server() -> Iterator[HostileServer]:
    """A web server that behaves as badly as a test asks it to."""
    with hostile_server() as running:
        yield running
