"""Selection: who survives, on ties too, and that nobody is lost on the way."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config_evolution import SelectionConfig
from orchestrator.diversity import difference
from orchestrator.selection import select as choose
from orchestrator.verdict import Fitness, Selection
from telemetry.seeds import rng


def fitness(*values: float) -> list[Fitness]:
    return [
        Fitness(individual=f"g000-{index:03d}", value=value, low=value, high=value, lives=1, censored=0)
        for index, value in enumerate(values)
    ]


def select(scored: list[Fitness], config: SelectionConfig, seed: int = 0) -> Selection:
    return choose(scored, config, rng(seed))


def test_the_fittest_share_survives_fittest_first() -> None:
    selection = select(fitness(3.0, 9.0, 5.0, 1.0), SelectionConfig(survivors=0.5, elites=1))
    assert selection.survivors == ("g000-001", "g000-002")
    assert selection.elites == ("g000-001",)
    assert selection.culled == ("g000-000", "g000-003")


def test_ties_go_to_the_lower_id_whatever_the_order() -> None:
    config = SelectionConfig(survivors=0.5, elites=1)
    tied = fitness(4.0, 4.0, 4.0, 4.0)
    assert select(tied, config).survivors == ("g000-000", "g000-001")
    assert select(tied[::-1], config) == select(tied, config)


def test_somebody_always_survives() -> None:
    selection = select(fitness(1.0, 2.0), SelectionConfig(survivors=0.01, elites=0))
    assert selection.survivors == ("g000-001",)


def test_no_elites_when_none_are_asked_for() -> None:
    assert select(fitness(1.0, 2.0, 3.0), SelectionConfig(survivors=0.5, elites=0)).elites == ()


def test_infrastructure_culls_nobody() -> None:
    unknown = Fitness(individual="g000-009", value=None, low=None, high=None, lives=4, censored=4)
    selection = select([unknown, *fitness(3.0, 9.0, 5.0, 1.0)], SelectionConfig(survivors=0.5, elites=3))
    assert selection.survivors == ("g000-001", "g000-002", "g000-009"), "it takes nobody's place"
    assert selection.elites == ("g000-001", "g000-002")
    assert selection.culled == ("g000-000", "g000-003")


@given(
    st.lists(st.floats(-100, 100, allow_nan=False), min_size=1, max_size=40),
    st.floats(0.01, 1),
    st.integers(0, 5),
    st.sampled_from(["truncation", "tournament", "softmax"]),
    st.integers(0, 99),
)
def test_everyone_is_either_alive_or_culled(
    values: list[float], share: float, elites: int, method: str, seed: int
) -> None:
    scored = fitness(*values)
    by_id = {one.individual: one.value for one in scored}
    keep = max(1, round(share * len(values)))
    config = SelectionConfig.model_validate(
        {"survivors": share, "elites": min(elites, keep), "method": method, "contestants": 1 + seed % 4}
    )
    selection = select(scored, config, seed)
    assert selection == select(scored[::-1], config, seed)
    ranks = [(-by_id[one], one) for one in selection.survivors]
    assert ranks == sorted(ranks)
    assert selection.elites == tuple(sorted(by_id, key=lambda one: (-by_id[one], one))[: min(elites, keep)])
    assert sorted(selection.survivors + selection.culled) == sorted(by_id)
    assert len(selection.survivors) == keep
    assert selection.elites == selection.survivors[: min(elites, keep)]
    if method != "truncation":
        return
    worst_alive = min(by_id[one] for one in selection.survivors)
    assert all(by_id[one] <= worst_alive for one in selection.culled)


def shares(config: SelectionConfig) -> list[float]:
    """How often each rank survives, fittest first."""
    scored = fitness(*range(10, 0, -1))
    lived = [select(scored, config, seed).survivors for seed in range(2000)]
    return [sum(one.individual in survivors for survivors in lived) / len(lived) for one in scored]


def test_tournaments_favour_the_fit_and_the_more_so_the_larger_they_are() -> None:
    lottery = shares(SelectionConfig(method="tournament", survivors=0.3, elites=0, contestants=1))
    assert all(abs(share - 0.3) < 0.05 for share in lottery)
    small = shares(SelectionConfig(method="tournament", survivors=0.3, elites=0, contestants=2))
    large = shares(SelectionConfig(method="tournament", survivors=0.3, elites=0, contestants=6))
    assert small == sorted(small, reverse=True)
    assert large[0] > small[0] > 0.4
    assert large[-1] == 0.0 < small[-2]


def test_the_odds_of_a_rank_fall_by_e_with_the_pressure() -> None:
    first = shares(SelectionConfig(method="softmax", survivors=0.1, elites=0, pressure=0.2))
    for rank in range(6):
        assert abs(first[rank + 2] / first[rank] - 0.368) < 0.12, rank
    assert shares(SelectionConfig(method="softmax", survivors=0.3, elites=2, pressure=0.2))[:2] == [1.0, 1.0]


def test_clearing_keeps_the_fittest_of_each_way_of_acting() -> None:
    """Three ways, two of each: nobody's twin survives before everybody else's fittest has."""
    scored = fitness(9.0, 8.0, 7.0, 6.0, 5.0, 4.0)
    ways = [(1.0, 0.0, 0.0), (0.99, 0.01, 0.0), (0.0, 1.0, 0.0), (0.0, 1.0, 0.0), (0.3, 0.3, 0.4), (0.3, 0.31, 0.39)]
    acted = {one.individual: np.array(way) for one, way in zip(scored, ways, strict=True)}

    def survivors(share: float, elites: int = 0) -> list[int]:
        config = SelectionConfig(method="clearing", niche=0.05, survivors=share, elites=elites)
        selection = choose(scored, config, rng(0), acted=acted)
        assert selection == choose(scored[::-1], config, rng(1), acted=acted)
        return [int(one[-1]) for one in selection.survivors]

    assert survivors(0.5) == [0, 2, 4]
    assert survivors(0.67) == [0, 1, 2, 4], "then the next of any"
    assert survivors(0.5, elites=2) == [0, 1, 2], "elites have a place whatever they do"
    assert survivors(0.34) == [0, 2]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=12), st.floats(0.1, 1))
def test_clearing_leaves_no_niche_empty_while_another_has_two(points: list[tuple[float, float]], share: float) -> None:
    scored = fitness(*range(len(points), 0, -1))
    acted = {
        one.individual: np.array([a + 0.01, b + 0.01]) / (a + b + 0.02)
        for one, (a, b) in zip(scored, points, strict=True)
    }
    config = SelectionConfig(method="clearing", niche=0.05, survivors=share, elites=0)
    selection = choose(scored, config, rng(0), acted=acted)
    alive = [acted[one] for one in selection.survivors]
    crowded = any(difference(one, other) < 0.05 for place, one in enumerate(alive) for other in alive[:place])
    if crowded:
        assert all(any(difference(acted[one], other) < 0.05 for other in alive) for one in selection.culled)
