"""Every file operation of a save fails once: the first, the second, and so on until a save meets no fault.

The functions of `os` that the package writes through are replaced while the save lasts, by others that count, fail at
the chosen call, and otherwise do what they should. A failing write has written half, as on a disk that fills up.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from file_calls import LOOKS, REAL, redirected
from trials import Tally, contents, is_whole, leftovers, newest, torn

from refinenet.training.records.checkpoints import Checkpoints

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS)
_MAY_BE_DONE_WITHOUT = (*LOOKS, "mkdir", "read")
"""What they tell, also mkdir of a folder that is there and the seal of an older checkpoint, may be not needed."""


@dataclass
class Fault:
    """A fault at the n-th file operation."""

    number: int
    """Which operation fails, from 1; 0 for none."""
    error: int = errno.EIO
    """The number of the error, or 0 for SIGKILL instead of one."""
    lasting: bool = False
    """Whether all operations after it fail as well."""
    done: bool = False
    """Whether the operation is done nevertheless, and only its answer lost."""
    operations: list[str] = field(default_factory=list)
    """What was called so far."""

    @property
    def is_met(self) -> bool:
        """Whether there were that many operations."""
        return 0 < self.number <= len(self.operations)

    @property
    def name(self) -> str:
        """The operation that failed."""
        return self.operations[self.number - 1]

    def strikes(self, operation: str) -> bool:
        """Count an operation; whether it is to fail."""
        self.operations.append(operation)
        count = len(self.operations)
        struck = self.number > 0 and (count >= self.number if self.lasting else count == self.number)
        if struck and not self.error:
            os.kill(os.getpid(), signal.SIGKILL)
        return struck


@dataclass
class _Injection:
    """The functions that stand for those of `os`."""

    fault: Fault
    folder: Path
    opened: set[int] = field(default_factory=set)

    def is_meant(self, target: Any) -> bool:
        """Whether a path, or what was opened by one, lies in the folder."""
        if isinstance(target, int):
            return target in self.opened
        return isinstance(target, str | os.PathLike) and Path(target).is_relative_to(self.folder)

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        if not self.is_meant(arguments[0]) and options.get("dir_fd") not in self.opened:
            return REAL[name](*arguments, **options)
        if self.fault.strikes(name):
            self.do_partly(name, *arguments, **options)
            raise OSError(self.fault.error, os.strerror(self.fault.error))
        answer = REAL[name](*arguments, **options)
        if name == "open":
            self.opened.add(answer)
        if name == "close":
            self.opened.discard(arguments[0])
        return answer

    def do_partly(self, name: str, *arguments: Any, **options: Any) -> None:
        """What a failing operation does all the same."""
        if name == "write":
            REAL[name](arguments[0], arguments[1][: len(arguments[1]) // 2])
        if name == "close":
            self.opened.discard(arguments[0])
        if name == "close" or (self.fault.done and name not in ("open", "read", "write", *LOOKS)):
            REAL[name](*arguments, **options)


def injected(fault: Fault, folder: Path) -> AbstractContextManager[None]:
    """Let a fault happen among the operations on files in `folder`."""
    return redirected(_Injection(fault, folder).call)


@dataclass(frozen=True)
class Scene:
    """What is there before the save that meets a fault."""

    name: str
    before: tuple[int, ...]
    """Steps that are saved already."""
    step: int
    """The step to save."""
    keep: int


SCENES = (
    Scene("the first", (), 1, 3),
    Scene("a second", (1,), 2, 3),
    Scene("one that pushes out the oldest", (1, 2, 3), 4, 3),
    Scene("the only one to keep", (1,), 2, 1),
    Scene("the same step again", (1, 2), 2, 3),
)


def sweep(error: int, folder: Path, *, lasting: bool = False, done: bool = False) -> Tally:
    """Let each operation of a save in each scene fail."""
    kind = errno.errorcode[error] if error else "SIGKILL"
    how = " and all after it" if lasting else ", though it is done," if done else ""
    tally = Tally(f"the N-th file operation{how}: {kind}")
    most = 0
    for scene in SCENES:
        number, met = 1, True
        while met:
            place = folder / f"{scene.name}-{kind}-{lasting}-{done}-{number}" / "checkpoints"
            met = _try(scene, Fault(number, error, lasting, done), place, tally)
            most, number = max(most, number - 1), number + 1
    tally.remarks = f"N = 1 to {most}, in {len(SCENES)} scenes"
    return tally


def sweep_loading(folder: Path) -> Tally:
    """Let each operation of a load meet a trouble that will pass: nothing may be put aside, nor an older one taken."""
    tally = Tally("the N-th file operation of a load: EACCES, EMFILE")
    Checkpoints(folder / "checkpoints").save(1, contents(1))
    Checkpoints(folder / "checkpoints").save(2, contents(2))
    for error in (errno.EACCES, errno.EMFILE):
        number, met = 1, True
        while met:
            fault = Fault(number, error)
            try:
                with injected(fault, folder):
                    found = Checkpoints(folder / "checkpoints").load_newest()
                step = found.step if found else 0
            except OSError:
                step = 2
            met, number = fault.is_met, number + 1
            tally.trials += met
            if step != 2 or newest(folder / "checkpoints").quarantined:
                tally.silent.append(f"operation {number - 1} ({fault.name if met else '-'}): step {step} was taken")
    return tally


def _try(scene: Scene, fault: Fault, folder: Path, tally: Tally) -> bool:
    """Whether the fault was met."""
    checkpoints = Checkpoints(folder, scene.keep)
    folder.parent.mkdir(parents=True)
    for step in scene.before:
        checkpoints.save(step, contents(step))
    names = {path.name for path in folder.glob("step-*")}
    met, outcome = (_save_in_a_process if fault.error == 0 else _save)(checkpoints, scene.step, fault)
    case = f"{scene.name}, operation {fault.number} ({fault.name if fault.is_met else '-'})"
    if not met and outcome != "saved":
        tally.other.append(f"{case}: without any fault: {outcome}")
    if met:
        tally.trials += 1
        _judge(scene, fault, folder, names, outcome, Judgement(tally, case))
    return met


@dataclass(frozen=True)
class Judgement:
    """Where to write down what went wrong in a case."""

    tally: Tally
    case: str

    def lost(self, what: str) -> None:
        self.tally.lost.append(f"{self.case}: {what}")

    def silent(self, what: str) -> None:
        self.tally.silent.append(f"{self.case}: {what}")

    def other(self, what: str) -> None:
        self.tally.other.append(f"{self.case}: {what}")


def _save(checkpoints: Checkpoints, step: int, fault: Fault) -> tuple[bool, str]:
    try:
        with injected(fault, checkpoints.folder.parent):
            checkpoints.save(step, contents(step))
    except OSError as error:
        return fault.is_met, f"refused: {error}"
    return fault.is_met, "saved"


def _save_in_a_process(checkpoints: Checkpoints, step: int, fault: Fault) -> tuple[bool, str]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["refinenet.training.records.checkpoints"])
    process = context.Process(target=_save, args=(checkpoints, step, fault))
    process.start()
    process.join()
    killed = process.exitcode == -signal.SIGKILL
    return killed, "killed" if killed else "saved" if process.exitcode == 0 else f"exit code {process.exitcode}"


def _judge(scene: Scene, fault: Fault, folder: Path, names: set[str], outcome: str, judgement: Judgement) -> None:
    if outcome == "saved" and fault.name not in _MAY_BE_DONE_WITHOUT:
        judgement.silent("a failure was swallowed")
    _judge_newest(scene, folder, names, outcome, judgement)
    if outcome.startswith("refused: ") and "was saved" not in outcome and leftovers(folder) and not fault.lasting:
        judgement.other(f"left over {leftovers(folder)}")
    if torn(folder):
        judgement.lost(f"torn: {torn(folder)}")
    Checkpoints(folder).sweep()
    step = scene.step + 1
    Checkpoints(folder, scene.keep).save(step, contents(step))
    if newest(folder).step != step:
        judgement.lost("the save after it")


def _judge_newest(scene: Scene, folder: Path, names: set[str], outcome: str, judgement: Judgement) -> None:
    checkpoint = Checkpoints(folder).load_newest()
    if checkpoint is None:
        if scene.before or outcome == "saved":
            judgement.lost("nothing is there any more")
        return
    if not is_whole(checkpoint):
        judgement.lost(f"step {checkpoint.step} is not what was saved")
    if checkpoint.step < (scene.step if outcome == "saved" else max(scene.before, default=0)):
        judgement.lost(f"step {checkpoint.step} is the newest")
    if checkpoint.quarantined:
        judgement.other(f"a false alarm: {checkpoint.quarantined}")
    gone = names - {path.name for path in folder.iterdir()}
    if "untouched" in outcome and gone:
        judgement.lost(f"{', '.join(gone)} gone although the save failed")
