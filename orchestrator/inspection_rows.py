"""Are the ledger's rows what the journal acknowledged? Every life once, with all its steps, under its own name.

Law: one generation is read at a time, by the same reader that scoring uses.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.findings import Finding, error
from orchestrator.state import RunState
from telemetry.failures import StateError
from telemetry.ledger import Ledger
from telemetry.records import EndReason, LifeKey

LIFE = ("run", "generation", "individual", "lineage", "life", "attempt", "adapter", "steps", "end", "cause")
TOKENS = ("prompt_tokens", "completion_tokens")
STEP = ("individual", "life", "attempt", "adapter", "step")


def check_rows(state: RunState, ledger: Ledger) -> Iterator[Finding]:
    """Lost, doubled, foreign, incomplete or mislabelled rows of the committed and the current generation."""
    for generation in sorted(state.lives):
        files, attempts = state.vouched(generation), state.attempts(generation)
        try:
            lives, steps = (
                ledger.recall(name, generation, files, attempts, columns)
                for name, columns in (("lives", LIFE + TOKENS), ("steps", STEP))
            )
        except StateError as failure:
            yield error(f"generation {generation}", str(failure))
            continue
        yield from _check_lives(state, generation, lives.to_pylist())
        yield from check_steps(lives, steps)
        yield from _check_totals(state, generation, lives.to_pylist())


def _check_lives(state: RunState, generation: int, rows: list[dict[str, Any]]) -> Iterator[Finding]:
    """Each acknowledged life has exactly one row, and it says what the journal says."""
    seen = Counter(LifeKey(row["generation"], row["individual"], row["life"]) for row in rows)
    for key in state.lives[generation]:
        if seen[key] != 1:
            yield error(_name(key.individual, key.life), f"was acknowledged, but has {seen[key]} rows in lives")
    for row in rows:
        where = _name(row["individual"], row["life"])
        key = LifeKey(row["generation"], row["individual"], row["life"])
        individual = state.everyone.get(row["individual"])
        if individual is None or state.life(key) != row["attempt"]:
            yield error(where, "has a row in lives that was acknowledged for another life")
            continue
        expected = (state.created.run, individual.generation, individual.lineage, individual.genome.adapter)
        got = (row["run"], row["generation"], row["lineage"], row["adapter"])
        if got != expected:
            yield error(where, f"run, generation, lineage and adapter are {got}, expected {expected}")


def check_once(lives: pa.Table) -> Iterator[Finding]:
    """No life has two rows."""
    counts = lives.group_by(["individual", "life"]).aggregate([([], "count_all")])
    for row in counts.filter(pc.greater(counts["count_all"], 1)).to_pylist():
        yield error(_name(row["individual"], row["life"]), f"has {row['count_all']} rows in lives, expected 1")


def check_steps(lives: pa.Table, steps: pa.Table) -> Iterator[Finding]:
    """Each life's steps are 0 to n-1, where n is what its row says, all of its attempt and its adapter."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    sums = [("step", "count"), ("step", "count_distinct"), ("step", "min"), ("step", "max")]
    for group in steps.group_by(["individual", "life", "attempt", "adapter"]).aggregate(sums).to_pylist():
        groups.setdefault((group["individual"], group["life"]), []).append(group)
    for row in lives.select(["individual", "life", "attempt", "adapter", "steps"]).to_pylist():
        own = groups.pop((row["individual"], row["life"]), [])
        where, count = _name(row["individual"], row["life"]), row["steps"]
        found = sum(group["step_count"] for group in own)
        dense = all(
            (group["step_count_distinct"], group["step_min"], group["step_max"]) == (count, 0, count - 1)
            for group in own
        )
        if found != count or not dense:
            numbers = [f"{group['step_min']} to {group['step_max']}" for group in own]
            yield error(where, f"has {found} steps numbered {', '.join(numbers)}, expected 0 to {count - 1}")
        if any((group["attempt"], group["adapter"]) != (row["attempt"], row["adapter"]) for group in own):
            yield error(where, "has steps of another attempt or adapter than its row in lives")
    for individual, life in groups:
        yield error(_name(individual, life), "has steps, but no row in lives")


def _check_totals(state: RunState, generation: int, rows: list[dict[str, Any]]) -> Iterator[Finding]:
    """What the journal counted, and metrics show, is what the rows sum up to."""
    commits = [commit for commit in state.commits if commit.generation == generation]
    for name, column in (("decisions", "steps"), *zip(TOKENS, TOKENS, strict=True)):
        counted, found = sum(getattr(commit, name) for commit in commits), sum(row[column] for row in rows)
        if counted != found:
            yield error(f"generation {generation}", f"the journal counts {counted} {name}, the ledger holds {found}")
    ends: Counter[str] = Counter()
    for commit in commits:
        ends.update(commit.ends)
    found_ends = Counter(f"{row['end']}:{row['cause']}" if row["end"] == EndReason.DIED else row["end"] for row in rows)
    if ends != found_ends:
        yield error(
            f"generation {generation}", f"the journal counts ends {dict(ends)}, the ledger holds {dict(found_ends)}"
        )


def _name(individual: str, life: int) -> str:
    return f"{individual}/{life}"
