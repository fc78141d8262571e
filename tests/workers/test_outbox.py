"""Finished lives on their way to the sink: together where they end together, and nobody forgotten."""

import asyncio

import pyarrow as pa
import pytest

from telemetry.records import EndReason, Genome, Hyperparameters, Individual
from telemetry.remote import RemoteLost
from workers import outbox
from workers.outbox import Outbox
from workers.recorder import LifeRecord, LifeTask

GENOME = Genome(strategy="Rest.", hyperparameters=Hyperparameters(temperature=1.0, epsilon=0.1, learning_rate=1e-3))
SOMEBODY = Individual(id="g000-000", generation=0, lineage="ash", genome=GENOME)


class Sink:
    """Notes the lives of every call; fails when it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[list[int]] = []
        self._error = error

    async def append(self, steps: pa.Table, lives: pa.Table) -> None:
        await asyncio.sleep(0)
        self.calls.append(lives["life"].to_pylist())
        if self._error:
            raise self._error


def box(sink: Sink) -> Outbox:
    return Outbox(sink, run="r", world="w", engine="e")


def ended(*lives: int) -> list[LifeRecord]:
    records = [LifeRecord(LifeTask(SOMEBODY, life, 1, str(life))) for life in lives]
    for record in records:
        record.close(EndReason.SURVIVED, "")
    return records


def test_lives_that_end_together_go_together() -> None:
    async def scenario() -> None:
        sink = Sink()
        out = box(sink)
        await asyncio.gather(out.send(ended(0, 1), last=False), out.send(ended(2), last=False))
        await out.send(ended(3), last=False)
        assert sink.calls == [[0, 1, 2], [3]]

    asyncio.run(scenario())


@pytest.mark.parametrize(("lives", "last"), [(1, True), (outbox.FULL, False)])
def test_nobody_waits_for_others_that_do_not_come_or_are_not_needed(
    lives: int, last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "GATHER", 3600.0)

    async def scenario() -> None:
        sink = Sink()
        await asyncio.wait_for(box(sink).send(ended(*range(lives)), last=last), 30)
        assert sink.calls == [list(range(lives))]

    asyncio.run(scenario())


def test_a_lost_sink_is_told_to_everybody_who_sent() -> None:
    async def scenario() -> None:
        out = box(Sink(RemoteLost("it is dead")))
        outcomes = await asyncio.gather(
            *(out.send(ended(life), last=life == 2) for life in range(3)), return_exceptions=True
        )
        assert [str(one) for one in outcomes] == ["it is dead"] * 3

    asyncio.run(scenario())


def test_one_who_is_cancelled_takes_nobody_along() -> None:
    async def scenario() -> None:
        sink = Sink()
        out = box(sink)
        first, second = (asyncio.ensure_future(out.send(ended(life), last=False)) for life in (0, 1))
        await asyncio.sleep(0)
        first.cancel()
        await second
        assert sink.calls == [[0, 1]]

    asyncio.run(scenario())
