"""A Forager world as a Gymnasium environment, for whoever trains or plays with other tools. Imports gymnasium.

register("forage")                                     # -> "forager/forage-v1"
env = gymnasium.make("forager/forage-v1")
text, info = env.reset(seed=7)
text, reward, terminated, truncated, info = env.step(4)  # eat
"""

import string
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from telemetry.failures import UsageError
from telemetry.records import EndReason
from workers.environment import Observation, is_shared
from workers.guard import Guard
from workers.registry import find, make

MAX_CHARS = 4000
"""Characters of an observation; longer ones are cut."""


class ForagerEnv(gymnasium.Env[str, Any]):
    """One life per episode.

    Observations are texts; `info` has `legal` (the words that may be said now), `actions` (a mask of the legal ones
    over the action space), `energy` and, at the end, `cause`. Actions are indices into the world's actions, or texts in
    a world of free text. The reward is the change of energy. Death terminates, survival truncates: a life that
    reached the horizon was not over.

    An action that is not legal now counts as the first legal one, and `info["illegal"]` says so.
    """

    def __init__(self, world: str = "forage", settings: Mapping[str, Any] | None = None) -> None:
        """Raises UsageError for a shared world, and as `workers.registry.make`."""
        if is_shared(find(world)):
            raise UsageError(f"world: got {world!r}, which several agents share, expected a world for one agent")
        self._world = Guard(make(world, settings or {}))
        text = spaces.Text(MAX_CHARS, min_length=0, charset=string.printable)
        self.observation_space = text
        self.action_space = spaces.Discrete(len(self._world.actions)) if self._world.actions else text
        self._step = 0
        self._seen = Observation("", (), 0.0)

    @property
    def rules(self) -> str:
        """What the world tells every agent."""
        return self._world.rules

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begins the life of a seed; without one, of a seed drawn from the environment's own generator."""
        super().reset(seed=seed)
        self._step = 0
        self._seen = self._world.reset(int(self.np_random.integers(2**31)) if seed is None else seed)
        return _ascii(self._seen.text), self._info()

    def step(self, action: Any) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Lives one step."""
        said = str(action) if isinstance(self.action_space, spaces.Text) else self._world.actions[int(action)]
        legal = self._seen.legal
        illegal = bool(legal) and said not in legal
        before = self._seen.energy
        self._world.pay(self._step, 0, 0)
        outcome = self._world.step(self._step, legal[0] if illegal else said)
        self._seen, self._step = outcome.observation, self._step + 1
        died = outcome.end is EndReason.DIED
        survived = outcome.end is EndReason.SURVIVED or (not died and self._step >= self._world.horizon)
        info = self._info() | {"illegal": illegal}
        if outcome.end is not None:
            info["cause"] = outcome.cause
        return _ascii(self._seen.text), float(self._seen.energy - before), died, survived, info

    def _info(self) -> dict[str, Any]:
        mask = np.array([word in self._seen.legal for word in self._world.actions], dtype=np.int8)
        return {"legal": self._seen.legal, "actions": mask, "energy": float(self._seen.energy)}


def register(world: str, settings: Mapping[str, Any] | None = None) -> str:
    """Makes a world known to `gymnasium.make`; returns its id, such as `forager/forage-v1`. Raises UsageError."""
    id = f"forager/{find(world).name}"
    gymnasium.register(
        id, entry_point=f"{__name__}:ForagerEnv", kwargs={"world": world, "settings": dict(settings or {})}
    )
    return id


def _ascii(text: str) -> str:
    """What the observation space holds: printable ASCII."""
    return "".join(one if one in string.printable else "?" for one in text[:MAX_CHARS])
