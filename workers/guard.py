"""The one boundary behind which worlds are kept.

Law: a world is foreign code. It is only ever played through a guard, which turns whatever it raises, and whatever it
returns that it must not, into an EnvironmentFailure that names the world and the step.
"""

import json
import reprlib
from collections.abc import Mapping
from typing import NoReturn

import orjson

from telemetry.failures import ForagerError, one_line
from telemetry.records import EndReason
from workers.environment import Birth, Environment, Observation, Outcome, SharedEnvironment, Tool, Turn, World

MAX_ACTIONS = 128
MAX_HORIZON = 1_000_000
MAX_SEATS = 100_000
"""Of one instance, those born in it included."""
MAX_TOKENS = 4096
"""Of one free-text answer."""
MAX_WORD = 64
"""Characters of a name, an action or a cause of death."""
MAX_TEXT = 100_000
"""Characters of the rules or of one observation: far beyond what any engine takes."""
MAX_STATE = 1 << 20
"""Characters of a hidden state, or of a result, as JSON."""
MAX_ENERGY = 1e30
"""The ledger keeps energies as float32."""

_NUMBERS = (int, float)
# `json.dumps` would make an encoder for every state.
_encode_strictly = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_ONLY_JSON = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS


class EnvironmentFailure(ForagerError):
    """A world broke its contract; the fault of its author, never of the agent."""

    exit_code = 2


class _Checks:
    """What a world says of itself, read and checked once: it cannot move its horizon while a life goes on."""

    def __init__(self, world: World) -> None:
        self.name = str(world.name)
        with boundary(self.name, "its description"):
            self.rules, self.horizon, self.actions = world.rules, world.horizon, world.actions
            self.tools: tuple[Tool, ...] = getattr(world, "tools", ())
        if not _is_text(self.rules, MAX_TEXT):
            self._refuse("rules", self.rules, f"text of at most {MAX_TEXT} characters")
        if type(self.horizon) is not int or not 1 <= self.horizon <= MAX_HORIZON:
            self._refuse("horizon", self.horizon, f"a number of steps from 1 to {MAX_HORIZON}")
        words = self.actions
        if type(words) is not tuple or len(words) > MAX_ACTIONS or not all(is_word(word) and word for word in words):
            self._refuse("actions", self.actions, f"a tuple of at most {MAX_ACTIONS} short words")
        self._known = frozenset(words)
        if len(self._known) != len(words):
            self._refuse("actions", words, "a tuple of different words")
        # The last that were found to be in order: most worlds show the same at every step.
        self._legal: tuple[str, ...] = words
        if type(self.tools) is not tuple or not all(isinstance(tool, Tool) for tool in self.tools):
            self._refuse("tools", self.tools, "a tuple of Tool")

    def _outcome(self, outcome: object, what: str) -> Outcome:
        if not isinstance(outcome, Outcome):
            self._refuse(what, outcome, "an Outcome")
        if outcome.end is not None and (not isinstance(outcome.end, EndReason) or outcome.end is EndReason.CENSORED):
            self._refuse(f"{what}: end", outcome.end, "None, EndReason.DIED or EndReason.SURVIVED")
        if not is_word(outcome.cause):
            self._refuse(f"{what}: cause", outcome.cause, "a short word")
        self._observed(outcome.observation, what)
        return outcome

    def _observed(self, seen: object, what: str) -> Observation:
        if not isinstance(seen, Observation):
            self._refuse(what, seen, "an Observation")
        if not _is_text(seen.text, MAX_TEXT):
            self._refuse(f"{what}: text", seen.text, f"Unicode text of at most {MAX_TEXT} characters")
        legal = seen.legal
        if legal is not self._legal:
            if type(legal) is not tuple or not self._known.issuperset(legal) or len(set(legal)) != len(legal):
                self._refuse(f"{what}: legal", legal, f"a tuple of different words out of {', '.join(self.actions)}")
            self._legal = legal
        if not legal and seen.max_tokens == 0:
            self._refuse(f"{what}: legal", legal, f"some of {', '.join(self.actions) or 'its actions'}, or max_tokens")
        if type(seen.max_tokens) is not int or not 0 <= seen.max_tokens <= (0 if legal else MAX_TOKENS):
            expected = "0 beside legal actions" if legal else f"1 to {MAX_TOKENS}"
            self._refuse(f"{what}: max_tokens", seen.max_tokens, expected)
        if not _is_energy(seen.energy):
            self._refuse(f"{what}: energy", seen.energy, "a finite number")
        return seen

    def _json(self, value: object, what: str) -> str:
        text = _encode(value)
        return text if len(text) <= MAX_STATE else self._too_long(text, what)

    def _too_long(self, text: str, what: str) -> NoReturn:
        self._refuse(what, text, f"at most {MAX_STATE} characters of JSON")

    def _refuse(self, what: str, got: object, expected: str) -> NoReturn:
        raise EnvironmentFailure(f"environment {self.name}: {what}: got {reprlib.repr(got)}, expected {expected}")


