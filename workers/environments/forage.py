"""Forage: one agent alone on a patch of land, with berries to find, frost to sit out and a wolf to stay clear of.

A step is: the agent acts, food is digested, metabolism (and frost, and marsh) is paid, the wolf moves, the weather
turns. Law: the weather and every draw of the wolf are fixed by the seed before the first step, so two agents with the
same seed meet the same world until their own actions make it differ.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, ClassVar

from pydantic import BaseModel

from telemetry.records import EndReason
from telemetry.seeds import rng
from workers.environment import Observation, Outcome
from workers.environments import forage_land, forage_text
from workers.environments.forage_land import (
    DIRECTIONS,
    Cell,
    Land,
    distance,
    lay_out,
    lay_out_unseen,
    move,
    offset,
    rings,
    towards,
)
from workers.environments.forage_settings import ForageSettings
from workers.environments.forage_text import CLEAR, FROST, RAIN, View

_WEATHERS = (CLEAR, RAIN, FROST)
_TURNS = {CLEAR: (0.80, 0.90), RAIN: (0.25, 0.90), FROST: (0.25, 0.30)}
"""Markov chain of the weather: from each weather, the cumulative probabilities of the next one in the order above."""

_GROUND = {
    forage_land.PLAIN: forage_text.PLAIN,
    forage_land.THICKET: forage_text.THICKET,
    forage_land.MARSH: forage_text.MARSH,
}


@dataclass(frozen=True, slots=True)
class _Fate:
    """What a seed decides before the first step, whatever the agent does."""

    land: Land
    weather: tuple[float, ...]
    """One uniform draw per step."""
    wolf: tuple[float, ...]
    """One uniform draw per step: below the wolf's speed it moves, and the draw then also picks where it wanders."""
    order: Mapping[Cell, int]
    """Number of each bush."""
    shown: tuple[tuple[int, int, int], ...]
    """The bushes as a state shows them when all are ripe."""


@dataclass(slots=True)
class _Life:
    """Everything that changes while a life goes on."""

    fate: _Fate
    land: Land
    energy: int
    agent: Cell
    wolf: Cell | None
    ripe_at: dict[Cell, int]
    """Step from which each bush is ripe."""
    ripe: set[Cell]
    """Bushes that are ripe now."""
    bare: deque[Cell] = field(default_factory=deque)
    """The others, soonest to be ripe first."""
    weather: str = CLEAR
    step: int = 0
    end: EndReason | None = None


