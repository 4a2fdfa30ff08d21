"""Record of how a run was started (`run.json`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from refinenet.distributed import describe_run
from refinenet.labels import LabelSet
from refinenet.models.architecture import Architecture
from refinenet.models.files.model_card import ModelCard
from refinenet.training.config import TrainConfig
from refinenet.training.records.fingerprint import Fingerprint
from refinenet.training.records.folder import RunFolder

FUNCTION = "a function of the caller's"
"""Recorded in place of a dataset that is a function, which no file can hold."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """All that it takes to start a run again; written once, when it starts, and read when it is resumed."""

    dataset: str | list[str]
    """Names and folders that are valid in any working directory, or `FUNCTION`."""
    root: str | None
    """Folder of the (first) dataset, if it is a published one."""
    config: TrainConfig
    card: ModelCard
    """Architecture, classes, licence and origin of the network that is trained."""
    fingerprints: Mapping[str, Fingerprint]
    """Of the datasets, by split."""
    teacher_sha256: str | None
    """Hexadecimal SHA-256 of the teacher's weights, if there is a teacher."""
    arithmetic: str
    processes: int
    means: tuple[float, ...] | None = None
    """Means of the bands in [0, 1], by which images are padded; None in old records, whose networks were for RGB."""

    @property
    def can_resume(self) -> bool:
        """Whether the recorded dataset can be opened again."""
        return FUNCTION not in self.dataset

    def to_dict(self) -> dict[str, Any]:
        """Return the content of run.json, with versions, machine and command added."""
        return {
            "source": {"dataset": self.dataset, "root": self.root},
            "fingerprints": {split: asdict(fingerprint) for split, fingerprint in self.fingerprints.items()},
            "arithmetic": self.arithmetic,
            "means": self.means,
            "teacher_sha256": self.teacher_sha256,
            "config": asdict(self.config),
            "architecture": self.card.architecture.to_dict(),
            "label_set": self.card.label_set.to_dict(),
            "licence": self.card.licence,
            "recipe": dict(self.card.recipe),
            **describe_run(),
        }

    @classmethod
    def read(cls, folder: RunFolder, *, has_dataset: bool = False) -> RunRecord:
        """Read the record of a run.

        Args:
            folder: The folder.
            has_dataset: Whether the caller has the dataset, which may then be a function.

        Raises:
            FileNotFoundError: No run was started in the folder.
            ValueError: The file is damaged, or the dataset was a function and the caller does not have it.
        """
        values = folder.read_description()
        try:
            record = cls._from_dict(values)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{folder.path / 'run.json'} is damaged: {error!r}") from error
        if not record.can_resume and not has_dataset:
            raise ValueError(
                f"The run in {folder.path} was started with a function as its dataset, which cannot be stored in a "
                "file."
            )
        return record

    @classmethod
    def _from_dict(cls, values: Mapping[str, Any]) -> RunRecord:
        config = TrainConfig.from_dict({"longest_side": "none", **values["config"]})  # of records of earlier versions
        assert config.longest_side != "auto"  # a run stores what was chosen
        card = ModelCard(
            architecture=Architecture(**values["architecture"]),
            label_set=LabelSet.from_dict(values["label_set"]),
            licence=values["licence"],
            recipe=values["recipe"],
            value_range=config.value_range,
            longest_side=config.side_limit,
        )
        return cls(
            dataset=values["source"]["dataset"],
            root=values["source"]["root"],
            config=config,
            card=card,
            fingerprints={split: Fingerprint(**each) for split, each in values["fingerprints"].items()},
            teacher_sha256=values["teacher_sha256"],
            arithmetic=values["arithmetic"],
            processes=values["processes"],
            means=None if values.get("means") is None else tuple(values["means"]),
        )
