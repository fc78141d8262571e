"""What a run will take, from its run file alone: upper bounds, no heavy library loaded."""

from pathlib import Path
from typing import Any

from orchestrator.config import RunConfig
from orchestrator.needs import engine_gpus, trainer_gpus
from orchestrator.serving_choice import served
from orchestrator.sight import look
from telemetry.models import on_disk
from workers.config import VllmEngineConfig

BYTES_PER_PARAMETER = {"auto": 4, "bfloat16": 2, "float16": 2, "float32": 4}


def estimate(config: RunConfig) -> dict[str, Any]:
    """Sizes of a run: lives, decisions and tokens (at most), memory and devices.

    JSON keys: run, environment, horizon_steps, generations, individuals, lives_per_generation, decisions_at_most,
    prompt_tokens_at_most, training_jobs_per_generation, engine, serving (null unless vLLM serves), engines, agents,
    trainers, gpus, model_gib (null when the model is not on this machine yet), memory_gib_at_least.
    Raises UsageError when the world cannot be made, EnvironmentFailure when it is broken.
    """
    sight = look(config)
    config, population = served(config, sight), config.population
    lives = population.size * population.lives
    decisions = lives * sight.horizon * config.generations
    model_bytes = weights(config)
    return {
        "run": config.name,
        "environment": sight.world,
        "horizon_steps": sight.horizon,
        "generations": config.generations,
        "individuals": population.size,
        "lives_per_generation": lives,
        "decisions_at_most": decisions,
        "prompt_tokens_at_most": int(decisions * sight.prompt),
        "training_jobs_per_generation": births(config) if config.trainer.enabled else 0,
        "engine": config.engine.kind,
        "serving": config.engine.serving if isinstance(config.engine, VllmEngineConfig) else None,
        "engines": config.engine.count,
        "agents": config.workers.agents,
        "trainers": config.trainer.jobs if config.trainer.enabled else 0,
        "gpus": sum(engine_gpus(config) + trainer_gpus(config), 0.0),
        "model_gib": None if model_bytes is None else round(model_bytes / 2**30, 2),
        "memory_gib_at_least": None if model_bytes is None else round(_memory(config, model_bytes) / 2**30, 1),
    }


def births(config: RunConfig) -> int:
    """Of a generation that is followed by another."""
    return config.population.size - min(config.selection.elites, config.population.size)


def weights(config: RunConfig) -> int | None:
    """Bytes of the model's files; None when they are not on this machine yet, 0 for an engine without a model."""
    if config.engine.kind != "vllm":
        return 0
    directory = on_disk(config.model)
    return model_files(directory) if directory else None


def model_files(directory: Path) -> int:
    """Bytes of the weights in a directory."""
    return sum(file.stat().st_size for file in directory.glob("*.safetensors"))


def engine_bytes(config: RunConfig, model_bytes: int) -> float:
    """Weights and KV cache of one engine, and its own libraries."""
    if config.engine.kind != "vllm":
        return 0.0
    scale = BYTES_PER_PARAMETER[config.engine.dtype] / 2
    # In merged serving the pristine weights stay beside those in use.
    copies = 2 if config.engine.serving == "merged" else 1
    return model_bytes * scale * copies + config.engine.kv_cache_gib * 2**30 + 1.5 * 2**30


def trainer_bytes(config: RunConfig, model_bytes: int) -> float:
    """fp32 weights of one trainer, and what it computes with."""
    return model_bytes * 2 + 2 * 2**30 if config.trainer.enabled and config.engine.kind == "vllm" else 0.0


def _memory(config: RunConfig, model_bytes: int) -> float:
    """Of every engine and every trainer, and of the processes themselves."""
    processes = 0.4 * 2**30 * (2 + config.workers.agents)
    engines = config.engine.count * engine_bytes(config, model_bytes)
    return processes + engines + config.trainer.jobs * trainer_bytes(config, model_bytes)
