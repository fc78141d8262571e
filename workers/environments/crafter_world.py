"""Crafter as a survival world: health is the energy; hunger, thirst, fatigue, monsters and lava take it."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, Field

from telemetry.config import Config
from telemetry.records import EndReason
from workers.environment import Observation, Outcome
from workers.environments import crafter_text
from workers.environments.crafter_text import WORDS
from workers.environments.extras import need

_DEATHS = {"food": "starved", "drink": "thirst", "energy": "exhausted"}
_JUST_BITTEN = 5
"""Cooldown of a zombie in the step in which it hit."""
_MARKS = {"water": "~", "grass": ".", "stone": "#", "path": " ", "sand": ":", "tree": "T", "lava": "!"}


class CrafterSettings(Config):
    """Dials of Crafter. Its rules are its own."""

    area: int = Field(default=64, ge=16, le=64)
    """Cells along each side of the land; a land of 64 takes a second to make, one of 32 a quarter of it."""
    horizon: int = Field(default=200, ge=1, le=10_000)
    """Decisions after which a life that still goes on has survived."""
    repeat: int = Field(default=1, ge=1, le=20)
    """Steps of Crafter per decision: the action goes on so long, unless health is lost."""
    food: int = Field(default=9, ge=1, le=9)
    """Food at birth; one is used up in 26 steps."""
    drink: int = Field(default=9, ge=1, le=9)
    """Drink at birth; one is used up in 21 steps."""
    rest: int = Field(default=9, ge=1, le=9)
    """What Crafter calls energy, at birth; one is used up in 31 steps awake."""


class Crafter:
    """Crafter as a world, `crafter`."""

    name: ClassVar[str] = "crafter-v1"
    Settings: ClassVar[type[BaseModel]] = CrafterSettings
    actions: tuple[str, ...] = tuple(WORDS)
    rules: str = (
        "Survive: drink water, eat cows, sleep, fight zombies. Go west, east, north or south; act uses what you face."
    )

    def __init__(self, settings: CrafterSettings) -> None:
        need("crafter", "crafter")
        import crafter

        from workers.environments.crafter_env import QuietCrafter

        self._settings = settings
        self._constants = crafter.constants
        self._indices = {word: crafter.constants.actions.index(action) for word, action in WORDS.items()}
        self._env = QuietCrafter(area=(settings.area, settings.area), length=None, seed=0)
        self.reset(0)

    @property
    def horizon(self) -> int:
        return self._settings.horizon

    def reset(self, seed: int) -> Observation:
        """Begins the life of a seed."""
        self._env.begin(seed)
        settings = self._settings
        self._env.player.inventory |= {"food": settings.food, "drink": settings.drink, "energy": settings.rest}
        self._step = 0
        self._end: EndReason | None = None
        return self._observe()

    def step(self, action: str) -> Outcome:
        """Lives one decision. Raises ValueError for a word that is no action, RuntimeError when the life has ended."""
        if action not in self._indices:
            raise ValueError(f"{action!r} is not one of {', '.join(self.actions)}")
        if self._end is not None:
            raise RuntimeError("the life has ended; reset() begins the next one")
        player = self._env.player
        for _ in range(self._settings.repeat):
            before = player.health
            self._env.step(self._indices[action])
            if player.health < before:
                break
        self._step += 1
        cause = ""
        if player.health <= 0:
            self._end, cause = EndReason.DIED, self._cause()
        elif self._step == self._settings.horizon:
            self._end = EndReason.SURVIVED
        return Outcome(self._observe(), self._end, cause)

    def state(self) -> Mapping[str, Any]:
        """Hidden state: the inventory and the local map, with the player in the middle."""
        player, world = self._env.player, self._env.ground
        x, y = (int(one) for one in player.pos)
        rows = ["".join(self._mark(world[x + right, y + down]) for right in range(-9, 10)) for down in range(-7, 8)]
        return {
            "step": self._step,
            "inventory": {name: int(count) for name, count in player.inventory.items()},
            "position": [x, y],
            "facing": [int(one) for one in player.facing],
            "sleeping": player.sleeping,
            "daylight": round(float(world.daylight), 6),
            "achievements": {name: count for name, count in player.achievements.items() if count},
            "map": rows,
        }

    def result(self) -> Mapping[str, Any]:
        """Crafter's own measure besides survival: which achievements were unlocked."""
        unlocked = sorted(name for name, count in self._env.player.achievements.items() if count)
        return {"score": len(unlocked), "achievements": unlocked}

    @staticmethod
    def heuristic(observation: Observation) -> str:
        """Sensible play from the observation's text alone."""
        return crafter_text.survive(observation)

    @staticmethod
    def draw(state: Mapping[str, Any]) -> str:
        """The local map; creatures are letters, the player is `@`."""
        bag = ", ".join(f"{name} {count}" for name, count in state["inventory"].items() if count)
        return "\n".join((f"step {state['step']}  {bag}", *state["map"]))

    def _observe(self) -> Observation:
        player = self._env.player
        return Observation(crafter_text.tell(self._env.ground, player), self._legal(), float(player.health))

    def _legal(self) -> tuple[str, ...]:
        """What would do something now; the sleeping only sleep."""
        player, rules = self._env.player, self._constants
        if player.sleeping:
            return ("sleep",)
        bag, nearby = player.inventory, self._env.ground.nearby(player.pos, 1)[0]
        facing, creature = self._env.ground[player.pos[0] + player.facing[0], player.pos[1] + player.facing[1]]

        def can(word: str) -> bool:
            what, _, item = WORDS[word].partition("_")
            if what == "sleep":
                return bool(bag["energy"] < rules.items["energy"]["max"])
            if what not in ("place", "make"):
                return True
            recipe = (rules.place if what == "place" else rules.make)[item]
            fits = facing in recipe["where"] and creature is None if what == "place" else True
            return fits and set(recipe.get("nearby", ())) <= set(nearby) and _holds(bag, recipe["uses"])

        return tuple(word for word in self.actions if can(word))

    def _cause(self) -> str:
        """What took the last of the health, from what stands around and what is lacking."""
        player, world = self._env.player, self._env.ground
        if world[player.pos][0] == "lava":
            return "lava"
        near = [one for one in world.objects if type(one).__name__ == "Zombie" and one.distance(player) <= 1]
        if any(one.cooldown == _JUST_BITTEN for one in near):
            return "zombie"
        lacking = next((cause for need, cause in _DEATHS.items() if player.inventory[need] == 0), "")
        return lacking if lacking and player._recover == 0 else "arrow"

    @staticmethod
    def _mark(place: tuple[Any, Any]) -> str:
        material, creature = place
        if creature is not None:
            kind = type(creature).__name__
            return "@" if kind == "Player" else kind[0]
        return _MARKS.get(material, material[0]) if material else " "


def _holds(bag: Mapping[str, int], uses: Mapping[str, int]) -> bool:
    return all(bag[item] >= count for item, count in uses.items())
