"""Try an installed package where its checkout is not: own data from the first check to an exported file.

Run by hand and by the workflows, in an empty folder: python installed.py
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

import refinenet
from refinenet import RefineNet
from refinenet.datasets import draw_street

HERE = Path.cwd()
MODEL = "runs/mine/best.safetensors"
COMMANDS = (
    "demo",
    "data check mine",
    "train --recipe few_images --dataset mine --model camvid --output runs/mine --set epochs=1 --set crop_size=[64,64]"
    " --set batch_size=2 --set workers=0",
    f"eval --dataset mine --model {MODEL} --report report",
    f"deploy mine/images --model {MODEL} --output segmented --kind labels --kind overlay",
    f"export mine.onnx --model {MODEL} --size 128x96",
    "deploy mine/images/0001.png --model mine.onnx --output again.png",
)
"""Arguments of `refinenet`; the last two need the extra `export`."""
RESULTS = (
    "demo.png",
    MODEL,
    "report/report.html",
    "segmented/overlay/0001.png",
    "mine.onnx.certificate.json",
    "again.png",
)


def draw_data(folder: Path, number: int = 8) -> None:
    """Draw streets, with their label maps and class names, in the layout of a folder of one's own."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for seed in range(number):
        image, labels = draw_street(seed=seed, height=96, width=128)
        Image.fromarray(image).save(folder / "images" / f"{seed:04}.png")
        Image.fromarray(labels).save(folder / "masks" / f"{seed:04}.png")
    names = RefineNet(model="camvid", device="cpu").label_set.names
    (folder / "classes.yaml").write_text(f"names: [{', '.join(names)}]\n", "utf-8")


def main() -> None:
    """Run the commands, with the seconds of each; exits with an error where one fails or leaves no result."""
    place = Path(refinenet.__file__).parent
    if HERE in place.parents:
        sys.exit(f"{place} lies below {HERE}: run this where the checkout is not.")
    print(f"refinenet {refinenet.__version__} of {place}, Python {sys.version.split()[0]}", flush=True)
    draw_data(HERE / "mine")
    for command in COMMANDS:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "refinenet", *command.split()], check=True, stdout=subprocess.DEVNULL)
        print(f"{time.perf_counter() - start:6.1f} s  refinenet {command}", flush=True)
    missing = [name for name in RESULTS if not (HERE / name).exists()]
    if missing:
        sys.exit(f"Missing: {', '.join(missing)}")


if __name__ == "__main__":
    main()
