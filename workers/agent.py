"""The agent host: many lives at once as coroutines, their prompts gathered into batches for the engine.

Plain Python: `actors.py` puts it into a Ray actor, tests and the in-process executor call it directly.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from telemetry.records import LifeKey, LifeSummary
from telemetry.remote import RemoteLost
from workers.config import EnvironmentConfig
from workers.engine import Completion, CompletionRequest, EngineFailure, ModelDescription
from workers.environment import maker
from workers.life import EnvironmentFailure, live
from workers.prompt import Codec
from workers.recorder import LifeRecord, LifeTask, to_tables


@dataclass(frozen=True, slots=True)
class LostLife:
    """A life that did not come to an end of its own."""

    key: LifeKey
    reason: str
    """What failed, in one line."""
    engine: bool
    """True when the engine under it is to be replaced; False when its world broke."""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a batch of lives. The rows of the finished ones are with the sink already."""

    finished: tuple[LifeSummary, ...]
    lost: tuple[LostLife, ...]


class Batcher:
    """Gathers the requests that are ready at the same moment into calls of at most `size` requests."""

    def __init__(self, engine: Any, size: int) -> None:
        self._engine = engine
        self._size = size
        self._waiting: list[tuple[CompletionRequest, asyncio.Future[Completion]]] = []
        self._calls: set[asyncio.Task[None]] = set()

    async def ask(self, request: CompletionRequest) -> Completion:
        """One completion. Raises what the engine raised."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Completion] = loop.create_future()
        self._waiting.append((request, future))
        if len(self._waiting) == 1:
            # Runs after every coroutine that is ready now has asked.
            loop.call_soon(self._flush)
        return await future

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), self._size):
            chunk = waiting[start : start + self._size]
            call = asyncio.ensure_future(self._send(chunk))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    async def _send(self, chunk: Sequence[tuple[CompletionRequest, asyncio.Future[Completion]]]) -> None:
        try:
            completions = await self._engine.complete([request for request, _ in chunk])
        except Exception as error:  # noqa: BLE001 - handed on to each life that waits for this call
            for _, future in chunk:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), completion in zip(chunk, completions, strict=True):
            if not future.done():
                future.set_result(completion)


class AgentHost:
    """Hosts lives. One instance per agent actor."""

    def __init__(
        self,
        *,
        run: str,
        run_seed: int,
        environment: EnvironmentConfig,
        description: ModelDescription,
        sink: Any,
        request_batch: int,
    ) -> None:
        self._run = run
        self._run_seed = run_seed
        self._make_world = maker(environment.name, environment.settings)
        self._world_name = self._make_world().name
        self._codec = Codec(description)
        self._sink = sink
        self._request_batch = request_batch
        self._batchers: dict[str, Batcher] = {}
        self._decisions = 0
        self._alive = 0

    async def live(self, tasks: Sequence[LifeTask], engine_name: str, engine: Any, record: bool) -> Report:
        """Lives all tasks at once on one engine and reports how they ended; `record` streams their rows to the sink."""
        batcher = self._batchers.get(engine_name)
        if batcher is None:
            batcher = self._batchers[engine_name] = Batcher(engine, self._request_batch)
        outcomes = await asyncio.gather(*(self._live_one(task, batcher) for task in tasks))
        records = [outcome for outcome in outcomes if isinstance(outcome, LifeRecord)]
        if records and record:
            steps, lives = to_tables(records, run=self._run, world=self._world_name, engine=engine_name)
            await self._sink.append(steps, lives)
        return Report(
            finished=tuple(record.summary() for record in records),
            lost=tuple(outcome for outcome in outcomes if isinstance(outcome, LostLife)),
        )

    async def _live_one(self, task: LifeTask, batcher: Batcher) -> LifeRecord | LostLife:
        self._alive += 1
        try:
            return await live(task, self._make_world(), self._codec, self._counted(batcher), self._run_seed)
        except EnvironmentFailure as error:
            return LostLife(task.key, str(error), engine=False)
        except (RemoteLost, EngineFailure) as error:
            return LostLife(task.key, str(error), engine=True)
        finally:
            self._alive -= 1

    def _counted(self, batcher: Batcher) -> Any:
        async def ask(request: CompletionRequest) -> Completion:
            self._decisions += 1
            return await batcher.ask(request)

        return ask

    async def progress(self) -> tuple[int, int]:
        """(lives under way, decisions asked for since the start)."""
        return self._alive, self._decisions
