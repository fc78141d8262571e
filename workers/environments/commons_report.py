"""What people see of the commons: a picture of a recorded state, and what many lives come to, with intervals.

Law: those who lived in one instance shared its fate, so instances are resampled, and never lives.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from telemetry.seeds import rng
from workers.environments.commons_rules import GOODS

RESAMPLES = 2000
CONFIDENCE = 0.95
COUNTED = ("descendants", "gifts", "thefts", "trades")
"""Members of a result that are reported per life."""

_BAR = 20
"""Characters of a full patch."""

_Numbers = npt.NDArray[np.float64]


def draw(state: Mapping[str, Any]) -> str:
    """A line for the seat that the state is of, and one per patch where the state holds the map.

    A patch is its good, `#` for what stands there, and whoever is on it as `seat(fruit/roots last-act)`.
    """
    own = f"turn {state['turn']}  seat {state['seat']} on patch {state['patch']}"
    lines = [f"{own}  fruit {state['fruit']}  roots {state['roots']}  {state['act']}"]
    for patch, stock in enumerate(state.get("ground", ())):
        bar = "#" * -(-_BAR * stock // state["capacity"])
        crowd = [f"{seat}({fruit}/{roots} {act})" for seat, at, fruit, roots, act, _ in state["agents"] if at == patch]
        lines.append(" ".join([f"{patch:3} {GOODS[patch % 2]:5} {stock:3} {bar:.<{_BAR}}", *crowd]))
    return "\n".join(lines)


def report(results: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float, float]]:
    """Name -> (value, low, high), with 95% percentile bootstrap intervals (Efron 1979) over instances, for

    descendants, gifts, thefts, trades   per life
    energy gini                          inequality of the energy at the end within an instance, the dead having none: 0
                                         if all have the same; the mean over instances where anybody has any

    Empty with fewer than 2 instances, and without `energy gini` where nobody has any energy.
    """
    groups: dict[int, list[Mapping[str, Any]]] = {}
    for result in results:
        groups.setdefault(result["instance"], []).append(result)
    if len(groups) < 2:
        return {}
    sums = np.array([[len(group), *(sum(one[name] for one in group) for name in COUNTED)] for group in groups.values()])
    ginis = [gini([one["energy"] for one in group]) for group in groups.values()]
    unequal = np.array([[value is not None, value or 0.0] for value in ginis], dtype=np.float64)
    chances = np.full(len(groups), 1 / len(groups))
    times = rng("commons report", len(groups)).multinomial(len(groups), chances, size=RESAMPLES).astype(np.float64)
    found = {}
    for index, name in enumerate(COUNTED, start=1):
        found[name] = _ratio(sums[:, [0, index]].astype(np.float64), times)
    if unequal[:, 0].any():
        found["energy gini"] = _ratio(unequal, times)
    return found


def gini(energies: Sequence[float]) -> float | None:
    """Mean absolute difference over twice the mean (Gini 1912); None where there is nothing to share out."""
    total, count = sum(energies), len(energies)
    if not total:
        return None
    ranked = sum(rank * energy for rank, energy in enumerate(sorted(energies), start=1))
    return 2 * ranked / (count * total) - (count + 1) / count


def _ratio(rows: _Numbers, times: _Numbers) -> tuple[float, float, float]:
    """Sum of the second column over that of the first, and its interval over resamples where there is one.

    rows: [instances, 2]; times: [resamples, instances], how often each instance counts.
    """
    below, above = (times @ rows).T
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(above[below > 0] / below[below > 0], (tail, 1 - tail)).tolist()
    return float(rows[:, 1].sum() / rows[:, 0].sum()), low, high
