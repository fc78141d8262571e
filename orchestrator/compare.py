"""Runs an experiment: every arm with every seed, one run after the other; then the table and its page."""

import json
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from orchestrator import driver
from orchestrator.address import driven_at
from orchestrator.comparison import Arm, ArmRow, compare
from orchestrator.config import RunConfig, semantic
from orchestrator.console import MEASURED, columns_of
from orchestrator.experiment import REFERENCE, Document, ExperimentConfig, arm_document
from orchestrator.finish import conclude, write_report
from orchestrator.places import GENESIS, open_new, open_run, open_store
from orchestrator.runfile import load, read, validate, validate_as
from orchestrator.state import RunState
from orchestrator.summary import summarize
from telemetry.failures import UsageError
from telemetry.numerals import interval, number
from telemetry.report.page import render_comparison

PAGE, DATA = "comparison.html", "comparison.json"


def load_experiment(path: Path) -> tuple[ExperimentConfig, RunConfig]:
    """An experiment file and the run file it names. Raises UsageError with one line."""
    experiment = validate_as(ExperimentConfig, read(path), str(path))
    return experiment, load(path.parent / experiment.run)


def run_experiment(
    experiment: ExperimentConfig, config: RunConfig, store: str, address: str | None = None
) -> tuple[ArmRow, ...]:
    """Runs what has not been run yet below `store`, resumes what was interrupted, and compares.

    address: of the cluster to run on, if it is not to be the run file's.

    Raises UsageError when a run that is there already is of another experiment, and whatever ends a run.
    """
    root = f"{store.rstrip('/')}/{experiment.name}"
    states: dict[str, list[RunState]] = {}
    for place, seed in enumerate(experiment.seeds):
        reference = _run(arm_document(config, REFERENCE, seed, place, None), root, address)
        states.setdefault(REFERENCE, []).append(reference)
        for arm in experiment.arms:
            if arm != "untouched":
                document = arm_document(config, arm, seed, place, _spent(reference))
                states.setdefault(arm, []).append(_run(document, root, address))
    arms = [_untouched(states[REFERENCE]) if arm == "untouched" else _arm(arm, states[arm]) for arm in experiment.arms]
    rows = compare(_arm(REFERENCE, states[REFERENCE]), arms)
    _write(experiment, config, states[REFERENCE][0], rows, root)
    for state in chain.from_iterable(states.values()):
        write_report(open_store(f"{root}/{state.created.run}"), state)  # which shows the table of arms as well
    return rows


def print_comparison(rows: tuple[ArmRow, ...], fitness_kind: str, store: str, name: str) -> None:
    """The table on the console, and where the page is."""
    measured, better = MEASURED.get(fitness_kind, "mean fitness"), f"{rows[0].arm} is better by"
    found = columns_of("arm", measured, better, "p", "verdict")
    spent = columns_of("arm", "generations", "decisions", "training tokens", f"{measured} by seed")
    for row in rows:
        fitness, difference = row.fitness, row.difference
        arm = Text(row.arm, style="bold" if difference is None else "")
        found.add_row(
            arm,
            interval(fitness.value, fitness.low, fitness.high),
            "" if difference is None else interval(difference.value, difference.low, difference.high),
            "" if row.p is None else f"{row.p:.4f}",
            Text(row.verdict),
        )
        spent.add_row(
            arm,
            f"{row.generations:,}",
            f"{row.decisions:,}",
            f"{row.training_tokens:,}",
            ", ".join(map(number, row.by_seed)),
        )
    console = Console()
    for table in (found, spent):
        console.print()
        console.print(table)
    console.print(Text.assemble(("page  ", "dim"), f"{store.rstrip('/')}/{name}/{PAGE}"), soft_wrap=True)


def _run(document: Document, root: str, address: str | None) -> RunState:
    """The finished run of an arm with a seed: run, resumed or found."""
    place = f"{root}/{document['name']}"
    config = validate(document, place)
    if not open_store(place).exists(GENESIS):
        store = open_new(place)
        state = driver.start(store, config, address)
    else:
        store, state = open_run(place)
        if semantic(state.created.config) != semantic(config.model_dump(mode="json")):
            raise UsageError(f"{place}: a run of another configuration is here; choose another name or store")
        if state.finished:
            return state
        state = driver.resume(store, state, driven_at(config, address))
    conclude(store, state)
    return state


def _spent(state: RunState) -> dict[str, int]:
    return {
        "decisions": sum(commit.decisions for commit in state.commits),
        "training_tokens": sum(result.tokens for result in state.births.values()),
    }


def _arm(name: str, states: list[RunState]) -> Arm:
    spent = [_spent(state) for state in states]
    return Arm(
        name=name,
        values=np.array([_values(state, "champion") for state in states]),
        decisions=tuple(one["decisions"] for one in spent),
        training_tokens=tuple(one["training_tokens"] for one in spent),
        generations=tuple(state.generation for state in states),
    )


def _untouched(states: list[RunState]) -> Arm:
    """Founders on the untouched model: they spend nothing."""
    nothing = (0,) * len(states)
    return Arm("untouched", np.array([_values(state, "founder") for state in states]), nothing, nothing, nothing)


def _values(state: RunState, who: str) -> tuple[float, ...]:
    rows = state.evaluation.rows if state.evaluation else ()
    return next(row.values for row in rows if row.who == who)


def _write(
    experiment: ExperimentConfig, config: RunConfig, state: RunState, rows: tuple[ArmRow, ...], root: str
) -> None:
    summary = summarize(state, config)
    data: dict[str, Any] = {
        "name": experiment.name,
        "environment": summary.environment,
        "model": summary.model,
        "fitness_kind": summary.fitness_kind,
        "seeds": list(experiment.seeds),
        "worlds": config.evaluation.lives,
        "rows": [row.model_dump(mode="json") for row in rows],
    }
    store = open_store(root)
    store.put(DATA, json.dumps(data, indent=1, allow_nan=False).encode())
    store.put(PAGE, render_comparison(data).encode())
