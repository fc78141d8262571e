"""The agent host: many lives at once as coroutines, their prompts gathered into batches for the engine.

Plain Python: the driver puts it into a Ray actor, tests and the in-process executor call it directly.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from telemetry.actors import Actor
from telemetry.records import LifeKey, LifeSummary
from telemetry.remote import RemoteLost, ReplyLost
from workers.config import EnvironmentConfig
from workers.engine import Completion, CompletionRequest, EngineFailure, ModelDescription
from workers.environment import is_shared
from workers.guard import EnvironmentFailure
from workers.life import live, live_together
from workers.line import Line
from workers.outbox import Outbox
from workers.prompt import Codec
from workers.recorder import LifeRecord, LifeTask, to_tables
from workers.registry import held_out, maker

log = logging.getLogger(__name__)

ASKS = 3
"""Times an engine is asked for the same completions when the connection breaks: they are the same each time."""


@dataclass(frozen=True, slots=True)
class LostLife:
    """A life that did not come to an end of its own, or has to be lived again. Without any flag, its world broke."""

    key: LifeKey
    reason: str
    """What failed, in one line."""
    engine: bool
    """The engine under it is to be replaced."""
    sink: bool = False
    """It was lived to its end, but its rows did not reach the sink."""
    preempted: bool = False
    """The node under it was taken away with notice."""
    doubted: bool = False
    """It was answered by somebody who is not believed any more: nobody's fault, and charged to no budget."""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a batch of lives. The rows of the finished ones are with the sink already."""

    finished: tuple[LifeSummary, ...]
    lost: tuple[LostLife, ...]
    told: tuple[pa.Table, pa.Table] | None = None
    """(steps, lives) of the finished ones that are to be told."""


