"""Examples at the end of each command's help, and names that other programs use for the commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typer.core import TyperGroup

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "train": (
        "refinenet train --dataset mine --model camvid --recipe few_images",
        "refinenet train -d mine --epochs 100 --set optimiser=sgd -o runs/mine",
        "refinenet train --resume runs/mine",
        "refinenet train --continue runs/mine --dataset grown",
    ),
    "pretrain": ("refinenet pretrain my_images --encoder mobilenetv2_100 --output runs/encoder",),
    "eval": (
        "refinenet eval -d mine -m runs/mine/best.safetensors --report report",
        "refinenet eval --compare before.json after.json",
    ),
    "calibrate": ("refinenet calibrate -d mine -m mine.safetensors -o calibrated.safetensors",),
    "deploy": (
        "refinenet deploy photo.jpg --kind overlay",
        "refinenet deploy photos -o results -m mine.safetensors --table areas.csv",
        "refinenet deploy ortho.tif --output labels.tif",
        "refinenet deploy drive.mp4 --output overlay.mp4 --steady",
        "refinenet deploy camera:0 --display",
    ),
    "serve": ("refinenet serve --model mine.safetensors --port 8000",),
    "export": ("refinenet export mine.onnx --model mine.safetensors --dataset mine",),
    "quantise": ("refinenet quantise mine.safetensors --dataset mine",),
    "convert": ("refinenet convert rf_lw50_voc.pth.tar voc.safetensors --classes voc",),
    "info": ("refinenet info", "refinenet info mine.safetensors"),
    "push": ("refinenet push mine.safetensors owner/name",),
    "pull": ("refinenet pull owner/name@v1 --output theirs.safetensors",),
    "demo": ("refinenet demo --output street.png --seed 3",),
    "label next": (
        "refinenet label next photos -m mine.safetensors --count 50 -o todo",
        "refinenet label next photos -m mine.safetensors --labelled mine",
    ),
    "label errors": (
        "refinenet label errors mine --folds 5 -o suspects",
        "refinenet label errors mine -m runs/other/best.safetensors",
    ),
    "data list": ("refinenet data list",),
    "data prepare": ("refinenet data prepare camvid",),
    "data info": ("refinenet data info mine --sheet sheet.png",),
    "data check": ("refinenet data check mine --fix mine_repaired",),
    "label write": (
        "refinenet label write photographs -m mine.safetensors -o todo",
        "refinenet label write photographs -o todo --format labelme --simplify 2",
    ),
    "label correct": ("refinenet label correct todo",),
    "label take": (
        "refinenet label take export.zip --drafts todo --into mine",
        "refinenet label take todo --into mine",
        "refinenet label take decisions.csv --drafts suspects --into mine",
    ),
    "data split": ("refinenet data split mine --val 0.2 --test 0.1",),
}
"""Examples that can be typed as they stand, by the name of the command."""

OTHER_WORDS: Mapping[str, str] = {
    **dict.fromkeys(("predict", "segment", "infer", "inference", "detect", "run"), "deploy"),
    **dict.fromkeys(("evaluate", "val", "validate", "test", "compare"), "eval"),
    **dict.fromkeys(("fit", "finetune", "fine-tune", "resume"), "train"),
    **dict.fromkeys(("datasets", "dataset"), "data list"),
    **dict.fromkeys(("check", "doctor"), "data check"),
    "split": "data split",
    "prepare": "data prepare",
    "download": "data prepare",
    **dict.fromkeys(("quantize", "int8"), "quantise"),
    **dict.fromkeys(("upload", "share"), "push"),
    "version": "--version",
    "help": "--help",
}
"""Words that users of other programs try, with the command that does the same here."""


def epilog(command: str) -> str:
    """Return the end of a command's help: its examples, one per line."""
    shown = EXAMPLES[command]
    return "\n\n".join([f"Example{'s' if len(shown) > 1 else ''}:", *(f"  {example}" for example in shown)])


class Commands(TyperGroup):
    """The commands, which recognise their names in other programs."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return a command by its name; for another word, name the command that is probably meant."""
        if args and args[0] not in self.commands and args[0] in OTHER_WORDS:
            ctx.fail(f"There is no command {args[0]!r}. You may want: refinenet {OTHER_WORDS[args[0]]}")
        return super().resolve_command(ctx, args)
