"""Selection: fitness in, survivors out. Pure: randomness is passed in."""

from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.config_evolution import SelectionConfig
from orchestrator.diversity import Floats, difference
from orchestrator.population import islands
from orchestrator.verdict import Fitness, Selection, ranked


def select(
    fitness: Sequence[Fitness],
    config: SelectionConfig,
    rng: np.random.Generator,
    *,
    isles: int = 1,
    acted: Mapping[str, Floats] | None = None,
) -> Selection:
    """Survivors by the configured method; the elites, the very fittest, always survive. Ties go to the lower id.

    fitness: in the population's order, by which it is divided into `isles` islands; each selects on its own. Those
    whom infrastructure left without a fitness survive as well, after the others and in nobody's place. acted: what
    everybody did (`diversity.action_shares`); needed for clearing only.
    """
    acted = acted or {}
    parts = [_select(fitness[part.start : part.stop], config, rng, acted) for part in islands(len(fitness), isles)]
    order = [one.individual for one in ranked(fitness)]
    order += sorted(one.individual for one in fitness if one.value is None)
    chosen = [{one for part in parts for one in getattr(part, name)} for name in Selection.model_fields]
    survivors, elites, culled = (tuple(one for one in order if one in some) for some in chosen)
    return Selection(survivors=survivors, elites=elites, culled=culled)


def _select(
    fitness: Sequence[Fitness], config: SelectionConfig, rng: np.random.Generator, acted: Mapping[str, Floats]
) -> Selection:
    scored = [one.individual for one in ranked(fitness)]
    unscored = sorted(one.individual for one in fitness if one.value is None)
    keep = min(len(scored), max(1, round(config.survivors * len(scored))))
    safe = min(config.elites, keep)
    if config.method == "clearing":
        places = _clearing([acted[one] for one in scored], keep, safe, config.niche)
    else:
        places = METHODS[config.method](len(scored), keep, safe, config, rng)
    survivors = [scored[place] for place in sorted(places)]
    return Selection(
        survivors=tuple(survivors + unscored),
        elites=tuple(survivors[: config.elites]),
        culled=tuple(one for one in scored if one not in survivors),
    )


def _clearing(acted: Sequence[Floats], keep: int, safe: int, niche: float) -> list[int]:
    """The fittest of each niche first, then the next of any (Petrowski 1996). acted: by rank."""
    chosen = list(range(safe))
    for place in range(safe, len(acted)):
        if len(chosen) < keep and all(difference(acted[place], acted[one]) >= niche for one in chosen):
            chosen.append(place)
    others = [place for place in range(len(acted)) if place not in chosen]
    return chosen + others[: keep - len(chosen)]


def _truncation(count: int, keep: int, safe: int, config: SelectionConfig, rng: np.random.Generator) -> list[int]:
    return list(range(keep))


def _tournament(count: int, keep: int, safe: int, config: SelectionConfig, rng: np.random.Generator) -> list[int]:
    """The best of so many contestants, drawn from those left, takes the next place (GENOME+, arXiv 2503.01155)."""
    chosen, left = list(range(safe)), list(range(safe, count))
    while len(chosen) < keep:
        contestants = rng.choice(len(left), min(config.contestants, len(left)), replace=False)
        chosen.append(left.pop(int(contestants.min())))
    return chosen


def _softmax(count: int, keep: int, safe: int, config: SelectionConfig, rng: np.random.Generator) -> list[int]:
    """Draws without replacement, a rank's weight falling by e with every `pressure` of the population's size.

    By rank, not by fitness, so that no scale matters; Gumbel's trick draws them all at once (Kool et al. 2019).
    """
    logits = -np.arange(safe, count) / (config.pressure * count)
    order = np.argsort(-(logits + rng.gumbel(size=count - safe)), kind="stable")
    return [*range(safe), *(safe + int(place) for place in order[: keep - safe])]


def _lottery(count: int, keep: int, safe: int, config: SelectionConfig, rng: np.random.Generator) -> list[int]:
    others = safe + rng.permutation(count - safe)[: keep - safe]
    return [*range(safe), *map(int, others)]


METHODS = {"truncation": _truncation, "tournament": _tournament, "softmax": _softmax, "lottery": _lottery}
"""From (scored, places, elites) to the ranks that survive; rank 0 is the fittest."""
