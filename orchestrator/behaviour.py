"""Where individuals stand by how they act: frequencies of actions, projected onto the two directions that tell most.

Frequencies are over all of an individual's committed steps, exploration included, as in `orchestrator.diversity`.
Directions are principal components (Pearson 1901, "On lines and planes of closest fit to systems of points in space").
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.replay import clean
from orchestrator.state import RunState
from telemetry.analysis import RunTables
from telemetry.store import Store

MOST_ACTIONS = 32
"""Actions that are coordinates, the commonest ones: where actions are free text there is no end of them."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BehaviourMap:
    """Everybody who has acted, on a plane; rounded, so that the order of additions decides nothing."""

    individuals: list[str]
    x: list[float]
    y: list[float]
    actions: list[str]
    """The commonest first."""
    shares: list[list[float]]
    """[individuals, actions]: how often each did what, of all that it did."""
    explained: list[float]
    """Of each axis, its share of the variance."""
    loadings: list[list[float]]
    """[axes, actions]: direction of each axis, of length 1, its largest component positive."""
    others: float
    """Share of all steps whose action is no coordinate."""


def behaviour(store: Store, state: RunState) -> dict[str, Any] | None:
    """The behaviour map of a run as plain values; None before anybody has acted. Raises StateError as RunTables."""
    files = [ref for generation in state.files for ref in state.vouched(generation)]
    attempts = [attempt for generation in state.lives for attempt in state.attempts(generation)]
    with RunTables(store, {}, files, attempts) as tables:
        counts = tables.query(
            f"""with common as (
                select action from steps group by action order by count(*) desc, action limit {MOST_ACTIONS}
            )
            select individual, if(action in (from common), action, null) as action, count(*) as number
            from steps group by all order by individual, action"""
        )
    return asdict(project(counts)) if counts.num_rows else None


def project(counts: pa.Table) -> BehaviourMap:
    """Of counts by individual and action, at least one row; the action null stands for all that are no coordinate."""
    individuals, who = _coded(counts["individual"])
    names, what = _coded(counts["action"])
    numbers = counts["number"].to_numpy().astype(np.float64)
    table = np.zeros((len(individuals), len(names)))
    np.add.at(table, (who, what), numbers)
    totals = table.sum(axis=1, keepdims=True)
    often = table.sum(axis=0)
    known = sorted((index for index, name in enumerate(names) if name is not None), key=lambda index: -often[index])
    shares = (table / totals)[:, known]
    places, loadings, explained = principal(shares)
    return BehaviourMap(
        individuals=individuals,
        x=places[:, 0].round(4).tolist(),
        y=places[:, 1].round(4).tolist(),
        actions=[clean(names[index]) for index in known],
        shares=shares.round(6).tolist(),
        explained=explained.round(4).tolist(),
        loadings=loadings.round(4).tolist(),
        others=round(float(1 - table[:, known].sum() / totals.sum()), 4),
    )


def principal(values: Floats) -> tuple[Floats, Floats, Floats]:
    """Rows on their first two principal components: places [rows, 2], loadings [2, columns], shares of variance [2].

    What is missing where rows or columns are fewer is 0. Of either direction the one is taken whose largest component
    is positive, so that the same values give the same picture.
    """
    centred = values - values.mean(axis=0)
    _, strengths, directions = np.linalg.svd(centred, full_matrices=False)
    variances = strengths[:2] ** 2
    # What is nothing but rounding errors is no direction.
    count = int((variances > max(1e-12 * float((strengths**2).sum()), 1e-18)).sum())
    loadings, explained = np.zeros((2, values.shape[1])), np.zeros(2)
    loadings[:count] = directions[:count]
    explained[:count] = variances[:count] / max(float((strengths**2).sum()), 1e-18)
    # Equal sizes that differ by rounding must not decide.
    largest = np.abs(loadings.round(6)).argmax(axis=1)
    loadings *= np.where(loadings[[0, 1], largest] < 0, -1.0, 1.0)[:, np.newaxis]
    return centred @ loadings.T, loadings, explained


def _coded(column: pa.ChunkedArray) -> tuple[list[Any], NDArray[np.int64]]:
    """Distinct values, null one of them, and for each row which of them it is."""
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)
