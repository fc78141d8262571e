"""What a survival world is.

A world is a class with `reset(seed)` and `step(action)`. It keeps all its state in the instance, draws all its
randomness from the seed it is given, and decides by itself when a life ends. An agent is shown an observation and
answers with one of its legal actions, or with free text where the observation allows it. Energy is the currency of
staying alive. `state()` is recorded for replay and never shown to the agent.

In a shared world several agents live in one instance and move at the same time; some of them may be born in it.

What a world may offer beyond its protocol, each found by name:

    HELDOUT: ClassVar[Mapping]            settings that held-out evaluation changes
    references: ClassVar[Mapping]         name -> Policy, players to compare with
    heuristic(observation) -> str         static: a skilled policy
    draw(state) -> str                    static: a recorded state as text for people
    pay(prompt_tokens, completion_tokens) told before each `step` what the decision took; with `seat` in a shared world
    tools -> tuple[Tool, ...]             what free-text answers may call
    result() -> Mapping                   asked once when a life has ended; with `seat` in a shared world
    report(results) -> Mapping            static: results of many lives to name -> (value, low, high)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

from msgspec import Struct
from pydantic import BaseModel

from telemetry.records import EndReason


class Observation(Struct, frozen=True, gc=False):
    """What the agent is shown before a decision."""

    text: str
    legal: tuple[str, ...]
    """Actions that may be taken now; empty where the answer is free text."""
    energy: float
    max_tokens: int = 0
    """Longest free-text answer, in tokens; 0 where there are legal actions."""


class Outcome(Struct, frozen=True, gc=False):
    """What a decision led to. `end` is None while the life goes on; `observation` then holds the next one."""

    observation: Observation
    end: EndReason | None = None
    """DIED or SURVIVED; only the infrastructure censors."""
    cause: str = ""
    """Cause of death as a short stable word such as `starved`; empty unless the life ended."""


@dataclass(frozen=True, slots=True)
class Birth:
    """A descendant that begins to live in a shared world."""

    parent: int
    """Seat of the agent it descends from; it has that agent's genome."""
    observation: Observation
    """What it sees first; it acts from the next turn on."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What the moves of all living seats of a shared world led to."""

    outcomes: Mapping[int, Outcome]
    """For every seat that moved."""
    born: Mapping[int, Birth] = field(default_factory=dict)
    """By new seat; seats are numbered on and never used again."""


@dataclass(frozen=True, slots=True)
class Tool:
    """Something a free-text answer may call. `step` then gets `{"arguments":{...},"name":"..."}`, or "" for no call."""

    name: str
    description: str
    arguments: type[BaseModel]


@runtime_checkable
class Environment(Protocol):
    """A world for one agent. One instance hosts one life at a time; `reset` starts the next."""

    name: ClassVar[str]
    """Versioned name, e.g. `forage-v1`: a change of the rules is a new version."""
    Settings: ClassVar[type[BaseModel]]
    """Closed pydantic model of the world's dials."""

    def __init__(self, settings: Any) -> None: ...

    @property
    def rules(self) -> str:
        """What every agent is told about the world, in the system turn."""
        ...

    @property
    def horizon(self) -> int:
        """Steps after which a life that still goes on ends as SURVIVED."""
        ...

    @property
    def actions(self) -> tuple[str, ...]:
        """Every action that can ever be legal, in a fixed order; empty where all answers are free text."""
        ...

    def reset(self, seed: int) -> Observation: ...

    def step(self, action: str) -> Outcome: ...

    def state(self) -> Mapping[str, Any]:
        """Hidden state, JSON-serialisable, enough to draw the world."""
        ...


@runtime_checkable
class SharedEnvironment(Protocol):
    """A world that several agents live in together; the class says so with `shared = True`.

    `rules`, `horizon` (in turns of the instance) and `actions` are as in Environment.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[BaseModel]]
    shared: ClassVar[bool]

    def __init__(self, settings: Any) -> None: ...

    @property
    def rules(self) -> str: ...

    @property
    def horizon(self) -> int: ...

    @property
    def actions(self) -> tuple[str, ...]: ...

    def reset(self, seed: int, seats: int) -> tuple[Observation, ...]:
        """Begins an instance: what each of `seats` agents sees first."""
        ...

    def step(self, actions: Mapping[int, str]) -> Turn:
        """One turn: the actions of all living seats, taken at the same time."""
        ...

    def state(self, seat: int) -> Mapping[str, Any]:
        """Hidden state to be recorded with this seat's step."""
        ...


World = Environment | SharedEnvironment

Policy = Callable[[Observation], str]
"""Plays from what an agent would see."""


def is_shared(world: object) -> bool:
    """True for a shared world, or its class."""
    return bool(getattr(world, "shared", False))
