"""Every figure and picture of the README and the documentation, made anew.

    python docs/figures.py [--check] [NAME ...]      (make figures, make figures FIGURES=--check)

Without `--check`, the files are replaced. With it, they are made in a temporary folder, and the exit code is 1 if a
committed one is off by more than its tolerance: drawings must be the same byte for byte; for pictures that a model or a
browser made, the mean absolute difference of all values in [0, 255] counts, and the size must be the same.

The pictures of the tutorial come from its own Python block and its own commands.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
from block_drawings import drawings
from PIL import Image

from refinenet.cli.demo import demo
from refinenet.datasets import draw_street
from refinenet.datasets.catalog import open_dataset
from refinenet.datasets.contact_sheet import draw_contact_sheet

DOCS = Path(__file__).parent
sys.path += [str(DOCS.parent / "tests" / "helpers"), str(DOCS.parent / "benchmarks")]

TUTORIAL = DOCS / "tutorial.md"
TRAINING_EPOCHS = 4
"""Epochs of the training whose result is shown. Of the tutorial's eight, the fourth had the best validation mIoU."""
SHOWN = "0042"
"""The image of the validation split whose result is shown."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A file below `docs`, and how it is made."""

    path: str
    make: Callable[[Path, Path], None]
    """Writes the file, its first argument; the second is a folder that all figures of a call share."""
    tolerance: float = 0.0
    """Largest mean absolute difference of the committed picture, of 255; 0 for files that must be equal."""
    seconds: float = 0.0
    """About how long it takes on a core of its own."""


def _write_drawing(path: Path, _shared: Path) -> None:
    path.write_text(drawings()[path.name], "utf-8")


def _write_small(picture: Image.Image, path: Path) -> None:
    """Write a picture with a palette of 256 colours, a third of the size of one without."""
    picture.convert("RGB").quantize(256).save(path, optimize=True)


