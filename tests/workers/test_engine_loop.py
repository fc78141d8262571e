"""The engine thread: order is kept, adapters take turns, and whatever stops it reaches everyone who waits."""

import asyncio
from threading import Event, current_thread

import pytest

from telemetry.failures import UsageError
from workers.engine import Completion, CompletionRequest, EngineFailure
from workers.engines.loop import CoreThread
from workers.engines.turns import TURN_SECONDS


class Core:
    """Answers each request with the weights in use; every step finishes one request, or fails on schedule.

    With `merged` it serves one adapter of its working set at a time, and notes whose turns there were.
    """

    def __init__(self, fail_at_step=None, merged=False):
        self.fail_at_step = fail_at_step
        self.merged = merged
        self.weights = (None,)
        self.serving = None
        self.turns = []
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

    def serves(self, adapter):
        return not self.merged or adapter == self.serving

    def switch(self, adapter):
        assert not self.requests
        assert adapter in self.weights
        if adapter == "fatal":
            raise MemoryError("no room")
        self.serving = adapter
        self.turns.append(adapter)

    def add(self, name, request):
        assert self.serves(request.adapter)
        self.requests[name] = request

    def step(self):
        self.gate.wait()
        self.threads.add(current_thread())
        self.steps += 1
        if self.steps == self.fail_at_step:
            raise RuntimeError("kernel fault")
        name = next(iter(self.requests))
        request = self.requests.pop(name)
        logprobs = (self.serving,) if self.merged else self.weights
        return [(name, Completion(token_ids=(*request.prompt_ids, len(self.weights)), logprobs=logprobs))]

    def tokens(self):
        return 10 * self.steps, 4 * self.steps

    def load(self, adapters):
        if "bad" in adapters:
            raise UsageError("adapter bad")
        if "fatal" in adapters and not self.merged:
            raise MemoryError("no room")
        self.weights = tuple(adapters)
        if self.merged:
            self.switch(adapters[0])

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


def test_statistics_count_what_was_answered_and_what_waits_for_other_weights():
    async def scenario():
        core = Core(merged=True)
        thread = CoreThread(lambda: core)
        await thread.load(["a", "b"])
        core.gate.clear()
        asked = [asyncio.ensure_future(thread.complete([request(n, "ab"[n % 2])])) for n in range(6)]
        await asyncio.sleep(0.05)
        core.gate.set()
        await asyncio.gather(*asked)
        stats = thread.stats()
        assert (stats.answered, stats.prompt_tokens, stats.cached_tokens) == (6, 60, 24)
        assert (stats.running, stats.waiting) == (0, 0)
        assert stats.switches == 1, "the first weights came with the working set"
        assert stats.busy_seconds > 0.03
        await thread.close()

    asyncio.run(scenario())


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


async def merged(*adapters, turn_seconds=TURN_SECONDS):
    core = Core(merged=True)
    thread = CoreThread(lambda: core, turn_seconds)
    await thread.load(list(adapters))
    core.turns.clear()
    return core, thread


def test_each_adapter_gets_one_turn_for_all_that_waits_and_the_one_with_most_goes_first():
    """Agents send a turn of the world in several calls that mix individuals; no order of calls costs more turns."""

    async def scenario():
        core, thread = await merged("a", "b", "c")
        core.gate.clear()
        calls = [["a", "b", "c"], ["b", "c", "c"], ["a", "b"], ["c"]]
        asked = [
            asyncio.ensure_future(thread.complete([request(10 * n + i, adapter) for i, adapter in enumerate(call)]))
            for n, call in enumerate(calls)
        ]
        await asyncio.sleep(0)
        core.gate.set()
        answers = await asyncio.wait_for(asyncio.gather(*asked), 10)
        assert [[c.logprobs[0] for c in answer] for answer in answers] == calls
        assert [[c.token_ids[0] for c in answer] for answer in answers] == [
            [10 * n + i for i in range(len(call))] for n, call in enumerate(calls)
        ]
        assert core.turns == ["c", "b"]
        await thread.close()

    asyncio.run(scenario())


def test_of_adapters_with_equal_numbers_of_requests_the_oldest_goes_first():
    async def scenario():
        core, thread = await merged("a", "b", "c")
        await thread.complete([request(1, "c"), request(2, "b"), request(3, "a"), request(4, "b"), request(5, "c")])
        assert core.turns == ["c", "b"]
        await thread.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(("seconds", "turns"), [(TURN_SECONDS, ["b"]), (0.0, ["b", "a"])])
def test_a_turn_takes_new_requests_for_its_weights_until_others_have_waited_long_enough(seconds, turns):
    async def scenario():
        core, thread = await merged("a", "b", turn_seconds=seconds)
        core.gate.clear()
        asked = [asyncio.ensure_future(thread.complete([request(n, adapter)])) for n, adapter in enumerate("abaa")]
        await asyncio.sleep(0)
        core.gate.set()
        answers = await asyncio.wait_for(asyncio.gather(*asked), 10)
        assert [answer[0].logprobs[0] for answer in answers] == list("abaa")
        assert core.turns == turns
        await thread.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("seconds", [0.0, 0.05])
def test_nobody_starves_however_much_others_ask(seconds):
    """Two adapters never run out of requests; the third still gets its turn, within a few of theirs."""

    async def scenario():
        core, thread = await merged("a", "b", "rare", turn_seconds=seconds)
        stop = Event()

        async def life(adapter):
            while not stop.is_set():
                [answer] = await thread.complete([request(1, adapter)])
                assert answer.logprobs == (adapter,)

        greedy = [asyncio.ensure_future(life(adapter)) for adapter in ("a", "b") for _ in range(8)]
        for _ in range(5):
            await asyncio.sleep(0.02)
            before = len(core.turns)
            [answer] = await asyncio.wait_for(thread.complete([request(2, "rare")]), 10)
            assert answer.logprobs == ("rare",)
            assert core.turns.count("rare") > 0
            assert core.turns.index("rare", before) - before <= 6
        stop.set()
        await asyncio.wait_for(asyncio.gather(*greedy), 10)
        assert {"a", "b"} <= set(core.turns)
        await thread.close()

    asyncio.run(scenario())


def test_a_new_working_set_waits_for_the_turns_of_the_old_one():
    async def scenario():
        core, thread = await merged("a", "b")
        core.gate.clear()
        before = asyncio.ensure_future(thread.complete([request(1, "b"), request(2, "a"), request(3, "b")]))
        await asyncio.sleep(0)
        change = asyncio.ensure_future(thread.load(["c"]))
        after = asyncio.ensure_future(thread.complete([request(4, "c")]))
        await asyncio.sleep(0)
        core.gate.set()
        assert [c.logprobs[0] for c in await asyncio.wait_for(before, 10)] == ["b", "a", "b"]
        await asyncio.wait_for(change, 10)
        assert [c.logprobs[0] for c in await asyncio.wait_for(after, 10)] == ["c"]
        assert core.turns == ["b", "c"]
        await thread.close()

    asyncio.run(scenario())


def test_weights_that_fail_in_a_turn_reach_all_who_wait():
    async def scenario():
        _, thread = await merged("a", "b", "fatal")
        calls = [thread.complete([request(n, adapter)]) for n, adapter in enumerate(("fatal", "fatal", "b"))]
        results = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 10)
        assert all(isinstance(result, EngineFailure) for result in results[:2])
        assert "MemoryError: no room" in str(results[0])
        with pytest.raises(EngineFailure, match="no room"):
            await thread.complete([request(9, "a")])

    asyncio.run(scenario())
