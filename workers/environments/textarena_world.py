"""Single-player games of TextArena as a world: a game that is won is a meal, and life goes on with the next game.

The games draw from Python's and numpy's global generators. Law: every instance plays with generators of its own, which
stand in for the global ones while it moves and leave them as they were.
"""

import random
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from threading import RLock
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, Field

from telemetry.config import Config
from telemetry.failures import UsageError
from telemetry.records import EndReason
from telemetry.seeds import seed63
from workers.environment import Observation, Outcome
from workers.environments.extras import need

MOVES = ["up", "down", "left", "right"]
GAMES: Mapping[str, tuple[list[str], str]] = {
    "2048": (MOVES, "Slide the tiles; equal ones merge. Win by reaching the target tile."),
    "Bandit": (
        ["red", "blue", "green", "yellow", "purple"],
        "Press buttons to find the best one; the last press counts.",
    ),
    "Blackjack": (["hit", "stand"], "Get closer to 21 than the dealer, hand after hand."),
    "FrozenLake": (MOVES, "You are P. Walk to G; H is a hole."),
    "Secretary": (["accept", "continue"], "Accept the highest of the values; what was passed is gone."),
    "Sokoban": (MOVES, "Push every box onto a target."),
}
"""Words and rules of games whose answers are a choice; by the id up to `-v`."""
_LOCK = RLock()
_RULE = re.compile(r"[-+=_\s]*")
"""A line of a board that only draws."""


class TextArenaSettings(Config):
    """Which game, how it is told and answered, and what it is worth."""

    id: str = Field(default="FrozenLake-v0-random", pattern=r"^[\w.\-]{1,80}$")
    """Id of a single-player game of TextArena."""
    words: list[str] = Field(default_factory=list, max_length=128)
    """Answers to choose from; empty: those known of the game, else free text."""
    template: str = Field(default="[{answer}]", min_length=8, max_length=200, pattern=r"\{answer\}")
    """How an answer is told to the game; free text that has brackets of its own goes as it is."""
    max_tokens: int = Field(default=12, ge=1, le=1024)
    """Longest free-text answer, in tokens."""
    rules: str = Field(default="", max_length=2000)
    """What agents are told of the game, in place of the built-in sentence."""
    prompt: bool = False
    """Show the game's own explanation with every observation."""
    history: int = Field(default=2, ge=0, le=50)
    """How many of the game's last messages are shown, beside its board."""
    max_chars: int = Field(default=600, ge=50, le=20_000)
    """Longest observation in characters; what is older is cut off."""
    horizon: int = Field(default=40, ge=1, le=10_000)
    """Answers after which a life that still goes on has survived."""
    start_energy: float = Field(default=10.0, gt=0, le=1e6)
    """Energy at birth."""
    max_energy: float = Field(default=20.0, gt=0, le=1e6)
    """Energy that a body can hold."""
    upkeep: float = Field(default=1.0, ge=0, le=1e6)
    """Energy that every answer costs."""
    meal: float = Field(default=10.0, ge=0, le=1e6)
    """Energy for a reward of 1."""
    least_reward: float = Field(default=1.0, ge=-1e6, le=1e6)
    """A game that ends with less is lost and feeds nobody; many games give something for being near."""
    fatal_loss: bool = False
    """Losing a game is death."""
    fatal_invalid: bool = False
    """A move that the game refuses is death; else it only costs `invalid_cost`."""
    invalid_cost: float = Field(default=0.0, ge=0, le=1e6)
    """Further energy that a refused move costs."""