class Guard(_Checks):
    """A world for one agent behind its contract: every method raises EnvironmentFailure when the world breaks it."""

    def __init__(self, world: Environment) -> None:
        super().__init__(world)
        self._world = world
        self._pay = getattr(world, "pay", None)

    def reset(self, seed: int) -> Observation:
        """Begins the life of a seed."""
        with boundary(self.name, "reset"):
            return self._observed(self._world.reset(seed), "reset")

    def pay(self, number: int, prompt_tokens: int, completion_tokens: int) -> None:
        """Tells the world what the decision of step `number` took, if it wants to know."""
        if self._pay is not None:
            with boundary(self.name, f"pay at step {number}"):
                self._pay(prompt_tokens, completion_tokens)

    # A boundary takes longer to enter than to find nothing wrong: what is called at every step goes without one.

    def step(self, number: int, action: str) -> Outcome:
        """Lives step `number`, counted from 0."""
        what = f"step {number}"
        try:
            return self._outcome(self._world.step(action), what)
        except BaseException as error:
            _fail(self.name, what, error)
            raise

    def state(self, number: int) -> str:
        """The hidden state after step `number`, as JSON."""
        try:
            text = _encode(self._world.state())
        except BaseException as error:
            _fail(self.name, f"state after step {number}", error)
            raise
        return text if len(text) <= MAX_STATE else self._too_long(text, f"state after step {number}")

    def result(self) -> str:
        """What the world has to say of the life that has ended, as JSON; empty when it says nothing."""
        ask = getattr(self._world, "result", None)
        if ask is None:
            return ""
        with boundary(self.name, "result"):
            return self._json(dict(ask()), "result")


