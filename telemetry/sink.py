"""Receives finished lives from many agents and commits them to the ledger in a few large appends.

Whoever sends a batch may let go of it: the sink owns it until a flush has put it into the ledger. A flush that
failed keeps its batches and is repeated under the same name. Plain Python, so that it runs in process and behind a
Ray actor alike; a sink that dies loses only lives that no journal entry acknowledged, and those are lived again.
"""

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from telemetry.ledger import Ledger, Receipt
from telemetry.store import join_store

Batch = tuple[pa.Table, pa.Table, int]
"""Steps, lives, and the bytes of both, which take long to add up."""


class TelemetrySink:
    """Buffers batches of steps and lives; `max_buffered_bytes` bounds the buffer while a flush is under way."""

    def __init__(self, store_url: str, max_buffered_bytes: int = 256 << 20) -> None:
        self._ledger = Ledger(join_store(store_url))
        self._max_bytes = max_buffered_bytes
        # A sink's names are its own: a successor that is asked for the same flush holds other rows.
        self._nonce = secrets.token_hex(8)
        self._batches: list[Batch] = []
        self._bytes = 0
        self._unfinished: tuple[str, list[Batch]] | None = None
        self._finished: tuple[str, Receipt] | None = None
        self._flushing = asyncio.Lock()
        self._room = asyncio.Condition()
        # One thread, so that a repeated flush cannot overtake a cancelled one that still writes.
        self._thread = ThreadPoolExecutor(1, "telemetry-sink")

    async def append(self, steps: pa.Table, lives: pa.Table) -> None:
        """Take finished lives and all of their steps. Waits while the buffer is full and a flush is under way."""
        async with self._room:
            await self._room.wait_for(lambda: self._bytes <= self._max_bytes or not self._flushing.locked())
            size = steps.nbytes + lives.nbytes
            self._batches.append((steps, lives, size))
            self._bytes += size

    async def flush(self, transaction: str) -> Receipt | None:
        """Write everything buffered in one append and return its receipt; None if there is nothing to write.

        A name stands for one flush: asked again after a success it returns the same receipt, after a StorageError
        it writes the same batches. Raises ValueError for a new name while a failed flush awaits its repetition.
        """
        try:
            async with self._flushing:
                if self._finished is not None and self._finished[0] == transaction:
                    return self._finished[1]
                return await self._write(transaction)
        finally:
            async with self._room:
                self._room.notify_all()

    async def _write(self, transaction: str) -> Receipt | None:
        if self._unfinished is None:
            if not self._batches:
                return None
            self._unfinished = (transaction, self._batches)
            self._batches = []
        name, batches = self._unfinished
        if name != transaction:
            raise ValueError(f"flush {name!r} failed and has to be repeated before {transaction!r}")
        steps = pa.concat_tables([steps for steps, _, _ in batches])
        lives = pa.concat_tables([lives for _, lives, _ in batches])
        loop = asyncio.get_running_loop()
        receipt = await loop.run_in_executor(self._thread, self._ledger.append, steps, lives, f"{name}-{self._nonce}")
        self._finished = (name, receipt)
        self._unfinished = None
        self._bytes -= sum(size for _, _, size in batches)
        return receipt
