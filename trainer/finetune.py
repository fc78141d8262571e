"""One training job, start to adapter: cross and mutate the parents' weights, learn from records, gate, publish.

A Trainer lives in one process and loads the base model once. Law: a job that fails by its own doing (nothing to
learn from, a loss that is not finite, weights the gate refuses) ends as a result that keeps the first parent's
adapter; whatever goes wrong around it (the store, the process) is raised, because another try may go well.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from statistics import fmean

import pyarrow as pa

from telemetry.adapters import AdapterRefused, LoraWeights, Shelf, check_files, save
from telemetry.records import BaseModelCard, FileRef
from telemetry.seeds import rng
from telemetry.store import join_store
from trainer.config import TrainerConfig
from trainer.crossover import crossover
from trainer.evolution_strategy import perturbed
from trainer.examples import Examples, NoExamples
from trainer.job import Trained, TrainingJob, TrainingResult, keep_parent
from trainer.lowrank import fresh
from trainer.mutation import mutate
from trainer.objectives import Fit, TrainingFailed, build

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Start:
    """Where a child's training begins."""

    weights: LoraWeights
    adapter: str | None
    """The parent's adapter if `weights` change the base model exactly as it does; "" if they are something new."""
    discarded: float
    """Share of the combined weight change lost to the rank."""


class Trainer:
    """Runs training jobs one at a time."""

    def __init__(self, config: TrainerConfig, card: BaseModelCard, model_dir: Path | None, store_url: str) -> None:
        """`model_dir` holds the base model; None for the scripted engine, which has none."""
        self._config = config
        self._card = card
        self._shelf = Shelf(join_store(store_url))
        self._objectives = build(config, model_dir, self._shelf.load) if config.enabled else {}
        self._rank = 0
        self._listener: socket | None = None

    async def listen(self, host: str | None) -> tuple[str, int]:
        """Where the other processes of a group find this one; None is this machine's address in the cluster."""
        from trainer.group import listen, own_address

        self._listener = listen(host or own_address())
        address: tuple[str, int] = self._listener.getsockname()[:2]
        return address

    async def join(self, host: str, port: int, rank: int, size: int) -> None:
        """Shares every further job with the other processes of a group; waits until all have joined.

        Only rank 0 publishes.
        """
        from trainer.group import Group, own_address, talk_over

        # On this machine alone, the group was told so when its processes were started.
        if host != LOOPBACK:
            talk_over(own_address())
        listener = self._listener.detach() if self._listener else None
        group = await asyncio.to_thread(Group.join, host, port, rank, size, self._config.timeout, listener)
        self._rank = rank
        for objective in self._objectives.values():
            objective.join(group)

    async def run(self, job: TrainingJob, steps: pa.Table) -> Trained:
        """Trains on committed `steps` (schema EXPERIENCE, or more).

        Computes in a thread, so that the event loop still gives signs of life. Equal arguments give equal adapters
        on one machine. Raises StateError or StorageError when the store fails.
        """
        began = time.monotonic()
        try:
            result, refs = await asyncio.to_thread(self._train, job, steps)
        except (NoExamples, TrainingFailed, AdapterRefused) as error:
            log.warning("%s: %s", job.child.id, error)
            result, refs = keep_parent(job, str(error)), ()
        return result.model_copy(update={"seconds": round(time.monotonic() - began, 3)}), refs

    def _train(self, job: TrainingJob, steps: pa.Table) -> Trained:
        start = self._start(job)
        if not self._objectives or job.perturbation is not None:
            return self._publish(job, start, Fit(start.weights), None)
        objective = self._objectives[job.child.genome.objective]
        examples = objective.examples(steps, job)
        fit = objective.fit(start.weights, examples, job)
        return self._publish(job, Start(fit.weights, "", start.discarded), fit, examples)

    def _start(self, job: TrainingJob) -> Start:
        """The parents' weight changes, crossed and mutated."""
        lora = self._config.lora
        heirs = [(parent.adapter, parent.weight) for parent in job.parents if parent.weight != 0]
        loaded = [(self._shelf.load(adapter) if adapter else None, weight) for adapter, weight in heirs]
        if job.perturbation is not None:
            weights, discarded = perturbed(loaded, job.perturbation, self._card, lora, job.seed)
            return Start(weights, "", discarded)
        if any(weights for weights, _ in loaded):
            crossed, discarded = crossover(loaded, job.crossover, lora, rng(job.seed, "crossover"))
            known = next((id_ for (id_, _), (weights, _) in zip(heirs, loaded, strict=True) if weights is crossed), "")
        else:
            crossed, discarded, known = fresh(self._card, lora, rng(job.seed, "fresh")), 0.0, None
        weights = mutate(crossed, job.mutation, rng(job.seed, "mutate"))
        return Start(weights, known if weights is crossed else "", discarded)

    def _publish(self, job: TrainingJob, made: Start, fit: Fit, examples: Examples | None) -> Trained:
        adapter = made.adapter
        refs: tuple[FileRef, ...] = ()
        if adapter == "" and self._rank == 0:
            files = save(made.weights, self._card)
            check_files(files, self._card, self._config.lora.rank)
            adapter, refs = self._shelf.publish_files(files)
        first, last = _ends(fit.losses)
        result = TrainingResult(
            individual=job.child.id,
            adapter=adapter,
            status="trained",
            examples=len(examples.keys) if examples else 0,
            dropped=examples.dropped if examples else 0,
            tokens=fit.tokens,
            loss_first=first,
            loss_last=last,
            discarded=made.discarded,
        )
        return result, refs


def _ends(losses: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean of the first and of the second half of the losses: fewer updates tell examples apart, not progress."""
    if not losses:
        return None, None
    half = (len(losses) + 1) // 2
    return fmean(losses[:half]), fmean(losses[-half:])
