"""What a run needs of a cluster, and whether its nodes have it."""

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.config import RunConfig
from workers.config import VllmEngineConfig


def engine_gpus(config: RunConfig) -> list[float]:
    """GPUs of each engine; whole ones are on one node."""
    return [config.engine.gpus] * config.engine.count if isinstance(config.engine, VllmEngineConfig) else []


def trainer_gpus(config: RunConfig) -> list[float]:
    """GPUs of each process of all trainers."""
    trainer = config.trainer
    return [trainer.gpus_per_job] * (trainer.jobs * trainer.workers) if trainer.enabled else []


def missing(gpus: Sequence[float], cpus: float, nodes: Sequence[Mapping[str, Any]]) -> str | None:
    """What these nodes lack, in words; None if they have all of it.

    gpus: of each actor that holds some, all at the same time; cpus: of all nodes together; nodes: amounts by resource.
    """
    has = [float(node.get("GPU", 0.0)) for node in nodes]
    cores = sum(float(node.get("CPU", 0.0)) for node in nodes)
    if sum(has) < sum(gpus):
        return f"need {sum(gpus):g} GPUs, see {sum(has):g}"
    if not _fit(gpus, has):
        return f"need {_counted(gpus)} GPUs, each on one node, see nodes with {_counted(has)}"
    return f"need {cpus:g} CPUs, see {cores:g}" if cores < cpus else None


def _fit(amounts: Sequence[float], nodes: Sequence[float]) -> bool:
    """Whether all fit at the same time; largest first, each into the fullest node that takes it."""
    left = list(nodes)
    for amount in sorted(amounts, reverse=True):
        node = min((index for index, free in enumerate(left) if free >= amount), key=left.__getitem__, default=None)
        if node is None:
            return False
        left[node] -= amount
    return True


def _counted(amounts: Sequence[float]) -> str:
    """`2 x 4, 3 x 1`."""
    held = sorted({amount for amount in amounts if amount}, reverse=True)
    return ", ".join(f"{amounts.count(amount)} x {amount:g}" for amount in held)
