"""What a generation takes on a cluster: the simulation of its lives, and what comes after them.

Upper bounds where the run file leaves things open: without a hazard every life lasts to its horizon, halving ends
nobody early, and every training job finds as many examples as it may take. Starting actors, evaluation and faults are
left out.
"""

import json
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator import scale_words
from orchestrator.config import RunConfig
from orchestrator.plan import births, engine_bytes, trainer_bytes, weights
from orchestrator.scale_costs import UnitCosts, left_out, value
from orchestrator.scale_plant import Plant, Rolled
from orchestrator.scale_queue import makespan
from orchestrator.scale_rollout import roll_out
from orchestrator.serving_choice import served
from orchestrator.sight import Sight, look
from telemetry.failures import UsageError
from telemetry.models import on_disk
from telemetry.seeds import rng

MOST_LIVES = 2_000_000
"""Of a generation that is simulated; one million takes about a minute and 0.6 GiB."""
MOST_ENGINES = 10_000
"""As `engine.count` allows."""
READERS = 4
"""Files of the ledger that the driver reads at the same time."""
GIB = 2**30


@dataclass(frozen=True)
class Site:
    """The cluster that a run file is to run on."""

    nodes: int
    engines_per_node: int | None = None
    """With it, agents and trainers grow as engines do; without, the run file's own are spread over the nodes."""
    gpus_per_node: float = 0.0
    dollars_per_node_hour: float | None = None
    hazard: float = 0.0
    """Probability of death at each step."""
    spread: float = 0.0
    """Engines are up to so much faster or slower than the figures say."""


@dataclass(frozen=True)
class Crew:
    """How many of each there are."""

    engines: int
    agents: int
    trainers: int


@dataclass(frozen=True)
class After:
    """What follows the lives of a generation, in seconds, and what it moves."""

    driver: float
    """Reading rows back, scoring, giving out jobs, journal entries: the driver works alone."""
    training: float
    training_tokens: float
    rows_given: float
    """Step rows in all jobs together, which the driver holds at the same time."""
    requests: float
    bytes: float


def crew(config: RunConfig, site: Site) -> Crew:
    """The actors of a run on a site."""
    engines = config.engine.count if site.engines_per_node is None else site.nodes * site.engines_per_node
    scale = engines / config.engine.count
    trainers = ceil(config.trainer.jobs * scale) if config.trainer.enabled else 0
    return Crew(engines, ceil(config.workers.agents * scale), trainers)


def predict(config: RunConfig, site: Site, costs: UnitCosts) -> dict[str, Any]:
    """What `forager plan --nodes` says, as JSON.

    Keys: cluster, generation, busy, store, memory_gib, whole_run, limits, bottleneck, dial, figures, missing,
    left_out. Whatever hangs on a figure in `missing` is null; those in `left_out` count as nothing. Raises UsageError
    and EnvironmentFailure as `estimate`, and UsageError for more lives or engines than can be simulated.
    """
    sight, people = look(config), crew(config, site)
    config = served(config, sight)
    lives = config.population.size * config.population.lives
    if people.engines > MOST_ENGINES:
        raise UsageError(f"--engines-per-node: {people.engines} engines in all, expected at most {MOST_ENGINES}")
    if lives > MOST_LIVES:
        raise UsageError(f"population: {lives} lives a generation, expected at most {MOST_LIVES} to simulate")
    seconds, missing = decision_seconds(config, sight, costs)
    if site.nodes * site.gpus_per_node < (needed := _gpus(config, people)):
        missing.append(f"{needed:g} GPUs needed, the cluster has {site.nodes * site.gpus_per_node:g}")
    rolled, after, decisions = None, None, 0
    if seconds is not None:
        plant = plant_of(config, site, costs, sight, seconds)
        decisions = int(plant.lengths.sum()) * plant.size
        rolled = roll_out(plant)
        after = follow_up(config, costs, sight, rolled, decisions, people, plant)
    if after is not None and costs.trainer.token_seconds is None and after.training_tokens:
        missing.append("trainer.token_seconds")
    return {
        "cluster": {
            "nodes": site.nodes,
            "engines": people.engines,
            "agents": people.agents,
            "trainers": people.trainers,
            "gpus": needed,
        },
        **scale_words.tell(config, site, costs, sight, people, rolled, after, decisions),
        "memory_gib": memory(config, site, costs, people, rolled, after, decisions),
        "figures": f"{costs.machine}; {costs.state}; model: {costs.model or 'none'}",
        "missing": missing,
        "left_out": left_out(costs),
    }


