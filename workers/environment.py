"""What a survival world is, how worlds are found, and the one boundary behind which they are kept.

A world is a class with `reset(seed)` and `step(action)`. It keeps all its state in the instance, draws all its
randomness from the seed it is given, and never sees the agent's text: it gets one of the legal actions. Energy is
its currency of staying alive. `state()` is recorded for replay and never shown to the agent.

Law: a world is foreign code. It is only ever played through `Guard`, which turns whatever it raises, and whatever it
returns that it must not, into an EnvironmentFailure that names the world and the step.
"""

import json
import reprlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, ClassVar, NoReturn, Protocol, runtime_checkable

from pydantic import BaseModel, ValidationError

from telemetry.failures import ForagerError, UsageError, one_line
from telemetry.records import EndReason

ENTRY_POINTS = "forager.environments"
PARTS = ("name", "Settings", "rules", "horizon", "actions", "reset", "step", "state")

MAX_ACTIONS = 128
MAX_HORIZON = 1_000_000
MAX_WORD = 64
"""Characters of a name, an action or a cause of death."""
MAX_TEXT = 100_000
"""Characters of the rules or of one observation: far beyond what any engine takes."""
MAX_STATE = 1 << 20
"""Characters of one recorded state."""
MAX_ENERGY = 1e30
"""The ledger keeps energies as float32."""


class EnvironmentFailure(ForagerError):
    """A world broke its contract; the fault of its author, never of the agent."""

    exit_code = 2


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
    """DIED or SURVIVED; only the infrastructure censors."""
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


class Guard:
    """A world behind its contract: every method raises EnvironmentFailure, and nothing else, when the world breaks."""

    def __init__(self, world: Environment) -> None:
        """Reads and checks what the world says of itself, once: it cannot move its horizon while a life goes on."""
        self._world = world
        self.name = str(world.name)
        with boundary(self.name, "its description"):
            self.rules, self.horizon, self.actions = world.rules, world.horizon, world.actions
        if not _is_text(self.rules, MAX_TEXT):
            self._refuse("rules", self.rules, f"text of at most {MAX_TEXT} characters")
        if type(self.horizon) is not int or not 1 <= self.horizon <= MAX_HORIZON:
            self._refuse("horizon", self.horizon, f"a number of steps from 1 to {MAX_HORIZON}")
        words = self.actions if type(self.actions) is tuple else ()
        if not 1 <= len(words) <= MAX_ACTIONS or not all(_is_word(word) and word for word in words):
            self._refuse("actions", self.actions, f"a tuple of 1 to {MAX_ACTIONS} short words")
        self._known = frozenset(words)
        if len(self._known) != len(words):
            self._refuse("actions", words, "a tuple of different words")

    def reset(self, seed: int) -> Observation:
        """Begins the life of a seed."""
        with boundary(self.name, "reset"):
            return self._observed(self._world.reset(seed), "reset")

    def step(self, number: int, action: str) -> Outcome:
        """Lives step `number`, counted from 0."""
        what = f"step {number}"
        with boundary(self.name, what):
            outcome = self._world.step(action)
            if not isinstance(outcome, Outcome):
                self._refuse(what, outcome, "an Outcome")
            if outcome.end is not None and (
                not isinstance(outcome.end, EndReason) or outcome.end is EndReason.CENSORED
            ):
                self._refuse(f"{what}: end", outcome.end, "None, EndReason.DIED or EndReason.SURVIVED")
            if not _is_word(outcome.cause):
                self._refuse(f"{what}: cause", outcome.cause, "a short word")
            self._observed(outcome.observation, what)
            return outcome

    def state(self, number: int) -> str:
        """The hidden state after step `number`, as JSON."""
        with boundary(self.name, f"state after step {number}"):
            state = json.dumps(self._world.state(), separators=(",", ":"), allow_nan=False)
        if len(state) > MAX_STATE:
            self._refuse(f"state after step {number}", state, f"at most {MAX_STATE} characters of JSON")
        return state

    def _observed(self, seen: Observation, what: str) -> Observation:
        if not isinstance(seen, Observation):
            self._refuse(what, seen, "an Observation")
        if not _is_text(seen.text, MAX_TEXT):
            self._refuse(f"{what}: text", seen.text, f"Unicode text of at most {MAX_TEXT} characters")
        legal = seen.legal
        if type(legal) is not tuple or not legal or not self._known.issuperset(legal) or len(set(legal)) != len(legal):
            self._refuse(f"{what}: legal", legal, f"a tuple of different words out of {', '.join(self.actions)}")
        if not _is_energy(seen.energy):
            self._refuse(f"{what}: energy", seen.energy, "a finite number")
        return seen

    def _refuse(self, what: str, got: object, expected: str) -> NoReturn:
        raise EnvironmentFailure(f"environment {self.name}: {what}: got {reprlib.repr(got)}, expected {expected}")