def _refinenet(*words: str, folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "refinenet", *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def make_demo(path: Path, _shared: Path) -> None:
    """Write what `refinenet demo` writes."""
    with redirect_stdout(StringIO()):
        demo(output=path)


def tutorial_folder(shared: Path) -> Path:
    """Return a folder in which the tutorial's first Python block was run, and so drew `mine`."""
    if not (shared / "mine").exists():
        block = re.search(r"^```python\n(.*?)^```", TUTORIAL.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
        assert block, f"{TUTORIAL} has no Python block"
        subprocess.run([sys.executable, "-c", block[1]], cwd=shared, check=True)
    return shared


def tutorial_command(verb: str) -> list[str]:
    """Return the arguments of the tutorial's `refinenet VERB`."""
    line = re.search(rf"^\$ refinenet ({verb} .*)$", TUTORIAL.read_text("utf-8"), flags=re.MULTILINE)
    assert line, f"{TUTORIAL} has no command 'refinenet {verb}'"
    return shlex.split(line[1])


def make_sheet(path: Path, shared: Path) -> None:
    """Write the contact sheet of the tutorial, with two images in a row instead of four."""
    count = tutorial_command("data info")[-1]
    training = open_dataset(tutorial_folder(shared) / "mine")("train")
    _write_small(Image.fromarray(draw_contact_sheet(training, count=int(count), columns=2)), path)


def make_deployed(path: Path, shared: Path) -> None:
    """Train, deploy, and write an image beside its overlay."""
    folder = tutorial_folder(shared)
    training = tutorial_command("train")
    training[training.index("--epochs") + 1] = str(TRAINING_EPOCHS)
    _refinenet(*training, folder=folder)
    _refinenet(*tutorial_command("deploy"), folder=folder)
    image = Image.open(folder / "mine" / "images" / "val" / f"{SHOWN}.png")
    overlay = Image.open(folder / "segmented" / "overlay" / f"{SHOWN}.png")
    both = np.concatenate([np.asarray(image.convert("RGB")), np.asarray(overlay.convert("RGB"))], axis=1)
    _write_small(Image.fromarray(both).resize((960, 360), Image.Resampling.BICUBIC), path)


def make_frontier(path: Path, _shared: Path) -> None:
    """Draw the stored results of `benchmarks/frontier.py`, which take hours to measure."""
    from frontier_results import Results

    Results.read(DOCS / "frontier.json").draw(path)


@contextmanager
def _serve(folder: Path, *words: str) -> Iterator[str]:
    """Run a command that serves a page on a free port, and yield its address, as a context."""
    command = [sys.executable, "-m", "refinenet", *words, "--port", "0"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found, "the server has not named its address"
        yield found[0]
    finally:
        process.terminate()
        process.wait()


@dataclass(frozen=True, kw_only=True)
class PageView:
    """How the page of the server is shown in a picture."""

    width: int
    height: int
    """Size of the window in CSS pixels."""
    scheme: str
    """Colours that the reader prefers: light or dark."""
    prepare: str
    """JavaScript that is run when the images are segmented."""


_DIVIDE = "const e = document.querySelector('.divider'); e.value = 35; e.dispatchEvent(new Event('input'));"
_COMPARE = """
    document.getElementById("compare").click();
    const view = document.querySelectorAll("[data-name=view]")[1];
    view.value = "confidence"; view.dispatchEvent(new Event("input"));
"""
PAGE_VIEWS = {
    "serve.png": PageView(width=1200, height=900, scheme="light", prepare=_DIVIDE),
    "serve-dark.png": PageView(width=1200, height=900, scheme="dark", prepare=_DIVIDE + _COMPARE),
    "serve-phone.png": PageView(width=360, height=780, scheme="light", prepare=_DIVIDE),
}
"""Views of the page by the names of their pictures."""


def make_page(path: Path, shared: Path) -> None:
    """Write what a browser shows of the server's page after images were chosen."""
    from chromium import open_chromium, resize

    view = PAGE_VIEWS[path.name]
    streets = [shared / f"street-{seed}.png" for seed in (8, 9, 10)]
    for seed, street in zip((8, 9, 10), streets, strict=True):
        Image.fromarray(draw_street(seed, 360, 480)[0]).save(street)
    with _serve(shared, "serve", "--model", "camvid") as address, open_chromium() as browser:
        scheme = {"name": "prefers-color-scheme", "value": view.scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        resize(browser, view.width, view.height)
        browser.get(address)
        browser.find_element("id", "file").send_keys("\n".join(map(str, streets)))
        end = time.monotonic() + 120
        while len(browser.find_elements("css selector", "#strip [data-state=done]")) < len(streets):
            assert time.monotonic() < end, browser.find_element("id", "error").text
            time.sleep(0.1)
        browser.execute_script(view.prepare)
        # Neither a scrollbar nor seconds, which differ each time.
        browser.execute_script("document.documentElement.style.overflow = 'hidden'; scrollTo(0, 0)")
        browser.execute_script(
            "const e = document.getElementById('status'); e.textContent = '480 × 360 pixels in 0.1 s.'"
        )
        browser.save_screenshot(str(shared / path.name))
    _write_small(Image.open(shared / path.name), path)


def make_corrector(path: Path, shared: Path) -> None:
    """Write what a browser shows of the corrector, with drafts of the bundled model."""
    from chromium import open_chromium, resize

    (shared / "streets").mkdir(exist_ok=True)
    for seed in (8, 9, 10):
        Image.fromarray(draw_street(seed, 360, 480)[0]).save(shared / "streets" / f"{seed:04d}.png")
    words = ("--model", "camvid", "--min-confidence", "0.6", "--output", "todo")
    _refinenet("label", "next", "streets", *words, folder=shared)
    with _serve(shared, "label", "correct", "todo") as address, open_chromium() as browser:
        resize(browser, 1200, 900)
        browser.get(address)
        end = time.monotonic() + 120
        while browser.find_element("id", "state").text != "draft":
            assert time.monotonic() < end, browser.find_element("id", "error").text
            time.sleep(0.1)
        browser.execute_script("document.querySelector('[data-tool=fill]').click()")
        browser.save_screenshot(str(shared / path.name))
    _write_small(Image.open(shared / path.name), path)


FIGURES = (
    *(
        Figure(path=f"images/{name}", make=_write_drawing)
        for name in (
            "network-full.svg",
            "network-lightweight.svg",
            "residual-conv-unit.svg",
            "fusion.svg",
            "chained-residual-pooling.svg",
        )
    ),
    # Fonts and antialiasing differ between versions of Matplotlib.
    Figure(path="images/frontier.png", make=make_frontier, tolerance=3.0),
    Figure(path="demo.png", make=make_demo, tolerance=1.0, seconds=5),
    Figure(path="images/sheet.png", make=make_sheet, tolerance=1.0, seconds=20),
    *(Figure(path=f"images/{name}", make=make_page, tolerance=3.0, seconds=15) for name in PAGE_VIEWS),
    Figure(path="images/corrector.png", make=make_corrector, tolerance=3.0, seconds=40),
    Figure(path="images/deployed.png", make=make_deployed, tolerance=4.0, seconds=240),
)
"""Another processor rounds otherwise and moves the outlines of classes by some pixels. Two trainings differ more, and
so do the fonts of browsers."""


def compare(committed: Path, made: Path, tolerance: float) -> str | None:
    """Compare a committed file with one made anew; return what is wrong, None if nothing is."""
    if not committed.is_file():
        return "is missing"
    if not tolerance:
        return None if committed.read_bytes() == made.read_bytes() else "differs"
    old, new = (np.asarray(Image.open(path).convert("RGB"), np.float32) for path in (committed, made))
    if old.shape != new.shape:
        return f"has {old.shape[1]}x{old.shape[0]} pixels, and {new.shape[1]}x{new.shape[0]} when made anew"
    difference = float(np.abs(old - new).mean())
    return f"is off by {difference:.2f}, more than {tolerance}" if difference > tolerance else None


def check(figure: Figure, shared: Path) -> str | None:
    """Make a figure anew in `shared`, and return what is wrong with the committed one, None if nothing is."""
    made = shared / "made" / Path(figure.path).name
    made.parent.mkdir(exist_ok=True)
    figure.make(made, shared)
    return compare(DOCS / figure.path, made, figure.tolerance)


def main() -> int:
    """Make or check the figures that the command line names, all by default."""
    parser = argparse.ArgumentParser(description="Make or check the figures of README and documentation.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as demo.png; by default all")
    parser.add_argument(
        "--check", action="store_true", help="compare with the committed files instead of replacing them"
    )
    options = parser.parse_args()
    by_name = {Path(figure.path).name: figure for figure in FIGURES}
    if unknown := set(options.names) - set(by_name):
        parser.error(f"no figure is called {', '.join(sorted(unknown))}; there are {', '.join(by_name)}")
    wrong = False
    with tempfile.TemporaryDirectory() as folder:
        for name in options.names or by_name:
            figure, start = by_name[name], time.monotonic()
            problem = None
            if options.check:
                problem = check(figure, Path(folder))
            else:
                figure.make(DOCS / figure.path, Path(folder))
            wrong |= problem is not None
            print(f"docs/{figure.path} {problem or 'ok'} ({time.monotonic() - start:.0f} s)", flush=True)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