class Batcher:
    """Gathers the requests that are ready at the same moment into calls of at most `size` requests."""

    def __init__(self, engine: Any, size: int) -> None:
        self._engine = engine
        self._size = size
        self._waiting: list[tuple[CompletionRequest, asyncio.Future[Completion]]] = []
        self._calls: set[asyncio.Task[None]] = set()
        self.asked = 0
        """Requests since the start."""

    def ask(self, request: CompletionRequest) -> asyncio.Future[Completion]:
        """One completion. Raises what the engine raised."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Completion] = loop.create_future()
        self._waiting.append((request, future))
        self.asked += 1
        if len(self._waiting) == 1:
            # Runs after every coroutine that is ready now has asked.
            loop.call_soon(self._flush)
        return future

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), self._size):
            chunk = waiting[start : start + self._size]
            call = asyncio.ensure_future(self._send(chunk))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    async def _send(self, chunk: Sequence[tuple[CompletionRequest, asyncio.Future[Completion]]]) -> None:
        try:
            completions = await self._ask_engine([request for request, _ in chunk])
        except Exception as error:  # noqa: BLE001 - handed on to each life that waits for this call
            for _, future in chunk:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), completion in zip(chunk, completions, strict=True):
            if not future.done():
                future.set_result(completion)

    async def _ask_engine(self, requests: list[CompletionRequest]) -> list[Completion]:
        for _ in range(ASKS - 1):
            try:
                return list(await self._engine.complete(requests))
            except ReplyLost as error:
                log.warning("a reply was lost: %s", error)
        return list(await self._engine.complete(requests))


class AgentHost:
    """Hosts lives. One instance per agent actor."""

    def __init__(
        self,
        *,
        run: str,
        run_seed: int,
        environment: EnvironmentConfig,
        heldout: Mapping[str, Any],
        description: ModelDescription,
        request_batch: int,
    ) -> None:
        """`heldout`: what held-out evaluation changes in the environment's settings."""
        self._run = run
        self._run_seed = run_seed
        name, settings = environment.name, environment.settings
        self._make_world = {
            False: maker(name, settings),
            True: maker(name, held_out(name, settings, heldout)),
        }
        world = self._make_world[False]()
        self._world_name = world.name
        self._shared = is_shared(world)
        self._codec = Codec(description)
        self._request_batch = request_batch
        self._batchers: dict[str, Batcher] = {}
        self._outboxes: dict[tuple[Any, str], Outbox] = {}
        self._alive = 0

    async def live(self, tasks: Sequence[LifeTask], engine_name: str, engine: Any, sink: Any) -> Report:
        """Lives all tasks at once on one engine and reports how they ended; their rows go to the sink, if any.

        In a shared world tasks of one attempt live in one instance, and all of them are lost when one is. Rows are sent
        when a life has ended, but for those that somebody without trust answered: when all have ended.
        """
        batcher = self._batchers.get(engine_name)
        if batcher is None:
            line = Line(engine) if isinstance(engine, Actor) else engine
            batcher = self._batchers[engine_name] = Batcher(line, self._request_batch)
        parties: dict[str, list[LifeTask]] = {}
        for task in tasks:
            parties.setdefault(task.attempt, []).append(task)
        names = {"run": self._run, "world": self._world_name, "engine": engine_name}
        outbox = None if sink is None else self._outbox(sink, names)
        lived = await asyncio.gather(*(self._live_party(party, batcher, outbox) for party in parties.values()))
        outcomes = [one for party in lived if not _held_back(party) for one in party]
        held = [one for party in lived if _held_back(party) for one in party if isinstance(one, LifeRecord)]
        if held:
            kept, doubted = await self._sift(held, engine)
            outcomes += [*doubted, *await self._send(kept, outbox)]
        records = [one for one in outcomes if isinstance(one, LifeRecord)]
        lost = [one for one in outcomes if isinstance(one, LostLife)]
        told = [record for record in records if record.task.told]
        return Report(
            finished=tuple(record.summary() for record in records),
            lost=tuple(lost),
            told=to_tables(told, **names) if told else None,
        )

    def _outbox(self, sink: Any, names: Mapping[str, str]) -> Outbox:
        key = (sink, names["engine"])
        if key not in self._outboxes:
            self._outboxes[key] = Outbox(sink, **names)
        return self._outboxes[key]

    async def _live_party(
        self, tasks: Sequence[LifeTask], batcher: Batcher, outbox: Outbox | None
    ) -> Sequence[LifeRecord | LostLife]:
        self._alive += len(tasks)
        try:
            world = self._make_world[tasks[0].heldout]()
            if self._shared:
                records = await live_together(tasks, world, self._codec, batcher.ask, self._run_seed)
            else:
                [task] = tasks
                records = [await live(task, world, self._codec, batcher.ask, self._run_seed)]
        except EnvironmentFailure as error:
            return [_lost(task, error) for task in tasks]
        except (RemoteLost, EngineFailure) as error:
            return [_lost(task, error, engine=True) for task in tasks]
        finally:
            self._alive -= len(tasks)
        return records if _held_back(records) else await self._send(records, outbox)

    async def _send(self, records: Sequence[LifeRecord], outbox: Outbox | None) -> Sequence[LifeRecord | LostLife]:
        """The records once the sink has them, if there is one, or the lives whose rows it lost."""
        if outbox is None or not records:
            return records
        try:
            await outbox.send(records, last=self._alive == 0)
        except RemoteLost as error:
            # Never sent again: the sink may have them, and the same attempt twice would be a life lived twice.
            return [_lost(record.task, error, sink=True) for record in records]
        return records

    async def _sift(self, records: list[LifeRecord], engine: Any) -> tuple[list[LifeRecord], list[LostLife]]:
        """Records to keep, and the lives of parties in which somebody had a part who is not believed any more."""
        sources = sorted({source for record in records for source in record.sources})
        try:
            bad = set(await engine.expelled(sources))
        except (RemoteLost, EngineFailure) as error:
            bad, lost = set(sources), partial(_lost, error=error, engine=True)
        else:
            expelled = EngineFailure(f"answered by {', '.join(sorted(bad))}, expelled since")
            lost = partial(_lost, error=expelled, doubted=True)
        gone = {record.task.attempt for record in records if record.sources & bad}
        kept = [record for record in records if record.task.attempt not in gone]
        return kept, [lost(record.task) for record in records if record.task.attempt in gone]

    async def progress(self) -> tuple[int, int]:
        """(lives under way, decisions asked for since the start)."""
        return self._alive, sum(batcher.asked for batcher in self._batchers.values())


def _held_back(party: Sequence[LifeRecord | LostLife]) -> bool:
    """True for lives in which somebody without trust had a part: they are sent when nobody is doubted any more."""
    return any(isinstance(one, LifeRecord) and one.sources for one in party)


def _lost(
    task: LifeTask, error: Exception, *, engine: bool = False, sink: bool = False, doubted: bool = False
) -> LostLife:
    return LostLife(task.key, str(error), engine, sink, getattr(error, "preempted", False), doubted)
