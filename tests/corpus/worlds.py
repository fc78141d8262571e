"""Broken worlds: each keeps the contract but for one thing, and none before its third step unless its name says so."""

from asyncio import CancelledError
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel

from telemetry.records import EndReason
from workers.environment import Observation, Outcome


class Settings(BaseModel, extra="forbid"):
    horizon: int = 8


class Good:
    """Nothing is wrong with it: ten units of energy, one for every step."""

    name: ClassVar[str] = "good-v1"
    Settings: ClassVar[type[BaseModel]] = Settings
    rules: Any = "Go left or right."
    actions: Any = ("left", "right")
    horizon: Any = 8

    def __init__(self, settings: Any) -> None:
        self.horizon = settings.horizon
        self.day = 0

    def reset(self, seed: int) -> Any:
        self.day = 0
        return self.observe()

    def step(self, action: str) -> Any:
        self.day += 1
        return self.odd() if self.day == 3 else Outcome(self.observe())

    def odd(self) -> Any:
        """What the third step returns."""
        return Outcome(self.observe())

    def observe(self) -> Any:
        return Observation(f"Day {self.day}.", self.actions, 10.0 - self.day)

    def state(self) -> Any:
        return {"day": self.day}


class Words(BaseException):
    """An exception whose own words are broken."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def third(word: str, result: Any) -> type[Good]:
    """A world whose third step gives `result`, or what `result(world)` gives."""

    def odd(self: Good) -> Any:
        return result(self) if callable(result) else result

    return type(word, (Good,), {"name": word, "odd": odd})


def seen(word: str, **changes: Any) -> type[Good]:
    """A world whose third observation has other parts."""

    def odd(self: Good) -> Any:
        parts = {"text": "Day 3.", "legal": self.actions, "energy": 7.0} | changes
        return Outcome(Observation(**parts))

    return type(word, (Good,), {"name": word, "odd": odd})


def raising(word: str, error: BaseException) -> type[Good]:
    def odd(self: Good) -> Any:
        raise error

    return type(word, (Good,), {"name": word, "odd": odd})


def from_start(word: str, **parts: Any) -> type[Good]:
    """A world that is broken before its first life."""
    return type(word, (Good,), {"name": word, **parts})


def fail(self: Any, *_: Any) -> Any:
    raise RuntimeError("broken \x1b[31mby\ndesign")


AT_STEP: Mapping[str, tuple[type[Good], str]] = {
    world.name: (world, words)
    for world, words in (
        (raising("Raises", ZeroDivisionError("division by zero")), "step 2 raised ZeroDivisionError: division by zero"),
        (raising("Escapes", RuntimeError("\x1b[2J\nowned")), "step 2 raised RuntimeError: [2J owned"),
        (raising("Exits", SystemExit(0)), "step 2 raised SystemExit: 0"),
        (raising("Cancels", CancelledError()), "step 2 raised CancelledError"),
        (raising("Speechless", Words()), "step 2 raised Words: (its message cannot be read)"),
        (raising("Long", ValueError(10_000 * "x")), "step 2 raised ValueError: xxx"),
        (third("Nothing", None), "step 2: got None, expected an Outcome"),
        (third("Pair", ("text", 1.0)), "step 2: got ('text', 1.0), expected an Outcome"),
        (third("NoView", Outcome(None)), "step 2: got None, expected an Observation"),  # type: ignore[arg-type]
        (third("Ends", lambda w: Outcome(w.observe(), "died")), "step 2: end"),  # type: ignore[arg-type]
        (third("Censors", lambda w: Outcome(w.observe(), EndReason.CENSORED)), "step 2: end"),
        (third("Cause", lambda w: Outcome(w.observe(), EndReason.DIED, "a\x1b[31m")), "step 2: cause"),
        (third("Causes", lambda w: Outcome(w.observe(), EndReason.DIED, 65 * "x")), "step 2: cause"),
        (third("Causeless", lambda w: Outcome(w.observe(), EndReason.DIED, None)), "step 2: cause"),  # type: ignore[arg-type]
        (seen("NaN", energy=float("nan")), "step 2: energy: got nan, expected a finite number"),
        (seen("Infinite", energy=float("inf")), "step 2: energy: got inf"),
        (seen("Huge", energy=10**400), "step 2: energy"),
        (seen("Overflow", energy=1e300), "step 2: energy: got 1e+300"),
        (seen("Truth", energy=True), "step 2: energy: got True"),
        (seen("Energies", energy="7"), "step 2: energy: got '7'"),
        (seen("Bytes", text=b"Day 3."), "step 2: text: got b'Day 3.'"),
        (seen("Surrogate", text="Day \ud800."), "step 2: text: got 'Day \\ud800.'"),
        (seen("Novel", text=100_001 * "x"), "step 2: text"),
        (seen("Nowhere", legal=()), "step 2: legal: got ()"),
        (seen("Listed", legal=["left"]), "step 2: legal: got ['left']"),
        (seen("Unknown", legal=("up",)), "step 2: legal: got ('up',), expected a tuple of different words out of left"),
        (seen("Twice", legal=("left", "left")), "step 2: legal"),
        (seen("Numbers", legal=(1, 2)), "step 2: legal"),
        (seen("Unhashable", legal=([],)), "step 2 raised TypeError"),
    )
}
"""Worlds that break in the third step, by name, with words of what is said then."""

HIDDEN = {
    "Set": (lambda self: {"day": {1}}, "raised TypeError"),
    "StateNaN": (lambda self: {"day": float("nan")}, "raised ValueError"),
    "Giant": (lambda self: {"day": (1 << 21) * "x"}, "expected at most 1048576 characters"),
    "Fails": (fail, "raised RuntimeError: broken [31mby design"),
}
AT_START: Mapping[str, tuple[type[Good], str]] = {
    world.name: (world, words)
    for world, words in (
        (from_start("NoRules", rules=None), "rules: got None"),
        (from_start("LoneRules", rules="\udfff"), "rules: got '\\udfff'"),
        (from_start("Failing", rules=property(fail)), "its description raised RuntimeError: broken [31mby design"),
        (from_start("NoActions", actions=()), "reset: legal: got ()"),
        (from_start("ListOfActions", actions=["left"]), "actions: got ['left']"),
        (from_start("SameActions", actions=("left", "left")), "expected a tuple of different words"),
        (from_start("EmptyAction", actions=("",)), "actions: got ('',)"),
        (from_start("EscapeAction", actions=("\x1b[31m",)), "actions: got ('\\x1b[31m',)"),
        (from_start("ManyActions", actions=tuple(map(str, range(129)))), "a tuple of at most 128 short words"),
        (from_start("NoHorizon", __init__=lambda self, settings: setattr(self, "horizon", 0)), "horizon: got 0"),
        (from_start("HalfHorizon", __init__=lambda self, settings: setattr(self, "horizon", 1.5)), "horizon: got 1.5"),
        (from_start("NoConstructor", __init__=fail), "its constructor raised RuntimeError: broken [31mby design"),
        (from_start("NoReset", reset=fail), "reset raised RuntimeError: broken [31mby design"),
        (from_start("EmptyReset", reset=lambda self, seed: None), "reset: got None, expected an Observation"),
        (from_start("FirstStep", step=fail), "step 0 raised RuntimeError: broken [31mby design"),
        *((from_start(name, state=state), words) for name, (state, words) in HIDDEN.items()),
    )
}
"""Worlds that are broken before their first life."""


def __getattr__(name: str) -> type[Good]:
    """`tests.corpus.worlds:NaN` in a run file finds the world of that name."""
    known = {**AT_STEP, **AT_START}
    if name not in known:
        raise AttributeError(name)
    return known[name][0]


class Escaping(Good):
    """Keeps the contract, and writes what would move the cursor of whoever shows it."""

    name = "escaping-v1"

    def observe(self) -> Observation:
        words = (
            f'Day {self.day}. \x1b[2J\x1b]0;owned\x07 \u202e <script>alert(1)</script> "}}\n# HELP x =cmd() <|im_end|>'
        )
        return Observation(words, self.actions, 10.0 - self.day)

    def step(self, action: str) -> Outcome:
        self.day += 1
        dead = self.day == 4
        return Outcome(self.observe(), EndReason.DIED if dead else None, "<b>{x}=cmd()" if dead else "")

    @staticmethod
    def draw(state: Mapping[str, Any]) -> str:
        return f"\x1b[31m{state}"


class Sometimes(Good):
    """Breaks in some lives only: those whose seed is divisible by `divisor`."""

    name = "sometimes-v1"
    divisor = 7

    def reset(self, seed: int) -> Observation:
        self.bad = seed % self.divisor == 0
        return super().reset(seed)  # type: ignore[no-any-return]

    def odd(self) -> Outcome:
        if self.bad:
            raise RuntimeError("a bad seed")
        return super().odd()  # type: ignore[no-any-return]
