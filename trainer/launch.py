"""The trainer pool: places jobs on trainers, longest first, and replaces trainers that are lost.

The pool knows trainers only as objects with an async method `run`, so it runs the same on a Ray cluster and inside
one process. Law: a job that no trainer can finish never stops the others; its child keeps the first parent's adapter.
A store that fails, or trainers that cannot be started at all, do stop the run.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
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
        work = sorted(
            (_Task(job, of_parents(steps, job)) for job in jobs),
            key=lambda task: (-task.steps.num_rows, task.job.child.id),
        )
        queue: asyncio.Queue[_Task] = asyncio.Queue()
        for task in work:
            queue.put_nowait(task)
        hands = [asyncio.create_task(self._work(one, queue, publish)) for one in self._trainers[: len(work)]]
        over = asyncio.create_task(queue.join())
        try:
            await asyncio.wait([over, *hands], return_when=asyncio.FIRST_COMPLETED)
            for hand in hands:
                if hand.done():
                    hand.result()
        finally:
            for one in (over, *hands):
                one.cancel()
            await asyncio.gather(over, *hands, return_exceptions=True)

    async def _work(self, trainer: Member, queue: "asyncio.Queue[_Task]", publish: Publish) -> None:
        """Does jobs until it is told to stop."""
        while True:
            # Before it takes a job: one that waits for a node must not keep the others from it.
            await trainer.start(self._config.retries)
            task = await queue.get()
            trained = await self._try(trainer, task)
            if trained is None:
                queue.put_nowait(task)
            else:
                publish(*trained)
            queue.task_done()

    async def _try(self, trainer: Member, task: "_Task") -> tuple[TrainingResult, Sequence[FileRef]] | None:
        """How the job ended; None when it lost its trainer and is to be tried again."""
        peer, incarnation = await trainer.start(self._config.retries), trainer.incarnation
        try:
            result, refs = await peer.run(task.job, task.steps)
        except ForagerError:
            raise
        except Exception as error:  # noqa: BLE001 - a lost, hung or crashed trainer costs a try, never the run
            # The job is charged, not the trainer: jobs that nobody can finish must not use up the trainers.
            lost = await trainer.lost(incarnation, error, self._config.retries, charged=False)
            task.tries += lost and not getattr(error, "preempted", False)
            return (keep_parent(task.job, in_words(error)), ()) if task.tries > self._config.retries else None
        trainer.progressed()
        return result, refs


@dataclass
class _Task:
    """A job, what it may learn from, and how often it was lost."""

    job: TrainingJob
    steps: pa.Table
    tries: int = 0
