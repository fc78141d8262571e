"""The scripted engine: a pure function of prompt and adapter content, as fast as a dry run needs."""

import asyncio
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.lora import AdapterRefused, LoraWeights
from tests.tiny import random_adapter, write_adapter
from workers import engines
from workers.config import ScriptedEngineConfig
from workers.engine import CompletionRequest, EngineFailure
from workers.engines.scripted import CARD, END, IN, MODULE, OUT, ScriptedEngine
from workers.prompt import Codec

CHOICES = (256, 257, 258, 259, 260, 261)


def ask(engine, *requests):
    return asyncio.run(engine.complete(requests))


@pytest.fixture
def engine(tmp_path):
    for number in range(3):
        write_adapter(tmp_path / str(number), random_adapter(CARD, seed=number, size=1.0), CARD)
    return engines.build(ScriptedEngineConfig(capacity=2), None, CARD, lambda name: tmp_path / name)


@given(st.lists(st.integers(0, 300), min_size=1, max_size=200), st.integers(1, 20))
def test_log_probabilities_are_finite_and_sum_to_one(prompt, count):
    engine = ScriptedEngine(ScriptedEngineConfig(), lambda name: None)
    [completion] = ask(engine, CompletionRequest(tuple(prompt), None, tuple(range(256, 256 + count))))
    assert len(completion.choice_logprobs) == count
    assert math.isclose(sum(map(math.exp, completion.choice_logprobs)), 1.0, rel_tol=1e-9)


def test_an_answer_depends_on_prompt_and_adapter_content_only(engine, tmp_path):
    asyncio.run(engine.load(["0", "1"]))
    requests = [
        CompletionRequest(tuple(range(start, start + 80)), adapter, CHOICES)
        for start in range(20)
        for adapter in (None, "0", "1")
    ]
    together = ask(engine, *requests)
    assert [ask(engine, request)[0] for request in reversed(requests)] == together[::-1]
    assert len({answer.choice_logprobs for answer in together}) == len(together)
    other = ScriptedEngine(ScriptedEngineConfig(), lambda name: tmp_path / "0")
    asyncio.run(other.load(["another name"]))
    assert ask(other, CompletionRequest(requests[1].prompt_ids, "another name", CHOICES)) == [together[1]]


def test_an_adapter_changes_the_logits_by_its_weight_change_times_features_of_the_last_ids(tmp_path):
    a = np.zeros((1, IN), np.float32)
    a[0, 5] = 1.0
    b = np.arange(OUT, dtype=np.float32).reshape(OUT, 1)
    write_adapter(tmp_path / "x", LoraWeights(1, 3, {MODULE: (a, b)}), CARD)
    engine = ScriptedEngine(ScriptedEngineConfig(), lambda name: tmp_path / name)
    asyncio.run(engine.load(["x"]))
    for start in range(20):
        prompt = tuple(range(start, start + 70))
        plain, changed = ask(engine, CompletionRequest(prompt, None, CHOICES), CompletionRequest(prompt, "x", CHOICES))
        change = np.subtract(changed.choice_logprobs, plain.choice_logprobs)
        slope = np.diff(change)
        assert np.allclose(np.abs(slope), 3.0)
        assert np.allclose(slope, slope[0])


def test_the_working_set_may_be_larger_than_a_batch_and_what_is_not_in_it_is_refused(engine):
    with pytest.raises(EngineFailure, match="adapter 0 is not loaded"):
        ask(engine, CompletionRequest((1,), "0", CHOICES))
    asyncio.run(engine.load(["0", "1"]))
    asyncio.run(engine.load(["2"]))
    with pytest.raises(EngineFailure, match="adapter 1 is not loaded"):
        ask(engine, CompletionRequest((1,), "1", CHOICES))
    asyncio.run(engine.load(["0", "1", "2", None]))
    answers = ask(engine, *(CompletionRequest((1,), adapter, CHOICES) for adapter in ("0", "1", "2", None)))
    assert len(set(answers)) == 4


def test_a_file_that_is_no_adapter_leaves_the_engine_as_it_was(engine, tmp_path):
    asyncio.run(engine.load(["0"]))
    before = ask(engine, CompletionRequest((1, 2), "0", CHOICES))
    (tmp_path / "1" / "adapter_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(AdapterRefused):
        asyncio.run(engine.load(["1"]))
    assert ask(engine, CompletionRequest((1, 2), "0", CHOICES)) == before


def test_free_text_repeats_with_its_seed_and_tells_its_probabilities(engine):
    same = [CompletionRequest((7, 8), None, max_tokens=30, seed=4) for _ in range(2)]
    first, second, other = ask(engine, *same, CompletionRequest((7, 8), None, max_tokens=30, seed=5))
    assert first == second == ask(engine, same[0])[0] != other
    assert all(logprob < 0 for logprob in first.logprobs)
    [cold] = ask(engine, CompletionRequest((7, 8), None, max_tokens=30, seed=4, temperature=1e-3))
    assert np.mean(cold.logprobs) > -1e-3 > np.mean(first.logprobs)


def test_free_text_depends_on_prompt_and_adapter(engine):
    asyncio.run(engine.load(["0", "1"]))
    requests = [
        CompletionRequest((7, number), adapter, max_tokens=64, seed=4)
        for adapter in (None, "0", "1")
        for number in (8, 9)
    ]
    assert len({answer.logprobs for answer in ask(engine, *requests)}) == len(requests)


def test_free_text_is_letters_that_end_by_themselves_or_are_cut_off(engine):
    codec = Codec(asyncio.run(engine.describe()))
    answers = ask(engine, *(CompletionRequest((number,), None, max_tokens=64, seed=number) for number in range(1000)))
    sizes = [answer.tokens for answer in answers]
    assert sizes == [len(answer.logprobs) for answer in answers]
    assert min(sizes) == 1
    assert max(sizes) == 64
    # About one token in sixteen ends its text.
    assert 14 < np.mean(sizes) < 18
    for answer in answers:
        assert answer.token_ids[-1] == END or answer.tokens == 64
        assert END not in answer.token_ids[:-1]
        text = codec.decode(answer.token_ids)
        assert len(text) == answer.tokens - (answer.token_ids[-1] == END)
        assert set(text) <= set("abcdefghijklmno")


def test_untouched_play_is_spread_over_all_choices(engine):
    answers = ask(engine, *(CompletionRequest((number,), None, CHOICES) for number in range(2000)))
    mean = np.exp([answer.choice_logprobs for answer in answers]).mean(axis=0)
    assert np.allclose(mean, 1 / 6, atol=0.01)
    assert asyncio.run(engine.describe()).capacity == 2
    assert ask(engine) == []


def test_time_per_completion_is_taken_one_after_the_other_and_changes_no_answer():
    async def timed(engine):
        began = asyncio.get_running_loop().time()
        answers = await asyncio.gather(*(engine.complete([request] * 2) for _ in range(3)))
        return asyncio.get_running_loop().time() - began, answers

    request = CompletionRequest((1, 2, 3), None, CHOICES)
    fast = ScriptedEngine(ScriptedEngineConfig(), lambda name: None)
    slow = ScriptedEngine(ScriptedEngineConfig(seconds=0.02), lambda name: None)
    seconds, answers = asyncio.run(timed(slow))
    assert seconds >= 6 * 0.02
    assert answers == asyncio.run(timed(fast))[1]
