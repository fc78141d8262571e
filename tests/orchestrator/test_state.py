"""The fold: what the journal says becomes state, and whatever does not belong there is refused by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.events import FORMAT
from orchestrator.state import RunState, fold
from orchestrator.verdict import Fitness, Selection
from telemetry.failures import StateError
from telemetry.journal import Journal, Writer
from telemetry.records import Genome, Hyperparameters, Individual, LifeKey
from telemetry.store import open_store

NUMBERS = Hyperparameters(temperature=1.0, epsilon=0.5, learning_rate=1e-3)
EPOCH = {"host": "here", "pid": 1, "opened_at": "2026-01-01T00:00:00+00:00", "version": "0"}


def individual(name: str, lineage: str, *parents: str) -> Individual:
    generation = int(name[1:4])
    genome = Genome(strategy="Walk.", hyperparameters=NUMBERS)
    return Individual(id=name, generation=generation, lineage=lineage, parents=parents, genome=genome)


FOUNDERS = [individual("g000-000", "bold"), individual("g000-001", "timid")]
SECOND = [individual("g001-000", "bold", "g000-000"), individual("g001-001", "bold", "g000-000")]


def genesis(**changes: Any) -> dict[str, Any]:
    card = {"id": "scripted", "sha256": "0" * 64, "modules": {}}
    founders = [one.model_dump(mode="json") for one in FOUNDERS]
    body = {"format": FORMAT, "version": "0", "run": "tiny", "config": {}, "model": card, "founders": founders}
    return body | changes


def lives(generation: int, *lived: tuple[str, int, str], version: int = 1) -> dict[str, Any]:
    return {
        "generation": generation,
        "tables": {"steps": version, "lives": version},
        "lives": [list(one) for one in lived],
        "decisions": 5 * len(lived),
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "ends": {"survived": len(lived)},
        "seconds": 1.0,
    }


def birth(generation: int, child: str) -> dict[str, Any]:
    return {"generation": generation, "result": {"individual": child, "adapter": None, "status": "failed"}}


def committed(generation: int, population: list[Individual]) -> dict[str, Any]:
    ids = [f"g{generation:03d}-{index:03d}" for index in range(2)]
    fitness = [Fitness(individual=one, value=1.0, low=1.0, high=1.0, lives=1, censored=0) for one in ids]
    selection = Selection(survivors=(ids[0],), elites=(ids[0],), culled=(ids[1],))
    return {
        "generation": generation,
        "fitness": [one.model_dump(mode="json") for one in fitness],
        "selection": selection.model_dump(mode="json"),
        "population": [one.model_dump(mode="json") for one in population],
        "diversity": {"entropy": 1.0, "behaviour": 0.5, "strategies": 1, "adapters": 1},
        "seconds": {"total": 1.0},
    }


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(open_store(tmp_path / "tiny"))


@pytest.fixture
def writer(journal: Journal) -> Writer:
    journal.create(genesis())
    return journal.open_epoch(EPOCH)


def state_of(journal: Journal) -> RunState:
    return fold(journal.read())


def test_an_empty_journal_is_no_run(journal: Journal) -> None:
    with pytest.raises(StateError, match=r"^journal: empty, expected a run; nothing was started here$"):
        state_of(journal)


def test_a_new_run_is_its_founders(journal: Journal, writer: Writer) -> None:
    state = state_of(journal)
    assert (state.generation, state.epochs) == (0, 1)
    assert state.population == tuple(FOUNDERS)
    assert state.everyone == {one.id: one for one in FOUNDERS}
    assert state.owner is not None
    assert state.owner.host == "here"
    assert state.culled() == ()


def test_a_generation_from_its_first_life_to_its_commit(journal: Journal, writer: Writer) -> None:
    writer.append("lives", lives(0, ("g000-000", 0, "x"), ("g000-000", 1, "y")))
    writer.append("lives", lives(0, ("g000-001", 0, "z"), version=2))
    state = state_of(journal)
    assert state.tables == {"steps": 2, "lives": 2}
    assert state.life(LifeKey(0, "g000-000", 1)) == "y"
    assert state.attempts(0) == ["x", "y", "z"]
    assert state.attempts(1) == []

    writer.append("birth", birth(0, "g001-001"))
    writer.append("generation", committed(0, SECOND))
    state = state_of(journal)
    assert state.generation == 1
    assert state.population == tuple(SECOND)
    assert list(state.births) == ["g001-001"]
    assert sorted(state.everyone) == ["g000-000", "g000-001", "g001-000", "g001-001"]
    assert state.culled() == ("timid",)


def test_the_last_generation_leaves_its_lineages_alive(journal: Journal, writer: Writer) -> None:
    writer.append("generation", committed(0, SECOND))
    writer.append("generation", committed(1, []))
    writer.append("finish", {"champion": "g001-000"})
    state = state_of(journal)
    assert state.population == ()
    assert state.culled() == ("timid",)
    assert state.finished is not None
    assert state.finished.champion == "g001-000"


def test_the_same_life_acknowledged_again_with_the_same_attempt_changes_nothing(
    journal: Journal, writer: Writer
) -> None:
    writer.append("lives", lives(0, ("g000-000", 0, "x")))
    writer.append("lives", lives(0, ("g000-000", 0, "x")))
    assert state_of(journal).lives == {0: {LifeKey(0, "g000-000", 0): "x"}}


def test_every_prefix_of_a_journal_is_a_valid_run(journal: Journal, writer: Writer) -> None:
    writer.append("lives", lives(0, ("g000-000", 0, "x")))
    writer.append("birth", birth(0, "g001-001"))
    writer.append("generation", committed(0, SECOND))
    journal.open_epoch(EPOCH).append("lives", lives(1, ("g001-000", 0, "y"), version=3))
    entries = journal.read()
    generations = [fold(entries[:length]).generation for length in range(1, len(entries) + 1)]
    assert generations == [0, 0, 0, 0, 1, 1, 1]


def damage(kind: str, body: dict[str, Any]) -> Callable[[Writer], object]:
    return lambda writer: writer.append(kind, body)


MISPLACED = {
    "unknown kind": (
        damage("miracle", {}),
        r"journal entry 3: unknown kind 'miracle'; a newer version wrote this run",
    ),
    "lives of another generation": (
        damage("lives", lives(1, ("g001-000", 0, "y"))),
        r"journal entry 3 \(lives\): generation 1, expected 0",
    ),
    "birth of another generation": (
        damage("birth", birth(2, "g003-000")),
        r"journal entry 3 \(birth\): generation 2, expected 0",
    ),
    "generation out of turn": (
        damage("generation", committed(1, SECOND)),
        r"journal entry 3 \(generation\): generation 1, expected 0",
    ),
    "life committed twice": (
        damage("lives", lives(0, ("g000-000", 0, "other"))),
        r"journal entry 3: life 0 of g000-000 is committed twice",
    ),
    "missing field": (damage("finish", {}), r"journal entry 3 \(finish\): champion: Field required"),
    "field of a newer version": (
        damage("finish", {"champion": "g000-000", "crown": True}),
        r"journal entry 3 \(finish\): crown: Extra inputs are not permitted",
    ),
    "number as text": (
        damage("birth", birth(0, "g001-001") | {"generation": "0"}),
        r"journal entry 3 \(birth\): generation: Input should be a valid integer",
    ),
    "id that is no id": (
        damage("generation", committed(0, []) | {"population": [SECOND[0].model_dump(mode="json") | {"id": "../x"}]}),
        r"journal entry 3 \(generation\): population\.0\.id: String should match pattern",
    ),
}


@pytest.mark.parametrize(("spoil", "reason"), MISPLACED.values(), ids=MISPLACED.keys())
def test_what_does_not_belong_is_refused_by_name(
    journal: Journal, writer: Writer, spoil: Callable[[Writer], object], reason: str
) -> None:
    writer.append("lives", lives(0, ("g000-000", 0, "x")))
    spoil(writer)
    with pytest.raises(StateError, match=f"^{reason}"):
        state_of(journal)


def test_another_format_is_refused_with_both_versions(journal: Journal) -> None:
    journal.create(genesis(format=FORMAT + 1, version="9.0"))
    with pytest.raises(StateError) as caught:
        state_of(journal)
    assert str(caught.value) == (
        f"journal entry 0: format {FORMAT + 1} (written by 9.0), this version reads format {FORMAT};"
        " use the version that wrote the run"
    )


def test_a_founder_who_is_no_individual_is_refused(journal: Journal) -> None:
    journal.create(genesis(founders=[{"id": "g000-000"}]))
    with pytest.raises(StateError, match=r"^journal entry 0 \(run\): founders\.0\.generation: Field required$"):
        state_of(journal)
