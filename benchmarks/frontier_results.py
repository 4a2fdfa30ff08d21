"""Results of `frontier.py` in one file, their table, and accuracy against time as a picture."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

COLUMNS = ("network", "encoder", "parameters", "multiply-adds", "mIoU val, %")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A network of the comparison; what was not measured is empty or None."""

    name: str
    encoder: str
    """timm name."""
    is_ours: bool
    is_size: bool = False
    """Whether it is one of our sizes, which a line joins in the picture."""
    mious: tuple[float, ...] = ()
    """mIoU in [0, 1] on the validation split, for each seed."""
    parameters: int | None = None
    multiply_adds: int | None = None
    """Of an image of the timed size."""
    milliseconds: dict[str, float] | None = None
    """By precision."""
    ratio: float | None = None
    """Time of the published network in float32 over this one's, both in the same run."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """All networks, and the conditions under which they were trained and timed."""

    trained: str
    """Images, epochs and crops."""
    timed: str
    """Size of the timed image, runtime and threads; empty if nothing was timed."""
    entries: tuple[Entry, ...]

    def write(self, path: Path) -> None:
        """Write what `read` reads."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", "utf-8")

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read a file of results."""
        found = json.loads(path.read_text("utf-8"))
        entries = (Entry(**{**each, "mious": tuple(each["mious"])}) for each in found["entries"])
        return cls(trained=found["trained"], timed=found["timed"], entries=tuple(entries))

    def tabulate(self, precisions: tuple[str, ...]) -> list[list[str]]:
        """Return the rows of a table: `COLUMNS`, milliseconds by precision, speed against the published network."""
        return [_tabulate(entry, precisions) for entry in self.entries]

    def draw(self, path: Path) -> None:
        """Draw accuracy against time: our sizes joined by a line, peers as grey points."""
        from matplotlib import rc_context
        from matplotlib.figure import Figure

        with rc_context({"svg.hashsalt": "frontier"}):
            figure = Figure(figsize=(7, 4.5), layout="constrained")
            axes = figure.subplots()
            known = [entry for entry in self.entries if entry.mious and entry.milliseconds]
            sizes = sorted((entry for entry in known if entry.is_size), key=_time)
            axes.plot(
                [*map(_time, sizes)],
                [*map(_score, sizes)],
                "o-",
                color="tab:blue",
                label="RefineNet, by size",
                zorder=3,
            )
            _draw_points(axes, [entry for entry in known if not entry.is_size])
            for entry in known:
                weight = "bold" if entry.is_size else "normal"
                place = (_time(entry), _score(entry))
                axes.annotate(entry.name, place, xytext=(6, 4), textcoords="offset points", fontsize=9, weight=weight)
            axes.set_xscale("log")
            ticks = (20, 30, 40, 50, 60, 80, 100, 120, 150, 200, 300)
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.set_xticks([], minor=True)
            times = [_time(entry) for entry in known] or [50.0]
            axes.set_xlim(0.85 * min(times), 1.3 * max(times))
            axes.set_xlabel(f"milliseconds ({self.timed}, float32)")
            axes.set_ylabel(f"mIoU %, {self.trained}", fontsize=8)
            axes.grid(alpha=0.3, which="both")
            axes.legend(loc="lower center")
            figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw_points(axes: Any, entries: list[Entry]) -> None:
    for is_ours, label, colour, marker in (
        (True, "RefineNet on MobileNetV2", "tab:blue", "s"),
        (False, "other decoders", "tab:gray", "D"),
    ):
        chosen = [entry for entry in entries if entry.is_ours == is_ours]
        if chosen:
            style = {"color": colour, "markerfacecolor": "none", "label": label}
            axes.plot([*map(_time, chosen)], [*map(_score, chosen)], marker, **style)


def _tabulate(entry: Entry, precisions: tuple[str, ...]) -> list[str]:
    mious, times = entry.mious, entry.milliseconds or {}
    spread = f" ±{50 * (max(mious) - min(mious)):.1f}" if len(mious) > 1 else ""
    return [
        ("ours, " if entry.is_ours else "") + entry.name,
        entry.encoder,
        "" if entry.parameters is None else f"{entry.parameters / 1e6:.2f} M",
        "" if entry.multiply_adds is None else f"{entry.multiply_adds / 1e9:.2f} G",
        f"{100 * statistics.fmean(mious):.1f}{spread}" if mious else "",
        *(f"{times[key]:.1f}" if key in times else "" for key in precisions),
        "" if entry.ratio is None else f"{entry.ratio:.2f}x",
    ]


def _time(entry: Entry) -> float:
    assert entry.milliseconds
    return entry.milliseconds["float32"]


def _score(entry: Entry) -> float:
    return 100 * statistics.fmean(entry.mious)
