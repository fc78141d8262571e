"""How alike a population plays: what to look at before it has collapsed onto one way of playing. Pure."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
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
    names = steps["individual"].combine_chunks().dictionary_encode().dictionary.to_pylist()
    return dict(zip(names, _shares(steps), strict=True))


def difference(one: Floats, other: Floats) -> float:
    """Jensen-Shannon divergence of two ways of acting, in bits, from 0 to 1."""
    pair = np.stack([one, other])
    # Rounded, so that the order of additions decides nothing.
    return round(float(_entropy(pair.mean(axis=0, keepdims=True))[0] - _entropy(pair).mean()), 9)


def _shares(steps: pa.Table) -> Floats:
    counts = _counts(steps)
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def _counts(steps: pa.Table) -> Floats:
    """[individuals with steps, actions]: how often each did what."""
    if steps.num_rows == 0:
        return np.zeros((0, 1))
    who, what = (
        steps[name].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
        for name in ("individual", "action")
    )
    order = np.argsort(-np.bincount(what), kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    what = np.minimum(rank[what], MOST_ACTIONS)
    counts = np.zeros((who.max() + 1, what.max() + 1))
    np.add.at(counts, (who, what), 1)
    return counts


def _entropy(shares: Floats) -> Floats:
    logs = np.log2(np.where(shares > 0, shares, 1.0))
    return np.asarray(-(shares * logs).sum(axis=1))


def warning(found: Diversity, individuals: int) -> str:
    """One line where a population has become one; empty otherwise."""
    if individuals < 2 or found.behaviour >= ALIKE:
        return ""
    return f"everybody plays alike (by {found.behaviour:.3f} bits): selection has nothing left to choose from"
