"""A world served to others by OpenEnv's protocol.

    python -m workers.environments.openenv_server forage --port 8000 --settings '{"bushes": 24}'

Every WebSocket at `/ws` is a session with a world of its own; `/reset`, `/step` and `/state` over HTTP share one more.
An action is `{"action": WORD OR TEXT}`; an observation has `text`, `legal`, `energy`, `max_tokens`, and at last `end`
and `cause`; the reward is the change of energy. The hidden state is served only when asked for by `--hidden`.
"""

import argparse
import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from telemetry.failures import ForagerError, UsageError
from workers.environment import Observation, is_shared
from workers.guard import Guard
from workers.registry import find, maker

MAX_SESSIONS = 256
MAX_MESSAGE = 1 << 20
"""Bytes of a client's message."""
JsonObject = dict[str, Any]


class Act(BaseModel, extra="forbid"):
    """An OpenEnv action: what the agent answers."""

    action: str = Field(max_length=100_000)
    metadata: JsonObject = Field(default_factory=dict)


class Seen(BaseModel):
    """An OpenEnv observation: what the agent is shown."""

    text: str
    legal: list[str]
    energy: float
    max_tokens: int
    end: str | None = None
    cause: str = ""
    metadata: JsonObject = Field(default_factory=dict)


class Where(BaseModel):
    """An OpenEnv state."""

    episode_id: str | None
    step_count: int
    world: JsonObject | None = None


class Begin(BaseModel, extra="allow"):
    """What a reset may say."""

    seed: int | None = Field(default=None, ge=0, lt=2**63)
    episode_id: str | None = Field(default=None, max_length=255)


class Session:
    """One world, and the life in it. Raises ForagerError for what the client or the world does wrong."""

    def __init__(self, build: Callable[[], Any], hidden: bool) -> None:
        self._world, self._hidden = Guard(build()), hidden
        self._seen: Observation | None = None
        self._step, self._episode = 0, ""
        self._over = False

    def reset(self, data: Mapping[str, Any]) -> JsonObject:
        """Begins the life of the seed that is given, of a random one else."""
        begin = Begin.model_validate(data)
        self._episode = begin.episode_id or uuid4().hex
        self._seen = self._world.reset(uuid4().int >> 66 if begin.seed is None else begin.seed)
        self._step, self._over = 0, False
        return self._answer(self._seen, None)

    def step(self, data: Mapping[str, Any]) -> JsonObject:
        """Lives one step."""
        seen, action = self._seen, Act.model_validate(data).action
        if seen is None or self._over:
            raise UsageError("no life goes on; reset begins the next one")
        if seen.legal and action not in seen.legal:
            raise UsageError(f"action: got {action[:50]!r}, expected one of {', '.join(seen.legal)}")
        self._world.pay(self._step, 0, 0)
        outcome = self._world.step(self._step, action)
        self._step += 1
        self._seen = outcome.observation
        end = outcome.end or ("survived" if self._step == self._world.horizon else None)
        self._over = end is not None
        return self._answer(outcome.observation, outcome.observation.energy - seen.energy, end, outcome.cause)

    def state(self) -> JsonObject:
        """How far the life is; with `hidden`, the hidden state too."""
        shown = self._hidden and self._step > 0
        world = json.loads(self._world.state(self._step - 1)) if shown else None
        return Where(episode_id=self._episode or None, step_count=self._step, world=world).model_dump()

    def _answer(self, seen: Observation, reward: float | None, end: str | None = None, cause: str = "") -> JsonObject:
        fields = {"text": seen.text, "legal": list(seen.legal), "energy": seen.energy, "max_tokens": seen.max_tokens}
        observation = Seen(**fields, end=end and str(end), cause=cause).model_dump()
        return {"observation": observation, "reward": reward, "done": end is not None}


