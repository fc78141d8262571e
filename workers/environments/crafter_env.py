"""Crafter without pictures, and the same in every process. Imports crafter; only `crafter_world` imports this.

Crafter 1.8.3 draws every frame, which takes nearly all of its time, and picks the creature that leaves a chunk out of a
set that is ordered by memory address, so that equal seeds part ways. Both are mended here; the rules are Crafter's own.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import crafter
import numpy as np
from crafter import objects, worldgen

_SEEDS = 2**31 - 1
_LANDS = 256
"""Generated lands that are kept, some 10 kB each: all individuals of a generation live in the same ones."""


class _Land(NamedTuple):
    """A land as it is before the first step. Never changed."""

    ground: bytes
    creatures: tuple[tuple[type[Any], tuple[int, int]], ...]
    randomness: tuple[Any, ...]
    """State of the generator when the land was done."""


class QuietCrafter(crafter.Env):  # type: ignore[misc]
    """Crafter that begins anew from any seed and shows no frames."""

    def begin(self, seed: int) -> None:
        """As `crafter.Env(area, seed=seed).reset()`, land and creatures included."""
        world = self._world
        area = (int(world.area[0]), int(world.area[1]))
        number = hash((seed, 1)) % _SEEDS
        land = _land(number, area)
        world.reset(seed=number)
        self._step = 0
        self._unlocked: set[str] = set()
        self._update_time()
        self._player = objects.Player(world, (area[0] // 2, area[1] // 2))
        self._last_health = self._player.health
        world.add(self._player)
        world._mat_map[:] = np.frombuffer(land.ground, np.uint8).reshape(area)
        for kind, place in land.creatures:
            world.add(kind(world, place) if kind is objects.Cow else kind(world, place, self._player))
        world.random.set_state(land.randomness)

    @property
    def ground(self) -> Any:
        """The world: materials, creatures, daylight."""
        return self._world

    @property
    def player(self) -> Any:
        return self._player

    def _obs(self) -> None:
        """No frame is drawn."""

    def _balance_chunk(self, chunk: Any, objs: Any) -> None:
        """As Crafter does, with the creatures in the order in which they came."""
        super()._balance_chunk(chunk, sorted(objs, key=lambda one: self._world._obj_map[tuple(one.pos)]))


@lru_cache(maxsize=_LANDS)
def _land(number: int, area: tuple[int, int]) -> _Land:
    """Generates a land, which takes Crafter about a second."""
    world = crafter.engine.World(area, crafter.constants.materials, (12, 12))
    world.reset(seed=number)
    player = objects.Player(world, (area[0] // 2, area[1] // 2))
    world.add(player)
    worldgen.generate_world(world, player)
    creatures = tuple((type(one), (int(one.pos[0]), int(one.pos[1]))) for one in world.objects if one is not player)
    return _Land(world._mat_map.tobytes(), creatures, world.random.get_state())