class SharedGuard(_Checks):
    """A shared world behind its contract, as Guard."""

    def __init__(self, world: SharedEnvironment) -> None:
        super().__init__(world)
        self._world = world
        self._pay = getattr(world, "pay", None)
        self._alive: set[int] = set()
        self._seats = 0

    def reset(self, seed: int, seats: int) -> tuple[Observation, ...]:
        """Begins an instance with so many agents."""
        with boundary(self.name, "reset"):
            seen = self._world.reset(seed, seats)
        if type(seen) is not tuple or len(seen) != seats:
            self._refuse("reset", seen, f"a tuple of {seats} observations")
        self._alive, self._seats = set(range(seats)), seats
        return tuple(self._observed(one, f"reset, seat {seat}") for seat, one in enumerate(seen))

    def pay(self, seat: int, number: int, prompt_tokens: int, completion_tokens: int) -> None:
        """Tells the world what a seat's decision of turn `number` took, if it wants to know."""
        if self._pay is not None:
            with boundary(self.name, f"pay at turn {number}"):
                self._pay(seat, prompt_tokens, completion_tokens)

    def step(self, number: int, actions: Mapping[int, str]) -> Turn:
        """Lives turn `number`, counted from 0: the moves of all living seats."""
        what = f"turn {number}"
        with boundary(self.name, what):
            turn = self._world.step(actions)
        if not isinstance(turn, Turn):
            self._refuse(what, turn, "a Turn")
        if set(turn.outcomes) != self._alive:
            self._refuse(f"{what}: outcomes", sorted(turn.outcomes), f"one for each of the {len(self._alive)} seats")
        for seat, outcome in turn.outcomes.items():
            self._outcome(outcome, f"{what}, seat {seat}")
        for seat in sorted(turn.born):
            self._check_birth(what, seat, turn.born[seat])
        self._alive = {seat for seat, outcome in turn.outcomes.items() if outcome.end is None} | set(turn.born)
        return turn

    def _check_birth(self, what: str, seat: int, birth: Birth) -> None:
        if seat != self._seats or seat >= MAX_SEATS:
            self._refuse(f"{what}: born", seat, f"seat {self._seats}, the next one, below {MAX_SEATS}")
        if not isinstance(birth, Birth) or birth.parent not in self._alive:
            self._refuse(f"{what}: seat {seat}", birth, "a Birth whose parent was alive")
        self._observed(birth.observation, f"{what}, newborn seat {seat}")
        self._seats += 1

    def state(self, number: int, seat: int) -> str:
        """The hidden state recorded with a seat's move of turn `number`, as JSON."""
        what = f"state of seat {seat} after turn {number}"
        with boundary(self.name, what):
            return self._json(self._world.state(seat), what)

    def result(self, seat: int) -> str:
        """What the world has to say of a seat's life, as JSON; empty when it says nothing."""
        ask = getattr(self._world, "result", None)
        if ask is None:
            return ""
        with boundary(self.name, f"result of seat {seat}"):
            return self._json(dict(ask(seat)), "result")


def _encode(value: object) -> str:
    """JSON as the standard library writes it, but for floats with an exponent, in a tenth of its time.

    Raises ValueError or TypeError for what is none.
    """
    try:
        data = orjson.dumps(value, option=_ONLY_JSON)
    except orjson.JSONEncodeError:
        return _encode_strictly(value)
    # Numbers that are not finite become null here, and would be let through.
    return _encode_strictly(value) if b"null" in data or not data.isascii() else data.decode()


class boundary:
    """The one place where a world's exceptions are turned into a failure with a name; `what` is what it was doing.

    Entered often: a generator as context manager would take three times as long.
    """

    __slots__ = ("name", "what")

    def __init__(self, name: str, what: str) -> None:
        self.name, self.what = name, what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            _fail(self.name, self.what, error)


def _fail(name: str, what: str, error: BaseException) -> None:
    """Raises the failure that a world's exception is; returns where it is somebody else's."""
    # A world is foreign code and may raise anything, SystemExit included.
    if not isinstance(error, EnvironmentFailure | KeyboardInterrupt):
        raise EnvironmentFailure(f"environment {name}: {what} raised {blame(error)}") from error


def blame(error: BaseException) -> str:
    """Type and message of what foreign code raised, on one printable line."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - its message may be broken as well
        text = "(its message cannot be read)"
    return one_line(f"{type(error).__name__}: {text}", 300)


def is_word(value: object) -> bool:
    """True for a short printable string, the empty one included."""
    return type(value) is str and len(value) <= MAX_WORD and value.isprintable()


def _is_text(value: object, most: int) -> bool:
    """True for text that can be written down: a lone surrogate cannot."""
    if type(value) is not str or len(value) > most:
        return False
    try:
        return value.isascii() or bool(value.encode())
    except UnicodeEncodeError:
        return False


def _is_energy(value: object) -> bool:
    return isinstance(value, _NUMBERS) and not isinstance(value, bool) and -MAX_ENERGY <= value <= MAX_ENERGY