class Forage:
    """The foraging world. A fresh instance stands at the beginning of the life with seed 0."""

    name: ClassVar[str] = "forage-v1"
    Settings: ClassVar[type[BaseModel]] = ForageSettings
    actions: tuple[str, ...] = (*DIRECTIONS, "eat", "rest")
    rules: str = "Stay alive. Say north, south, east, west, eat or rest."

    def __init__(self, settings: ForageSettings) -> None:
        self._settings = settings

    @cached_property
    def _life(self) -> _Life:
        # Most instances are reset before anything else, and a land is what costs most.
        return _born(self._settings, 0)

    @property
    def horizon(self) -> int:
        return self._settings.horizon

    def reset(self, seed: int) -> Observation:
        """Begins the life of a seed."""
        self._life = _born(self._settings, seed)
        return self._observe()

    def step(self, action: str) -> Outcome:
        """Lives one step. Raises ValueError for a word that is no action, RuntimeError when the life has ended."""
        life = self._life
        if action not in self.actions:
            raise ValueError(f"{action!r} is not one of {', '.join(self.actions)}")
        if life.end is not None:
            raise RuntimeError("the life has ended; reset() begins the next one")
        cause = self._act(action) or self._meet_the_wolf()
        if self._settings.weather:
            life.weather = _WEATHERS[bisect_right(_TURNS[life.weather], life.fate.weather[life.step])]
        life.step += 1
        while life.bare and life.ripe_at[life.bare[0]] <= life.step:
            life.ripe.add(life.bare.popleft())
        if cause:
            life.end = EndReason.DIED
        elif life.step == self._settings.horizon:
            life.end = EndReason.SURVIVED
        return Outcome(self._observe(), life.end, cause)

    def state(self) -> Mapping[str, Any]:
        """Hidden state: a bush is `[x, y, steps until ripe]`, the wolf is null where there is none."""
        life, step, order = self._life, self._life.step, self._life.fate.order
        bushes = list(map(list, life.fate.shown))
        for bush in life.bare:
            bushes[order[bush]][2] = life.ripe_at[bush] - step
        return {
            "step": step,
            "energy": life.energy,
            "weather": life.weather,
            "agent": list(life.agent),
            "wolf": list(life.wolf) if life.wolf else None,
            "bushes": bushes,
            "terrain": list(life.land.rows),
        }

    @staticmethod
    def heuristic(observation: Observation) -> str:
        """Sensible play from the observation's text alone."""
        return forage_text.sensible_action(forage_text.parse(observation.text))

    @staticmethod
    def draw(state: Mapping[str, Any]) -> str:
        """ASCII map of a recorded state."""
        return forage_land.draw(state)

    def _act(self, action: str) -> str:
        """Moves or eats, then pays for the step. Returns the cause of death, if any."""
        life, settings = self._life, self._settings
        marsh = frost = 0
        if action in DIRECTIONS:
            life.agent = move(settings.size, life.agent, action)
            marsh = settings.marsh_cost if self._ground(life.agent) == forage_land.MARSH else 0
        elif action == "eat" and life.agent in life.ripe:
            life.ripe.remove(life.agent)
            life.bare.append(life.agent)
            life.ripe_at[life.agent] = life.step + settings.regrow_steps
            life.energy = min(settings.max_energy, life.energy + settings.food_energy)
        if action != "rest" and life.weather == FROST:
            frost = settings.frost_cost
        for cost, cause in ((settings.metabolism, "starved"), (frost, "frozen"), (marsh, "exhausted")):
            life.energy -= cost
            if life.energy <= 0:
                life.energy = 0
                return cause
        return ""

    def _meet_the_wolf(self) -> str:
        """Moves the wolf; it bites an agent on its cell and returns to its den. Returns the cause of death, if any."""
        life = self._life
        if life.wolf is None:
            return ""
        draw, speed = life.fate.wolf[life.step], self._settings.predator_speed
        if life.wolf != life.agent and draw < speed:
            life.wolf = self._wolf_moves(life.wolf, self.actions[int(draw / speed * 4)])
        if life.wolf != life.agent:
            return ""
        life.energy = max(0, life.energy - self._settings.bite)
        if not life.energy:
            return "predator"
        life.wolf = life.land.den
        return ""

    def _wolf_moves(self, wolf: Cell, wander: str) -> Cell:
        """One step towards an agent that it sees, else wherever it wanders; never into a thicket."""
        life, size = self._life, self._settings.size
        way = offset(size, wolf, life.agent)
        hunts = distance(way) <= self._sight() and self._ground(life.agent) != forage_land.THICKET
        for word in towards(way) if hunts else (wander,):
            cell = move(size, wolf, word)
            if self._ground(cell) != forage_land.THICKET:
                return cell
        return wolf

    def _observe(self) -> Observation:
        life, size, sight = self._life, self._settings.size, self._sight()
        wolf = offset(size, life.agent, life.wolf) if life.wolf else None
        if wolf and distance(wolf) > sight:
            wolf = None
        text = forage_text.render(View(life.weather, life.energy, wolf, self._food(sight), self._here()))
        return Observation(text, self.actions, float(life.energy))

    def _food(self, sight: int) -> Cell | None:
        """Way to the nearest ripe bush in sight but the one underfoot; of equals, to the first of the land."""
        life, size = self._life, self._settings.size
        for ring in rings(size, life.agent, sight):
            found = ring & life.ripe
            if found:
                return offset(size, life.agent, min(found, key=life.fate.order.__getitem__))
        return None

    def _here(self) -> str:
        life = self._life
        if life.agent in life.ripe:
            return forage_text.BERRIES
        return forage_text.BARE_BUSH if life.agent in life.ripe_at else _GROUND[self._ground(life.agent)]

    def _ground(self, cell: Cell) -> str:
        return self._life.land.rows[cell[1]][cell[0]]

    def _sight(self) -> int:
        """How far agent and wolf see in the weather of this step."""
        sight = self._settings.sight
        return (sight + 1) // 2 if self._life.weather == RAIN else sight


@lru_cache(maxsize=256)
def _fate(settings: ForageSettings, seed: int) -> _Fate:
    """Remembered, because every individual of a generation meets the same worlds."""
    draws = rng(seed, "forage")
    family = lay_out if settings.maps == "train" else lay_out_unseen
    land = family(settings.size, settings.bushes, settings.sight, draws)
    weather, wolf = (tuple(draws.random(settings.horizon).tolist()) for _ in range(2))
    order = {bush: number for number, bush in enumerate(land.bushes)}
    return _Fate(land, weather, wolf, order, tuple((x, y, 0) for x, y in land.bushes))


def _born(settings: ForageSettings, seed: int) -> _Life:
    fate = _fate(settings, seed)
    land = fate.land
    return _Life(
        fate=fate,
        land=land,
        energy=settings.start_energy,
        agent=land.start,
        wolf=land.den if settings.predator else None,
        ripe_at=dict.fromkeys(land.bushes, 0),
        ripe=set(land.bushes),
    )
