"""The trainer pool: places jobs on trainers, longest first, and replaces trainers that are lost.

The pool knows trainers only as objects with an async method `run`, so it runs the same on a Ray cluster and inside
one process. Law: a job that no trainer can finish never stops the others; its child keeps the first parent's adapter.
A store that fails, or trainers that cannot be started at all, do stop the run.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pyarrow as pa

from telemetry.failures import ForagerError, NoProgressError
from telemetry.records import FileRef
from trainer.config import TrainerConfig
from trainer.examples import of_parents
from trainer.job import TrainingJob, TrainingResult, keep_parent

log = logging.getLogger(__name__)

Publish = Callable[[TrainingResult, Sequence[FileRef]], None]
Spawn = Callable[[int], Awaitable[Any]]
"""Starts the trainer with this number: an object with `async run(job, steps) -> (result, refs)`, maybe `kill()`."""


class TrainerPool:
    """Up to `config.jobs` trainers, started with the first jobs and kept for the next generations."""

    def __init__(self, config: TrainerConfig, spawn: Spawn) -> None:
        self.restarts = 0
        """Trainers replaced so far."""
        self._config = config
        self._spawn = spawn
        self._peers: dict[int, Any] = {}

    async def train(self, jobs: Sequence[TrainingJob], steps: pa.Table, publish: Publish) -> None:
        """Runs every job once and publishes each result as it comes, in the order in which jobs end.

        Jobs whose parents left more records go first, so that the last trainer to finish does so early. Raises
        NoProgressError when no trainer can be started, and any ForagerError that a trainer or `publish` raised.
        """
        work = [(job, of_parents(steps, job)) for job in jobs]
        pending = deque(sorted(work, key=lambda item: (-item[1].num_rows, item[0].child.id)))
        count = min(self._config.jobs, len(work))
        hands = [asyncio.create_task(self._work(index, pending, publish)) for index in range(count)]
        try:
            await asyncio.gather(*hands)
        finally:
            for hand in hands:
                hand.cancel()
            await asyncio.gather(*hands, return_exceptions=True)

    async def _work(self, index: int, pending: deque[tuple[TrainingJob, pa.Table]], publish: Publish) -> None:
        while pending:
            job, steps = pending.popleft()
            result, refs = await self._run(index, job, steps)
            publish(result, refs)

    async def _run(self, index: int, job: TrainingJob, steps: pa.Table) -> tuple[TrainingResult, Sequence[FileRef]]:
        reason = ""
        for _ in range(self._config.retries + 1):
            peer = await self._peer(index)
            try:
                result, refs = await peer.run(job, steps)
            except ForagerError:
                raise
            except Exception as error:  # noqa: BLE001 - a lost, hung or crashed trainer costs a try, never the run
                reason = _one_line(error)
                log.warning("trainer-%d: %s: %s", index, job.child.id, reason)
                self._discard(index)
            else:
                return result, refs
        return keep_parent(job, reason), ()

    async def _peer(self, index: int) -> Any:
        """The running trainer, or a new one."""
        if index in self._peers:
            return self._peers[index]
        reason = ""
        for _ in range(self._config.retries + 1):
            try:
                self._peers[index] = await self._spawn(index)
            except ForagerError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever keeps it from starting, another try may go well
                reason = _one_line(error)
                log.warning("trainer-%d does not start: %s", index, reason)
            else:
                return self._peers[index]
        raise NoProgressError(f"trainer-{index}: does not start: {reason}")

    def _discard(self, index: int) -> None:
        """Ends what is left of a trainer: one that only hangs would go on using the machine."""
        self.restarts += 1
        peer = self._peers.pop(index)
        if hasattr(peer, "kill"):
            peer.kill()


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
