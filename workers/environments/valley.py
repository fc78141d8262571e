"""Valley: lead a party ahead of winter, on the trail of escape-the-valley, a third-party game of the Oregon Trail kind.

The game is played as it comes: its map, its events, its physics, its random numbers. Ours are the words, the text, the
stores at the start, and the winter that follows the party: in the game itself who stands still does not die.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel

from telemetry.records import EndReason
from workers.environment import Observation, Outcome
from workers.environments.extras import need
from workers.environments.valley_settings import STORES, ValleySettings

if TYPE_CHECKING:
    from workers.environments.valley_trail import Trail

WORK = ("travel", "rest", "hunt", "fix", "drop", "patch", "save")
LETTERS = ("A", "B", "C", "D")
WINTER = "winter"
LOW = {"food": 10, "water": 10}
"""The game's own marks of stores that run low."""
HUNGER, THIRST = 10.0, 14.0
"""Health that a step of travel without food, or without water, costs each member on average."""
APPETITE = 2.0
"""Food, and water, that a step takes."""


class Valley:
    """The world of the trail. It begins with the first `reset`, which imports the game."""

    name: ClassVar[str] = "valley-v1"
    Settings: ClassVar[type[BaseModel]] = ValleySettings
    actions: tuple[str, ...] = (*WORK, *LETTERS)
    rules: str = (
        "Lead a party ahead of winter. Travel leads to water, hunting brings food, rest heals, fix mends the wagon."
        " Say a word, or the letter of a choice."
    )

    def __init__(self, settings: ValleySettings) -> None:
        """Raises UsageError when the game is not installed."""
        need("escape_the_valley", "valley")
        self._settings = settings
        self._trail: Trail | None = None
        self._end: EndReason | None = None

    @property
    def horizon(self) -> int:
        return self._settings.horizon

    def reset(self, seed: int) -> Observation:
        """Begins the journey of a seed."""
        from workers.environments.valley_trail import Trail

        self._trail, self._step, self._end = Trail(seed, self._settings), 0, None
        return self._observe()

    def step(self, action: str) -> Outcome:
        """Takes one decision. Raises KeyError for one that cannot be taken, RuntimeError when there is no life."""
        trail = self._trail
        if trail is None or self._end is not None:
            raise RuntimeError("no life goes on; reset() begins the next one")
        trail.move(action)
        self._step += 1
        cause = ""
        if trail.over and not trail.run.victory:
            cause = trail.run.cause_of_death.lower().replace(" ", "-")
        elif not trail.over and self._lead() <= 0:
            cause = WINTER
        if cause:
            self._end = EndReason.DIED
        elif trail.over or self._step == self._settings.horizon:
            self._end = EndReason.SURVIVED
        return Outcome(self._observe(), self._end, cause)

    def state(self) -> Mapping[str, Any]:
        """Hidden state. `party` has name, health and condition of each member, `lead` is in miles."""
        trail = self._living()
        run = trail.run
        return {
            "step": self._step,
            "day": run.day,
            "time": run.time_of_day.value,
            "place": trail.place.name,
            "land": trail.place.biome.value,
            "ahead": run.distance_remaining,
            "traveled": run.distance_traveled,
            "lead": self._lead(),
            "party": [[one.name, one.health, one.condition.value] for one in run.party.members],
            "morale": run.party.morale,
            "stores": run.supplies.to_dict(),
            "wagon": run.wagon.condition,
            "animals": run.wagon.animals_health,
            "title": trail.title,
            "options": [[one.letter, one.label] for one in trail.options],
            "energy": self._energy(),
        }

    def result(self) -> Mapping[str, Any]:
        """How far the party came; `score` is miles traveled."""
        run = self._living().run
        return {
            "score": run.distance_traveled,
            "days": run.day,
            "alive": run.party.alive_count,
            "arrived": run.victory,
        }

    @staticmethod
    def heuristic(observation: Observation) -> str:
        """Hunts before the food is gone, mends a weak wagon, heals a weak party well ahead of winter, else travels.

        Of the choices of an event it takes the last one, which is the careful one more often than not.
        """
        legal, text = observation.legal, observation.text
        if "travel" not in legal:
            return legal[-1]
        number = {name: int(value) for name, value in re.findall(r"(\w+) (-?\d+)", text)}
        lead = number.get("Winter", 1000)
        if lead < 6:
            return "travel"
        if number["Wagon"] < 40 and ("fix" in legal or "drop" in legal):
            return "fix" if "fix" in legal else "drop"
        if number["Food"] < 10 and number["Water"] > 2 and "hunt" in legal:
            return "hunt"
        if number["health"] < 40 and lead > 12 and min(number["Food"], number["Water"]) > 8:
            return "rest"
        return "travel"

    @staticmethod
    def draw(state: Mapping[str, Any]) -> str:
        """The party, its stores and the road of a recorded state."""
        stores = "  ".join(f"{name} {count}" for name, count in state["stores"].items() if count)
        lines = [
            f"step {state['step']}  day {state['day']}, {state['time']}  energy {state['energy']:.1f}",
            f"{state['place']}, {state['land']}; next stop {state['ahead']} miles, winter {state['lead']:.0f} behind",
            *(f"  {name:<10} {health:>3}  {condition}" for name, health, condition in state["party"]),
            f"wagon {state['wagon']}  animals {state['animals']}  morale {state['morale']}",
            stores,
        ]
        if state["title"]:
            lines += [state["title"], *(f"  {letter}  {label}" for letter, label in state["options"])]
        return "\n".join(lines)

    def _living(self) -> "Trail":
        if self._trail is None:
            raise RuntimeError("no life goes on; reset() begins the next one")
        return self._trail

    def _lead(self) -> float:
        """Miles that winter is behind."""
        walked = self._living().run.distance_traveled
        return round(float(self._settings.head_start + walked - self._settings.winter * self._step), 6)

    def _energy(self) -> float:
        """Steps until death if nothing better is done: by winter, or by hunger and thirst, whichever is sooner.

        A member who is dead counts as one without health. 0 exactly when the party has perished.
        """
        trail, settings = self._living(), self._settings
        run = trail.run
        if self._end is EndReason.DIED:
            return 0.0
        health = sum(one.health for one in run.party.members) / len(run.party.members)
        food, water = run.supplies.food / APPETITE, run.supplies.water / APPETITE
        first, second, loss = (food, water, HUNGER) if food < water else (water, food, THIRST)
        alone = second - first
        steps = first + health / loss if health < loss * alone else second + (health - loss * alone) / (HUNGER + THIRST)
        return round(float(min(steps, self._lead() / settings.winter) if settings.winter else steps), 3)

    def _observe(self) -> Observation:
        trail = self._living()
        legal = () if self._end is not None else tuple(trail.moves())
        return Observation(self._text(trail), legal or self.actions, self._energy())

    def _text(self, trail: "Trail") -> str:
        run = trail.run
        alive = [one for one in run.party.members if one.is_alive()]
        health = sum(one.health for one in alive) // max(1, len(alive))
        ill = sum(one.condition.value != "healthy" for one in alive)
        stores = {name: run.supplies.get(name) for name in STORES}
        if trail.options:
            choices = " ".join(f"{one.letter}: {one.label}." for one in trail.options)
            where = f"{trail.title}. {choices}"
        else:
            where = f"Camp, {trail.place.biome.value}, next stop {max(0, run.distance_remaining)} miles."
        return " ".join(
            [
                where,
                *([f"Winter {self._lead():.0f} behind."] if self._settings.winter else []),
                f"Party {len(alive)}, health {health}{f', ill {ill}' * (ill > 0)}.",
                *(
                    f"{name.capitalize()} {count}{' low' * (count <= LOW.get(name, -1))}."
                    for name, count in stores.items()
                ),
                f"Wagon {run.wagon.condition}.",
            ]
        )
