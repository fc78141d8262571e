"""What one of everything costs, as it was measured on one machine: the figures that the scale model multiplies.

Law: no figure without its source. What nobody has measured is null; an answer then either lacks what hangs on it or
leaves it out, and says so.
"""

from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from orchestrator.runfile import read, validate_as
from telemetry.config import Config

SHIPPED = Path(__file__).with_name("unit_costs.yaml")
GIVEN = "given"
"""Source of a figure that a user writes as a bare number."""


class Measured(Config):
    """A figure and where it comes from."""

    value: float = Field(ge=0)
    by: str = Field(min_length=1, max_length=500)
    """Command that measured it, or the page that says so."""


class Rate(Measured):
    """One that others are divided by."""

    value: float = Field(gt=0)


def _with_source(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return {"value": value, "by": GIVEN} if number else value


Cost = Annotated[Measured, BeforeValidator(_with_source)]
Unknown = Annotated[Measured | None, BeforeValidator(_with_source)]
"""Null until somebody has measured it."""
Speed = Annotated[Rate | None, BeforeValidator(_with_source)]
"""The same, of so much a second."""


def value(cost: Measured | None) -> float:
    """The figure, or 0 where there is none: left out."""
    return 0.0 if cost is None else cost.value


class EngineCosts(Config):
    """What answers."""

    scripted_seconds: Cost
    """Per decision of the scripted engine, beside `engine.seconds`."""
    prefill_tokens_per_second: Speed
    """Of one model engine: prompt tokens that no cache holds."""
    decode_tokens_per_second: Speed
    """Of one model engine with a full batch; only free text needs it, a choice ends with its prompt."""
    pass_seconds: Unknown
    """What one answer takes beyond its share of a full batch: a forward pass with next to nothing in it; null is 0."""
    low_rank_share: Cost
    """Time of an adapter's products for a token, unmerged, as a share of the model's own."""
    adapter_seconds: Cost
    """What a further adapter adds to an unmerged pass."""
    swap_seconds: Cost
    """Other adapters taken into service, without their way from the store."""
    call_seconds: Unknown
    """From an agent's call of an engine to its answer, without the engine's own work."""
    gib: Unknown
    """Process of an engine, without weights and KV cache."""


class AgentCosts(Config):
    """What lives."""

    decision_seconds: Cost
    """Of one core: prompt, draw, step of the world, records."""
    gib: Cost
    """Process without lives."""
    life_bytes: Cost
    """Memory of a life under way."""


class DriverCosts(Config):
    """What keeps it all together: one process, one core."""

    part_seconds: Unknown
    """Lives handed to an agent in one call, and its report taken."""
    wake_seconds: Cost
    """Whoever hands out lives, woken by a report."""
    wake_agent_seconds: Cost
    """A look for lives to begin, per agent."""
    wake_engine_seconds: Cost
    """The same, per engine at work."""
    wake_batch_seconds: Cost
    """An engine's search for a batch, per batch."""
    ask_seconds: Unknown
    """An actor asked for a sign of life or for its progress."""
    life_seconds: Cost
    """A life acknowledged."""
    entry_seconds: Cost
    """A journal entry, without its way to the store."""
    row_read_seconds: Cost
    """A step row read back and made into experience, at the end of a generation."""
    score_seconds: Cost
    """Per individual and life of the generation: who lived it."""
    bootstrap_seconds: Cost
    """Per life and resample of its interval."""
    job_row_seconds: Cost
    """Per step row that a training job is given."""
    gib: Cost
    """Process at the beginning of a run."""
    life_bytes: Unknown
    """Memory of a life that the journal knows."""


class SinkCosts(Config):
    """What writes the ledger."""

    row_seconds: Cost
    """A step row written: joined, encoded, compressed, hashed."""
    flush_seconds: Cost
    """A flush beside its rows and its requests."""
    row_memory: Cost
    """Bytes of a step row in memory."""
    row_bytes: Cost
    """Bytes of a step row in the store."""
    life_row_bytes: Cost
    """Bytes of a life's row in the store."""
    gib: Cost
    """Process without rows."""


class StoreCosts(Config):
    """What keeps the bytes."""

    local_seconds: Cost
    """A small object made durable on a local disk."""
    object_seconds: Unknown
    """A small object put into a bucket."""
    flush_requests: Unknown
    """Requests of one flush of the ledger, one after the other."""
    entry_requests: Cost
    """Requests of one journal entry."""
    adapter_requests: Cost
    """Requests to read or to publish one adapter."""
    requests_per_second: Speed
    """What the store answers at most; null sets no limit."""
    bytes_per_second: Speed
    """What it moves at most, in both directions; null sets no limit."""


class TrainerCosts(Config):
    """What learns."""

    token_seconds: Unknown
    """Per token of one trainer, every pass."""
    job_seconds: Cost
    """A job beyond its tokens: examples, crossover, gate, shelf."""


class UnitCosts(Config):
    """All of them, of one machine."""

    machine: str = Field(min_length=1, max_length=300)
    state: str = Field(min_length=1, max_length=500)
    """What else the machine did meanwhile."""
    model: str = Field(max_length=300)
    """What the model engine's and the trainer's figures are of."""
    gpu: bool = False
    """They are of a GPU."""
    engine: EngineCosts
    agent: AgentCosts
    driver: DriverCosts
    sink: SinkCosts
    store: StoreCosts
    trainer: TrainerCosts


@cache
def shipped() -> UnitCosts:
    """The figures that come with Forager."""
    return validate_as(UnitCosts, read(SHIPPED), SHIPPED.name)


def load(path: Path | None) -> UnitCosts:
    """The shipped figures, with those of a file of yours in their place, which need not name them all.

    Raises UsageError with one line that names the field.
    """
    if path is None:
        return shipped()
    return validate_as(UnitCosts, _merged(read(SHIPPED), read(path)), str(path))


LEFT_OUT = {
    "engine": ("call_seconds", "gib"),
    "driver": ("part_seconds", "ask_seconds", "life_bytes"),
    "store": ("object_seconds", "flush_requests"),
}
"""Figures without which a prediction is still made, too favourable by what they stand for."""


def left_out(costs: UnitCosts) -> list[str]:
    """Those of them that are null."""
    names = [(section, name) for section, under in LEFT_OUT.items() for name in under]
    return [f"{section}.{name}" for section, name in names if getattr(getattr(costs, section), name) is None]


def _merged(base: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """A figure is replaced as a whole: its source goes with it."""
    result = dict(base)
    for key, value in other.items():
        under = result.get(key)
        inner = isinstance(under, dict) and isinstance(value, dict) and "value" not in value
        result[key] = _merged(under, value) if inner else value  # type: ignore[arg-type]
    return result
