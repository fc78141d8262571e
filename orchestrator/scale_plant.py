"""What the simulation of a generation's lives is given, and what it finds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.scale_costs import UnitCosts


@dataclass(frozen=True)
class Plant:
    """What is simulated."""

    lengths: NDArray[np.int32]
    """[individuals, lives]: steps of each life; in a shared world [1, instances]."""
    speeds: NDArray[np.float64]
    """[engines]: 1 is as fast as `decision_seconds` says."""
    decision_seconds: float
    """An engine's time for one decision in a full batch."""
    answer_seconds: float
    """From a request to its answer, beside what the engine does for the batch that it is in."""
    request_batch: int
    """Decisions in one call."""
    capacity: int
    """Individuals that an engine serves without other weights."""
    load_seconds: float
    """To take up a batch of lives, beside the store."""
    adapter_bytes: float
    agents: int
    room: int
    """Lives that an agent hosts at a time."""
    agent_decisions_per_second: float
    """Of all agents."""
    commit_seconds: float
    store_seconds: float
    """Of one request."""
    costs: UnitCosts
    size: int = 1
    """Lives in a party."""
    asked: bool = True
    """Actors are asked for signs of life; not so inside one process."""


@dataclass
class Rolled:
    """What became of it."""

    seconds: float = 0.0
    """Until the last life was acknowledged; 0 until then."""
    lived_seconds: float = 0.0
    """Until the last life had ended."""
    driver_seconds: float = 0.0
    """In which the driver worked, or waited for the store."""
    sink_seconds: float = 0.0
    """In which the sink wrote."""
    engine_seconds: float = 0.0
    """In which engines computed, all of them together."""
    held_up_seconds: float = 0.0
    """In which calls to agents waited for the sink, all of them together."""
    store_seconds: float = 0.0
    """In which the store was at its limits."""
    buffered_bytes: float = 0.0
    """In the sink, at most."""
    alive: int = 0
    """Lives under way, at most."""
    parts: int = 0
    """Calls to agents."""
    commits: int = 0
    turns: int = 0
    """Of the driver's loop."""
    requests: float = 0.0
    """To the store."""
    bytes: float = 0.0
    """To and from the store."""
