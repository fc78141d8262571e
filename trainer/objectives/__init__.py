"""One short file per objective, joined by a dict.

An objective is built once per trainer process, on its base model, and then chooses and fits one training set after
another. Its module, and with it torch, is imported only when it is built.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from telemetry.adapters import LoraWeights
from telemetry.failures import UsageError
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
    """Makes weights out of records. Equal arguments give equal weights on one machine."""

    def examples(self, steps: pa.Table, job: TrainingJob) -> Examples:
        """The training set of a job out of committed steps (schema EXPERIENCE). Raises NoExamples."""
        ...

    def fit(self, start: LoraWeights, examples: Examples, job: TrainingJob) -> Fit:
        """Trains `start` on `examples`. Raises TrainingFailed if that cannot give usable weights."""
        ...

    def join(self, group: Any) -> None:
        """From now on every fit is shared with the processes of a `trainer.group.Group`, which call it alike."""
        ...


Load = Callable[[str], LoraWeights]
"""The adapter of this content id."""

OBJECTIVES = {
    "sft": "Sft",
    "kto": "Kto",
    "dpo": "Dpo",
    "grpo": "Grpo",
    "regression": "Regression",
    "distill": "Distill",
    "scripted": "Scripted",
}
"""Class by the `kind` of the objective's config; its module is called like the kind."""


def build(config: TrainerConfig, model: Path | None, load: Load) -> dict[str, Objective]:
    """Every objective of the configuration, by the name that genomes know it by; all share one base model.

    model: directory of the base model; None for the scripted engine, which has none. Raises UsageError.
    """
    policy: Any = None
    built: dict[str, Objective] = {}
    for name in ("", *config.alternatives):
        own = config.learned_by(name)
        if own.kind == "es":
            continue  # births are all there is to it
        if own.kind == "scripted":
            built[name] = _class(own.kind)(own)
            continue
        if model is None:
            raise UsageError(
                f"trainer.objective.kind: got {own.kind}, expected scripted; the scripted engine has no weights"
            )
        policy = policy or import_module("trainer.policy").Policy(config, model)
        built[name] = _class(own.kind)(own, policy, load)
    return built


def _class(kind: str) -> Any:
    return getattr(import_module(f"trainer.objectives.{kind}"), OBJECTIVES[kind])
