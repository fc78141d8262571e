"""Are a run's populations well formed? Pure: state in, findings out.

Law: every individual after the founders has its parents among the survivors one generation earlier, belongs to its
first parent's lineage, has an id that nobody had before it, and plays with the weights that the journal says it got.
"""

from collections.abc import Iterator

from orchestrator.budget import next_size
from orchestrator.config import RunConfig
from orchestrator.events import GenerationCommitted
from orchestrator.findings import Finding, error
from orchestrator.state import RunState
from telemetry.records import Individual


def check_populations(state: RunState, config: RunConfig) -> Iterator[Finding]:
    """Everything wrong with who lived, who survived and who was born."""
    population = state.created.founders
    ids = {one.id for one in population}
    if len(ids) != len(population) or len(population) != config.population.size:
        yield error("founders", f"got {len(ids)} distinct founders, expected {config.population.size}")
    taught = {who for one in state.created.imported for who in one.founders}
    taught |= ids if state.created.origin is not None else set()
    for one in population:
        if one.generation != 0 or one.parents or (one.genome.adapter is not None and one.id not in taught):
            yield error(one.id, "is not a founder: it has another generation, parents or an adapter")
    for event in state.history:
        yield from _check_selection(event, population)
        yield from _check_size(event, state, config)
        for one in event.population:
            if one.id in ids:
                yield error(one.id, f"was born into generation {event.generation + 1}, but the id was used before")
            ids.add(one.id)
            yield from _check_birth(one, event, population, state)
        population = event.population


def _check_selection(event: GenerationCommitted, population: tuple[Individual, ...]) -> Iterator[Finding]:
    where, selection = f"generation {event.generation}", event.selection
    everyone = sorted(one.id for one in population)
    if sorted(one.individual for one in event.fitness) != everyone:
        yield error(where, "its fitness table does not have exactly one row for every individual")
    if sorted(selection.survivors + selection.culled) != everyone:
        yield error(where, "not every individual is either a survivor or culled, and only one of them")
    if selection.elites != tuple(one for one in selection.survivors if one in selection.elites):
        yield error(where, f"its elites {selection.elites} are not all of them survivors, or not in their order")


def _check_size(event: GenerationCommitted, state: RunState, config: RunConfig) -> Iterator[Finding]:
    expected = next_size(state, event.generation, config)
    if len(event.population) != expected:
        yield error(f"generation {event.generation + 1}", f"has {len(event.population)} members, expected {expected}")


def _check_birth(
    one: Individual, event: GenerationCommitted, population: tuple[Individual, ...], state: RunState
) -> Iterator[Finding]:
    if one.generation != event.generation + 1:
        yield error(one.id, f"says generation {one.generation}, expected {event.generation + 1}")
    strangers = [parent for parent in one.parents if parent not in event.selection.survivors]
    if strangers or not one.parents:
        yield error(one.id, f"has parents {one.parents}, expected survivors of generation {event.generation}")
        return
    first = next((other for other in population if other.id == one.parents[0]), None)
    if first is None or one.lineage != first.lineage:
        yield error(one.id, f"has lineage {one.lineage}, which is not that of its first parent {one.parents[0]}")
        return
    if one.id in state.births:
        adapter = state.births[one.id].adapter
        if one.genome.adapter != adapter:
            yield error(one.id, f"has adapter {one.genome.adapter}, but its training published {adapter}")
    elif one.parents[0] not in event.selection.elites or one.genome != first.genome:
        yield error(one.id, "has neither a training result nor the unchanged genome of an elite")
