"""How alike a population plays: what to look at before it has collapsed onto one way of playing. Pure."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.verdict import Diversity
from telemetry.records import Individual

Floats = NDArray[np.float64]

MOST_ACTIONS = 4096
"""Distinct actions that are told apart, the commonest ones; all others count as one."""
ALIKE = 0.01
"""Bits of difference below which everybody plays the same."""


def diversity(steps: pa.Table, population: Sequence[Individual]) -> Diversity:
    """Of committed steps (columns individual and action) of those who lived them."""
    shares = _shares(steps)
    own = _entropy(shares)
    together = _entropy(shares.mean(axis=0, keepdims=True))[0] if len(shares) else 0.0
    mean = float(own.mean()) if len(own) else 0.0
    return Diversity(
        entropy=round(mean, 6),
        behaviour=round(max(0.0, float(together) - mean), 6),
        strategies=len({one.genome.strategy for one in population}),
        adapters=len({one.genome.adapter for one in population}),
    )


def action_shares(steps: pa.Table) -> dict[str, Floats]:
    """By individual, how often it did what, as shares; the same actions in the same order for all."""
    if steps.num_rows == 0:
        return {}
    return dict(zip(steps["individual"].unique().sort().to_pylist(), _shares(steps), strict=True))


def difference(one: Floats, other: Floats) -> float:
    """Jensen-Shannon divergence of two ways of acting, in bits, from 0 to 1."""
    pair = np.stack([one, other])
    # Rounded, so that the order of additions decides nothing.
    return round(float(_entropy(pair.mean(axis=0, keepdims=True))[0] - _entropy(pair).mean()), 9)


def _shares(steps: pa.Table) -> Floats:
    counts = _counts(steps)
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def _counts(steps: pa.Table) -> Floats:
    """[individuals with steps, by name; actions, the commonest first]: how often each did what."""
    if steps.num_rows == 0:
        return np.zeros((0, 1))
    (people, who), (actions, what) = _encoded(steps["individual"]), _encoded(steps["action"])
    rank = np.empty(len(actions), dtype=np.int64)
    rank[np.argsort(-np.bincount(what), kind="stable")] = np.arange(len(actions))
    what = np.minimum(rank[what], MOST_ACTIONS)
    width = int(what.max()) + 1
    return np.bincount(who * width + what, minlength=len(people) * width).reshape(-1, width).astype(np.float64)


def _encoded(texts: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int64]]:
    """The different texts in order, and the place among them of each row's."""
    names = texts.unique().sort()
    return names.to_pylist(), pc.index_in(texts, value_set=names).to_numpy().astype(np.int64)


def _entropy(shares: Floats) -> Floats:
    logs = np.log2(np.where(shares > 0, shares, 1.0))
    return np.asarray(-(shares * logs).sum(axis=1))


def warning(found: Diversity, individuals: int) -> str:
    """One line where a population has become one; empty otherwise."""
    if individuals < 2 or found.behaviour >= ALIKE:
        return ""
    return f"everybody plays alike (by {found.behaviour:.3f} bits): selection has nothing left to choose from"
