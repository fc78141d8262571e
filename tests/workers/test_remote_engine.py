"""The remote engine against real HTTP servers that fail, hang, lie and go away."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from pydantic import SecretStr, ValidationError

from telemetry.failures import UsageError
from tests.tiny import random_adapter, write_adapter
from tests.workers.endpoints import PROBE, Machines, Served, at_once, beyond_probes, error, lie, machines, true_answer
from workers.config import ScriptedEngineConfig
from workers.config_remote import RemoteEngineConfig
from workers.engine import CompletionRequest, EngineFailure
from workers.engines import scripted
from workers.engines.remote import RemoteEngine
from workers.engines.remote_endpoint import Endpoint, State
from workers.engines.remote_http import MAX_ANSWER
from workers.engines.scripted import CARD, END, ScriptedEngine, description

CHOICES = (256, 257, 258, 259)
VOCABULARY = 300


@pytest.fixture
def room() -> Iterator[Machines]:
    with machines() as started:
        yield started


def remote(*served: Served, adapters: Any = None, trust: int = 1, **options: Any) -> RemoteEngine:
    """An engine on these endpoints, of which the first `trust` are trusted."""
    endpoints = [
        {"url": one.url, "trusted": place < trust, "key": "KEY" if one.key else ""} for place, one in enumerate(served)
    ]
    config = RemoteEngineConfig.model_validate(
        {"endpoints": endpoints, "timeout": 200.0, "patience": 400.0, "hedge": 0.0, "checks": 0.0, **options}
    )
    keys = {"KEY": SecretStr(served[0].key)}
    path = adapters or (lambda name: pytest.fail("no adapter here"))
    return RemoteEngine(config, description(8), path, vocabulary=VOCABULARY, end_of_turn=(END,), keys=keys)


def decisions(number: int, adapter: str | None = None) -> list[CompletionRequest]:
    return [CompletionRequest((7, 8, 9, index % 256, index // 256), adapter, CHOICES) for index in range(number)]


def told(engine: RemoteEngine) -> dict[str, Endpoint]:
    return {endpoint.name: endpoint for endpoint in engine._roster.endpoints}


def play(engine: RemoteEngine, scenario: Callable[[], Awaitable[Any]]) -> Any:
    async def played() -> Any:
        try:
            return await scenario()
        finally:
            await engine.close()

    return asyncio.run(played())


def truth(requests: list[CompletionRequest], adapters: Any = None) -> list[Any]:
    engine = ScriptedEngine(ScriptedEngineConfig(), adapters or (lambda name: pytest.fail("no adapter here")))
    at_once(engine.load([request.adapter for request in requests]))
    return list(at_once(engine.complete(requests)))


def equal(answers: list[Any], expected: list[Any]) -> bool:
    pairs = list(zip(answers, expected, strict=True))
    close = (
        [math.isclose(a, b, abs_tol=1e-9) for a, b in zip(x.choice_logprobs, y.choice_logprobs, strict=True)]
        for x, y in pairs
    )
    return all(map(all, close)) and all((x.token_ids, x.logprobs) == (y.token_ids, y.logprobs) for x, y in pairs)


def test_answers_are_the_servers_and_alike_requests_share_a_call(room: Machines) -> None:
    served = room.start()
    engine = remote(served)
    texts = [CompletionRequest((5, 6, 7), None, max_tokens=20, seed=seed, temperature=0.7) for seed in range(3)]
    requests = [*decisions(20), *texts]

    async def scenario() -> None:
        assert (await engine.describe()).capacity == 8
        served.calls.clear()
        answers = await engine.complete(requests)
        assert equal(answers, truth(requests))
        assert served.calls["/v1/completions"] == 1 + len(texts)
        assert {answer.source for answer in answers} == {""}
        stats = await engine.stats()
        assert (stats.answered, stats.running, stats.waiting) == (len(requests), 0, 0)
        assert stats.prompt_tokens == 20 * 5 + 3 * 3
        with pytest.raises(EngineFailure, match="adapter x is not loaded"):
            await engine.complete(decisions(1, "x"))
        for bad in (CompletionRequest((), None, CHOICES), CompletionRequest((1,), None, (5, 5))):
            with pytest.raises(UsageError):
                await engine.complete([bad])

    play(engine, scenario)


async def hang(served: Served, request: web.Request, body: dict[str, Any]) -> None:
    await asyncio.sleep(600)


async def garbage(served: Served, request: web.Request, body: dict[str, Any]) -> web.Response:
    return web.Response(text="<html>welcome</html>", content_type="application/json")


async def too_few(served: Served, request: web.Request, body: dict[str, Any]) -> web.Response:
    return web.json_response({"choices": true_answer(served, body)["choices"][1:]})


async def not_a_number(served: Served, request: web.Request, body: dict[str, Any]) -> web.Response:
    answer = true_answer(served, body)
    for choice in answer["choices"]:
        choice["logprobs"]["top_logprobs"][0]["token_id:256"] = math.nan
    return web.json_response(answer)


async def cut(served: Served, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"choices": [')
    if request.transport is not None:
        request.transport.close()
    return response


async def huge(served: Served, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(2 * MAX_ANSWER >> 20):
        await response.write(b" " * (1 << 20))
    return response


async def broken(served: Served, request: web.Request, body: dict[str, Any]) -> web.Response:
    return error(500, "CUDA error: device-side assert triggered")


async def elsewhere(served: Served, request: web.Request, body: dict[str, Any]) -> web.Response:
    return web.Response(status=307, headers={"Location": "http://127.0.0.1:1/"})


FAULTS = [hang, garbage, too_few, not_a_number, cut, huge, broken, elsewhere]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_an_endpoint_that_fails_costs_no_answer_and_is_left_alone(room: Machines, fault: Any) -> None:
    bad, good = room.start(fault=beyond_probes(fault)), room.start()
    engine = remote(bad, good, trust=2, timeout=15.0 if fault is hang else 200.0)

    async def scenario() -> None:
        await engine.describe()
        answers = await asyncio.gather(*(engine.complete([one]) for one in decisions(12)))
        assert equal([one for [one] in answers], truth(decisions(12)))
        account = told(engine)[bad.name].account
        assert account.failures >= 3
        assert account.requests == 0
        bad.fault = None
        until = time.monotonic() + 120
        while told(engine)[bad.name].state is not State.STANDING and time.monotonic() < until:
            await asyncio.sleep(0.05)
        await asyncio.gather(*(engine.complete([one]) for one in decisions(12)))
        assert account.requests > 0

    play(engine, scenario)


def test_a_machine_that_is_taken_away_loses_no_answer_and_its_successor_loads_the_adapters(
    room: Machines, tmp_path: Any
) -> None:
    write_adapter(tmp_path / "a", random_adapter(CARD, seed=1, size=1.0), CARD)
    write_adapter(tmp_path / "b", random_adapter(CARD, seed=2, size=1.0), CARD)
    spot, stays = room.start(), room.start()
    engine = remote(spot, stays, trust=2, adapters=lambda name: tmp_path / name)
    requests = [*decisions(6, "a"), *decisions(6, "b"), *decisions(6)]

    async def scenario() -> None:
        await engine.describe()
        await engine.load(["a", "b"])
        expected = truth(requests, lambda name: tmp_path / name)
        assert equal(await engine.complete(requests), expected)
        await asyncio.to_thread(room.stop, spot)
        for _ in range(4):
            assert equal(await engine.complete(requests), expected)
        await asyncio.to_thread(room.restart, spot)
        while told(engine)[spot.name].state is not State.STANDING:
            await asyncio.sleep(0.05)
        assert spot.loaded.keys() == {"a", "b"}
        # A machine that forgets without going away.
        spot.loaded.clear()
        # That is noticed when it is asked again, which is the pool's choice each time.
        while spot.loaded.keys() != {"a", "b"}:
            assert equal(await engine.complete(requests), expected)
        await engine.load(["b"])
        while stays.loaded.keys() != {"b"} or spot.loaded.keys() != {"b"}:
            await asyncio.sleep(0.05)
        assert stays.loaded.keys() == spot.loaded.keys() == {"b"}

    play(engine, scenario)


def test_adapters_that_no_endpoint_can_load_are_refused_and_the_engine_goes_on(room: Machines, tmp_path: Any) -> None:
    write_adapter(tmp_path / "a", random_adapter(CARD, seed=1), CARD)
    write_adapter(tmp_path / "wide", random_adapter(CARD, seed=1, rank=32), CARD)
    served = room.start()
    options = {"endpoints": [{"url": served.url, "trusted": True, "adapter_root": "/nowhere"}]}
    engine = RemoteEngine(
        RemoteEngineConfig.model_validate({**options, "checks": 0.0}),
        description(8),
        lambda name: tmp_path / name,
        vocabulary=VOCABULARY,
    )

    async def scenario() -> None:
        await engine.load([None])
        with pytest.raises(UsageError, match=r"/nowhere/a .*adapter_root"):
            await engine.load(["a"])
        with pytest.raises(UsageError, match="rank 32, expected at most 16"):
            await engine.load(["wide"])
        assert equal(await engine.complete(decisions(3)), truth(decisions(3)))

    play(engine, scenario)


def test_a_slow_call_is_asked_of_a_second_endpoint_as_well(room: Machines) -> None:
    async def tail(served: Served, request: web.Request, body: dict[str, Any]) -> None:
        if served.calls[request.path] % 20 == 0:
            await asyncio.sleep(60)

    first, second = room.start(), room.start()
    engine = remote(first, second, trust=2, hedge=0.99)

    async def scenario() -> None:
        await engine.describe()
        for _ in range(20):
            await asyncio.gather(*(engine.complete([one]) for one in decisions(6)))
        first.fault = second.fault = tail
        for one in decisions(60):
            began = time.monotonic()
            assert equal(await engine.complete([one]), truth([one]))
            assert time.monotonic() - began < 55
        accounts = [endpoint.account for endpoint in told(engine).values()]
        assert 0 < sum(account.hedges for account in accounts) <= 180 / 20

    play(engine, scenario)


def test_an_endpoint_that_asks_for_rest_gets_it_and_is_not_taken_for_broken(room: Machines) -> None:
    times: list[float] = []

    async def limited(served: Served, request: web.Request, body: dict[str, Any]) -> web.Response | None:
        times.append(time.monotonic())
        return error(429, "slow down", **{"Retry-After": "1"}) if len(times) < 4 else None

    served = room.start()
    engine = remote(served)

    async def scenario() -> None:
        await engine.describe()
        served.fault = limited
        assert equal(await engine.complete(decisions(3)), truth(decisions(3)))
        assert all(after - before > 0.9 for before, after in pairwise(times))
        assert told(engine)[served.name].state is State.STANDING

    play(engine, scenario)


def test_a_liar_is_expelled_and_an_honest_endpoint_without_trust_is_not(
    room: Machines, caplog: pytest.LogCaptureFixture
) -> None:
    trusted, honest, liar = room.start(), room.start(), room.start(fault=beyond_probes(lie))
    engine = remote(trusted, honest, liar, checks=1.0, tolerance=0.02)

    async def scenario() -> None:
        await engine.describe()
        for _ in range(5):
            answers = await asyncio.gather(*(engine.complete([one]) for one in decisions(12)))
            assert {one.source for [one] in answers} <= {"", honest.name, liar.name}
            gone = await engine.expelled([honest.name, liar.name])
        assert gone == [liar.name]
        assert told(engine)[liar.name].state is State.EXPELLED
        asked = liar.calls["/v1/completions"]
        answers = await asyncio.gather(*(engine.complete([one]) for one in decisions(12)))
        assert equal([one for [one] in answers], truth(decisions(12)))
        assert liar.calls["/v1/completions"] == asked
        assert told(engine)[honest.name].account.checks > 0

    play(engine, scenario)
    assert f"{liar.name}: expelled after" in caplog.text


def test_probabilities_of_texts_are_checked_too(room: Machines) -> None:
    trusted, honest, liar = room.start(), room.start(), room.start(fault=beyond_probes(lie))
    engine = remote(trusted, honest, liar, checks=1.0, tolerance=0.02)
    texts = [CompletionRequest((5, 6, 7), None, max_tokens=9, seed=seed, temperature=0.7) for seed in range(30)]

    async def scenario() -> None:
        await engine.describe()
        await engine.complete(texts)
        assert await engine.expelled([honest.name, liar.name]) == [liar.name]

    # The scripted rule draws each token from the prompt alone, which the check's longer prompts are not.
    async def consistent(served: Served, request: web.Request, body: dict[str, Any]) -> web.Response | None:
        if "logprob_token_ids" in body and len(body["prompt"][0]) > PROBE:
            ids = body["logprob_token_ids"]
            rows = []
            for index, prompt in enumerate(body["prompt"]):
                top = {f"token_id:{one}": scores_at(served, prompt, body["temperature"])[one] for one in ids}
                rows.append({"index": index, "logprobs": {"top_logprobs": [top]}})
            return web.json_response({"choices": rows})
        return None

    trusted.fault = consistent
    play(engine, scenario)


def scores_at(served: Served, prompt: list[int], temperature: float) -> dict[int, float]:
    """By token: what the scripted rule gives to the next one, where the first three stand before the text."""
    digest = blake2b(np.asarray(prompt[:3], "<i8").tobytes()).digest()
    place = digest + (len(prompt) - 3).to_bytes(8, "little")
    [row] = scripted._log_softmax(scripted._noise([place]) / temperature)
    return {ord("a") + index if index < scripted.OUT - 1 else END: float(one) for index, one in enumerate(row)}


def test_nobody_is_expelled_whom_a_second_trusted_endpoint_agrees_with(
    room: Machines, caplog: pytest.LogCaptureFixture
) -> None:
    wrong, right, accused = room.start(fault=beyond_probes(lie)), room.start(), room.start()
    engine = remote(wrong, right, accused, trust=2, checks=1.0, tolerance=0.02)

    async def scenario() -> None:
        await engine.describe()
        await asyncio.gather(*(engine.complete([one]) for one in decisions(60)))
        assert await engine.expelled([accused.name]) == []

    play(engine, scenario)
    assert "which are trusted, disagree" in caplog.text


def test_when_all_are_gone_the_engine_fails_and_when_one_is_back_it_goes_on(room: Machines) -> None:
    served = [room.start(), room.start()]
    engine = remote(*served, trust=2, patience=15.0, timeout=15.0)

    async def scenario() -> None:
        await engine.describe()
        for one in served:
            await asyncio.to_thread(room.stop, one)
        with pytest.raises(EngineFailure, match=r"no endpoint has answered for 15 s .*127\.0\.0\.1"):
            await engine.complete(decisions(3))
        await asyncio.to_thread(room.restart, served[1])
        while told(engine)[served[1].name].state is not State.STANDING:
            await asyncio.sleep(0.05)
        assert equal(await engine.complete(decisions(3)), truth(decisions(3)))

    play(engine, scenario)


def test_a_call_that_every_endpoint_refuses_ends(room: Machines) -> None:
    async def no(served: Served, request: web.Request, body: dict[str, Any]) -> web.Response:
        return error(400, "This model does not support it")

    served = room.start(fault=beyond_probes(no))
    engine = remote(served)

    async def scenario() -> None:
        await engine.describe()
        with pytest.raises(EngineFailure, match="status 400: This model does not support it"):
            await engine.complete(decisions(1))

    play(engine, scenario)


async def without_ids(served: Served, request: web.Request, body: dict[str, Any]) -> web.Response:
    answer = true_answer(served, body)
    for choice in answer["choices"]:
        choice["logprobs"]["top_logprobs"] = [{"token_id:1": -0.1}]
    return web.json_response(answer)


async def few_logprobs(served: Served, request: web.Request, body: dict[str, Any]) -> web.Response:
    return error(400, "Requested sample logprobs of 128, which is greater than max allowed: 20")


MISFITS = [
    ({"model": "other"}, {"model": "scripted"}, "it serves other, expected scripted"),
    ({"context": 100}, {}, "--max-model-len"),
    ({"raw": True}, {}, "--logprobs-mode processed_logprobs"),
    ({"fault": without_ids}, {}, "logprob_token_ids"),
    ({"fault": few_logprobs}, {}, "--max-logprobs 128"),
    ({"key": "sk-secret"}, {}, "does not accept a call without `key`"),
    ({"fault": lie}, {}, "answers a probe otherwise than"),
]


@pytest.mark.parametrize(("options", "config", "words"), MISFITS, ids=[words for *_, words in MISFITS])
def test_a_server_that_does_not_fit_is_named_with_what_to_change(
    room: Machines, options: Any, config: Any, words: str
) -> None:
    right, wrong = room.start(), room.start(**options)
    endpoints = [{"url": right.url, "trusted": True}, {"url": wrong.url, "trusted": True, **config}]
    document = {"endpoints": endpoints, "context": 1 << 19, "tolerance": 0.05}
    engine = RemoteEngine(
        RemoteEngineConfig.model_validate(document), description(8), lambda name: tmp, vocabulary=VOCABULARY
    )
    tmp: Any = None
    with pytest.raises(UsageError, match=words) as caught:
        play(engine, engine.describe)
    assert wrong.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_goes_to_its_endpoint_and_into_no_message(room: Machines) -> None:
    served = room.start(key="sk-abcdef")
    engine = remote(served)
    play(engine, engine.describe)
    served.key = "sk-other"
    wrong = remote(served)
    wrong._roster.endpoints[0].server._key = SecretStr("sk-abcdef")  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="does not accept the key in KEY") as caught:
        play(wrong, wrong.describe)
    assert "sk-abcdef" not in str(caught.value)


def test_what_endpoints_did_and_cost_is_told(room: Machines) -> None:
    served = [room.start(), room.start()]
    prices = {"price_prompt": 2.0, "price_completion": 10.0}
    document = {"endpoints": [{"url": one.url, "trusted": True, **prices} for one in served]}
    engine = RemoteEngine(
        RemoteEngineConfig.model_validate(document), description(8), lambda name: None, vocabulary=VOCABULARY
    )

    async def scenario() -> dict[str, dict[str, float]]:
        await engine.describe()
        for one in decisions(10):
            await engine.complete([one])
        stats = await engine.stats()
        return {
            family.name: {dict(labels)["endpoint"]: value for _, labels, value in family.samples}
            for family in stats.own
        }

    said = play(engine, scenario)
    assert sum(said["forager_endpoint_requests"].values()) == 10
    assert sum(said["forager_endpoint_prompt_tokens"].values()) == 50
    assert math.isclose(sum(said["forager_endpoint_dollars"].values()), (50 * 2 + 10 * 10) / 1e6)
    assert said["forager_endpoint_up"] == {one.name: 1.0 for one in served}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"endpoints": []}, "at least 1"),
        ({"endpoints": [{"url": "http://1.2.3.4:8000", "trusted": True}]}, "plain http to another machine"),
        ({"endpoints": [{"url": "https://me:secret@a"}], "checks": 0}, "without user"),
        ({"endpoints": [{"url": "https://a/v1"}], "checks": 0}, "/v1"),
        ({"endpoints": [{"url": "https://a"}]}, "expected one to check the others by"),
        ({"endpoints": [{"url": "https://a"}, {"url": "https://a"}], "checks": 0}, "twice"),
        ({"endpoints": [{"url": "https://a", "key": "sk-1234"}], "checks": 0}, "pattern"),
        ({"endpoints": [{"url": "https://a"}], "checks": 0, "patience": 5.0}, "at least engine.timeout"),
    ],
)
def test_bad_configurations_are_refused(document: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        RemoteEngineConfig.model_validate(document)
