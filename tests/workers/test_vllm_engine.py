"""The vLLM engine on a tiny random model: answers equal those of transformers, weights change exactly."""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from telemetry import models
from telemetry.failures import UsageError
from telemetry.lora import AdapterRefused, LoraWeights
from tests.tiny import build, random_adapter, write_adapter
from workers import engines
from workers.config import VllmEngineConfig
from workers.engine import CompletionRequest, EngineFailure
from workers.prompt import Codec

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

ACTIONS = ("north", "south", "east", "west", "eat", "rest")
SYSTEM = "You live in a valley. Choose north, south, east, west, eat or rest. Gather food early and avoid wolves."
END = 2
"""The token that ends a turn in SmolLM2's chat template."""
CONFIG = VllmEngineConfig(
    serving="merged", dtype="float32", context=256, kv_cache_gib=0.1, max_sequences=16, max_batched_tokens=512
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = build(tmp_path_factory.mktemp("model") / "tiny")
    [file] = directory.glob("*.safetensors")
    tensors = load_file(file)
    # So large that texts end sooner or later.
    tensors["model.embed_tokens.weight"][END] = 6 * tensors["model.embed_tokens.weight"][END + 1]
    save_file(tensors, file, metadata={"format": "pt"})
    return directory


@pytest.fixture(scope="module")
def card(directory):
    return models.card(directory, str(directory))


@pytest.fixture(scope="module")
def adapters(tmp_path_factory, card):
    folder = tmp_path_factory.mktemp("adapters")
    for seed in (1, 2, 3):
        write_adapter(folder / f"a{seed}", random_adapter(card, seed=seed), card)
    turned = {module: (b.T, a.T) for module, (a, b) in random_adapter(card, seed=4).factors.items()}
    write_adapter(folder / "turned", LoraWeights(8, 8, turned), card)
    write_adapter(folder / "wide", random_adapter(card, seed=3, rank=32), card)
    broken = random_adapter(card, seed=4)
    # The gate refuses both; here they are put past it.
    for name, number in (("nan", np.nan), ("huge", 3e38)):
        spoiled = {module: (a, np.full_like(b, number)) for module, (a, b) in broken.factors.items()}
        write_adapter(folder / name, LoraWeights(8, 8, spoiled), card)
    return folder


@contextmanager
def llvmlite_out_of_sight() -> Iterator[None]:
    """vLLM looks into every module there is and stumbles over this one, which tests of worlds may have brought in.

    Engines of a run have processes of their own. Worlds that compile with it find it again afterwards.
    """
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith("llvmlite")}
    try:
        yield
    finally:
        sys.modules.update(hidden)


@pytest.fixture(scope="module")
def start(directory, card, adapters):
    """Starts engines one after the other: two vLLM engines do not fit into one process."""
    os.environ.update(engines.environment(CONFIG))
    running = []

    def start(config):
        while running:
            asyncio.run(running.pop().close())
        running.append(engines.build(config, directory, card, lambda name: adapters / name))
        return running[-1]

    with llvmlite_out_of_sight():
        yield start
    while running:
        asyncio.run(running.pop().close())


@pytest.fixture(scope="module")
def merged(start):
    """(engine, codec, what the fresh engine answered before anything was loaded)"""
    engine = start(CONFIG)
    description = asyncio.run(engine.describe())
    assert description.capacity == 1
    codec = Codec(description)
    return engine, codec, ask(engine, *(decision(codec, text) for text in SIGHTS))


SIGHTS = [f"Energy {n}. Here: berries. Food: east {n % 4}, north {n % 3}. Danger: none." for n in range(40)]


def decision(codec, text, adapter=None):
    return CompletionRequest(codec.prompt(SYSTEM, text), adapter, codec.choices(ACTIONS))


def ask(engine, *requests):
    return asyncio.run(engine.complete(requests))


def logprobs(answers):
    return np.array([answer.choice_logprobs for answer in answers])


