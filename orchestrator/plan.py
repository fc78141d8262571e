"""What a run will take, from its run file alone: upper bounds, no heavy library loaded."""

from pathlib import Path
from typing import Any

from orchestrator.config import RunConfig, gpus_needed
from telemetry.models import on_disk
from workers.environment import is_shared
from workers.guard import Guard, SharedGuard
from workers.registry import make

BYTES_PER_PARAMETER = {"auto": 4, "bfloat16": 2, "float16": 2, "float32": 4}
TOKENS_PER_CHARACTER = 0.3
"""Rule of thumb for English chat prompts; the ledger records the exact numbers."""


def estimate(config: RunConfig) -> dict[str, Any]:
    """Sizes of a run: lives, decisions and tokens (at most), memory and devices.

    JSON keys: run, environment, horizon_steps, generations, individuals, lives_per_generation, decisions_at_most,
    prompt_tokens_at_most, training_jobs_per_generation, engine, engines, agents, trainers, gpus,
    model_gib (null when the model is not on this machine yet), memory_gib_at_least.
    Raises UsageError when the world cannot be made, EnvironmentFailure when it is broken.
    """
    made = make(config.environment.name, config.environment.settings)
    world = SharedGuard(made) if is_shared(made) else Guard(made)
    population = config.population
    lives = population.size * population.lives
    decisions = lives * world.horizon * config.generations
    shown = len(world.rules) + max(len(founder.strategy) for founder in population.founders)
    first = world.reset(0, config.population.size)[0] if isinstance(world, SharedGuard) else world.reset(0)
    sample = len(first.text)
    births = population.size - min(config.selection.elites, population.size)
    model_bytes: int | None = 0
    if config.engine.kind == "vllm":
        model_bytes = _model_bytes(on_disk(config.model))
    return {
        "run": config.name,
        "environment": world.name,
        "horizon_steps": world.horizon,
        "generations": config.generations,
        "individuals": population.size,
        "lives_per_generation": lives,
        "decisions_at_most": decisions,
        "prompt_tokens_at_most": int(decisions * (shown + sample + 60) * TOKENS_PER_CHARACTER),
        "training_jobs_per_generation": births if config.trainer.enabled else 0,
        "engine": config.engine.kind,
        "engines": config.engine.count,
        "agents": config.workers.agents,
        "trainers": config.trainer.jobs if config.trainer.enabled else 0,
        "gpus": gpus_needed(config),
        "model_gib": None if model_bytes is None else round(model_bytes / 2**30, 2),
        "memory_gib_at_least": None if model_bytes is None else round(_memory(config, model_bytes) / 2**30, 1),
    }


def _model_bytes(directory: Path | None) -> int | None:
    return sum(file.stat().st_size for file in directory.glob("*.safetensors")) if directory else None


def _memory(config: RunConfig, model_bytes: int) -> float:
    """Weights and KV cache of every engine, fp32 weights of every trainer, and the processes themselves."""
    processes = 0.4 * 2**30 * (2 + config.workers.agents)
    if config.engine.kind != "vllm":
        return processes
    scale = BYTES_PER_PARAMETER[config.engine.dtype] / 2
    # In merged serving the pristine weights stay beside those in use.
    copies = 2 if config.engine.serving == "merged" else 1
    engine = model_bytes * scale * copies + config.engine.kv_cache_gib * 2**30 + 1.5 * 2**30
    trainer = (model_bytes * 2 + 2 * 2**30) if config.trainer.enabled else 0.0
    return processes + config.engine.count * engine + config.trainer.jobs * trainer
