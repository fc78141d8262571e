"""The nouns that more than one room speaks, and the Arrow schemas of the ledger.

Journaled nouns are frozen pydantic models (they are stored as JSON and validated on load); nouns of the hot
path are frozen dataclasses. The record key of a step is `(run, generation, individual, life, step)`; `attempt`
is not part of it: it tells which try at a life wrote the row, so that readers can leave out the rows of a try
that the journal never acknowledged.
"""

from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa
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


class Genome(Record):
    """What is inherited. Each part mutates separately and can be switched off separately."""

    strategy: str = Field(min_length=1, max_length=2000)
    """Survival strategy in words, shown to the model in the system turn."""
    hyperparameters: Hyperparameters
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


class FileRef(Record):
    """An immutable object of the run's store that a journal entry vouches for."""

    key: str
    """Path inside the store, with forward slashes."""
    size: int = Field(ge=0)
    """Bytes."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


@dataclass(frozen=True, slots=True)
class LifeKey:
    """Names a life within a run."""

    generation: int
    individual: str
    life: int


@dataclass(frozen=True, slots=True)
class LifeSummary:
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


STEPS = pa.schema(
    [
        pa.field("run", pa.string(), nullable=False),
        pa.field("generation", pa.int32(), nullable=False),
        pa.field("individual", pa.string(), nullable=False),
        pa.field("lineage", pa.string(), nullable=False),
        pa.field("life", pa.int32(), nullable=False),
        pa.field("step", pa.int32(), nullable=False),
        pa.field("attempt", pa.string(), nullable=False),
        pa.field("observation", pa.string(), nullable=False),
        pa.field("legal", pa.list_(pa.string()), nullable=False),
        # Token that stands for each legal action, in their order; empty where the completion is free text.
        pa.field("choice_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("prompt_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("completion_ids", pa.list_(pa.int32()), nullable=False),
        # Log-probability of each completion token under the model at the individual's temperature, before epsilon.
        pa.field("completion_logprobs", pa.list_(pa.float32()), nullable=False),
        pa.field("action", pa.string(), nullable=False),
        pa.field("parse", pa.string(), nullable=False),
        # Probability of the executed action under the whole behaviour policy, exploration included.
        pa.field("behaviour_probability", pa.float32(), nullable=False),
        pa.field("explored", pa.bool_(), nullable=False),
        pa.field("temperature", pa.float32(), nullable=False),
        pa.field("epsilon", pa.float32(), nullable=False),
        pa.field("sampling_seed", pa.int64(), nullable=False),
        pa.field("energy_before", pa.float32(), nullable=False),
        pa.field("energy_after", pa.float32(), nullable=False),
        # Hidden world state after the step as JSON: recorded for replay, never shown to the agent.
        pa.field("state", pa.string(), nullable=False),
        pa.field("adapter", pa.string(), nullable=True),
        pa.field("engine", pa.string(), nullable=False),
    ]
)
"""One row per step of a life."""

LIVES = pa.schema(
    [
        pa.field("run", pa.string(), nullable=False),
        pa.field("generation", pa.int32(), nullable=False),
        pa.field("individual", pa.string(), nullable=False),
        pa.field("lineage", pa.string(), nullable=False),
        pa.field("life", pa.int32(), nullable=False),
        pa.field("attempt", pa.string(), nullable=False),
        pa.field("world", pa.string(), nullable=False),
        pa.field("world_seed", pa.int64(), nullable=False),
        pa.field("steps", pa.int32(), nullable=False),
        pa.field("end", pa.string(), nullable=False),
        pa.field("cause", pa.string(), nullable=False),
        pa.field("energy", pa.float32(), nullable=False),
        pa.field("adapter", pa.string(), nullable=True),
        pa.field("prompt_tokens", pa.int64(), nullable=False),
        pa.field("completion_tokens", pa.int64(), nullable=False),
        pa.field("started_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("seconds", pa.float32(), nullable=False),
    ]
)
"""One row per life."""

TABLES = {"steps": STEPS, "lives": LIVES}

VOLATILE = frozenset({"attempt", "engine", "started_at", "seconds"})
"""Columns that say who did the work and when: two equal runs may differ in them, so digests leave them out."""
