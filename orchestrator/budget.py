"""When a run is over: its generations are lived, or what it may spend is spent. Pure."""

from collections import Counter

from orchestrator.config import RunConfig
from orchestrator.reproduction import Brood
from orchestrator.state import RunState
from trainer.config_objectives import EsConfig


def next_brood(state: RunState, generation: int, config: RunConfig) -> Brood:
    """What is to follow a generation whose lives are all committed."""
    population = config.population
    founding = tuple(founder.strategy for founder in population.founders)
    objectives = ("", *config.trainer.alternatives)
    own = config.trainer.objective
    strategy = own if isinstance(own, EsConfig) and config.trainer.enabled else None
    size = next_size(state, generation, config)
    return Brood(size, config.seed, population.islands, founding, objectives, strategy)


def next_size(state: RunState, generation: int, config: RunConfig) -> int:
    """Individuals to follow a generation whose lives are all committed; 0 if the run ends with it.

    It ends with the last generation, and before one that would exceed the budget if it took as much as this one.
    """
    budget = config.budget
    lived: Counter[int] = Counter()
    for commit in state.commits:
        lived[commit.generation] += commit.decisions
    trained: Counter[int] = Counter()
    for child, result in state.births.items():
        trained[generation_of(child)] += result.tokens
    enough = all(
        limit is None or sum(spent[past] for past in range(generation + 1)) + spent[generation] <= limit
        for spent, limit in ((lived, budget.decisions), (trained, budget.training_tokens))
    )
    return config.population.size if enough and generation + 1 < config.generations else 0


def budget_left(state: RunState, config: RunConfig) -> dict[str, float]:
    """What a run may still take: generations, and of what is limited besides, decisions and training tokens."""
    spent = {
        "decisions": sum(commit.decisions for commit in state.commits),
        "training_tokens": sum(result.tokens for result in state.births.values()),
    }
    limits = config.budget.model_dump()
    left = {name: max(0.0, limits[name] - amount) for name, amount in spent.items() if limits[name] is not None}
    return {"generations": float(config.generations - state.generation), **left}


def generation_of(individual: str) -> int:
    """The generation that an id names."""
    return int(individual[1:].partition("-")[0])
