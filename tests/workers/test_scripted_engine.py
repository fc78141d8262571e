"""The scripted engine: a pure function of prompt and adapter content, as fast as a dry run needs."""

import asyncio
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.failures import UsageError
from telemetry.lora import AdapterRefused, LoraWeights
from tests.tiny import random_adapter, write_adapter
from workers import engines
from workers.config import ScriptedEngineConfig
from workers.engine import CompletionRequest, EngineFailure
from workers.engines.scripted import CARD, IN, MODULE, OUT, ScriptedEngine

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


def test_an_adapter_that_was_not_loaded_is_refused_and_so_are_too_many(engine):
    with pytest.raises(EngineFailure, match="adapter 0 is not loaded"):
        ask(engine, CompletionRequest((1,), "0", CHOICES))
    asyncio.run(engine.load(["0", "1"]))
    asyncio.run(engine.load(["2"]))
    with pytest.raises(EngineFailure, match="adapter 1 is not loaded"):
        ask(engine, CompletionRequest((1,), "1", CHOICES))
    with pytest.raises(UsageError, match="at most 2"):
        asyncio.run(engine.load(["0", "1", "2"]))


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
    assert first == second != other
    assert len(first.token_ids) == len(first.logprobs) == 30
    assert all(logprob < 0 for logprob in first.logprobs)
    [cold] = ask(engine, CompletionRequest((7, 8), None, max_tokens=30, seed=4, temperature=1e-3))
    assert sum(cold.logprobs) > sum(first.logprobs)


def test_untouched_play_is_spread_over_all_choices(engine):
    answers = ask(engine, *(CompletionRequest((number,), None, CHOICES) for number in range(2000)))
    mean = np.exp([answer.choice_logprobs for answer in answers]).mean(axis=0)
    assert np.allclose(mean, 1 / 6, atol=0.01)
    assert asyncio.run(engine.describe()).capacity == 2
    assert ask(engine) == []
