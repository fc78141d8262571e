"""The engine thread: order is kept, and whatever stops it reaches everyone who waits."""

import asyncio
from threading import Event, current_thread

import pytest

from telemetry.failures import UsageError
from workers.engine import Completion, CompletionRequest, EngineFailure
from workers.engines.loop import CoreThread


class Core:
    """Answers each request with the weights in use; every step finishes one request, or fails on schedule."""

    def __init__(self, fail_at_step=None):
        self.fail_at_step = fail_at_step
        self.weights = (None,)
        self.requests = {}
        self.steps = 0
        self.closed = False
        self.gate = Event()
        self.gate.set()
        self.threads = set()

    def busy(self):
        return bool(self.requests)

    def check(self, request):
        if request.adapter == "unknown":
            raise EngineFailure("adapter unknown is not loaded")

    def add(self, name, request):
        self.requests[name] = request

    def step(self):
        self.gate.wait()
        self.threads.add(current_thread())
        self.steps += 1
        if self.steps == self.fail_at_step:
            raise RuntimeError("kernel fault")
        name = next(iter(self.requests))
        request = self.requests.pop(name)
        return [(name, Completion(token_ids=(*request.prompt_ids, len(self.weights)), logprobs=self.weights))]

    def load(self, adapters):
        if "bad" in adapters:
            raise UsageError("adapter bad")
        if "fatal" in adapters:
            raise MemoryError("no room")
        self.weights = tuple(adapters)

    def close(self):
        self.closed = True


def request(number, adapter=None):
    return CompletionRequest((number,), adapter)


def test_answers_keep_the_order_of_their_requests():
    async def scenario():
        core = Core()
        thread = CoreThread(lambda: core)
        answers = await asyncio.gather(*(thread.complete([request(10 * n + i) for i in range(5)]) for n in range(4)))
        assert [[c.token_ids[0] for c in answer] for answer in answers] == [
            [10 * n + i for i in range(5)] for n in range(4)
        ]
        assert await thread.complete([]) == []
        await thread.close()
        assert core.closed
        return core

    assert asyncio.run(scenario()).steps == 20


def test_weights_change_between_the_requests_before_and_after():
    async def scenario():
        core = Core()
        core.gate.clear()
        thread = CoreThread(lambda: core)
        before = asyncio.ensure_future(thread.complete([request(1), request(2)]))
        await asyncio.sleep(0)
        change = asyncio.ensure_future(thread.load(["a", "b"]))
        await asyncio.sleep(0)
        after = asyncio.ensure_future(thread.complete([request(3)]))
        await asyncio.sleep(0)
        core.gate.set()
        await change
        assert [c.logprobs for c in await before] == [(None,), (None,)]
        assert [c.logprobs for c in await after] == [("a", "b")]
        await thread.close()

    asyncio.run(scenario())


def test_a_fault_reaches_all_who_wait_and_all_who_call_later():
    async def scenario():
        core = Core(fail_at_step=3)
        core.gate.clear()
        thread = CoreThread(lambda: core)
        calls = [asyncio.ensure_future(thread.complete([request(n)])) for n in range(6)]
        await asyncio.sleep(0)
        calls.append(asyncio.ensure_future(thread.load(["a"])))
        calls.append(asyncio.ensure_future(thread.complete([request(9)])))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(thread.close())
        await asyncio.sleep(0)
        core.gate.set()
        results = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 10)
        assert [isinstance(result, EngineFailure) for result in results] == [False, False] + [True] * 6
        assert "RuntimeError: kernel fault" in str(results[-1])
        await asyncio.wait_for(closing, 10)
        assert core.closed
        with pytest.raises(EngineFailure, match="kernel fault"):
            await thread.complete([request(1)])
        with pytest.raises(EngineFailure, match="kernel fault"):
            await thread.load([])
        await thread.close()

    asyncio.run(scenario())


def test_a_refused_request_or_adapter_leaves_the_others_alone():
    async def scenario():
        thread = CoreThread(Core)
        results = await asyncio.gather(
            thread.complete([request(1)]),
            thread.complete([request(2), request(3, "unknown")]),
            thread.load(["bad"]),
            thread.complete([request(4)]),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [list, EngineFailure, UsageError, list]
        await thread.close()
        with pytest.raises(EngineFailure, match="closed"):
            await thread.complete([request(1)])

    asyncio.run(scenario())


def test_weights_that_fail_half_way_end_the_engine():
    async def scenario():
        thread = CoreThread(Core)
        with pytest.raises(EngineFailure, match="MemoryError: no room"):
            await thread.load(["fatal"])
        with pytest.raises(EngineFailure, match="no room"):
            await thread.complete([request(1)])

    asyncio.run(scenario())


def test_a_caller_that_gives_up_harms_nobody():
    async def scenario():
        core = Core()
        core.gate.clear()
        thread = CoreThread(lambda: core)
        lost = asyncio.ensure_future(thread.complete([request(1)]))
        kept = asyncio.ensure_future(thread.complete([request(2)]))
        await asyncio.sleep(0.05)
        lost.cancel()
        await asyncio.sleep(0)
        core.gate.set()
        assert [c.token_ids[0] for c in await asyncio.wait_for(kept, 10)] == [2]
        assert (await asyncio.wait_for(thread.complete([request(3)]), 10))[0].token_ids[0] == 3
        await thread.close()
        assert len(core.threads) == 1

    asyncio.run(scenario())


def test_a_core_that_cannot_be_built_raises_at_once():
    def build():
        raise UsageError("no such model")

    with pytest.raises(UsageError, match="no such model"):
        CoreThread(build)