class TextArena:
    """A life of games. The library is imported with the first `reset`."""

    name: ClassVar[str] = "textarena-v1"
    Settings: ClassVar[type[BaseModel]] = TextArenaSettings

    def __init__(self, settings: TextArenaSettings) -> None:
        """Raises UsageError when TextArena is not installed, or the game's answers are neither known nor given."""
        need("textarena", "textarena")
        words, rules = GAMES.get(settings.id.partition("-v")[0], ([], f"Play {settings.id}. Answer in its format."))
        if settings.id == "Bandit-v0-hard":
            words = [*words, "orange", "pink", "brown", "gray", "black"]
        self._settings = settings
        self.actions = tuple(settings.words or words)
        says = f" Say {', '.join(self.actions[:-1])} or {self.actions[-1]}." if len(self.actions) > 1 else ""
        self.rules = f"{settings.rules or rules} A game won is energy; energy 0 is death.{says}"
        self._globals: tuple[Any, Any] | None = None

    @property
    def horizon(self) -> int:
        return self._settings.horizon

    def reset(self, seed: int) -> Observation:
        """Begins the life of a seed. Raises UsageError for an id that TextArena does not have."""
        self._seed, self._step, self._games, self._won = seed, 0, 0, 0
        self._energy = self._settings.start_energy
        self._end: EndReason | None = None
        self._begin()
        return self._observe()

    def step(self, action: str) -> Outcome:
        """Answers once. Raises RuntimeError when the life has ended."""
        if self._end is not None:
            raise RuntimeError("the life has ended; reset() begins the next one")
        settings = self._settings
        answer = action if "[" in action else settings.template.replace("{answer}", action.strip())
        with self._own():
            done, _ = self._game.step(action=answer)
            rewards, info = self._game.close() if done else ({}, {})
            invalid = bool(self._game.state.error_count) or bool(done and info[0].get("invalid_move"))
        self._read()
        self._step += 1
        energy = self._energy - settings.upkeep - settings.invalid_cost * invalid
        cause = "exhausted"
        if done:
            reward = float((rewards or {}).get(0, 0.0))
            won = reward >= settings.least_reward and not invalid
            self._won += won
            energy += settings.meal * reward * won
            if settings.fatal_loss and not won:
                energy, cause = 0.0, "lost"
        if settings.fatal_invalid and invalid:
            energy, cause = 0.0, "invalid"
        self._energy = max(0.0, min(energy, settings.max_energy))
        if not self._energy:
            self._end = EndReason.DIED
        elif self._step == settings.horizon:
            self._end = EndReason.SURVIVED
        elif done:
            self._games += 1
            self._begin()
        return Outcome(self._observe(), self._end, cause if self._end is EndReason.DIED else "")

    def state(self) -> Mapping[str, Any]:
        """Hidden state: the game's own, and how many were begun and won before."""
        return {
            "step": self._step,
            "energy": self._energy,
            "games": self._games,
            "won": self._won,
            "text": self._text(),
            "game": plain(self._game.state.game_state),
        }

    def result(self) -> Mapping[str, Any]:
        """`score` is the number of games won."""
        return {"score": self._won, "games": self._games}

    @staticmethod
    def draw(state: Mapping[str, Any]) -> str:
        """What the agent saw in a recorded state."""
        return f"step {state['step']}  energy {state['energy']:.1f}  won {state['won']}\n{state['text']}"

    @property
    def references(self) -> Mapping[str, Any]:
        """A skilled player for the lakes."""
        return {"heuristic": cross_lake} if self._settings.id.startswith("FrozenLake") else {}

    def _begin(self) -> None:
        """Begins the next game of the life."""
        seed = seed63(self._seed, "textarena", self._games)
        with self._own(seed):
            import textarena

            raw = self._settings.id.removesuffix("-raw") + "-raw"
            if raw not in textarena.envs.registration.ENV_REGISTRY:
                raise UsageError(f"environment.settings.id: TextArena has no game {self._settings.id!r}")
            self._game = textarena.make(raw)
            self._game.reset(num_players=1, seed=seed)
        self._prompt, self._board, self._said = "", "", list[str]()
        self._read()

    def _read(self) -> None:
        """Takes in what the game has said since."""
        _, messages = self._game.get_observation()
        for _, message, kind in messages:
            text = "\n".join(
                re.sub(" +", " ", line.strip()) for line in message.splitlines() if not _RULE.fullmatch(line)
            )
            if kind.name == "PROMPT":
                self._prompt = text
            elif kind.name == "GAME_BOARD":
                self._board = text
            elif kind.name != "PLAYER_ACTION":
                self._said.append(text)

    def _text(self) -> str:
        settings = self._settings
        said = self._said[-settings.history :] if settings.history else []
        parts = [self._prompt if settings.prompt else "", *said, self._board]
        text = "\n".join(part for part in parts if part)
        return text[-settings.max_chars :]

    def _observe(self) -> Observation:
        text = f"Energy {self._energy:.0f}.\n{self._text()}"
        return Observation(text, self.actions, self._energy, 0 if self.actions else self._settings.max_tokens)

    @contextmanager
    def _own(self, seed: int | None = None) -> Iterator[None]:
        """Puts the instance's generators in place of the global ones, newly seeded if asked; mutes what games print."""
        with _LOCK, redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            others = random.getstate(), np.random.get_state()
            if seed is not None:
                random.seed(seed)
                np.random.seed(seed % 2**32)
            elif self._globals is not None:
                random.setstate(self._globals[0])
                np.random.set_state(self._globals[1])
            try:
                yield
                self._globals = random.getstate(), np.random.get_state()
            finally:
                random.setstate(others[0])
                np.random.set_state(others[1])


def plain(value: Any) -> Any:
    """A game's state as JSON: keys become text, sets are sorted, what is no data becomes its text."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    return value if isinstance(value, str | bool | int | float) or value is None else type(value).__name__


def cross_lake(observation: Observation) -> str:
    """The first move of a shortest way over the ice, from the board that the agent sees."""
    rows = [line.strip("|").split("|") for line in observation.text.splitlines() if line.startswith("|")]
    cells = {(r, c): cell.strip() for r, row in enumerate(rows) for c, cell in enumerate(row)}
    start = next(cell for cell, what in cells.items() if "P" in what)
    ways: list[tuple[tuple[int, int], str]] = [(start, "")]
    seen = {start}
    for (row, column), first in ways:
        if cells[row, column] == "G":
            return first
        for word, (down, right) in zip(MOVES, ((-1, 0), (1, 0), (0, -1), (0, 1)), strict=True):
            cell = (row + down, column + right)
            if cells.get(cell, "H") != "H" and cell not in seen:
                seen.add(cell)
                ways.append((cell, first or word))
    return MOVES[0]
