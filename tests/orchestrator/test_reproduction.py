"""Reproduction: births are a pure function of survivors, config and seed, and every birth is well formed."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config import FounderConfig, PopulationConfig
from orchestrator.config_evolution import ReproductionConfig
from orchestrator.population import founders, individual_id
from orchestrator.reproduction import Births, Brood, reproduce, utilities
from orchestrator.verdict import Selection
from telemetry.records import Individual
from telemetry.seeds import rng
from trainer.config_objectives import EsConfig

SEED = 11


def population(size: int = 6) -> tuple[Individual, ...]:
    named = tuple(
        FounderConfig(name=name, strategy=f"Be {name}.", epsilon=0.6, learning_rate=1e-3)
        for name in ("bold", "timid", "wise")
    )
    return founders(PopulationConfig(size=size, lives=1, founders=named), 0.2, rng(SEED, "founders"))


def selection_of(people: tuple[Individual, ...], alive: int, elites: int) -> Selection:
    ids = [one.id for one in people]
    return Selection(survivors=tuple(ids[:alive]), elites=tuple(ids[:elites]), culled=tuple(ids[alive:]))


def births(alive: int = 3, elites: int = 1, size: int = 6, seed: int = SEED, **dials: object) -> Births:
    people = population()
    config = ReproductionConfig.model_validate(dials)
    return reproduce(
        people, selection_of(people, alive, elites), config, Brood(size, seed, founding=("Wait. See.", "Be brave."))
    )


def test_same_inputs_same_births() -> None:
    assert births() == births()
    assert births(seed=SEED + 1) != births()


def test_the_order_of_the_population_does_not_matter() -> None:
    people = population()
    selection, config = selection_of(people, 3, 1), ReproductionConfig()
    forwards = reproduce(people, selection, config, Brood(6, SEED))
    assert reproduce(people[::-1], selection, config, Brood(6, SEED)) == forwards


def test_one_birth_does_not_depend_on_how_many_others_there_are() -> None:
    assert births(size=9).jobs[:5] == births(size=6).jobs


def test_the_last_generation_has_no_births() -> None:
    assert births(size=0) == Births(elites=(), jobs=())


def test_elites_keep_their_genome_under_a_new_id() -> None:
    elite = births(elites=2).elites[0]
    old = population()[0]
    assert (elite.genome, elite.lineage, elite.parents) == (old.genome, old.lineage, (old.id,))
    assert elite.id == "g001-000"
    assert elite.generation == 1


def test_never_more_elites_than_places() -> None:
    crowded = births(elites=3, size=2)
    assert [one.id for one in crowded.elites] == ["g001-000", "g001-001"]
    assert crowded.jobs == ()


def test_first_parents_are_taken_in_turn_fittest_first() -> None:
    firsts = [job.child.parents[0] for job in births(alive=3, elites=1, size=6, crossover=0.0).jobs]
    assert firsts == ["g000-000", "g000-001", "g000-002", "g000-000", "g000-001"]


def test_crossover_always_and_never() -> None:
    assert all(len(job.child.parents) == 2 for job in births(crossover=1.0).jobs)
    assert all(len(job.child.parents) == 1 for job in births(crossover=0.0).jobs)
    assert all(len(job.child.parents) == 1 for job in births(alive=1, crossover=1.0).jobs)


def test_teachers_lend_records_and_no_weights() -> None:
    everyone = births(alive=4, learn_from="survivors", crossover=0.0).jobs
    assert all({one.individual for one in job.parents} == {f"g000-{i:03d}" for i in range(4)} for job in everyone)
    assert all(one.weight == 0.0 for job in everyone for one in job.parents[1:])
    own = births(alive=4, learn_from="parents").jobs
    assert all(tuple(one.individual for one in job.parents) == job.child.parents for job in own)


def test_children_explore_less_and_start_without_weights() -> None:
    for job in births(hyperparameter_mutation=0.0, epsilon_decay=0.5).jobs:
        first = next(one for one in population() if one.id == job.child.parents[0])
        assert job.child.genome.hyperparameters.epsilon == first.genome.hyperparameters.epsilon * 0.5
        assert job.child.genome.hyperparameters.temperature == first.genome.hyperparameters.temperature
        assert job.child.genome.adapter is None


def test_strategies_stay_in_the_lineage_when_they_may_not_mutate() -> None:
    for job in births(crossover=1.0, mutate_strategy=False, size=40).jobs:
        first = next(one for one in population() if one.id == job.child.parents[0])
        assert job.child.genome.strategy == first.genome.strategy
    inherited = {job.child.genome.strategy for job in births(crossover=1.0, alive=2, size=40).jobs[::2]}
    assert len(inherited) == 2


def test_objectives_are_inherited_and_drawn_again() -> None:
    people = tuple(
        one.model_copy(update={"genome": one.genome.model_copy(update={"objective": name})})
        for one, name in zip(population(), ["kto", "", "dpo", "", "", ""], strict=True)
    )
    brood = Brood(60, SEED, objectives=("", "kto", "dpo"))

    def objectives(chance: float) -> list[tuple[str, str]]:
        config = ReproductionConfig(objective_mutation=chance)
        own = {one.id: one.genome.objective for one in people}
        jobs = reproduce(people, selection_of(people, 3, 0), config, brood).jobs
        return [(own[job.child.parents[0]], job.child.genome.objective) for job in jobs]

    assert all(parent == child for parent, child in objectives(0.0))
    changed = objectives(1.0)
    assert {child for _, child in changed} == {"", "kto", "dpo"}
    assert len(set(changed)) == 9, "whoever the parent, every objective may follow"


def test_an_evolution_strategy_moves_everybody_around_one_centre() -> None:
    people = population(6)
    ranked = Selection(survivors=tuple(one.id for one in people[::-1]), elites=(), culled=())
    strategy = EsConfig(sigma=0.1)
    jobs = reproduce(people, ranked, ReproductionConfig(), Brood(6, SEED, strategy=strategy)).jobs
    assert [job.child.parents for job in jobs] == [(one.id,) for one in people]
    assert [job.child.lineage for job in jobs] == [one.lineage for one in people]
    assert all({parent.individual for parent in job.parents} == {one.id for one in people} for job in jobs)
    weights = {parent.individual: parent.weight for parent in jobs[0].parents}
    assert weights == dict(zip(ranked.survivors, utilities(6, 1.0), strict=True))
    signs = [job.perturbation.sign for job in jobs if job.perturbation]
    assert signs == [1, -1] * 3
    assert [one.seed for one in jobs[::2]] == [other.seed for other in jobs[1::2]]
    assert len({job.seed for job in jobs}) == 3
    assert reproduce(people[::-1], ranked, ReproductionConfig(), Brood(6, SEED, strategy=strategy)).jobs == jobs


@given(
    st.integers(1, 6),
    st.integers(0, 3),
    st.integers(1, 12),
    st.floats(0, 1),
    st.sampled_from(["parents", "survivors"]),
    st.integers(0, 2**63 - 1),
)
def test_every_next_generation_is_well_formed(
    alive: int, elites: int, size: int, crossover: float, learn_from: str, seed: int
) -> None:
    born = births(alive, min(elites, alive), size, seed, crossover=crossover, learn_from=learn_from)
    ids = [one.id for one in born.elites] + [job.child.id for job in born.jobs]
    assert ids == [individual_id(1, index) for index in range(size)]
    people = {one.id: one for one in population()}
    for job in born.jobs:
        weights = [parent.weight for parent in job.parents]
        own = [parent.weight for parent in job.parents if parent.individual in job.child.parents]
        assert sum(weights) == 1.0
        assert own == weights[: len(own)]
        assert own[0] >= 0.5
        assert job.child.lineage == people[job.child.parents[0]].lineage
        assert {parent.individual for parent in job.parents} <= {f"g000-{index:03d}" for index in range(alive)}
        assert len({parent.individual for parent in job.parents}) == len(job.parents)
    assert len({job.seed for job in born.jobs}) == len(born.jobs)


def test_founders_fill_the_population_with_lineages_of_their_own() -> None:
    people = population(7)
    assert [one.lineage for one in people] == ["bold", "timid", "wise", "bold-2", "timid-2", "wise-2", "bold-3"]
    assert [one.id for one in people] == [f"g000-{index:03d}" for index in range(7)]
    assert people[0].genome.hyperparameters != people[3].genome.hyperparameters
    assert people[0].genome.strategy == people[3].genome.strategy
