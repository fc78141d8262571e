"""Who waits for room, for how long, and what is said of it; real placement groups are waited for in tests/faults."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from telemetry import reservations
from telemetry.actors import Place
from telemetry.failures import ClusterLostError
from telemetry.reservations import Reservations

STATES = dict[str, str]


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> Iterator[STATES]:
    """What Ray says of each reservation, by the name of its first actor."""
    found: STATES = {}
    asked: list[str] = []

    def reserve(place: Place) -> str:
        asked.append(place.party[0])
        found.setdefault(place.party[0], "PENDING")
        return place.party[0]

    monkeypatch.setattr(reservations, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(reservations, "_reserve", reserve)
    monkeypatch.setattr(reservations, "_state", found.__getitem__)
    yield found
    assert len(asked) == len(set(asked)), "a reservation was made twice"


def engine(number: int) -> Place:
    return Place(f"engine-{number}", gpus=1)


def test_who_asks_for_nothing_has_no_reservation(states: STATES) -> None:
    assert asyncio.run(Reservations(0, pytest.fail).made(Place("agent-0"))) is None
    assert not states


def test_one_without_room_waits_as_long_as_another_of_its_role_has_some(states: STATES) -> None:
    said: list[str] = []
    found = Reservations(0.2, said.append)

    async def play() -> None:
        states["engine-0"] = "CREATED"
        assert await found.made(engine(0)) == "engine-0"
        waiting = asyncio.create_task(found.made(engine(1)))
        await asyncio.sleep(0.5)
        assert not waiting.done()
        states["engine-0"] = "RESCHEDULING"
        again = asyncio.create_task(found.made(engine(0)))
        for one in (again, waiting):
            with pytest.raises(ClusterLostError, match=r"no room for engine-. in 0.2 s \(ray.wait\): engine-. needs 1"):
                await one

    asyncio.run(play())
    assert said == ["waiting for the cluster: engine-1 needs 1 GPUs on one node"]


def test_a_trainer_does_not_count_for_engines(states: STATES) -> None:
    states["trainer-0"] = "CREATED"
    found = Reservations(0.1, lambda text: None)

    async def play() -> None:
        await found.made(Place("trainer-0", gpus=1))
        with pytest.raises(ClusterLostError):
            await found.made(engine(0))

    asyncio.run(play())


def test_a_party_has_one_reservation(states: STATES) -> None:
    party = ("trainer-0-0", "trainer-0-1")
    said: list[str] = []
    found = Reservations(10, said.append)

    async def play() -> list[Any]:
        places = [Place(name, gpus=2, cpus=1, together=party) for name in party]
        waiting = [asyncio.create_task(found.made(place)) for place in places]
        await asyncio.sleep(0.05)
        states["trainer-0-0"] = "CREATED"
        return await asyncio.gather(*waiting)

    assert asyncio.run(play()) == ["trainer-0-0"] * 2
    assert list(states) == ["trainer-0-0"]
    assert said == ["waiting for the cluster: trainer-0-0 needs 2 times 2 GPUs and 1 CPUs"]


def test_a_reservation_that_loses_its_node_is_nobodys_fault(states: STATES) -> None:
    found = Reservations(10, lambda text: None)

    async def play() -> None:
        states["engine-0"] = "CREATED"
        await found.made(engine(0))
        gone = asyncio.ensure_future(found.gone(engine(0)))
        never = asyncio.ensure_future(found.gone(Place("agent-0")))
        await asyncio.sleep(0.05)
        assert not gone.done()
        states["engine-0"] = "RESCHEDULING"
        lost = await gone
        assert getattr(lost, "preempted", False)
        assert not never.done()
        never.cancel()

    asyncio.run(play())
