"""Receives finished lives from many agents and commits them to the ledger in a few large appends.

Whoever sends a batch may let go of it: the sink owns it until an append has put it into the ledger. When many rows have
come it appends them by itself, so that a flush at the end of a generation finds little left to do; a flush tells of all
appends since the one before. An append that failed keeps its batches and is repeated under the same name. Plain Python,
so that it runs in process and behind a Ray actor alike; a sink that dies loses only lives that no journal entry
acknowledged, and those are lived again.
"""

import asyncio
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import count

import pyarrow as pa

from telemetry.failures import StorageError
from telemetry.ledger import Ledger, Receipt
from telemetry.store import join_store

AHEAD = 1 << 14
"""Rows that wait for no flush: some 60 ms to write, beside which an entry in the log costs little."""


@dataclass(frozen=True)
class Batch:
    """Rows that came together."""

    steps: pa.Table
    lives: pa.Table
    size: int
    """Bytes of both, which take long to add up."""


class TelemetrySink:
    """Buffers batches of steps and lives; `max_buffered_bytes` bounds the buffer while an append is under way."""

    def __init__(self, store_url: str, max_buffered_bytes: int = 256 << 20) -> None:
        self._ledger = Ledger(join_store(store_url))
        self._max_bytes = max_buffered_bytes
        # A sink's names are its own: a successor that is asked for the same flush holds other rows.
        self._nonce = secrets.token_hex(8)
        self._numbers = count()
        self._batches: list[Batch] = []
        self._rows = 0
        self._bytes = 0
        self._unfinished: tuple[str, list[Batch]] | None = None
        """Name and rows of an append that failed."""
        self._appended: list[Receipt] = []
        """Since the last flush, oldest first."""
        self._failed: str | None = None
        """Name of a flush that failed."""
        self._finished: tuple[str, Receipt] | None = None
        self._appending = asyncio.Lock()
        self._room = asyncio.Condition()
        self._early: asyncio.Task[None] | None = None
        # One thread, so that a repeated append cannot overtake a cancelled one that still writes.
        self._thread = ThreadPoolExecutor(1, "telemetry-sink")

    async def append(self, steps: pa.Table, lives: pa.Table) -> None:
        """Take finished lives and all of their steps. Waits while the buffer is full and is being written."""
        async with self._room:
            await self._room.wait_for(lambda: self._bytes <= self._max_bytes or not self._appending.locked())
            size = steps.nbytes + lives.nbytes
            self._batches.append(Batch(steps, lives, size))
            self._rows += steps.num_rows
            self._bytes += size
        if self._rows >= AHEAD and (self._early is None or self._early.done()):
            self._early = asyncio.create_task(self._append_early())

    async def flush(self, transaction: str) -> Receipt | None:
        """Write everything buffered and tell of all appends since the last flush; None if there are none.

        A name stands for one flush: asked again after a success it returns the same receipt, after a StorageError
        it writes the same batches. Raises ValueError for a new name while a failed flush awaits its repetition.
        """
        try:
            async with self._appending:
                if self._finished is not None and self._finished[0] == transaction:
                    return self._finished[1]
                if self._failed not in (None, transaction):
                    raise ValueError(f"flush {self._failed!r} failed and has to be repeated before {transaction!r}")
                self._failed = transaction
                if self._unfinished is not None and self._unfinished[0] != transaction:
                    await self._append(transaction)
                await self._append(transaction)
                self._failed = None
                if not self._appended:
                    return None
                receipt, self._appended = _together(self._appended), []
                self._finished = (transaction, receipt)
                return receipt
        finally:
            async with self._room:
                self._room.notify_all()

    async def _append_early(self) -> None:
        async with self._appending:
            # Behind a flush that failed, nothing may get in.
            if self._failed is None:
                # Told by the flush that repeats it.
                with suppress(StorageError):
                    await self._append(f"early-{next(self._numbers)}")
        async with self._room:
            self._room.notify_all()

    async def _append(self, name: str) -> None:
        """Puts into the ledger what an append has left that failed, under its own name, or else all that is there."""
        if self._unfinished is None:
            if not self._batches:
                return
            self._unfinished = (name, self._batches)
            self._batches, self._rows = [], 0
        name, batches = self._unfinished
        steps = pa.concat_tables([batch.steps for batch in batches])
        lives = pa.concat_tables([batch.lives for batch in batches])
        loop = asyncio.get_running_loop()
        receipt = await loop.run_in_executor(self._thread, self._ledger.append, steps, lives, f"{name}-{self._nonce}")
        self._unfinished = None
        self._appended.append(receipt)
        self._bytes -= sum(batch.size for batch in batches)


def _together(receipts: Sequence[Receipt]) -> Receipt:
    """What several appends, oldest first, put into the ledger."""
    return Receipt(
        versions=receipts[-1].versions,
        files=tuple(file for receipt in receipts for file in receipt.files),
        attempts=tuple(sorted(attempt for receipt in receipts for attempt in receipt.attempts)),
    )
