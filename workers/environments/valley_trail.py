"""The trail of escape-the-valley, one decision at a time: which moves there are, and how the party is.

Imports the game, which takes seconds; `valley` does so at its first life.
"""

import logging
from copy import copy
from dataclasses import dataclass
from functools import cache

from escape_the_valley.gm import GMConfig
from escape_the_valley.intent import GamePhase, IntentAction, PlayerIntent
from escape_the_valley.models import MapNode, Pace, RunState, SeededRNG
from escape_the_valley.physics import can_abandon_cargo, can_desperate_repair, can_hard_ration
from escape_the_valley.step_engine import StepEngine, StepMessages
from escape_the_valley.worldgen import create_new_run

from workers.environments.valley_settings import STORES, ValleySettings

# The game warns of every choice that cannot be paid: ordinary play.
logging.getLogger("escape_the_valley").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Option:
    """What an event, or a fork of the road, offers."""

    letter: str
    label: str


class Trail:
    """One journey, fixed by its seed and what is done."""

    def __init__(self, seed: int, settings: ValleySettings) -> None:
        self.run: RunState = _outfit(create_new_run(seed=seed), settings)
        self._engine = copy(_pristine())
        self._engine.state = self.run
        self._engine.rng = SeededRNG(seed, self.run.rng_counter)
        self._engine.diagnostics = dict(self._engine.diagnostics)
        self._engine.msgs = StepMessages()

    @property
    def over(self) -> bool:
        return bool(self.run.game_over)

    @property
    def place(self) -> MapNode:
        """Where the party is, or was last."""
        return next(node for node in self.run.map_nodes if node.node_id == self.run.location_id)

    @property
    def title(self) -> str:
        """What has to be decided, where it is not the day's work."""
        if self._engine.phase == GamePhase.ROUTE:
            return "Fork in the road"
        return str(self._engine.msgs.event_title) if self._engine.phase == GamePhase.EVENT else ""

    @property
    def options(self) -> tuple[Option, ...]:
        """Between which to choose, in the order of their letters; empty in camp and at the end."""
        said = self._engine.msgs
        if self._engine.phase == GamePhase.EVENT:
            return tuple(Option(one.id, one.label.rstrip(".")) for one in said.event_choices)
        if self._engine.phase == GamePhase.ROUTE:
            routes = zip("ABCD", said.route_options, strict=False)
            return tuple(Option(letter, f"{route.name}, {route.distance} miles") for letter, route in routes)
        return ()

    def moves(self) -> dict[str, PlayerIntent]:
        """What can be done now, by word: only what has an effect, and nobody rests on empty stores.

        The game charges nothing for a hunt without ammunition or a repair without parts, and hunger hurts only on the
        way: with these, standing still would be eternal life.
        """
        if self.options:
            return {one.letter: PlayerIntent(IntentAction.CHOOSE, one.letter) for one in self.options}
        run, supplies = self.run, self.run.supplies
        possible = {
            "travel": (IntentAction.TRAVEL, True),
            "rest": (IntentAction.REST, supplies.food > 0 and supplies.water > 0),
            "hunt": (IntentAction.HUNT, supplies.ammo > 0),
            "fix": (IntentAction.REPAIR, supplies.parts > 0 and run.wagon.condition < 90),
            "drop": (IntentAction.ABANDON_CARGO, can_abandon_cargo(run)),
            "patch": (IntentAction.DESPERATE_REPAIR, can_desperate_repair(run)),
            "save": (IntentAction.HARD_RATION, can_hard_ration(run)),
        }
        return {word: PlayerIntent(action) for word, (action, can) in possible.items() if can}

    def move(self, word: str) -> None:
        """Does what a word of `moves` stands for. Raises KeyError for another one."""
        self._engine.step(self.moves()[word])


@cache
def _pristine() -> StepEngine:
    """An engine that is copied and never played: making one takes half a second, for its events and for the HTTP client
    of a narrator that stays off."""
    return StepEngine(create_new_run(seed=0), GMConfig(enabled=False), autosave=False)


def _outfit(run: RunState, settings: ValleySettings) -> RunState:
    """The party of a seed with what the settings give it."""
    for store in STORES:
        run.supplies.set(store, getattr(settings, store))
    run.wagon.condition = settings.wagon
    run.wagon.pace = Pace(settings.pace)
    for member in run.party.members:
        member.health = max(1, round(member.health * settings.health / 100))
    return run
