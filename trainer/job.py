"""What a birth asks of the trainer, and what comes back: plain data that travels over Ray and into the journal."""

from typing import Literal

from pydantic import Field

from telemetry.records import FileRef, Individual, Record
from trainer.config import TrainerConfig
from trainer.config_operators import CrossoverConfig, MutationConfig, spares_all


class Parent(Record):
    """One parent's part in a birth."""

    individual: str
    """Id in the generation that just lived: whose records are learned from."""
    adapter: str | None
    """Content id of its weights; None is the untouched base model."""
    weight: float = Field(ge=-2, le=2)
    """Factor of this parent's weight change in the child's starting point."""


class Perturbation(Record):
    """An evolution strategy's part in a birth: the child is its parents' centre plus or minus noise."""

    centre: int = Field(ge=0)
    """Seed of the first centre, the same for everybody."""
    sigma: float = Field(gt=0)
    """Standard deviation of the noise on every entry of B."""
    sign: Literal[-1, 1]
    """The two of a pair have the same seed and opposite signs."""


class TrainingJob(Record):
    """Everything that decides a child's weights, besides the objective's own settings."""

    child: Individual
    """The newborn; its `genome.adapter` is None until the job has published."""
    parents: tuple[Parent, ...] = Field(min_length=1)
    crossover: CrossoverConfig
    """How the parents' weights are combined."""
    mutation: MutationConfig
    """What happens to the combination before it is trained."""
    seed: int = Field(ge=0)
    teacher: Parent | None = None
    """The fittest survivor of the island; null where nobody is to be learned from."""
    perturbation: Perturbation | None = None
    """null where births are crossed, mutated and trained."""


class TrainingResult(Record):
    """How a job ended. A failed job keeps the first parent's adapter and says why."""

    individual: str
    adapter: str | None
    status: Literal["trained", "failed"]
    reason: str = ""
    examples: int = 0
    """Rows of the training set: decisions, and what the objective sets against them."""
    dropped: int = 0
    """Decisions that could have been learned from but whose group told nothing."""
    tokens: int = 0
    """Tokens of the examples, all epochs; a beginning that several examples share counts for each of them."""
    seconds: float = 0.0
    loss_first: float | None = None
    """Mean loss of the first half of updates, of two epochs the first."""
    loss_last: float | None = None
    """Mean loss of the second half."""
    discarded: float = 0.0
    """Share of the parents' combined weight change that crossover could not keep at the adapter's rank."""


Trained = tuple[TrainingResult, tuple[FileRef, ...]]
"""How a job ended, and the store objects it published."""


def untouched(job: TrainingJob, config: TrainerConfig) -> TrainingResult | None:
    """The result of a job that needs no trainer: of untouched parents, neither mutated nor taught. None for others."""
    parents = any(parent.adapter for parent in job.parents if parent.weight != 0)
    if config.enabled or parents or job.perturbation is not None or not spares_all(job.mutation):
        return None
    return TrainingResult(individual=job.child.id, adapter=None, status="trained")


def keep_parent(job: TrainingJob, reason: str, seconds: float = 0.0) -> TrainingResult:
    """Result of a job that failed: the first parent's adapter lives on."""
    return TrainingResult(
        individual=job.child.id, adapter=job.parents[0].adapter, status="failed", reason=reason, seconds=seconds
    )
