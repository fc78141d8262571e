"""One short file per objective, joined by a dict.

An objective is built once per trainer process, with the base model's directory, and then fits one training set
after another. Its module, and with it torch, is imported only when it is built.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Protocol

from telemetry.adapters import LoraWeights
from trainer.config import TrainerConfig
from trainer.examples import Examples
from trainer.job import TrainingJob


class TrainingFailed(Exception):
    """The training itself went wrong, for instance the loss became NaN: another try would fail in the same way."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What came out of one training."""

    weights: LoraWeights
    tokens: int = 0
    """Tokens that went through the model, padding excluded."""
    losses: list[float] = field(default_factory=list)
    """Loss of every update, in order."""


class Objective(Protocol):
    """Makes weights out of a training set. Equal arguments give equal weights on one machine."""

    def fit(self, start: LoraWeights, examples: Examples, job: TrainingJob) -> Fit:
        """Trains `start` on `examples`. Raises TrainingFailed if that cannot give usable weights."""
        ...


def _sft(config: TrainerConfig, model: Path | None) -> Objective:
    objective: Objective = import_module("trainer.objectives.sft").Sft(config, model)
    return objective


def _scripted(config: TrainerConfig, model: Path | None) -> Objective:
    objective: Objective = import_module("trainer.objectives.scripted").Scripted(config, model)
    return objective


OBJECTIVES: dict[str, Callable[[TrainerConfig, Path | None], Objective]] = {"sft": _sft, "scripted": _scripted}
"""By the `kind` of the objective's config."""
