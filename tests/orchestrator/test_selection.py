"""Selection: who survives, on ties too, and that nobody is lost on the way."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config import SelectionConfig
from orchestrator.fitness import Fitness
from orchestrator.selection import select


def fitness(*values: float) -> list[Fitness]:
    return [
        Fitness(individual=f"g000-{index:03d}", value=value, low=value, high=value, lives=1, censored=0)
        for index, value in enumerate(values)
    ]


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
)
def test_everyone_is_either_alive_or_culled(values: list[float], share: float, elites: int) -> None:
    scored = fitness(*values)
    by_id = {one.individual: one.value for one in scored}
    keep = max(1, round(share * len(values)))
    selection = select(scored, SelectionConfig(survivors=share, elites=min(elites, keep)))
    assert sorted(selection.survivors + selection.culled) == sorted(by_id)
    assert len(selection.survivors) == keep
    assert selection.elites == selection.survivors[: min(elites, keep)]
    worst_alive = min(by_id[one] for one in selection.survivors)
    assert all(by_id[one] <= worst_alive for one in selection.culled)
