"""From a finished life to a journal entry: the sink, its flushes, and what becomes of rows that it loses.

Law: a row counts when a journal entry acknowledges its attempt, and an attempt is sent to a sink once. So a sink may
die at any instant, or write and not say so: the lives it took with it are lived again under new attempts, and what it
had written of the old ones is never seen. A party's rows reach the sink in one append, so they are in one flush and
in one acknowledgement.
"""

import asyncio
from contextlib import suppress
from time import monotonic
from typing import Any
from uuid import uuid4

from telemetry.failures import NoProgressError, StorageError
from telemetry.ledger import Receipt
from telemetry.member import Member
from telemetry.remote import NoAnswer, RemoteLost
from workers.recorder import LifeRecord, to_tables
from workers.work import Lived, Work, fresh

COMMIT_LIVES = 1000
"""Finished lives that wait for no commit by the clock: so the last one of a generation is never a large one."""
FLUSHES = 3
"""Times the sink is asked for one flush when only the reply was lost."""


class Saver:
    """Brings finished lives into the ledger and the journal, through one replaceable sink."""

    def __init__(self, sink: Member, *, restarts: int, commit_seconds: float, run: str, world: str) -> None:
        """`run` and `world` are the names that censored lives bear."""
        self.sink = sink
        self._restarts = restarts
        self._commit_seconds = commit_seconds
        self._names = {"run": run, "world": world}

    async def start(self) -> tuple[Any, int]:
        """The sink and its incarnation."""
        return await self.sink.start(self._restarts), self.sink.incarnation

    def keep(self, lived: Lived, work: Work) -> None:
        """Takes a party that finished, whose rows are with a sink; to be lived again if that one is gone."""
        attempt = lived.party.attempt
        if lived.held_by == self.sink.incarnation or attempt in work.in_ledger:
            work.finished[attempt] = lived
            if len(work.finished) >= COMMIT_LIVES:
                work.commit_due.set()
        else:
            work.put_back([fresh(lived.party)])

    async def lost(self, incarnation: int, error: Exception, work: Work) -> bool:
        """As Member.lost; the lives whose rows the sink had not written are lived again."""
        lost = await self.sink.lost(incarnation, error, self._restarts)
        if lost:
            held = [attempt for attempt, lived in work.finished.items() if lived.held_by == incarnation]
            gone = [work.finished.pop(attempt) for attempt in held if attempt not in work.in_ledger]
            work.put_back([fresh(lived.party) for lived in gone])
        return lost

    async def commit_until_all_lived(self, work: Work) -> None:
        """Commits what has finished every few seconds, whenever that are many, and once more at the end."""
        last = False
        while not last:
            with suppress(TimeoutError):
                await asyncio.wait_for(work.commit_due.wait(), self._commit_seconds)
            # Asked before the flush: lives that end while it runs need one more.
            last = work.all_lived
            await self._commit(work)
            if not work.all_lived and len(work.finished) < COMMIT_LIVES:
                work.commit_due.clear()

    async def _commit(self, work: Work) -> None:
        """Rows first, then the journal entry that makes them part of the run."""
        if work.acknowledge is None or not (work.finished or (work.spent and work.begun)):
            return
        receipt = await self._write(work)
        if receipt is not None:
            work.written.append(receipt)
            work.in_ledger |= set(receipt.attempts)
        ready = [attempt for attempt in work.finished if attempt in work.in_ledger]
        if ready:
            lives = [life for attempt in ready for life in work.finished.pop(attempt).lives]
            work.acknowledge(work.written, lives, monotonic() - work.last_commit)
            work.begun = True
            work.written = []
            work.last_commit = monotonic()
            self.sink.progressed()

    async def _write(self, work: Work) -> Receipt | None:
        """Has the sink write what it holds; None when it held nothing, or was lost with it."""
        transaction = uuid4().hex
        for _ in range(FLUSHES):
            sink, incarnation = await self.start()
            try:
                await self._append_spent(sink, incarnation, work)
                receipt: Receipt | None = await sink.flush(transaction)
            except NoAnswer as error:
                raise StorageError(f"the store holds up the telemetry sink: {error}") from error
            except RemoteLost as error:
                if await self.lost(incarnation, error, work):
                    return None
            else:
                return receipt
        raise NoProgressError(f"{self.sink.name}: {FLUSHES} replies to one flush were lost")

    async def _append_spent(self, sink: Any, incarnation: int, work: Work) -> None:
        """Records lives without tries left: they lasted no step that is known."""
        if not (work.spent and work.begun):
            return
        parties, work.spent = work.spent, []
        records = {party.attempt: [LifeRecord(task) for task in party.tasks] for party in parties}
        rows = [record for lives in records.values() for record in lives]
        try:
            await sink.append(*to_tables(rows, **self._names, engine=""))
        except RemoteLost:
            work.spent += map(fresh, parties)
            raise
        for party in parties:
            lives = tuple(record.summary() for record in records[party.attempt])
            work.finished[party.attempt] = Lived(party, lives, incarnation)
