"""The nouns that more than one room speaks.

What the journal says is said in frozen pydantic models, stored as JSON and validated on load; its envelope, read by
the hundred thousand, and whatever is made anew for every life or step are msgspec structs.
"""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct
from pydantic import BaseModel, ConfigDict, Field


class Record(BaseModel):
    """A journaled noun: closed, immutable, strict about types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Hyperparameters(Record):
    """The heritable numbers of a genome."""

    temperature: float = Field(gt=0, le=10)
    """Softmax temperature of the agent's own decisions."""
    epsilon: float = Field(ge=0, le=1)
    """Probability that a decision is drawn uniformly from the legal actions instead of from the model."""
    learning_rate: float = Field(gt=0, le=1)
    """Peak learning rate of the training job that makes the individual's adapter."""
    novelty: float = Field(default=0.0, ge=0, le=10)
    """How much likelier actions become that this life has seldom taken: weights are divided by (1 + times)^novelty."""


class Genome(Record):
    """What is inherited. Each part mutates separately and can be switched off separately."""

    strategy: str = Field(min_length=1, max_length=2000)
    """Survival strategy in words, shown to the model in the system turn."""
    hyperparameters: Hyperparameters
    objective: str = Field(default="", pattern=r"^[a-z0-9_-]{0,63}$")
    """Which of the trainer's alternatives its weights were learned by; empty for the main one."""
    adapter: str | None = None
    """Content id of the LoRA adapter; None is the untouched base model."""


class Individual(Record):
    """One member of one generation's population."""

    id: str = Field(pattern=r"^g\d{3,}-\d{3,}$")
    """`g<generation>-<index>`, never used again within a run."""
    generation: int = Field(ge=0)
    lineage: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    """Name of the founder that the line of first parents leads back to."""
    parents: tuple[str, ...] = ()
    """Ids in the generation before; the first one carries the lineage. Empty for founders."""
    genome: Genome

    def with_adapter(self, adapter: str | None) -> "Individual":
        """The same with other weights."""
        return self.model_copy(update={"genome": self.genome.model_copy(update={"adapter": adapter})})


class BaseModelCard(Record):
    """Identity and shape of a base model: what an adapter must fit."""

    id: str
    """Name that users give: `smollm2-135m-instruct`, a Hugging Face id, a path's last part, `scripted`."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Hash of the model's weights and configuration; runs are pinned to it."""
    modules: dict[str, tuple[int, int]]
    """Every linear module an adapter may touch: dotted name -> (out features, in features)."""


class EndReason(StrEnum):
    """How a life ended."""

    DIED = "died"
    """The world killed it; the record's `cause` says how."""
    SURVIVED = "survived"
    """It was still alive at the horizon."""
    CENSORED = "censored"
    """Infrastructure failed and the retries ran out: it lived at least this long, nobody knows how much longer."""


class FileRef(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """An immutable object of the run's store that a journal entry vouches for."""

    key: str
    """Path inside the store, with forward slashes."""
    size: Annotated[int, Meta(ge=0)]
    """Bytes."""
    sha256: Annotated[str, Meta(min_length=64, max_length=64)]
    """Hexadecimal."""


class LifeKey(Struct, frozen=True, gc=False):
    """Names a life within a run."""

    generation: int
    individual: str
    life: int


class LifeSummary(Struct, frozen=True, gc=False):
    """What the driver needs to know of a finished life without touching its steps."""

    key: LifeKey
    attempt: str
    steps: int
    """Survival time: number of decisions lived through."""
    end: EndReason
    cause: str
    energy: float
    prompt_tokens: int
    completion_tokens: int
    founder: bool = True
    """False for one that was born while others of its instance lived already."""
    result: str = ""
    """What the world has to say of it, as JSON; empty when it says nothing."""
