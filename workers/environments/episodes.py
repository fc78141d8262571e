"""Episodes of a Gymnasium environment as one life; what the worlds `gymnasium` and `minigrid` share.

Law of energy: a life begins with more than 0, every reward comes in as energy, living costs some, and 0 is death. An
episode that ends well is a meal, not the end: the next one begins in the same life. So an agent lives for as long as
its rewards pay for its steps, and survival time is a fitness for any environment, whatever its rewards mean.

Nothing here imports gymnasium; whoever makes the environment does.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field, JsonValue

from telemetry.config import Config
from telemetry.records import EndReason
from workers.environment import Observation, Outcome, Policy

Env = Any
"""A `gymnasium.Env` with discrete actions."""


@dataclass(frozen=True, slots=True)
class Game:
    """How an environment is told to an agent. Functions get the environment as it stands."""

    rules: str
    """What the game is about, in a sentence."""
    words: tuple[str, ...]
    """Word of each action index; they must begin with different tokens."""
    tell: Callable[[Env, Any], str]
    """The environment and its last observation as text."""
    distance: Callable[[Env], int | None] = lambda env: None
    """Moves to the goal as the crow flies; None where there is none."""
    cause: Callable[[Env], str] = lambda env: "fell"
    """Of the death that a fatal end is, as a short word."""
    heuristic: Policy | None = None


class EpisodeSettings(Config):
    """What an episode is worth. All energies are in the same unit."""

    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Keyword arguments of `gymnasium.make`."""
    horizon: int = Field(default=40, ge=1, le=100_000)
    """Steps after which a life that still goes on has survived."""
    start_energy: float = Field(default=12.0, gt=0, le=1e6)
    """Energy at birth."""
    max_energy: float = Field(default=24.0, gt=0, le=1e6)
    """Energy that a body can hold; what comes in beyond it is wasted."""
    upkeep: float = Field(default=1.0, ge=0, le=1e6)
    """Energy that every step costs."""
    reward_scale: float = Field(default=1.0, ge=-1e6, le=1e6)
    """Energy for a reward of 1."""
    prize: float = Field(default=0.0, ge=0, le=1e6)
    """Further energy for an episode that ends and is no death."""
    approach: float = Field(default=0.0, ge=0, le=1e6)
    """Energy for each move nearer to the goal, and lost for each away from it, where the distance is known."""
    fatal_end: float | None = Field(default=None, ge=-1e6, le=1e6)
    """An episode that ends with a reward up to this is a death; null: none is."""
    fatal_step: float | None = Field(default=None, ge=-1e6, le=1e6)
    """Any step with a reward up to this is a death; null: none is."""
    again: bool = True
    """After an episode that is no death the next one begins; false: the life has survived."""


class EpisodeWorld(ABC):
    """A life of many episodes. An environment gets the life's seed once and goes on drawing from its own generator."""

    def __init__(self, settings: EpisodeSettings, game: Game, env: Env) -> None:
        self._settings, self._game, self._env = settings, game, env
        self.actions = game.words
        self.rules = f"{game.rules} Say {', '.join(game.words[:-1])} or {game.words[-1]}."
        self.references: dict[str, Policy] = {"heuristic": game.heuristic} if game.heuristic else {}
        self.reset(0)

    @property
    def horizon(self) -> int:
        return self._settings.horizon

    @abstractmethod
    def _fresh(self, seed: int) -> Env:
        """The environment for the life of a seed; may be the one that is there."""

    def reset(self, seed: int) -> Observation:
        """Begins the life of a seed."""
        self._env = self._fresh(seed)
        self._energy, self._step, self._episode = self._settings.start_energy, 0, 0
        self._end: EndReason | None = None
        self._seen, _ = self._env.reset(seed=seed)
        return self._observe()

    def step(self, action: str) -> Outcome:
        """Lives one step. Raises ValueError for a word that is no action, RuntimeError when the life has ended."""
        if action not in self.actions:
            raise ValueError(f"{action!r} is not one of {', '.join(self.actions)}")
        if self._end is not None:
            raise RuntimeError("the life has ended; reset() begins the next one")
        settings, far = self._settings, self._game.distance(self._env)
        self._seen, reward, terminated, truncated, _ = self._env.step(self.actions.index(action))
        reward, near = float(reward), self._game.distance(self._env)
        self._step += 1
        energy = self._energy + settings.reward_scale * reward - settings.upkeep
        if far is not None and near is not None:
            energy += settings.approach * (far - near)
        fatal = (terminated and _up_to(reward, settings.fatal_end)) or _up_to(reward, settings.fatal_step)
        if terminated and not fatal:
            energy += settings.prize
        self._energy = 0.0 if fatal else max(0.0, min(energy, settings.max_energy))
        if self._energy == 0:
            self._end = EndReason.DIED
        elif self._step == settings.horizon or (terminated and not settings.again):
            self._end = EndReason.SURVIVED
        elif terminated or truncated:
            self._episode += 1
            self._seen, _ = self._env.reset()
        cause = self._game.cause(self._env) if fatal else "exhausted" if self._energy == 0 else ""
        return Outcome(self._observe(), self._end, cause)

    def state(self) -> Mapping[str, Any]:
        """Hidden state: what the environment shows, as data and, where it can, as its own text."""
        return {
            "step": self._step,
            "energy": self._energy,
            "episode": self._episode,
            "observation": plain(self._seen),
            "screen": self._screen(),
        }

    @staticmethod
    def draw(state: Mapping[str, Any]) -> str:
        """The environment's own text, or the observation where it has none."""
        title = f"step {state['step']}  energy {state['energy']:.1f}  episode {state['episode']}"
        return f"{title}\n{state['screen'] or state['observation']}"

    @abstractmethod
    def _screen(self) -> str:
        """The environment drawn as text; empty where it cannot be."""

    def _observe(self) -> Observation:
        text = f"Energy {math.ceil(self._energy)}. {self._game.tell(self._env, self._seen)}"
        return Observation(text, self.actions, self._energy)


def plain(value: Any) -> Any:
    """An observation as JSON: arrays and numpy numbers become lists and numbers, what is neither its text."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    if isinstance(value, str | bool | int | float) or value is None:
        return value
    return value.tolist() if hasattr(value, "tolist") else str(value)


def way(right: int, down: int, words: tuple[str, str, str, str] = ("left", "right", "up", "down")) -> str:
    """A way in words, the longer leg first: `right 3 down 1`, or `here`."""
    left_word, right_word, up_word, down_word = words
    legs = [(abs(right), right_word if right > 0 else left_word), (abs(down), down_word if down > 0 else up_word)]
    return " ".join(f"{word} {cells}" for cells, word in sorted(legs, key=lambda leg: -leg[0]) if cells) or "here"


def _up_to(reward: float, bound: float | None) -> bool:
    return bound is not None and reward <= bound
