"""What many lives of the bills world say together, with intervals.

Law: the life is the unit of statistics; a share of offers is the ratio of two sums over lives.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from telemetry.seeds import rng

RESAMPLES = 2000
_RATIOS = {
    "taken": ("taken", "offers"),
    "solved of taken": ("solved", "taken"),
    "tokens per step": ("completion_tokens", "offers"),
    "profit per step": ("score", "offers"),
}
"""Name of a measure -> the two members of the results whose sums it divides."""


def report(results: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float, float]]:
    """Name -> (value, low, high) with 95% percentile bootstrap intervals (Efron 1979) over lives.

    `taken`: share of offers that were answered, not refused. `solved of taken`: share of those that were right.
    `tokens per step`: tokens said for each offer. `profit per step`: energy earned for each, after fines, refusals and
    tokens, before rent. A share of nothing is 0. Empty without results.
    """
    if not results:
        return {}
    lives = len(results)
    drawn = rng("bills report", lives).integers(lives, size=(RESAMPLES, lives))
    found = {}
    for name, (above, below) in _RATIOS.items():
        parts, wholes = (np.array([float(result[member]) for result in results]) for member in (above, below))
        value = _ratio(parts.sum(), wholes.sum())
        low, high = np.quantile(_ratio(parts[drawn].sum(axis=1), wholes[drawn].sum(axis=1)), (0.025, 0.975))
        found[name] = (float(value), float(low), float(high))
    return found


def _ratio(parts: Any, wholes: Any) -> Any:
    return np.divide(parts, wholes, out=np.zeros_like(wholes), where=wholes > 0)
