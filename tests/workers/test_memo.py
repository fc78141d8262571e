"""Decisions made before are not computed again; texts always are."""

import asyncio
from array import array

import pytest

from workers.engine import Completion, CompletionRequest, EngineFailure
from workers.engines.memo import Memo


class Engine:
    """Notes what it is asked, and answers with the number of the request."""

    def __init__(self) -> None:
        self.asked: list[CompletionRequest] = []
        self.failing = False

    async def complete(self, requests):
        await asyncio.sleep(0)
        if self.failing:
            raise EngineFailure("gone")
        self.asked += requests
        return [Completion(choice_logprobs=(-float(len(self.asked)), float(sum(one.prompt_ids)))) for one in requests]


def request(*ids: int, adapter: str | None = "a", choices: tuple[int, ...] = (7, 8)) -> CompletionRequest:
    return CompletionRequest(array("i", ids), adapter, choices)


def test_only_what_differs_in_weights_prompt_or_choices_is_computed():
    engine = Engine()
    memo = Memo(engine.complete, 1000)
    kinds = [request(1, 2), request(2, 1), request(1, 2, adapter=None), request(1, 2, choices=(8, 7)), request(1)]

    async def scenario():
        first = await memo.complete([*kinds, *reversed(kinds)])
        again = await memo.complete([kinds[3], request(5), *kinds])
        return first, again

    first, again = asyncio.run(scenario())
    assert engine.asked == [*kinds, request(5)]
    assert first[:5] == first[:4:-1] == again[2:]
    assert again[0] == first[3]
    assert [one.choice_logprobs[1] for one in first[:5]] == [3, 3, 3, 3, 1]
    assert again[1].choice_logprobs[1] == 5
    assert (memo.recalled, memo.tokens) == (5 + 6, 9 + 2 + 9)


def test_a_sampled_text_is_never_given_twice():
    engine = Engine()
    memo = Memo(engine.complete, 1000)
    texts = [request(1, 2, choices=()), request(1, 2, choices=())]
    asyncio.run(memo.complete(texts))
    asyncio.run(memo.complete(texts))
    assert len(engine.asked) == 4
    assert memo.recalled == memo.tokens == 0


@pytest.mark.parametrize("room", [0, 1, 5, 6])
def test_it_holds_no_more_prompt_tokens_than_it_has_room_for_and_forgets_the_oldest(room):
    engine = Engine()
    memo = Memo(engine.complete, room)

    async def scenario():
        for number in range(10):
            await memo.complete([request(number, number)])
        engine.asked.clear()
        return await memo.complete([request(number, number) for number in range(10)])

    answers = asyncio.run(scenario())
    assert len(engine.asked) == 10 - room // 2
    assert [one.choice_logprobs[1] for one in answers] == [2 * number for number in range(10)]
    assert {tuple(one.prompt_ids) for one in engine.asked} == {(n, n) for n in range(10 - room // 2)}


def test_without_room_everything_is_computed():
    engine = Engine()
    memo = Memo(engine.complete, 0)
    asyncio.run(memo.complete([request(1), request(1)]))
    assert len(engine.asked) == 2
    assert memo.recalled == 0


def test_released_adapters_are_forgotten_and_others_kept():
    engine = Engine()
    memo = Memo(engine.complete, 8)
    mine, others, base = request(1, 2), request(1, 2, adapter="b"), request(1, 2, adapter=None)
    asyncio.run(memo.complete([mine, others, base]))
    memo.keep({"b", None})
    engine.asked.clear()
    asyncio.run(memo.complete([mine, others, base]))
    assert engine.asked == [mine]
    asyncio.run(memo.complete([request(3, 4)]))
    engine.asked.clear()
    asyncio.run(memo.complete([mine, base, request(3, 4)]))
    assert engine.asked == [], "what was forgotten no longer takes room"


def test_nothing_is_remembered_of_a_failure():
    engine = Engine()
    memo = Memo(engine.complete, 1000)
    engine.failing = True
    with pytest.raises(EngineFailure, match="gone"):
        asyncio.run(memo.complete([request(1)]))
    engine.failing = False
    asyncio.run(memo.complete([request(1)]))
    assert engine.asked == [request(1)]
    assert memo.recalled == 0


def test_two_callers_who_ask_the_same_at_once_are_both_answered():
    engine = Engine()
    memo = Memo(engine.complete, 2)

    async def scenario():
        await asyncio.gather(memo.complete([request(1, 2)]), memo.complete([request(1, 2)]))
        return await memo.complete([request(1, 2)])

    asyncio.run(scenario())
    assert len(engine.asked) == 2
    assert memo.recalled == 1, "held once: it still fits"
