"""One thread that keeps a blocking engine core busy, and the async calls that feed it.

Law: requests that arrive while a step runs join the next step; those for other weights than the ones in place wait
for their turn, which begins when the core has nothing left to answer; a new working set waits until all requests
before it are answered, and those after it wait for the set; whatever stops the thread reaches everyone who waits now
or calls later, so that nobody hangs.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count
from queue import SimpleQueue
from threading import Lock, Thread
from time import monotonic
from typing import Protocol

from telemetry.failures import ForagerError
from workers.engine import Completion, CompletionRequest, EngineFailure, EngineStats
from workers.engines.turns import TURN_SECONDS, Turns


class Core(Protocol):
    """A blocking engine. All its methods are called from one thread, the one that built it."""

    def busy(self) -> bool:
        """True while added requests are unanswered."""
        ...

    def check(self, request: CompletionRequest) -> None:
        """Raises EngineFailure for a request that the working set cannot answer."""
        ...

    def serves(self, adapter: str | None) -> bool:
        """True when requests for this adapter of the working set can be added now, without `switch`."""
        ...

    def switch(self, adapter: str | None) -> None:
        """Puts an adapter of the working set in place. Called while not busy; any error ends the core."""
        ...

    def add(self, name: str, request: CompletionRequest) -> None:
        """Takes a request that passed `check` and whose adapter is served."""
        ...

    def tokens(self) -> tuple[int, int]:
        """Prompt tokens of all answered requests, and how many of them were in the prefix cache."""
        ...

    def step(self) -> list[tuple[str, Completion]]:
        """Runs one forward pass and returns what it finished."""
        ...

    def load(self, adapters: Sequence[str | None]) -> None:
        """Changes the working set; called while not busy. A ForagerError leaves the core as it was; else it ends."""
        ...

    def close(self) -> None: ...


@dataclass(eq=False)
class _Ask:
    requests: Sequence[CompletionRequest]
    future: "Future[list[Completion]]" = field(default_factory=Future)
    answers: dict[int, Completion] = field(default_factory=dict)


@dataclass(eq=False)
class _Load:
    adapters: Sequence[str | None]
    future: "Future[None]" = field(default_factory=Future)


@dataclass(eq=False)
class _Close:
    future: "Future[None]" = field(default_factory=Future)


class CoreThread:
    """Owns a core: builds it, feeds it, closes it, all in one thread of its own."""

    def __init__(self, build: Callable[[], Core], turn_seconds: float = TURN_SECONDS) -> None:
        """Returns when the core stands. Raises what `build` raised. For `turn_seconds` see Turns."""
        self._inbox: SimpleQueue[_Ask | _Load | _Close] = SimpleQueue()
        self._lock = Lock()
        self._stopped: str | None = None
        self._asked: dict[str, tuple[_Ask, int]] = {}
        self._names = map(str, count())
        self._turns = Turns(turn_seconds)
        self._held: _Load | _Close | None = None
        self._stats = EngineStats()
        self._answered, self._switches, self._busy = 0, 0, 0.0
        built: Future[None] = Future()
        self._thread = Thread(target=self._live, args=(build, built), name="engine core", daemon=True)
        self._thread.start()
        built.result()

    async def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """Answers in the order of the requests. Raises EngineFailure once the thread has stopped."""
        ask = _Ask(requests)
        self._put(ask)
        return await asyncio.wrap_future(ask.future)

    async def load(self, adapters: Sequence[str | None]) -> None:
        """Returns when the working set is checked and the first weights of it are in place."""
        load = _Load(adapters)
        self._put(load)
        await asyncio.wrap_future(load.future)

    def stats(self) -> EngineStats:
        """As of the last step."""
        return self._stats

    async def close(self) -> None:
        """Answers what was asked before, then frees the core. A second call does nothing."""
        close = _Close()
        with self._lock:
            if self._stopped is not None:
                return
            self._inbox.put(close)
        await asyncio.wrap_future(close.future)

    def _put(self, item: _Ask | _Load) -> None:
        # Under the lock, so that nothing can slip in behind the emptying of the inbox when the thread stops.
        with self._lock:
            if self._stopped is not None:
                raise EngineFailure(self._stopped)
            self._inbox.put(item)

    def _live(self, build: Callable[[], Core], built: "Future[None]") -> None:
        try:
            core = build()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits for it
            built.set_exception(error)
            return
        built.set_result(None)
        reason = "the engine is closed"
        try:
            self._serve(core)
        except Exception as error:  # noqa: BLE001 - reported to every caller, now and later
            reason = f"the engine stopped: {type(error).__name__}: {error}"
        closing = self._abandon(reason)
        try:
            core.close()
        finally:
            for close in closing:
                close.future.set_result(None)

    def _serve(self, core: Core) -> None:
        while True:
            while self._held is None and not (self._asked and self._inbox.empty()):
                item = self._inbox.get()
                if isinstance(item, _Ask):
                    self._admit(core, item)
                else:
                    self._held = item
            if core.busy():
                began = monotonic()
                finished = core.step()
                self._busy += monotonic() - began
                self._deliver(finished)
                self._note(core)
            elif self._turns:
                self._turn(core)
            elif isinstance(self._held, _Load):
                load, self._held = self._held, None
                self._change(core, load)
            else:
                return

    def _admit(self, core: Core, ask: _Ask) -> None:
        if not ask.future.set_running_or_notify_cancel():
            return
        try:
            for request in ask.requests:
                core.check(request)
        except EngineFailure as error:
            ask.future.set_exception(error)
            return
        if not ask.requests:
            ask.future.set_result([])
        for position, request in enumerate(ask.requests):
            name = next(self._names)
            self._asked[name] = (ask, position)
            if core.serves(request.adapter) and not self._turns.overdue():
                core.add(name, request)
            else:
                self._turns.wait(name, request)

    def _turn(self, core: Core) -> None:
        adapter, requests = self._turns.next(core.serves)
        began = monotonic()
        core.switch(adapter)
        self._busy += monotonic() - began
        self._switches += 1
        for name, request in requests:
            core.add(name, request)

    def _deliver(self, finished: Sequence[tuple[str, Completion]]) -> None:
        for name, completion in finished:
            ask, position = self._asked.pop(name)
            self._answered += 1
            ask.answers[position] = completion
            if len(ask.answers) == len(ask.requests):
                ask.future.set_result([ask.answers[index] for index in range(len(ask.requests))])

    def _note(self, core: Core) -> None:
        prompt, cached = core.tokens()
        waiting = len(self._turns)
        self._stats = EngineStats(
            answered=self._answered,
            prompt_tokens=prompt,
            cached_tokens=cached,
            busy_seconds=self._busy,
            switches=self._switches,
            running=len(self._asked) - waiting,
            waiting=waiting,
        )

    def _change(self, core: Core, load: _Load) -> None:
        if not load.future.set_running_or_notify_cancel():
            return
        try:
            core.load(load.adapters)
        except ForagerError as error:
            load.future.set_exception(error)
        except Exception as error:
            load.future.set_exception(EngineFailure(f"loading weights failed: {type(error).__name__}: {error}"))
            raise
        else:
            load.future.set_result(None)

    def _abandon(self, reason: str) -> list[_Close]:
        """Fails everyone who waits; returns the calls of `close`, which have not failed."""
        with self._lock:
            self._stopped = reason
        for future in {id(ask): ask.future for ask, _ in self._asked.values()}.values():
            future.set_exception(EngineFailure(reason))
        self._asked.clear()
        left: list[_Ask | _Load | _Close] = [] if self._held is None else [self._held]
        while not self._inbox.empty():
            left.append(self._inbox.get())
        waiting = [item for item in left if item.future.set_running_or_notify_cancel()]
        for item in waiting:
            if not isinstance(item, _Close):
                item.future.set_exception(EngineFailure(reason))
        return [item for item in waiting if isinstance(item, _Close)]