def decision_seconds(config: RunConfig, sight: Sight, costs: UnitCosts) -> tuple[float | None, list[str]]:
    """An engine's time for one decision in a full batch; None, and what is missing, where nobody has measured it."""
    engine = config.engine
    if engine.kind == "scripted":
        return costs.engine.scripted_seconds.value + engine.seconds, []
    if costs.gpu != (engine.kind != "vllm" or engine.gpus > 0):
        where = "a GPU" if not costs.gpu else "a CPU"
        return None, [
            f"figures of {where}: give engine, trainer and `gpu: {str(not costs.gpu).lower()}` (--unit-costs)"
        ]
    prefill, decode = costs.engine.prefill_tokens_per_second, costs.engine.decode_tokens_per_second
    if prefill is None:
        return None, ["engine.prefill_tokens_per_second"]
    if sight.said and decode is None:
        return None, ["engine.decode_tokens_per_second"]
    return sight.seen / prefill.value + (sight.said / decode.value if sight.said and decode else 0.0), []


def plant_of(config: RunConfig, site: Site, costs: UnitCosts, sight: Sight, seconds: float) -> Plant:
    """The simulation's input."""
    people, population, engine = crew(config, site), config.population, config.engine
    draws = rng(config.seed, "scale")
    shape = (1 if sight.shared else population.size, population.lives)
    speeds = 1 + site.spread * draws.uniform(-1, 1, people.engines)
    scripted, model = engine.kind == "scripted", costs.engine
    capacity = engine.capacity if engine.kind == "scripted" else 1
    if engine.kind == "vllm" and engine.serving == "lora":
        capacity = engine.max_adapters
    return Plant(
        lengths=lengths(shape, sight.horizon, site.hazard, draws),
        speeds=speeds,
        decision_seconds=seconds,
        answer_seconds=value(model.call_seconds) + (0.0 if scripted else value(model.pass_seconds)),
        request_batch=config.workers.request_batch,
        capacity=capacity,
        load_seconds=0.0 if scripted else model.swap_seconds.value,
        adapter_bytes=adapter_bytes(config),
        agents=people.agents,
        room=config.workers.lives_per_agent,
        agent_decisions_per_second=people.agents / max(costs.agent.decision_seconds.value, 1e-9),
        commit_seconds=config.ledger.commit_seconds,
        # One node's disk is no other node's.
        store_seconds=value(costs.store.local_seconds if site.nodes == 1 else costs.store.object_seconds),
        costs=costs,
        size=population.size if sight.shared else 1,
        asked=config.ray.executor == "ray",
    )


def lengths(shape: tuple[int, int], horizon: int, hazard: float, draws: np.random.Generator) -> NDArray[np.int32]:
    """[individuals, lives]: geometric with the hazard of a step, cut off at the horizon."""
    if hazard == 0:
        return np.full(shape, horizon, dtype=np.int32)
    return np.minimum(draws.geometric(hazard, shape), horizon).astype(np.int32)