def reference(directory, requests, adapter=None):
    """Log-probabilities of the choices by transformers; with `adapter`, its change added to the weights."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    for module, (a, b) in (adapter.factors if adapter else {}).items():
        model.get_submodule(module).weight.data += adapter.scale * torch.from_numpy(b @ a)
    rows = []
    with torch.no_grad():
        for request in requests:
            scores = model(torch.tensor([list(request.prompt_ids)])).logits[0, -1, list(request.choices)]
            rows.append(torch.log_softmax(scores, dim=-1).tolist())
    return np.array(rows)


def test_answers_are_those_of_transformers(merged, directory):
    _, codec, fresh = merged
    requests = [decision(codec, text) for text in SIGHTS]
    assert np.allclose(np.exp(logprobs(fresh)).sum(axis=1), 1.0)
    assert np.allclose(logprobs(fresh), reference(directory, requests), atol=1e-3)
    assert np.ptp(logprobs(fresh)[0]) > 0.1


def test_vllm_says_of_itself_what_the_engine_counts(merged):
    engine, _, _ = merged
    stats = asyncio.run(engine.stats())
    said = {family.name: family.samples for family in stats.own}
    assert sum(value for _, _, value in said["vllm:prompt_tokens"]) == stats.prompt_tokens > 0
    assert asyncio.run(engine.stats()).own == ()


def test_merged_weights_answer_as_transformers_does_and_the_base_comes_back_exactly(merged, directory, card):
    engine, codec, fresh = merged
    requests = {name: [decision(codec, text, name) for text in SIGHTS] for name in (None, "a1", "a2")}
    for seed in (1, 2):
        asyncio.run(engine.load([f"a{seed}"]))
        answers = logprobs(ask(engine, *requests[f"a{seed}"]))
        expected = reference(directory, requests[f"a{seed}"], random_adapter(card, seed=seed))
        assert np.allclose(answers, expected, atol=1e-3)
        assert not np.allclose(answers, logprobs(fresh), atol=1e-2)
    asyncio.run(engine.load([None]))
    assert ask(engine, *requests[None]) == fresh


def test_an_adapter_that_is_not_loaded_is_refused_and_the_engine_goes_on(merged):
    engine, codec, fresh = merged
    asyncio.run(engine.load([None]))
    with pytest.raises(EngineFailure, match="adapter a1 is not loaded"):
        ask(engine, decision(codec, SIGHTS[0]), decision(codec, SIGHTS[0], "a1"))
    assert ask(engine, decision(codec, SIGHTS[0])) == fresh[:1]


def test_adapters_that_take_turns_answer_as_each_does_alone(merged, directory, card):
    engine, codec, _ = merged
    names = [("a1", None, "a2")[number * number % 3] for number in range(len(SIGHTS))]
    choosing = [decision(codec, text, name) for text, name in zip(SIGHTS, names, strict=True)]
    writing = [
        CompletionRequest(request.prompt_ids, request.adapter, max_tokens=6, seed=seed)
        for seed, request in enumerate(choosing)
    ]
    alone = {}
    for name in (None, "a1", "a2"):
        asyncio.run(engine.load([name]))
        mine = [request for request in (*choosing, *writing) if request.adapter == name]
        alone |= zip(map(id, mine), ask(engine, *mine), strict=True)
    asyncio.run(engine.load(["a1", "a2", None]))

    async def several_calls():
        calls = [engine.complete([*choosing[n::4], *writing[n::4]]) for n in range(4)]
        return await asyncio.gather(*calls)

    for _ in range(2):
        together = {}
        for number, answers in enumerate(asyncio.run(several_calls())):
            together |= zip(map(id, [*choosing[number::4], *writing[number::4]]), answers, strict=True)
        for name, weights in ((None, None), ("a1", random_adapter(card, seed=1)), ("a2", random_adapter(card, seed=2))):
            mine = [request for request in choosing if request.adapter == name]
            expected = logprobs([alone[id(request)] for request in mine])
            assert np.allclose(logprobs([together[id(request)] for request in mine]), expected, atol=1e-4)
            assert np.allclose(expected, reference(directory, mine, weights), atol=1e-3)
        for request in writing:
            assert together[id(request)].token_ids == alone[id(request)].token_ids
            assert np.allclose(together[id(request)].logprobs, alone[id(request)].logprobs, atol=1e-3)


def test_a_working_set_with_an_adapter_that_does_not_fit_is_refused_as_a_whole(merged):
    engine, codec, fresh = merged
    asyncio.run(engine.load([None]))
    with pytest.raises(AdapterRefused, match=r"adapter nan: .* not finite"):
        asyncio.run(engine.load(["a1", "a2", "nan"]))
    with pytest.raises(UsageError, match=r"adapter turned: .* shape"):
        asyncio.run(engine.load(["a1", "turned"]))
    with pytest.raises(EngineFailure, match="adapter a1 is not loaded"):
        ask(engine, decision(codec, SIGHTS[0], "a1"))
    assert ask(engine, *(decision(codec, text) for text in SIGHTS)) == fresh


def test_a_poisoned_adapter_is_refused_and_changes_no_answer_of_others(merged):
    engine, codec, fresh = merged
    requests = {name: [decision(codec, text, name) for text in SIGHTS] for name in (None, "a1")}
    asyncio.run(engine.load(["a1"]))
    before = ask(engine, *requests["a1"])
    for _ in range(2):
        with pytest.raises(AdapterRefused, match=r"adapter nan: .*lora_B.* not finite"):
            asyncio.run(engine.load(["nan"]))
        assert ask(engine, *requests["a1"]) == before
    asyncio.run(engine.load([None]))
    assert ask(engine, *requests[None]) == fresh


def test_requests_out_of_bounds_are_refused_and_the_engine_goes_on(merged):
    engine, codec, fresh = merged
    asyncio.run(engine.load([None]))
    for prompt, choices in (((1,) * 256, (5, 6)), ((), (5, 6)), ((1,), (5, 5)), ((1,), tuple(range(200)))):
        with pytest.raises(UsageError):
            ask(engine, CompletionRequest(prompt, None, choices))
    with pytest.raises(EngineFailure, match="vocabulary"):
        ask(engine, CompletionRequest((1, 49152), None, (5, 6)))
    assert ask(engine, decision(codec, SIGHTS[0])) == fresh[:1]


def test_free_text_and_decisions_share_a_batch_and_seeds_repeat(merged):
    engine, codec, fresh = merged
    asyncio.run(engine.load([None]))
    prompt = codec.prompt(SYSTEM, SIGHTS[0])
    texts = [CompletionRequest(prompt, None, max_tokens=12, seed=seed) for seed in (5, 5, 0, 2**63 - 1)]
    first, plain, second, *others = ask(engine, texts[0], decision(codec, SIGHTS[0]), *texts[1:])
    assert first.token_ids == second.token_ids
    assert len({first.token_ids, *(other.token_ids for other in others)}) == 3
    assert np.allclose(first.logprobs, second.logprobs, atol=1e-4)
    assert np.allclose(plain.choice_logprobs, fresh[0].choice_logprobs, atol=1e-4)
    sharp = CompletionRequest(prompt, None, max_tokens=12, seed=5, temperature=0.05)
    assert np.exp(ask(engine, sharp)[0].logprobs).mean() > 0.5 > np.exp(first.logprobs).mean()


def test_free_text_ends_with_the_turn_and_tells_the_probabilities_it_was_drawn_with(merged, directory):
    import torch
    from transformers import AutoModelForCausalLM

    engine, codec, _ = merged
    asyncio.run(engine.load([None]))
    requests = [
        CompletionRequest(codec.prompt(SYSTEM, text), None, max_tokens=16, seed=seed, temperature=0.8)
        for seed, text in enumerate(SIGHTS)
    ]
    answers = ask(engine, *requests)
    ended = [answer for answer in answers if answer.token_ids[-1] == END]
    assert 5 < len(ended) < len(answers)
    assert all(END not in answer.token_ids[:-1] for answer in answers)
    assert all(answer.tokens == 16 for answer in answers if answer not in ended)
    assert all(codec.decode(answer.token_ids) == codec.decode(answer.token_ids[:-1]) for answer in ended)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    for request, answer in zip(requests, answers, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([[*request.prompt_ids, *answer.token_ids]])).logits[0]
        scores = torch.log_softmax(logits[-answer.tokens - 1 : -1] / request.temperature, dim=-1)
        expected = scores.gather(1, torch.tensor([answer.token_ids]).T)[:, 0].numpy()
        assert np.allclose(answer.logprobs, expected, atol=2e-3)


def test_weights_change_between_requests_already_made_and_later_ones(merged):
    engine, codec, fresh = merged
    asyncio.run(engine.load([None]))

    async def scenario():
        before = asyncio.ensure_future(engine.complete([decision(codec, text) for text in SIGHTS]))
        await asyncio.sleep(0)
        change = asyncio.ensure_future(engine.load(["a1"]))
        await asyncio.sleep(0)
        after = asyncio.ensure_future(engine.complete([decision(codec, text, "a1") for text in SIGHTS]))
        return await before, await change, await after

    before, _, after = asyncio.run(scenario())
    assert np.allclose(logprobs(before), logprobs(fresh), atol=1e-4)
    assert not np.allclose(logprobs(after), logprobs(fresh), atol=1e-2)


def test_unmerged_adapters_agree_with_merged_ones(start, merged, directory, card):
    _, codec, _ = merged
    engine = start(CONFIG.model_copy(update={"serving": "lora", "max_adapters": 2}))
    assert asyncio.run(engine.describe()).capacity == 2
    assert "vllm:lora_requests_info" not in {family.name for family in asyncio.run(engine.stats()).own}
    # More than fit into one batch.
    asyncio.run(engine.load(["a1", "a2", "a3"]))
    names = [None, "a1", "a2", "a3"] * (len(SIGHTS) // 4)
    requests = [decision(codec, text, name) for text, name in zip(SIGHTS, names, strict=True)]
    answers = logprobs(ask(engine, *requests))
    for name, seed in ((None, 0), ("a1", 1), ("a2", 2), ("a3", 3)):
        mine = [index for index, owner in enumerate(names) if owner == name]
        weights = random_adapter(card, seed=seed) if name else None
        expected = reference(directory, [requests[index] for index in mine], weights)
        assert np.allclose(answers[mine], expected, atol=2e-3)

    asyncio.run(engine.load(["a2"]))
    with pytest.raises(EngineFailure, match="adapter a1 is not loaded"):
        ask(engine, requests[1])
    asyncio.run(engine.load(["a1"]))
    assert np.allclose(logprobs(ask(engine, requests[1])), answers[1:2], atol=1e-4)
    with pytest.raises(UsageError, match="rank 32, expected at most 16"):
        asyncio.run(engine.load(["wide"]))
    with pytest.raises(AdapterRefused, match=r"adapter nan: .* not finite"):
        asyncio.run(engine.load(["a1", "nan"]))
    assert np.allclose(logprobs(ask(engine, requests[1])), answers[1:2], atol=1e-4)


def test_numbers_that_are_not_finite_end_the_engine_and_name_the_adapter(start, merged):
    """Finite weights that overflow on the way: nothing may be answered by an engine that has seen them."""
    _, codec, _ = merged
    engine = start(CONFIG)
    asyncio.run(engine.load(["huge"]))
    with pytest.raises(EngineFailure, match=r"adapter huge: .* not finite"):
        ask(engine, decision(codec, SIGHTS[0], "huge"))
    with pytest.raises(EngineFailure, match="adapter huge"):
        ask(engine, decision(codec, SIGHTS[0], "huge"))
    with pytest.raises(EngineFailure, match="adapter huge"):
        asyncio.run(engine.load([None]))


def test_merged_weights_are_refused_on_several_gpus(start):
    with pytest.raises(UsageError, match=r"engine\.gpus"):
        start(CONFIG.model_copy(update={"gpus": 2.0}))


def test_the_kernels_that_normalise_agree_with_pytorch_and_refuse_what_they_cannot(merged):
    import torch
    from vllm import ir

    from workers.engines.kernels import PROVIDER

    draw = torch.Generator().manual_seed(0)
    single, added = ir.ops.rms_norm.impls, ir.ops.fused_add_rms_norm.impls
    for shape in ((1, 32), (7, 64), (416, 576), (2, 3, 128)):
        for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
            x, residual = (torch.randn(*shape, generator=draw).to(dtype) for _ in range(2))
            weight = torch.randn(shape[-1], generator=draw).to(dtype)
            assert single[PROVIDER].supports_args(x, weight, 1e-5)
            assert added[PROVIDER].supports_args(x, residual, weight, 1e-5)
            expected = single["native"].impl_fn(x, weight, 1e-5), *added["native"].impl_fn(x, residual, weight, 1e-5)
            found = single[PROVIDER].impl_fn(x, weight, 1e-5), *added[PROVIDER].impl_fn(x, residual, weight, 1e-5)
            torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    x, weight = torch.randn(4, 64), torch.randn(64)
    for refused in ((x[:, ::2], weight[:32]), (x[:, :24].contiguous(), weight[:24]), (x, None), (x, weight.double())):
        assert not single[PROVIDER].supports_args(*refused, 1e-5)
    assert not single[PROVIDER].supports_args(x, weight, 1e-5, 32)
    assert not added[PROVIDER].supports_args(x, x.T.contiguous().T, weight, 1e-5)


@pytest.mark.parametrize("slots", [[0, 0, 1, 1, 1], [1, -1, 0, 1, -1, 2], [-1, -1], [2]])
def test_low_rank_products_are_those_of_each_tokens_own_adapter(merged, slots):
    import torch

    from workers.engines.lora_kernels import GroupedLora, groups

    draw = torch.Generator().manual_seed(0)
    sizes, rank, into = (6, 4), 3, 8
    x, y = torch.randn(len(slots), into, generator=draw), torch.randn(len(slots), sum(sizes), generator=draw)
    first = [torch.randn(3, 1, rank, into, generator=draw) for _ in sizes]
    second = [torch.randn(3, 1, size, rank, generator=draw) for size in sizes]
    expected = y.clone()
    for token, slot in enumerate(slots):
        if slot >= 0:
            changes = [b[slot, 0] @ (a[slot, 0] @ x[token]) for a, b in zip(first, second, strict=True)]
            expected[token] += 0.5 * torch.cat(changes)
    kernels = GroupedLora(16, 16, "cpu")
    kernels._groups = groups(torch.tensor(slots))
    kernels.add_lora_linear(y, x, first, second, 0.5, sizes)
    torch.testing.assert_close(y, expected)
