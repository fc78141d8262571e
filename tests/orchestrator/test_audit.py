"""Audit: a run that happened passes, and every decision that does not follow from the records is named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from orchestrator.audit import audit
from orchestrator.findings import Finding
from orchestrator.state import config_of, fold
from telemetry.journal import Journal
from telemetry.ledger import Ledger
from telemetry.store import Store
from tests.orchestrator.forgery import EditBody, EditRows, forge, in_generation, replace
from tests.orchestrator.small_run import Levers, small_run, state_at


def audited(store: Store) -> list[Finding]:
    state = fold(Journal(store).read())
    return audit(state, Ledger(store), config_of(state))


def forged(finished: Path, place: Path, body: EditBody | None = None, rows: EditRows | None = None) -> list[Finding]:
    return audited(forge(finished, place / "forged", body, rows))


def test_a_run_that_happened_passes(finished: Path) -> None:
    assert audited(state_at(finished)[0]) == []


def test_zombies_do_not_change_a_decision(tmp_path: Path) -> None:
    small_run(tmp_path / "run", Levers(lives_per_commit=5, zombies=True))
    assert audited(state_at(tmp_path / "run")[0]) == []


def test_an_unfinished_run_passes(finished: Path) -> None:
    store, _ = state_at(finished)
    entries = Journal(store).read()
    for length in range(1, len(entries)):
        state = fold(entries[:length])
        assert audit(state, Ledger(store), config_of(state)) == []


def test_a_copy_made_by_the_forger_passes(finished: Path, tmp_path: Path) -> None:
    assert forged(finished, tmp_path) == []


def test_the_smallest_change_of_a_fitness_is_named_with_both_values(finished: Path, tmp_path: Path) -> None:
    touched: list[tuple[str, float]] = []

    def edit(body: dict[str, Any]) -> None:
        """The fittest is made fitter, so that nobody's rank changes."""
        best = body["selection"]["survivors"][0]
        fitness = next(one for one in body["fitness"] if one["individual"] == best)
        touched.append((best, fitness["value"]))
        fitness["value"] = float(np.nextafter(fitness["value"], 100))

    [finding] = forged(finished, tmp_path, in_generation(1, edit))
    [(who, true)] = touched
    assert finding.where == f"generation 1: fitness: {who}"
    assert finding.what == f"value: the journal has {np.nextafter(true, 100).item()!r}, expected {true!r}"


def edit_selection(body: dict[str, Any]) -> None:
    selection = body["selection"]
    selection["survivors"], selection["culled"] = selection["culled"], selection["survivors"]
    selection["elites"] = selection["survivors"][:1]


def edit_temperature(body: dict[str, Any]) -> None:
    body["population"][1]["genome"]["hyperparameters"]["temperature"] *= 1.5


def edit_strategy(body: dict[str, Any]) -> None:
    body["population"][0]["genome"]["strategy"] = "Cheat."


def edit_failed_birth(body: dict[str, Any]) -> None:
    if body["result"]["status"] == "failed":
        body["result"]["adapter"] = "0" * 64


def drop_newborn(body: dict[str, Any]) -> None:
    body["population"].pop()


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (in_generation(0, edit_selection), "generation 0: selection"),
        (in_generation(0, edit_temperature), "generation 0: births: g001-001"),
        (in_generation(1, edit_strategy), "generation 1: births: g002-000"),
        (in_generation(1, drop_newborn), "generation 1: births"),
        (in_generation(1, edit_failed_birth, "birth"), "generation 1: g002-003"),
        (lambda kind, body: kind == "finish" and body.update(champion="g002-003"), "finish"),
        (
            lambda kind, body: kind == "run" and body["founders"][1]["genome"].update(strategy="Hm."),
            "founders: g000-001",
        ),
    ],
    ids=["selection", "temperature", "strategy", "size", "failed birth", "champion", "founder"],
)
def test_every_decision_is_made_again(finished: Path, tmp_path: Path, body: EditBody, where: str) -> None:
    findings = forged(finished, tmp_path, body)
    assert where in [finding.where for finding in findings]
    assert all(finding.severity == "error" and "\n" not in finding.what for finding in findings)


def longer_life(name: str, rows: pa.Table) -> pa.Table:
    return replace(rows, "steps", [11, *rows["steps"].to_pylist()[1:]]) if name == "lives" else rows


def other_world(name: str, rows: pa.Table) -> pa.Table:
    return replace(rows, "world_seed", [3, *rows["world_seed"].to_pylist()[1:]]) if name == "lives" else rows


def lost_life(name: str, rows: pa.Table) -> pa.Table:
    return rows.slice(1) if name == "lives" else rows


def lost_individual(name: str, rows: pa.Table) -> pa.Table:
    return rows.slice(3) if name == "lives" else rows


@pytest.mark.parametrize(
    ("rows", "where", "what"),
    [
        (longer_life, "generation 0: fitness: g000-000", "value: the journal has"),
        (other_world, "generation 0: g000-000", "life 0 was lived in world 3, expected"),
        (lost_life, "generation 0: g000-000", "the ledger has 2 lives, expected 3"),
        (lost_individual, "generation 0: g000-000", "the ledger has 0 lives, expected 3"),
    ],
    ids=["steps", "world", "life", "individual"],
)
def test_every_number_follows_from_the_rows(
    finished: Path, tmp_path: Path, rows: Callable[[str, pa.Table], pa.Table], where: str, what: str
) -> None:
    findings = forged(finished, tmp_path, rows=rows)
    assert any(finding.where == where and finding.what.startswith(what) for finding in findings)