def follow_up(
    config: RunConfig, costs: UnitCosts, sight: Sight, rolled: Rolled, rows: int, people: Crew, plant: Plant
) -> After:
    """Scoring, selection, births and training, in the order of `run_generation`."""
    driver, store, population = costs.driver, costs.store, config.population
    lives, born = population.size * population.lives, births(config) if config.trainer.enabled else 0
    resamples = config.fitness.resamples
    # Scored once for fitness and once more for what was worth learning.
    alone = rows * driver.row_read_seconds.value + 2 * population.size * lives * driver.score_seconds.value
    alone += lives * resamples * driver.bootstrap_seconds.value
    files = 2.0 * rolled.commits
    alone += files * plant.store_seconds / READERS
    share = config.selection.survivors if config.reproduction.learn_from == "survivors" else min(1, 2 / population.size)
    given = born * rows * share
    alone += given * driver.job_row_seconds.value
    alone += (born + 1) * (driver.entry_seconds.value + store.entry_requests.value * plant.store_seconds)
    objective = config.trainer.objective
    examples = min(getattr(objective, "max_examples", 0), rows * share)
    tokens = examples * (sight.prompt + max(1, sight.said)) * getattr(objective, "epochs", 0)
    each = costs.trainer.job_seconds.value + 3 * store.adapter_requests.value * plant.store_seconds
    each += (
        tokens * (costs.trainer.token_seconds.value if costs.trainer.token_seconds else 0.0) / config.trainer.workers
    )
    return After(
        driver=alone,
        training=makespan([each] * born, people.trainers) if born else 0.0,
        training_tokens=born * tokens,
        rows_given=given,
        requests=files + born * (3 * store.adapter_requests.value + store.entry_requests.value),
        bytes=2 * rows * costs.sink.row_bytes.value + 3 * born * plant.adapter_bytes,
    )


def memory(
    config: RunConfig, site: Site, costs: UnitCosts, people: Crew, rolled: Rolled | None, after: After | None, rows: int
) -> dict[str, float | None]:
    """Of the fullest node without the driver, of the driver at the end of a run, and of the sink; in GiB."""
    model, lives = weights(config), config.population.size * config.population.lives
    if model is None or rolled is None or after is None:
        return {"node": None, "driver": None, "sink": None}
    engine = value(costs.engine.gib) * GIB + engine_bytes(config, model)
    agent = costs.agent.gib.value * GIB + rolled.alive / people.agents * costs.agent.life_bytes.value
    trainer = costs.agent.gib.value * GIB + trainer_bytes(config, model)
    node = sum(ceil(count / site.nodes) * size for count, size in ((people.engines, engine), (people.agents, agent)))
    node += ceil(people.trainers / site.nodes) * trainer
    # All rows as they were written, as experience, and once for each job that is given them.
    held = (2 * rows + after.rows_given) * costs.sink.row_memory.value
    known = config.generations * lives * value(costs.driver.life_bytes)
    sizes = {
        "node": node,
        "driver": costs.driver.gib.value * GIB + known + held,
        # What is written stands there twice more, joined and encoded.
        "sink": costs.sink.gib.value * GIB + 3 * rolled.buffered_bytes,
    }
    return {name: round(size / GIB, 2) for name, size in sizes.items()}


def adapter_bytes(config: RunConfig) -> float:
    """fp32 factors of one adapter, by the shapes that the model's configuration tells; 0 where there is none."""
    directory = on_disk(config.model) if config.engine.kind == "vllm" else None
    if directory is None or not (directory / "config.json").exists():
        return 0.0
    shape = json.loads((directory / "config.json").read_text())
    wide, deep = shape.get("hidden_size", 0), shape.get("intermediate_size", 0)
    heads = max(1, shape.get("num_attention_heads", 1))
    narrow = wide * shape.get("num_key_value_heads", heads) // heads
    sums = {"q_proj": 2 * wide, "o_proj": 2 * wide, "k_proj": wide + narrow, "v_proj": wide + narrow}
    sums |= dict.fromkeys(("gate_proj", "up_proj", "down_proj"), wide + deep)
    each = sum(sums.get(module, 0) for module in config.trainer.lora.modules)
    return float(4 * config.trainer.lora.rank * each * shape.get("num_hidden_layers", 0))


def _gpus(config: RunConfig, people: Crew) -> float:
    engines = people.engines * config.engine.gpus if config.engine.kind == "vllm" else 0.0
    return engines + people.trainers * config.trainer.workers * config.trainer.gpus_per_job