def application(name: str, settings: Mapping[str, Any], *, hidden: bool = False) -> Starlette:
    """The server of a world. Raises UsageError for a world or settings that there are not, or a shared world."""
    build, world = maker(name, settings), find(name)
    if is_shared(world):
        raise UsageError(f"environment.name: {name!r} is a world for many agents; OpenEnv's are for one")
    shared, lock, sessions = Session(build, hidden), asyncio.Lock(), set[int]()

    async def over_http(act: Callable[[JsonObject], JsonObject], request: Request) -> JSONResponse:
        try:
            body = await request.body()
            data = json.loads(body) if body else {}
            async with lock:
                return JSONResponse(await run_in_threadpool(act, data))
        except (ValueError, TypeError, KeyError, ForagerError) as error:
            return JSONResponse({"detail": str(error)}, 500 if _is_ours(error) else 422)

    async def reset(request: Request) -> JSONResponse:
        return await over_http(shared.reset, request)

    async def step(request: Request) -> JSONResponse:
        return await over_http(lambda data: shared.step(data["action"]), request)

    async def state(request: Request) -> JSONResponse:
        return await over_http(lambda data: shared.state(), request)

    async def schema(request: Request) -> JSONResponse:
        models: dict[str, type[BaseModel]] = {"action": Act, "observation": Seen, "state": Where}
        return JSONResponse({part: model.model_json_schema() for part, model in models.items()})

    async def metadata(request: Request) -> JSONResponse:
        return JSONResponse({"name": str(world.name), "description": Guard(build()).rules, "version": None})

    async def health(request: Request) -> JSONResponse:
        return JSONResponse({"status": "healthy"})

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        async with _counted(sessions, websocket) as allowed:
            if allowed:
                await converse(websocket)

    async def converse(websocket: WebSocket) -> None:
        session = await run_in_threadpool(Session, build, hidden)
        try:
            while True:
                kind, answer = await run_in_threadpool(_reply, session, await websocket.receive_text())
                if kind == "close":
                    break
                await websocket.send_text(json.dumps({"type": kind, "data": answer}))
            await websocket.close()
        except WebSocketDisconnect:
            pass

    routes = [
        Route("/reset", reset, methods=["POST"]),
        Route("/step", step, methods=["POST"]),
        *(Route(f"/{one.__name__}", one) for one in (state, schema, metadata, health)),
        WebSocketRoute("/ws", socket),
    ]
    return Starlette(routes=routes)


@asynccontextmanager
async def _counted(sessions: set[int], websocket: WebSocket) -> AsyncIterator[bool]:
    """Counts a session while it lasts; refuses it when there are too many."""
    allowed = len(sessions) < MAX_SESSIONS
    if not allowed:
        error = {"message": f"there are {MAX_SESSIONS} sessions already", "code": "CAPACITY_REACHED"}
        await websocket.send_text(json.dumps({"type": "error", "data": error}))
        await websocket.close()
    sessions.add(id(websocket))
    try:
        yield allowed
    finally:
        sessions.discard(id(websocket))


def _reply(session: Session, text: str) -> tuple[str, JsonObject]:
    """Type and data of the answer to one message."""
    try:
        message = json.loads(text)
        kind, data = message.get("type"), message.get("data", {})
    except (ValueError, AttributeError) as error:
        return "error", {"message": f"Invalid JSON: {error}", "code": "INVALID_JSON"}
    try:
        if kind == "reset":
            return "observation", session.reset(data)
        if kind == "step":
            return "observation", session.step(data)
        if kind == "state":
            return "state", session.state()
        if kind == "close":
            return "close", {}
        return "error", {"message": f"Unknown message type: {kind}", "code": "UNKNOWN_TYPE"}
    except ValidationError as error:
        return "error", {"message": "Invalid message", "code": "VALIDATION_ERROR", "errors": json.loads(error.json())}
    except ForagerError as error:
        code = "EXECUTION_ERROR" if _is_ours(error) else "VALIDATION_ERROR"
        return "error", {"message": str(error), "code": code}


def _is_ours(error: Exception) -> bool:
    """True for a world that is broken; everything else is the client's fault."""
    return isinstance(error, ForagerError) and not isinstance(error, UsageError)


def main() -> None:
    """Serves a world until it is interrupted; on loopback unless a host is given."""
    import uvicorn

    parser = argparse.ArgumentParser(prog="python -m workers.environments.openenv_server")
    parser.add_argument("world", help="a registered world such as forage, or module:Class")
    parser.add_argument("--settings", type=json.loads, default={}, help="its settings, as JSON")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; anything else is open to others")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--hidden", action="store_true", help="serve the hidden state as well")
    asked = parser.parse_args()
    try:
        served = application(asked.world, asked.settings, hidden=asked.hidden)
    except ForagerError as error:
        raise SystemExit(f"error: {error}") from None
    uvicorn.run(served, host=asked.host, port=asked.port, log_level="warning", ws_max_size=MAX_MESSAGE)


if __name__ == "__main__":
    main()
