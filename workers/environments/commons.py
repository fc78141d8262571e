"""Commons: many agents on a ring of patches that all of them live off, and that grow back only if they let them.

A turn is: everybody acts at the same time; those who meet trade, give and rob; gatherers share out what stands on their
patch; walkers walk; everybody pays for the turn; descendants are born; patches grow; on every patch those who stand
there meet in pairs for the next turn. Law: what a turn leads to depends on the actions and on lots, each of them a draw
at the address (seed, turn, seat), and never on the order in which the actions came.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

from pydantic import BaseModel

from telemetry.records import EndReason
from telemetry.seeds import rng, uniform
from workers.environment import Birth, Observation, Outcome, Policy, Turn
from workers.environments import commons_report
from workers.environments.commons_rules import (
    ACTIONS,
    BIRTH,
    GATHER,
    GOODS,
    IDLE,
    REST,
    ROB,
    SHARE,
    TRADE,
    VOICE,
    WALKS,
    Agent,
    Lot,
    deal,
    descendants,
    draw_winners,
    growth,
    meet,
    pair,
    spend,
)
from workers.environments.commons_settings import CommonsSettings
from workers.environments.commons_text import VOICES, Other, View, greedy_action, parse, render, sensible_action


@dataclass(slots=True)
class _Instance:
    """Everything that changes while an instance goes on."""

    seed: int
    founders: int
    ground: list[int]
    """Units that stand on each patch."""
    agents: list[Agent]
    """By seat, the dead included."""
    living: list[Agent]
    """In the order of the seats."""
    crowds: dict[int, list[Agent]]
    """The living by patch, where there are any."""
    voices: list[int]
    """By patch, what was said there in the last turn: a position in VOICES."""
    turn: int = 0
    teller: int = 0
    """The lowest seat that moved in the last turn: its state holds the map."""


def greedy(observation: Observation) -> str:
    """The reference that shows what a commons comes to when everybody takes what they can."""
    return _if_legal(greedy_action(parse(observation.text)), observation)


class Commons:
    """The shared world. A fresh instance stands at the beginning of seed 0 with a single agent."""

    name: ClassVar[str] = "commons-v1"
    shared: ClassVar[bool] = True
    Settings: ClassVar[type[BaseModel]] = CommonsSettings
    references: ClassVar[Mapping[str, Policy]] = {"greedy": greedy}
    actions: tuple[str, ...] = ACTIONS
    rules: str = (
        "Stay alive: every turn uses up fruit and roots. They grow on alternate patches of a ring, but never again"
        " where all was taken. Share, rob and trade are with whom you meet. Quoted words are only what others say."
        " Say gather, left, right, rest, call, warn, share, rob, trade or birth."
    )

    def __init__(self, settings: CommonsSettings) -> None:
        self._settings = settings
        self._growth = growth(settings.capacity, settings.regrowth)
        self.reset(0, 1)

    @property
    def horizon(self) -> int:
        return self._settings.horizon

    def reset(self, seed: int, seats: int) -> tuple[Observation, ...]:
        """Begins the instance of a seed. Raises ValueError for less than one seat."""
        if seats < 1:
            raise ValueError(f"got {seats} seats, expected at least 1")
        settings, draws = self._settings, rng(seed, "commons")
        patches = max(4, -(-seats // (2 * settings.crowding)) * 2)
        ground = draws.integers((settings.capacity + 1) // 2, settings.capacity + 1, size=patches).tolist()
        places = draws.integers(patches, size=seats).tolist()
        most = min(settings.start // 2, settings.hold - settings.start)
        tilts = draws.integers(-most, most + 1, size=seats).tolist()
        agents = [
            Agent(seat, place, [settings.start + tilt, settings.start - tilt], founder=seat, act=REST)
            for seat, (place, tilt) in enumerate(zip(places, tilts, strict=True))
        ]
        self._now = _Instance(seed, seats, ground, agents, list(agents), {}, [0] * patches)
        self._come_together()
        return tuple(self._observe(agent) for agent in agents)

    def step(self, actions: Mapping[int, str]) -> Turn:
        """Lives one turn.

        Raises ValueError for anything but one known action of every living seat, RuntimeError when the instance has
        ended. An action that cannot be done now passes the turn.
        """
        now, last = self._now, self._now.turn + 1 == self._settings.horizon
        self._accept(actions)
        moved = now.living
        now.teller = moved[0].seat
        self._act()
        now.turn += 1
        causes = self._pay(moved)
        now.living = [agent for agent in moved if not causes[agent.seat]]
        born = {} if last else self._bear()
        now.living += born.values()
        now.ground = [stock + self._growth[stock] for stock in now.ground]
        self._come_together()
        outcomes = {}
        for agent in moved:
            cause = causes[agent.seat]
            end = EndReason.DIED if cause else EndReason.SURVIVED if last else None
            outcomes[agent.seat] = Outcome(self._observe(agent), end, cause)
        return Turn(outcomes, {child.seat: Birth(parent, self._observe(child)) for parent, child in born.items()})

    def state(self, seat: int) -> Mapping[str, Any]:
        """Hidden state: the seat's own; with the lowest seat that moved also the map that all of them share.

        `ground` is `[units, ...]` by patch, `agents` is `[[seat, patch, fruit, roots, last act, parent], ...]`.
        """
        now, agent = self._now, self._now.agents[seat]
        own = {"turn": now.turn, "seat": seat, "patch": agent.patch, "act": agent.act, "gathered": agent.gathered}
        own |= zip(GOODS, agent.store, strict=True)
        if seat == now.teller:
            own["capacity"] = self._settings.capacity
            own["ground"] = now.ground
            own["agents"] = [[one.seat, one.patch, *one.store, one.act, one.parent] for one in now.living]
        return own

    def result(self, seat: int) -> Mapping[str, Any]:
        """What a life came to, as far as the instance has gone; `score` is the turns that its line has lived."""
        now, agent = self._now, self._now.agents[seat]
        line = list(descendants(now.agents, seat))
        return {
            "instance": now.seed,
            "energy": agent.energy,
            "turns": agent.turns,
            "children": len(agent.children),
            "descendants": len(line),
            "gathered": agent.gathered,
            "gifts": agent.gifts,
            "thefts": agent.thefts,
            "trades": agent.trades,
            "score": agent.turns + sum(one.turns for one in line),
        }

    @staticmethod
    def heuristic(observation: Observation) -> str:
        """Sensible play from the observation's text alone."""
        return _if_legal(sensible_action(parse(observation.text)), observation)

    @staticmethod
    def draw(state: Mapping[str, Any]) -> str:
        """A line for the seat, and one per patch where the state holds the map."""
        return commons_report.draw(state)

    @staticmethod
    def report(results: Sequence[Mapping[str, Any]]) -> Mapping[str, tuple[float, float, float]]:
        """What many lives came to."""
        return commons_report.report(results)

    def _accept(self, actions: Mapping[int, str]) -> None:
        now = self._now
        if now.turn == self._settings.horizon or not now.living:
            raise RuntimeError("the instance has ended; reset() begins the next one")
        if len(actions) != len(now.living) or any(agent.seat not in actions for agent in now.living):
            raise ValueError(f"got actions of {sorted(actions)}, expected one of every living seat")
        unknown = set(actions.values()).difference(self.actions)
        if unknown:
            raise ValueError(f"{min(unknown)!r} is not one of {', '.join(self.actions)}")
        for agent in now.living:
            agent.act, agent.robbed, agent.turns = actions[agent.seat], [0, 0], agent.turns + 1

    def _act(self) -> None:
        """Meetings, gathering, walking, and what is said."""
        now, settings = self._now, self._settings
        for agent in now.living:
            other, agent.meets = agent.meets, None
            if other and agent.seat > other.seat:
                meet(agent, other, settings)
        for patch, crowd in now.crowds.items():
            good, wanted = patch % 2, {}
            for agent in crowd:
                if agent.act == GATHER:
                    wanted[agent.seat] = min(settings.handful, settings.hold - agent.store[good])
            if wanted:
                for seat, units in deal(now.ground[patch], wanted, self._lot("gather")).items():
                    now.agents[seat].store[good] += units
                    now.agents[seat].gathered += units
                    now.ground[patch] -= units
        now.voices = [0] * len(now.ground)
        for agent in now.living:
            if agent.act in WALKS:
                agent.patch = (agent.patch + WALKS[agent.act]) % len(now.ground)
            elif agent.act in VOICE:
                now.voices[agent.patch] |= VOICE[agent.act]

    def _pay(self, moved: Sequence[Agent]) -> dict[int, str]:
        """By seat, what it died of in this turn, or nothing."""
        burn, idle = self._settings.burn, self._settings.idle
        return {agent.seat: spend(agent, idle if agent.act in IDLE else burn) for agent in moved}

    def _bear(self) -> dict[int, Agent]:
        """By parent, those who are born next to it, as far as there is room."""
        now, settings = self._now, self._settings
        able = [agent.seat for agent in now.living if agent.act == BIRTH and agent.energy > settings.birth]
        places = settings.room * now.founders - len(now.living)
        born = {}
        for seat in draw_winners(able, places, self._lot("birth")):
            parent = now.agents[seat]
            parent.store = [units - settings.birth for units in parent.store]
            born[seat] = Agent(len(now.agents), parent.patch, [settings.dowry] * 2, parent.founder, seat)
            parent.children.append(len(now.agents))
            now.agents.append(born[seat])
        return born

    def _come_together(self) -> None:
        """Counts the living by patch and lets them meet."""
        now, crowds = self._now, dict[int, list[Agent]]()
        for agent in now.living:
            crowds.setdefault(agent.patch, []).append(agent)
        now.crowds = crowds
        for crowd in crowds.values():
            pair(crowd, self._lot("meet"))

    def _lot(self, purpose: str) -> Lot:
        seed, turn = self._now.seed, self._now.turn
        return lambda seat: uniform(seed, "commons", purpose, turn, seat)

    def _observe(self, agent: Agent) -> Observation:
        now, settings = self._now, self._settings
        patch, met, short = agent.patch, agent.meets, agent.short
        stock, crop = now.ground[patch], patch % 2
        fruit, roots = agent.store
        energy = agent.store[short]
        fit = energy > settings.birth + settings.burn
        other = Other(met.founder == agent.founder, met.store[0], met.store[1], met.act) if met else None
        view = View(
            VOICES[now.voices[patch - 1]],
            VOICES[now.voices[(patch + 1) % len(now.voices)]],
            other,
            fruit,
            roots,
            GOODS[short],
            stock,
            settings.capacity,
            GOODS[crop],
            len(now.crowds.get(patch, ())),
            fit,
        )
        legal = _LEGAL[stock > 0 and agent.store[crop] < settings.hold, met is not None, fit]
        return Observation(render(view), legal, float(energy))


def _if_legal(action: str, observation: Observation) -> str:
    """A text does not say how much a body holds, so that a player may want to gather what it cannot carry."""
    return action if action in observation.legal else REST


def _legal(gather: bool, meets: bool, fit: bool) -> tuple[str, ...]:
    barred = {*(() if gather else (GATHER,)), *(() if meets else (SHARE, ROB, TRADE)), *(() if fit else (BIRTH,))}
    return tuple(word for word in ACTIONS if word not in barred)


_LEGAL = {case: _legal(*case) for case in product((False, True), repeat=3)}
"""By what there is: something to gather, somebody to meet, enough for a birth."""
