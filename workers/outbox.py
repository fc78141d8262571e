"""From an agent to the sink: lives that end at about the same time go in one call, since every call has its price."""

import asyncio
from collections.abc import Sequence
from typing import Any

from workers.recorder import LifeRecord, to_tables

GATHER = 0.1
"""Seconds that finished lives wait for others: little beside a life of a model, much beside one without."""
FULL = 128
"""Lives that wait for no others."""


class Outbox:
    """The way to one sink, for lives of one engine."""

    def __init__(self, sink: Any, **names: str) -> None:
        """names: what `to_tables` wants to know of all of them."""
        self._sink = sink
        self._names = names
        self._records: list[LifeRecord] = []
        self._sent: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._calls: set[asyncio.Task[None]] = set()

    async def send(self, records: Sequence[LifeRecord], *, last: bool) -> None:
        """Returns once the sink has them; raises what the sink raised. last: nobody else will end soon."""
        loop = asyncio.get_running_loop()
        if self._sent is None:
            self._sent = loop.create_future()
            self._timer = loop.call_later(GATHER, self._flush)
        self._records += records
        sent = self._sent
        if last or len(self._records) >= FULL:
            self._flush()
        # One that is cancelled leaves the others waiting.
        await asyncio.shield(sent)

    def _flush(self) -> None:
        if self._timer is None or self._sent is None:
            return
        self._timer.cancel()
        call = asyncio.ensure_future(self._append(self._records, self._sent))
        self._records, self._sent, self._timer = [], None, None
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _append(self, records: Sequence[LifeRecord], sent: "asyncio.Future[None]") -> None:
        try:
            await self._sink.append(*to_tables(records, **self._names))
        except Exception as error:  # noqa: BLE001 - handed on to everybody who waits for this call
            sent.set_exception(error)
        else:
            sent.set_result(None)
