"""The trainer pool: places jobs on trainers, longest first, and replaces trainers that are lost.

The pool knows trainers only as objects with an async method `run`, so it runs the same on a Ray cluster and inside
one process. Law: a job that no trainer can finish never stops the others; its child keeps the first parent's adapter.
A store that fails, or trainers that cannot be started at all, do stop the run.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import pyarrow as pa

from telemetry.failures import ForagerError, UsageError
from telemetry.member import Member, in_words
from telemetry.records import FileRef
from trainer.config import TrainerConfig
from trainer.examples import of_parents
from trainer.job import TrainingJob, TrainingResult, keep_parent

Publish = Callable[[TrainingResult, Sequence[FileRef]], None]
Spawn = Callable[[int], Awaitable[Any]]
"""Starts the trainer with this number: an object with `async run(job, steps) -> (result, refs)`, maybe `kill()`."""


def check(config: TrainerConfig) -> None:
    """Raises UsageError when a package is not installed that the configured training needs."""
    if config.enabled and config.quantize != "none" and find_spec("bitsandbytes") is None:
        raise UsageError("trainer.quantize: the package bitsandbytes is not installed; pip install 'forager[qlora]'")


class TrainerPool:
    """Up to `config.jobs` trainers, started with the first jobs and kept for the next generations."""

    def __init__(self, config: TrainerConfig, spawn: Spawn) -> None:
        self._config = config
        self._trainers = [Member("trainer", index, partial(spawn, index)) for index in range(config.jobs)]

    @property
    def restarts(self) -> int:
        """Trainers replaced so far."""
        return sum(trainer.incarnation for trainer in self._trainers)

    async def train(self, jobs: Sequence[TrainingJob], steps: pa.Table, publish: Publish) -> None:
        """Runs every job once and publishes each result as it comes, in the order in which jobs end.

        Jobs whose parents left more records go first, so that the last trainer to finish does so early. Raises
        NoProgressError when no trainer can be started, and any ForagerError that a trainer or `publish` raised.
        """
        work = [(job, of_parents(steps, job)) for job in jobs]
        pending = deque(sorted(work, key=lambda item: (-item[1].num_rows, item[0].child.id)))
        hands = [asyncio.create_task(self._work(one, pending, publish)) for one in self._trainers[: len(work)]]
        try:
            await asyncio.gather(*hands)
        finally:
            for hand in hands:
                hand.cancel()
            await asyncio.gather(*hands, return_exceptions=True)

    async def _work(self, trainer: Member, pending: deque[tuple[TrainingJob, pa.Table]], publish: Publish) -> None:
        while pending:
            job, steps = pending.popleft()
            result, refs = await self._run(trainer, job, steps)
            publish(result, refs)

    async def _run(
        self, trainer: Member, job: TrainingJob, steps: pa.Table
    ) -> tuple[TrainingResult, Sequence[FileRef]]:
        tries = 0
        while True:
            peer, incarnation = await trainer.start(self._config.retries), trainer.incarnation
            try:
                result, refs = await peer.run(job, steps)
            except ForagerError:
                raise
            except Exception as error:  # noqa: BLE001 - a lost, hung or crashed trainer costs a try, never the run
                # The job is charged, not the trainer: jobs that nobody can finish must not use up the trainers.
                lost = await trainer.lost(incarnation, error, self._config.retries, charged=False)
                tries += lost and not getattr(error, "preempted", False)
                if tries > self._config.retries:
                    return keep_parent(job, in_words(error)), ()
            else:
                trainer.progressed()
                return result, refs
