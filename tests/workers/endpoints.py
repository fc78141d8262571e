"""A small HTTP server that answers as `vllm serve` does, by the scripted engine's rule, with faults to switch on."""

import asyncio
import json
import math
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web

from workers.config import ScriptedEngineConfig
from workers.engine import CompletionRequest
from workers.engines.scripted import END, ScriptedEngine

Fault = Callable[["Served", web.Request, dict[str, Any]], Awaitable[web.StreamResponse | None]]
"""Asked before every answer to a completion: an answer of its own, or None for the true one."""


@dataclass
class Served:
    """One endpoint."""

    url: str = ""
    model: str = "scripted"
    context: int = 1 << 20
    key: str = ""
    raw: bool = False
    """Log-probabilities are those before temperature."""
    fault: Fault | None = None
    calls: Counter[str] = field(default_factory=Counter)
    """By path."""
    loaded: dict[str, str] = field(default_factory=dict)
    """Adapters by name, and the path that was given."""
    seen: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of completions."""
    runner: web.AppRunner | None = None

    @property
    def name(self) -> str:
        return self.url.partition("://")[2]


PROBE = 2
"""Tokens of a probe's prompt where there is no chat template; those of the tests are longer."""
SERVED = web.AppKey("served", Served)


class Machines:
    """Endpoints on a thread with a loop of its own, so that whoever asks them may block."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._all: list[Served] = []

    def start(self, port: int = 0, **options: Any) -> Served:
        """A new endpoint on loopback, at the port if it is given."""
        served = Served(**options)
        self._do(self._serve(served, port))
        self._all.append(served)
        return served

    def stop(self, served: Served) -> None:
        """Takes its machine away: connections are cut, new ones refused."""
        if served.runner is not None:
            runner, served.runner = served.runner, None
            self._do(runner.cleanup())

    def restart(self, served: Served) -> None:
        """Another machine at the same place, without adapters."""
        served.loaded.clear()
        self._do(self._serve(served, int(served.url.rpartition(":")[2])))

    def close(self) -> None:
        for served in self._all:
            self.stop(served)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _serve(self, served: Served, port: int) -> None:
        app = web.Application(client_max_size=1 << 26)
        app[SERVED] = served
        app.router.add_get("/v1/models", _models)
        app.router.add_post("/v1/completions", _completions)
        app.router.add_post("/v1/load_lora_adapter", _load)
        app.router.add_post("/v1/unload_lora_adapter", _unload)
        served.runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await served.runner.setup()
        site = web.TCPSite(served.runner, "127.0.0.1", port)
        await site.start()
        port = served.runner.addresses[0][1]
        served.url = f"http://127.0.0.1:{port}"


@contextmanager
def machines() -> Iterator[Machines]:
    """Endpoints that are gone afterwards."""
    all_of_them = Machines()
    try:
        yield all_of_them
    finally:
        all_of_them.close()


def error(status: int, message: str, **headers: str) -> web.Response:
    """An error in OpenAI's form."""
    return web.json_response({"error": {"message": message, "code": status}}, status=status, headers=headers)


def true_answer(served: Served, body: dict[str, Any]) -> dict[str, Any]:
    """What an honest endpoint says."""
    engine = ScriptedEngine(ScriptedEngineConfig(), lambda name: Path(served.loaded[name]))
    adapter = None if body["model"] == served.model else body["model"]
    at_once(engine.load([adapter]))
    choices = [
        (_weigh if body.get("logprob_token_ids") else _write)(served, engine, prompt, adapter, body)
        for prompt in body["prompt"]
    ]
    return {"choices": [{"index": index, **one} for index, one in enumerate(choices)]}


