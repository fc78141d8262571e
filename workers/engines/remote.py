"""Endpoints anywhere as one engine: OpenAI-compatible servers on rented machines, some of them without trust.

Law: weights are named by the hash of their content and checked here before any endpoint hears of them; a new working
set waits until all calls before it are answered, and those after it wait for the set; every answer of an endpoint
without trust bears its name, so that the lives it had a part in can be lived again when it turns out to lie.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic

from pydantic import SecretStr

from telemetry.failures import UsageError
from telemetry.lora import load_named
from workers.config_remote import RemoteEngineConfig
from workers.engine import Completion, CompletionRequest, EngineFailure, EngineStats, ModelDescription
from workers.engines.remote_books import Books
from workers.engines.remote_check import SpotChecks
from workers.engines.remote_endpoint import Endpoint
from workers.engines.remote_http import Row
from workers.engines.remote_pool import EndpointPool
from workers.engines.remote_roster import Roster
from workers.engines.remote_server import Job, Server, normalised

MOST_PROMPTS = 32
"""In one call to an endpoint."""


class RemoteEngine:
    """Implements the Engine protocol on a pool of endpoints."""

    def __init__(
        self,
        config: RemoteEngineConfig,
        description: ModelDescription,
        adapter_path: Callable[[str], Path],
        *,
        vocabulary: int,
        end_of_turn: tuple[int, ...] = (),
        keys: Mapping[str, SecretStr] | None = None,
    ) -> None:
        """Connects to nobody yet.

        description: of the model that all endpoints have to serve; vocabulary: tokens that it knows; keys: API keys by
        the names in the run file.
        """
        known = keys or {}
        endpoints = [
            Endpoint(one, Server(one, known.get(one.key), config.timeout, end_of_turn)) for one in config.endpoints
        ]
        self._config = config
        self._description = description
        self._adapter_path = adapter_path
        self._roster = Roster(endpoints, config, description, vocabulary)
        self._pool = EndpointPool(self._roster, config)
        self._checks = SpotChecks(self._pool, self._roster, config)
        self._known: dict[str, str] = {}
        """Directories of the working set's adapters."""
        self._loading = asyncio.Lock()
        self._idle = asyncio.Condition()
        self._running = 0
        """Requests under way, and ..."""
        self._busy_since = self._busy = 0.0
        """... since when there are some, and seconds in which there were some before."""
        self._answered = self._prompt_tokens = 0
        self._books = Books(endpoints)

    async def describe(self) -> ModelDescription:
        """Of the model. Raises UsageError when an endpoint is not what the run file says, or none answers."""
        async with self._loading:
            await self._roster.start()
        wrong = [endpoint for endpoint in self._roster.endpoints if endpoint.misfit]
        if wrong or not self._roster.anybody:
            first = (wrong or self._roster.endpoints)[0]
            raise UsageError(f"engine.endpoints: {first.name}: {first.reason}")
        return self._description

    async def load(self, adapters: Sequence[str | None]) -> None:
        """Declares the working set. Raises UsageError for adapters that nobody serves, AdapterRefused for bad files."""
        wanted = [adapter for adapter in dict.fromkeys(adapters) if adapter is not None]
        if wanted and self._config.adapters == "none":
            raise UsageError("engine.adapters: got none, expected path for individuals with weights of their own")
        async with self._loading:
            fresh = [name for name in wanted if name not in self._known]
            known = {name: self._known[name] for name in wanted if name in self._known}
            known |= {name: await asyncio.to_thread(self._checked, name) for name in fresh}
            async with self._idle:
                await self._idle.wait_for(lambda: not self._running)
            # They ask for the weights that the answers were given by.
            await self._checks.done()
            await self._roster.start()
            if known.keys() != self._known.keys() or not self._roster.anybody:
                await self._roster.hold(known)
            self._known = known
        self._books.log_now_and_then()

    async def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """Answers in the order of the requests. Raises EngineFailure, or UsageError for a request out of bounds."""
        for request in requests:
            request.check(self._description.context)
        async with self._loading:
            await self._roster.start()
            for request in requests:
                if request.adapter is not None and request.adapter not in self._known:
                    raise EngineFailure(f"adapter {request.adapter} is not loaded")
            self._count(len(requests))
        try:
            return await self._answer(requests)
        finally:
            self._count(-len(requests))
            if not self._running:
                async with self._idle:
                    self._idle.notify_all()

    async def expelled(self, sources: Sequence[str]) -> list[str]:
        """Which of these endpoints are not believed any more, once every check of what they said is done.

        Raises EngineFailure when that cannot be known.
        """
        return await self._checks.expelled(sources)

    async def stats(self) -> EngineStats:
        return EngineStats(
            answered=self._answered,
            prompt_tokens=self._prompt_tokens,
            busy_seconds=self._busy + (monotonic() - self._busy_since if self._running else 0.0),
            running=self._running - self._pool.waiting,
            waiting=self._pool.waiting,
            own=self._books.families(),
        )

    async def close(self) -> None:
        self._books.log()
        await self._checks.close()
        await self._roster.close()

    async def _answer(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        answers: dict[int, Completion] = {}

        async def ask(job: Job, places: Sequence[int]) -> None:
            endpoint, rows = await self._pool.ask(job)
            self._checks.maybe(endpoint, job, rows)
            source = "" if endpoint.trusted else endpoint.name
            for place, row in zip(places, rows, strict=True):
                answers[place] = _completion(job, row, source)
                self._answered += 1
                self._prompt_tokens += len(requests[place].prompt_ids)

        try:
            async with asyncio.TaskGroup() as tasks:
                for job, places in _jobs(requests):
                    tasks.create_task(ask(job, places))
        except* EngineFailure as group:
            raise group.exceptions[0] from None
        return [answers[place] for place in range(len(requests))]

    def _count(self, change: int) -> None:
        """Requests that begin, or end."""
        now = monotonic()
        if not self._running:
            self._busy_since = now
        self._running += change
        if not self._running:
            self._busy += now - self._busy_since

    def _checked(self, adapter: str) -> str:
        """Directory of an adapter whose weights are finite and small enough: what is not would harm all others."""
        rank = load_named(adapter, self._adapter_path).rank
        if rank > self._config.max_rank:
            raise UsageError(
                f"engine.max_rank: adapter {adapter} has rank {rank}, expected at most {self._config.max_rank}"
            )
        return str(self._adapter_path(adapter).resolve())


def vocabulary(tokenizer: str) -> int:
    """Tokens that a `tokenizer.json` knows, added ones included."""
    from tokenizers import Tokenizer

    return int(Tokenizer.from_file(tokenizer).get_vocab_size(with_added_tokens=True))


def _jobs(requests: Sequence[CompletionRequest]) -> Iterator[tuple[Job, list[int]]]:
    """Calls, and the places of the requests in each: the same weights deciding between the same actions share one."""
    alike: dict[tuple[str | None, tuple[int, ...]], list[int]] = {}
    for place, request in enumerate(requests):
        if request.choices:
            alike.setdefault((request.adapter, request.choices), []).append(place)
        else:
            yield (
                Job(
                    request.adapter,
                    (request.prompt_ids,),
                    temperature=request.temperature,
                    max_tokens=request.max_tokens,
                    seed=request.seed,
                ),
                [place],
            )
    for (adapter, choices), places in alike.items():
        for start in range(0, len(places), MOST_PROMPTS):
            some = places[start : start + MOST_PROMPTS]
            yield Job(adapter, tuple(requests[place].prompt_ids for place in some), choices), some


def _completion(job: Job, row: Row, source: str) -> Completion:
    tokens, scores = row
    if tokens:
        return Completion(tokens, scores, source=source)
    return Completion(choice_logprobs=normalised(scores), source=source)
