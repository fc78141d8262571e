"""Arms against each other on the same held-out worlds: means, differences, intervals, corrected p-values. Pure.

Law: an arm is as good as what any run of it would have come to, so seeds are resampled as well as worlds; three seeds
carry little, and the intervals say so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.verdict import Estimate
from telemetry.records import Record
from telemetry.seeds import rng

RESAMPLES = 20_000
SIGNIFICANT = 0.05

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Arm:
    """What the runs of an arm came to."""

    name: str
    values: Floats
    """[seeds, worlds]: held-out fitness of each run's champion, in the same worlds for all."""
    decisions: tuple[int, ...]
    """Spent, by seed."""
    training_tokens: tuple[int, ...]
    generations: tuple[int, ...]


class ArmRow(Record):
    """One arm's line in the table; its fields are the keys of `forager compare --json`."""

    arm: str
    fitness: Estimate
    """Of champions, on held-out worlds."""
    by_seed: tuple[float, ...]
    decisions: int
    """Of all seeds together, as are the next two."""
    training_tokens: int
    generations: int
    difference: Estimate | None
    """How much better the reference is, world by world and seed by seed; null for the reference itself."""
    p: float | None
    """Two-sided, corrected for the number of arms (Holm 1979)."""
    verdict: str


def compare(reference: Arm, others: Sequence[Arm]) -> tuple[ArmRow, ...]:
    """The table: the reference first, then the others in order."""
    found = [_difference(reference, other) for other in others]
    corrected = holm([p for _, p in found])
    rows = [_row(reference, None, None, "what the others are compared with")]
    for other, (difference, _), p in zip(others, found, corrected, strict=True):
        rows.append(_row(other, difference, p, _verdict(reference.name, other.name, difference, p)))
    return tuple(rows)


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in order (Holm 1979)."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    corrected, highest = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, values[index] * (len(values) - rank)))
        corrected[index] = highest
    return corrected


def _difference(reference: Arm, other: Arm) -> tuple[Estimate, float]:
    samples, mean = _resampled(reference.values - other.values, other.name)
    tail = 1 + min(int((samples <= 0).sum()), int((samples >= 0).sum()))
    return _estimate(samples, mean), min(1.0, 2 * tail / (RESAMPLES + 1))


def _resampled(values: Floats, name: str) -> tuple[Floats, float]:
    """Means of resampled seeds and worlds, each drawn with replacement (pigeonhole bootstrap, Owen 2007)."""
    draw = rng(0, "comparison", name, *values.shape)
    seeds, worlds = (draw.multinomial(size, np.full(size, 1 / size), RESAMPLES) / size for size in values.shape)
    return np.asarray(((seeds @ values) * worlds).sum(axis=1)), float(values.mean())


def _estimate(samples: Floats, mean: float) -> Estimate:
    low, high = np.quantile(samples, [0.025, 0.975])
    return Estimate(value=mean, low=float(low), high=float(high))


def _row(arm: Arm, difference: Estimate | None, p: float | None, verdict: str) -> ArmRow:
    return ArmRow(
        arm=arm.name,
        fitness=_estimate(*_resampled(arm.values, arm.name)),
        by_seed=tuple(arm.values.mean(axis=1).tolist()),
        decisions=sum(arm.decisions),
        training_tokens=sum(arm.training_tokens),
        generations=sum(arm.generations),
        difference=difference,
        p=p,
        verdict=verdict,
    )


def _verdict(reference: str, other: str, difference: Estimate, p: float) -> str:
    if p >= SIGNIFICANT:
        return "no difference shown"
    return f"{reference} is better" if difference.value > 0 else f"{other} is better"
