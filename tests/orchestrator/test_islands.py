"""Islands: who selects and breeds with whom, who migrates, and that a run on islands adds up."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestrator.audit import audit
from orchestrator.config import FounderConfig, PopulationConfig
from orchestrator.config_evolution import ReproductionConfig, SelectionConfig
from orchestrator.inspection import verify
from orchestrator.population import founders, in_order, individual_id, islands
from orchestrator.reproduction import Births, Brood, reproduce
from orchestrator.selection import select
from orchestrator.state import config_of
from orchestrator.verdict import Fitness, Selection
from telemetry.ledger import Ledger
from telemetry.records import Individual
from telemetry.seeds import rng
from telemetry.store import open_store
from tests.orchestrator.small_run import small_config, small_run

SIZE = 9


def people(generation: int = 0) -> tuple[Individual, ...]:
    named = tuple(FounderConfig(name=f"n{number}", strategy="Live.") for number in range(SIZE))
    everyone = founders(PopulationConfig(size=SIZE, lives=1, founders=named), 0.2, rng(1))
    ids = [individual_id(generation, place) for place in range(SIZE)]
    return tuple(
        one.model_copy(update={"id": new, "generation": generation}) for one, new in zip(everyone, ids, strict=True)
    )


def chosen(generation: int = 0, isles: int = 3, elites: int = 1) -> Selection:
    fitness = [
        Fitness(individual=one.id, value=float(place % 4), low=0.0, high=9.0, lives=1, censored=0)
        for place, one in enumerate(people(generation))
    ]
    return select(fitness, SelectionConfig(survivors=0.67, elites=elites), rng(2), isles=isles)


def births(generation: int = 0, isles: int = 3, **dials: object) -> Births:
    config = ReproductionConfig.model_validate({"crossover": 1.0} | dials)
    return reproduce(people(generation), chosen(generation, isles), config, Brood(SIZE, 3, isles))


def place(identifier: str) -> int:
    return int(identifier.split("-")[1])


def test_every_island_keeps_its_own_fittest() -> None:
    # Values by place: 0 1 2 | 3 0 1 | 2 3 0
    selection = chosen()
    assert [place(one) for one in selection.survivors] == [3, 7, 2, 6, 1, 5]
    assert [place(one) for one in selection.elites] == [3, 7, 2]
    assert [place(one) for one in selection.culled] == [0, 4, 8]


def test_nobody_breeds_across_the_sea_but_migrants() -> None:
    for job in births(generation=0, migration=5).jobs:
        home = place(job.child.id) // 3
        assert {place(parent.individual) // 3 for parent in job.parents} == {home}
    everywhere = births(generation=4, migration=5)
    guests = [
        (place(job.child.id) // 3, place(parent.individual))
        for job in everywhere.jobs
        for parent in job.parents
        if place(parent.individual) // 3 != place(job.child.id) // 3
    ]
    assert {guest for _, guest in guests} == {2, 3, 7}, "the fittest of each island, and nobody else"
    assert all((home - 1) % 3 == guest // 3 for home, guest in guests)
    assert births(generation=4, migration=0) != everywhere


def test_elites_stay_at_home() -> None:
    born = births(generation=4, migration=5)
    assert [place(one.id) for one in born.elites] == [0, 3, 6]
    assert [place(one.parents[0]) // 3 for one in born.elites] == [0, 1, 2]
    everyone = in_order([*born.elites, *(job.child for job in born.jobs)])
    assert [one.id for one in everyone] == [individual_id(5, number) for number in range(SIZE)]


@given(st.integers(1, 60), st.integers(1, 60))
def test_islands_divide_the_population_evenly(size: int, count: int) -> None:
    parts = islands(size, min(size, count))
    assert [place for part in parts for place in part] == list(range(size))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_more_than_a_thousand_stay_in_order() -> None:
    everyone = [people()[0].model_copy(update={"id": individual_id(0, number)}) for number in (1000, 2, 999)]
    assert [place(one.id) for one in in_order(everyone)] == [2, 999, 1000]


def test_a_run_on_islands_verifies_and_audits(tmp_path: Path) -> None:
    population = small_config().population.model_dump() | {"size": 6, "islands": 2}
    state = small_run(tmp_path, population=population, reproduction={"crossover": 1.0, "migration": 2})
    store = open_store(tmp_path)
    assert verify(store) == []
    assert audit(state, Ledger(store), config_of(state)) == []


def test_islands_need_inhabitants_who_survive() -> None:
    population = small_config().population.model_dump()
    with pytest.raises(ValidationError, match="expected at most the 4 individuals"):
        small_config(population=population | {"islands": 5})
    with pytest.raises(ValidationError, match="only 1 survive"):
        small_config(population=population | {"islands": 2}, selection={"elites": 2})
