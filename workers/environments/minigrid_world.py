"""MiniGrid and BabyAI as survival worlds: missions in a small grid, told in words, one after another in a life."""

import os
from typing import Any, ClassVar

from pydantic import BaseModel, Field

from workers.environments import minigrid_text
from workers.environments.episodes import Env, EpisodeSettings, EpisodeWorld, Game
from workers.environments.extras import need


class MinigridSettings(EpisodeSettings):
    """Which mission, and what it is worth."""

    id: str = Field(default="MiniGrid-LavaGapS6-v0", min_length=1, max_length=200)
    """Registered id of MiniGrid or BabyAI."""
    hands: bool = False
    """Offer take, drop and open besides left, right and forward: doors, keys and balls need them."""
    start_energy: float = Field(default=20.0, gt=0, le=1e6)
    """Energy at birth."""
    max_energy: float = Field(default=40.0, gt=0, le=1e6)
    """Energy that a body can hold; what comes in beyond it is wasted."""
    horizon: int = Field(default=60, ge=1, le=100_000)
    """Steps after which a life that still goes on has survived."""
    reward_scale: float = Field(default=20.0, ge=-1e6, le=1e6)
    """Energy for a reward of 1, which is a mission accomplished at once; it shrinks to 0.1 with the steps taken."""
    fatal_end: float | None = Field(default=0.0, ge=-1e6, le=1e6)
    """An episode that ends with a reward up to this is a death: lava, obstacles, a mission failed for good."""


class Minigrid(EpisodeWorld):
    """MiniGrid as a world, `minigrid`."""

    name: ClassVar[str] = "minigrid-v1"
    Settings: ClassVar[type[BaseModel]] = MinigridSettings

    def __init__(self, settings: MinigridSettings) -> None:
        need("minigrid", "minigrid")
        # It imports pygame, which greets on stdout.
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        import gymnasium
        import minigrid  # noqa: F401 - registers its environments

        options: dict[str, Any] = dict(settings.options)
        env = gymnasium.make(settings.id, disable_env_checker=True, **options)
        words = minigrid_text.WALK + (minigrid_text.HANDS if settings.hands else ())
        game = Game(
            "Get where the mission says; lava and collisions kill.",
            words,
            minigrid_text.tell,
            minigrid_text.distance,
            minigrid_text.cause,
            minigrid_text.walk,
        )
        super().__init__(settings, game, env)

    def _fresh(self, seed: int) -> Env:
        return self._env

    def _screen(self) -> str:
        return str(self._env.unwrapped.pprint_grid())

    def state(self) -> dict[str, Any]:
        """Hidden state; the grid holds all of it, so the view is left out."""
        return {**super().state(), "observation": str(self._seen["mission"])}