@contextmanager
def boundary(name: str, what: str) -> Iterator[None]:
    """The one place where a world's exceptions are turned into a failure with a name; `what` is what it was doing."""
    try:
        yield
    except (EnvironmentFailure, KeyboardInterrupt):
        raise
    except BaseException as error:  # a world is foreign code and may raise anything, SystemExit included
        raise EnvironmentFailure(f"environment {name}: {what} raised {blame(error)}") from error


def blame(error: BaseException) -> str:
    """Type and message of what foreign code raised, on one printable line."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - its message may be broken as well
        text = "(its message cannot be read)"
    return one_line(f"{type(error).__name__}: {text}", 300)


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
        missing = [part for part in PARTS if not hasattr(world, part)]
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin's import may raise anything; what it raised is the message
        raise UsageError(f"environment.name: {name!r} cannot be loaded: {blame(error)}") from error
    if missing or not isinstance(world, type):
        lack = f"it lacks {', '.join(missing)}" if missing else "it is no class"
        raise UsageError(f"environment.name: {name!r} is not an environment: {lack}")
    if not (isinstance(world.Settings, type) and issubclass(world.Settings, BaseModel)):  # type: ignore[attr-defined]
        raise UsageError(f"environment.name: {name!r} is not an environment: its Settings are no pydantic model")
    if not _is_word(world.name) or not world.name:  # type: ignore[attr-defined]
        raise UsageError(f"environment.name: {name!r} is not an environment: its name is no short word")
    return world


def maker(name: str, settings: Mapping[str, Any]) -> Callable[[], Environment]:
    """Makes fresh instances of the world `name`; looks it up and checks its settings once.

    Raises UsageError for a world that cannot be found or settings it does not accept, and as run files do: `yes` and
    "3" are no numbers. What is returned raises EnvironmentFailure when the world cannot be made.
    """
    world = find(name)
    try:
        with boundary(world.name, "its Settings"):
            checked = world.Settings.model_validate_json(json.dumps(dict(settings)), strict=True)
    except EnvironmentFailure as failure:
        if not isinstance(failure.__cause__, ValidationError):
            raise
        first = failure.__cause__.errors()[0]
        where = ".".join(str(part) for part in ("environment", "settings", *first["loc"]))
        raise UsageError(f"{where}: got {reprlib.repr(first['input'])}: {first['msg']}") from failure

    def build() -> Environment:
        with boundary(world.name, "its constructor"):
            return world(checked)

    return build


def make(name: str, settings: Mapping[str, Any]) -> Environment:
    """One fresh instance of the world `name`. Raises UsageError as `maker` does, or EnvironmentFailure."""
    return maker(name, settings)()


def rehearse(name: str, settings: Mapping[str, Any]) -> None:
    """Lives one step in the world `name`, so that a broken one is found before anything else is started.

    Raises UsageError or EnvironmentFailure.
    """
    guard = Guard(make(name, settings))
    guard.step(0, guard.reset(0).legal[0])
    guard.state(0)


def _is_text(value: object, most: int) -> bool:
    """True for text that can be written down: a lone surrogate cannot."""
    if type(value) is not str or len(value) > most:
        return False
    try:
        return value.isascii() or bool(value.encode())
    except UnicodeEncodeError:
        return False


def _is_word(value: object) -> bool:
    return type(value) is str and len(value) <= MAX_WORD and value.isprintable()


def _is_energy(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -MAX_ENERGY <= value <= MAX_ENERGY
