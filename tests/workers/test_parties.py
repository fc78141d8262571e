"""Parties in the worker pool: lives that share an instance are lived, lost, censored and committed together."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from telemetry.failures import NoProgressError
from telemetry.ledger import Receipt
from telemetry.records import EndReason, LifeSummary
from tests.workers.test_pool import Agent, Room, Sink, die, groups, once, poison
from workers.agent import LostLife
from workers.placement import CHUNK
from workers.recorder import LifeTask

SEATS = 3
DESCENDANT = 1_000_000
"""What a descendant's index is above that of the life it was born in."""

Fail = Callable[[Agent, Sequence[LifeTask]], Iterable[LostLife]]


class Shared(Room):
    """A pool in a shared world, where every instance has one descendant of its first life."""

    def __init__(self, place: Path, agent: Fail = lambda agent, tasks: (), **options: Any) -> None:
        self.parties: dict[str, list[LifeTask]] = {}
        """Attempt -> those who lived it."""
        self.acknowledged: list[list[LifeSummary]] = []

        def seen(one: Agent, tasks: Sequence[LifeTask]) -> Iterable[LostLife]:
            for task in tasks:
                self.parties.setdefault(task.attempt, []).append(task)
            return agent(one, tasks)

        super().__init__(place, agent=seen, together=True, **options)

    def acknowledge(self, receipts: Sequence[Receipt], lives: Sequence[LifeSummary], seconds: float) -> None:
        super().acknowledge(receipts, lives, seconds)
        self.acknowledged.append(list(lives))

    def live(self, tasks: Sequence[Sequence[LifeTask]]) -> None:
        """Lives all tasks and checks that each party is acknowledged once, whole, by one entry, with its rows."""
        asyncio.run(self.pool.live(tasks, self.acknowledge))
        founders = [life for life in self.committed() if life[1] < DESCENDANT]
        assert sorted(founders) == sorted((task.individual.id, task.life) for group in tasks for task in group)
        for party in self.parties.values():
            assert [(task.individual.id, task.life) for task in party] == [
                (f"g000-{seat:03d}", party[0].life) for seat in range(len(tasks))
            ]
        for lives in self.acknowledged:
            for attempt, size in Counter(life.attempt for life in lives).items():
                spent = any(life.end is EndReason.CENSORED for life in lives if life.attempt == attempt)
                assert size == len(tasks) + (not spent)

    def tries(self) -> Counter[int]:
        """Life index -> attempts at its party."""
        return Counter(party[0].life for party in self.parties.values())


@pytest.fixture(autouse=True)
def one_descendant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Agent, "descendants", True)


def test_lives_of_the_same_index_live_together_on_engines_for_fewer(tmp_path: Path) -> None:
    room = Shared(tmp_path, capacity=1, agents=2, engines=2)
    room.live(groups(SEATS, 10))
    assert room.tries() == dict.fromkeys(range(10), 1)
    assert [(member.peer.lives, len(member.peer.loaded)) for member in room.pool.engines] == [(5 * SEATS, SEATS)] * 2


def lose_one(agent: Agent, tasks: Sequence[LifeTask]) -> Iterable[LostLife]:
    return [LostLife(tasks[1].key, "the engine died", engine=True)]


@pytest.mark.parametrize("fail", [die, lose_one], ids=["agent", "engine"])
def test_a_party_is_lost_whole(tmp_path: Path, fail: Fail) -> None:
    room = Shared(tmp_path, agent=once(fail))
    room.live(groups(SEATS, 2))
    assert max(room.tries().values()) == 2
    assert room.pool.restarts == 1


@pytest.mark.parametrize("moment", ["before append", "after append", "before flush", "after flush"])
def test_a_party_whose_rows_were_lost_is_lived_again_whole(tmp_path: Path, moment: str) -> None:
    deaths: list[str] = []

    def fail(sink: Sink, method: str) -> None:
        if method == moment and not deaths:
            deaths.append(method)
            die(sink)

    room = Shared(tmp_path, sink=fail, lives_per_agent=CHUNK)
    room.live(groups(SEATS, CHUNK))
    assert deaths
    assert max(room.tries().values()) == 2


def test_a_party_with_a_life_that_ends_every_agent_is_censored_alone(tmp_path: Path) -> None:
    room = Shared(tmp_path, agent=poison(("g000-001", 3)), when_spent="censor")
    room.live(groups(SEATS, 2 * CHUNK))
    censored = [life.key for life in room.lives if life.end is EndReason.CENSORED]
    assert [(key.individual, key.life) for key in censored] == [(f"g000-{seat:03d}", 3) for seat in range(SEATS)]
    assert max(tries for life, tries in room.tries().items() if life != 3) <= 3


def test_a_party_that_ends_every_engine_is_censored_alone(tmp_path: Path) -> None:
    def fail(agent: Agent, tasks: Sequence[LifeTask]) -> Iterable[LostLife]:
        if any(task.life == 3 for task in tasks):
            return [LostLife(task.key, "out of memory", engine=True) for task in tasks]
        return ()

    room = Shared(tmp_path, agent=fail, when_spent="censor")
    room.live(groups(SEATS, 6))
    assert {life.key.life for life in room.lives if life.end is EndReason.CENSORED} == {3}


def test_what_a_party_needs_more_than_a_call_gets_an_agent_to_itself(tmp_path: Path) -> None:
    calls: list[int] = []

    def note(agent: Agent, tasks: Sequence[LifeTask]) -> tuple[()]:
        calls.append(len(tasks))
        return ()

    room = Shared(tmp_path, agent=note, lives_per_agent=2)
    room.live(groups(2 * CHUNK, 3))
    assert calls == [2 * CHUNK] * 3


def test_parties_are_tried_out_together(tmp_path: Path) -> None:
    room = Shared(tmp_path, agent=once(lose_one))
    lives, told = asyncio.run(room.pool.try_out(groups(SEATS, 4)))
    assert told == []
    assert Counter(life.key.life % DESCENDANT for life in lives) == dict.fromkeys(range(4), SEATS + 1)
    assert not room.lives


def test_a_party_that_ends_every_agent_is_named_by_its_first_life(tmp_path: Path) -> None:
    room = Shared(tmp_path, agent=poison(("g000-001", 3)))
    with pytest.raises(
        NoProgressError, match=r"^life 3 of g000-000 and 2 others \(world w, seed 103\) was lost 4 times"
    ):
        room.live(groups(SEATS, 5))
