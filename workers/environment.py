"""What a survival world is, and how worlds are found.

A world is a class with `reset(seed)` and `step(action)`. It keeps all its state in the instance, draws all its
randomness from the seed it is given, and never sees the agent's text: it gets one of the legal actions. Energy is
its currency of staying alive. `state()` is recorded for replay and never shown to the agent.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel, ValidationError

from telemetry.failures import UsageError
from telemetry.records import EndReason

ENTRY_POINTS = "forager.environments"


@dataclass(frozen=True, slots=True)
class Observation:
    """What the agent is shown before a decision."""

    text: str
    legal: tuple[str, ...]
    """Actions that may be taken now; never empty."""
    energy: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a decision led to. `end` is None while the life goes on; `observation` then holds the next one."""

    observation: Observation
    end: EndReason | None = None
    cause: str = ""
    """Cause of death as a short stable word such as `starved`; empty unless the life ended."""


@runtime_checkable
class Environment(Protocol):
    """A survival world. One instance hosts one life at a time; `reset` starts the next."""

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
        """Every action that can ever be legal, in a fixed order."""
        ...

    def reset(self, seed: int) -> Observation: ...

    def step(self, action: str) -> Outcome: ...

    def state(self) -> Mapping[str, Any]:
        """Hidden state, JSON-serialisable, enough to draw the world."""
        ...


Policy = Callable[[Observation], str]
"""Plays from what an agent would see; worlds may offer one as the static method `heuristic`."""


def find(name: str) -> type[Environment]:
    """The world called `name`: an entry point of the group `forager.environments`, or `module:Class`.

    Raises UsageError when there is no such world or its plugin cannot be imported.
    """
    if ":" in name:
        module, _, attribute = name.partition(":")
        loader: Callable[[], Any] = lambda: getattr(import_module(module), attribute)  # noqa: E731
    else:
        known = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
        if name not in known:
            raise UsageError(
                f"environment.name: got {name!r}, expected one of {', '.join(sorted(known))} or module:Class"
            )
        loader = known[name].load
    try:
        world = loader()
    except Exception as error:  # a plugin's import may raise anything; what it raised is the message
        raise UsageError(f"environment.name: {name!r} cannot be loaded: {type(error).__name__}: {error}") from error
    missing = [
        part
        for part in ("name", "Settings", "rules", "horizon", "actions", "reset", "step", "state")
        if not hasattr(world, part)
    ]
    if missing:
        raise UsageError(f"environment.name: {name!r} is not an environment: it lacks {', '.join(missing)}")
    return world  # type: ignore[no-any-return]


def maker(name: str, settings: Mapping[str, Any]) -> Callable[[], Environment]:
    """Makes fresh instances of the world `name`; looks it up and checks its settings once.

    Raises UsageError for a world that cannot be found or settings it does not accept.
    """
    world = find(name)
    try:
        checked = world.Settings.model_validate(dict(settings))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"environment.settings.{where}: got {first['input']!r}: {first['msg']}") from error
    return lambda: world(checked)


def make(name: str, settings: Mapping[str, Any]) -> Environment:
    """One fresh instance of the world `name`. Raises UsageError as `maker` does."""
    return maker(name, settings)()