def at_once(work: Any) -> Any:
    """Result of a coroutine that never waits for anybody."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")


def _weigh(
    served: Served, engine: ScriptedEngine, prompt: list[int], adapter: str | None, body: dict[str, Any]
) -> dict[str, Any]:
    ids = body["logprob_token_ids"]
    assert body["logprobs"] == len(ids)
    assert len(ids) <= 128
    [answer] = at_once(engine.complete([CompletionRequest(prompt, adapter, tuple(ids))]))
    scores = np.array(answer.choice_logprobs)
    if body["temperature"] and not served.raw:
        scores = scores / body["temperature"]
        scores -= np.log(np.exp(scores).sum())
    return {"logprobs": {"top_logprobs": [dict(zip([f"token_id:{one}" for one in ids], scores.tolist(), strict=True))]}}


def _write(
    served: Served, engine: ScriptedEngine, prompt: list[int], adapter: str | None, body: dict[str, Any]
) -> dict[str, Any]:
    assert body["stop_token_ids"] == [END]
    request = CompletionRequest(
        prompt, adapter, max_tokens=body["max_tokens"], temperature=body["temperature"], seed=body["seed"]
    )
    [answer] = at_once(engine.complete([request]))
    return {"token_ids": list(answer.token_ids), "logprobs": {"token_logprobs": list(answer.logprobs)}}


async def lie(served: Served, request: web.Request, body: dict[str, Any]) -> web.Response:
    """Uniform, whatever is asked."""
    answer = true_answer(served, body)
    for choice in answer["choices"]:
        for top in choice["logprobs"].get("top_logprobs", ()):
            top |= dict.fromkeys(top, -math.log(len(top)))
        scores = choice["logprobs"].get("token_logprobs")
        if scores:
            choice["logprobs"]["token_logprobs"] = [-0.01] * len(scores)
    return web.json_response(answer)


def beyond_probes(fault: Fault) -> Fault:
    """The fault, in answers to everything else."""

    async def asked(served: Served, request: web.Request, body: dict[str, Any]) -> web.StreamResponse | None:
        return None if len(body["prompt"][0]) <= PROBE else await fault(served, request, body)

    return asked


async def _received(request: web.Request) -> tuple[Served, dict[str, Any] | web.Response]:
    served: Served = request.app[SERVED]
    served.calls[request.path] += 1
    if served.key and request.headers.get("Authorization") != f"Bearer {served.key}":
        return served, error(401, f"wrong key {request.headers.get('Authorization')}, not {served.key}")
    return served, json.loads(await request.read() or b"{}")


async def _models(request: web.Request) -> web.StreamResponse:
    served, body = await _received(request)
    if isinstance(body, web.Response):
        return body
    cards: list[dict[str, Any]] = [{"id": served.model, "max_model_len": served.context, "root": "/model"}]
    cards += [{"id": name, "parent": served.model, "root": path} for name, path in served.loaded.items()]
    return web.json_response({"object": "list", "data": cards})


async def _completions(request: web.Request) -> web.StreamResponse:
    served, body = await _received(request)
    if isinstance(body, web.Response):
        return body
    served.seen.append(body)
    if served.fault is not None and (answer := await served.fault(served, request, body)) is not None:
        return answer
    if body["model"] not in (served.model, *served.loaded):
        return error(404, f"The model `{body['model']}` does not exist.")
    return web.json_response(true_answer(served, body))


async def _load(request: web.Request) -> web.StreamResponse:
    served, body = await _received(request)
    if isinstance(body, web.Response):
        return body
    if body["lora_name"] in served.loaded:
        return error(400, f"The lora adapter '{body['lora_name']}' has already been loaded.")
    if not Path(body["lora_path"]).is_dir():
        return error(404, f"Loading lora {body['lora_name']} failed: No adapter found for {body['lora_path']}")
    served.loaded[body["lora_name"]] = body["lora_path"]
    return web.Response(text="Success")


async def _unload(request: web.Request) -> web.StreamResponse:
    served, body = await _received(request)
    if isinstance(body, web.Response):
        return body
    if served.loaded.pop(body["lora_name"], None) is None:
        return error(404, "The lora adapter cannot be found.")
    return web.Response(text="Success")
