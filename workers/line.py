"""From an agent straight to an engine: a connection of their own for what is asked hundreds of times a second.

A call through Ray takes two milliseconds and as much of a processor on both sides, whatever it asks; over a connection
it takes a tenth of that. Ray still says where the engine is, and when it is gone. Law: a connection may break at any
time; what was under way is then asked again through Ray, whose answer or error counts, for completions are the same
each time. So a line changes how long an answer takes and nothing else.

What travels is MessagePack of a closed schema. Nobody is listened to who does not begin with the engine's secret.
"""

import asyncio
import logging
import secrets
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from hmac import compare_digest
from itertools import count
from struct import Struct as Layout
from typing import Any

from msgspec import Struct, msgpack

from telemetry.actors import Actor
from telemetry.remote import NoAnswer, RemoteLost
from workers.engine import Completion, CompletionRequest, Engine, EngineFailure

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
"""For a connection to be made, and for a caller to show the secret."""
LARGEST = 1 << 30
"""Bytes of one call."""
BUFFER = 1 << 20
"""Bytes that a connection takes before it waits for its reader."""
SECRET = 32
"""Bytes."""
_CALL = Layout("<QQ")
"""Number of the call, and bytes that follow."""
_REPLY = Layout("<QBQ")
"""Number of the call, what came of it, and bytes that follow."""
_ANSWERED, _FAILED, _ASK_AGAIN = range(3)


class _Asked(Struct, frozen=True, array_like=True, gc=False):
    """A CompletionRequest as it travels."""

    prompt: bytes
    """Token ids as int32."""
    adapter: str | None
    choices: tuple[int, ...]
    max_tokens: int
    temperature: float
    seed: int


_ENCODER = msgpack.Encoder()
_ASKED = msgpack.Decoder(list[_Asked])
_COMPLETIONS = msgpack.Decoder(list[Completion])


@dataclass(frozen=True, slots=True)
class Address:
    """Where an engine listens."""

    host: str
    port: int
    secret: bytes = field(repr=False)


class Switchboard:
    """An engine that also listens for lines. All that an engine has, it has."""

    def __init__(self, engine: Engine, host: str) -> None:
        """host: the address of this machine to listen on."""
        self._engine = engine
        self._host = host
        self._secret = secrets.token_bytes(SECRET)
        self._server: asyncio.Server | None = None
        self._starting = asyncio.Lock()
        self._answering: set[asyncio.Task[None]] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def line(self) -> Address:
        """Where it listens, from the first call on."""
        async with self._starting:
            if self._server is None:
                self._server = await asyncio.start_server(self._serve, self._host, 0, limit=BUFFER)
        return Address(self._host, self._server.sockets[0].getsockname()[1], self._secret)

    async def hold(self) -> None:
        """Never returns: whoever waits for it learns from Ray that the engine is gone."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Listens no more, and closes the engine."""
        if self._server is not None:
            self._server.close()
        await self._engine.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                shown = await reader.readexactly(SECRET)
            while compare_digest(shown, self._secret):
                number, size = _CALL.unpack(await reader.readexactly(_CALL.size))
                if size > LARGEST:
                    break
                answering = asyncio.create_task(self._answer(number, await reader.readexactly(size), writer))
                self._answering.add(answering)
                answering.add_done_callback(self._answering.discard)
        except (asyncio.IncompleteReadError, TimeoutError, OSError):
            pass  # hung up
        finally:
            writer.close()

    async def _answer(self, number: int, call: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            kind, reply = _ANSWERED, _ENCODER.encode(await self._engine.complete(_asked(call)))
        except EngineFailure as error:
            kind, reply = _FAILED, str(error).encode()
        except Exception:  # noqa: BLE001 - raised as what it is where the same is asked through Ray
            kind, reply = _ASK_AGAIN, b""
        if not writer.is_closing():
            writer.write(_REPLY.pack(number, kind, len(reply)) + reply)


class Line:
    """An agent's end: completes as the engine does, and is opened by the first call and whenever it has broken."""

    def __init__(self, engine: Actor) -> None:
        """engine: hosts a Switchboard."""
        self._engine = engine
        self._opening = asyncio.Lock()
        self._writer: asyncio.StreamWriter | None = None
        self._attending: tuple[asyncio.Task[None], ...] = ()
        self._waiting: dict[int, asyncio.Future[tuple[int, bytes]]] = {}
        self._numbers = count()
        self._out_of_reach = False

    async def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """As Engine.complete. Raises RemoteLost, like every call of an actor."""
        writer = await self._open()
        if writer is None:
            return list(await self._engine.complete(requests))
        call, number = _call(requests), next(self._numbers)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            writer.write(_CALL.pack(number, len(call)) + call)
            kind, reply = await asyncio.wait_for(future, self._engine.timeout)
        except TimeoutError as error:
            raise NoAnswer(f"complete: no answer in {self._engine.timeout:g} s") from error
        except ConnectionError:
            return list(await self._engine.complete(requests))
        finally:
            self._waiting.pop(number, None)
        if kind == _FAILED:
            raise EngineFailure(reply.decode())
        return _COMPLETIONS.decode(reply) if kind == _ANSWERED else list(await self._engine.complete(requests))

    def close(self) -> None:
        """Hangs up; the next call opens it again."""
        if self._writer is not None:
            self._hang_up(self._writer, ConnectionError("hung up"))

    async def _open(self) -> asyncio.StreamWriter | None:
        """The connection; None where none can be made."""
        async with self._opening:
            if self._writer is None and not self._out_of_reach:
                address: Address = await self._engine.line()
                try:
                    async with asyncio.timeout(CONNECT_SECONDS):
                        reader, writer = await asyncio.open_connection(address.host, address.port, limit=BUFFER)
                except (OSError, TimeoutError) as error:
                    log.warning("%s: %s; it is asked through Ray, which takes longer", address, error or "no answer")
                    self._out_of_reach = True
                    return None
                writer.write(address.secret)
                self._writer = writer
                self._attending = (
                    asyncio.create_task(self._listen(reader, writer)),
                    asyncio.create_task(self._hold(writer)),
                )
            return self._writer

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                number, kind, size = _REPLY.unpack(await reader.readexactly(_REPLY.size))
                reply = await reader.readexactly(size)
                future = self._waiting.pop(number, None)
                if future is not None and not future.done():
                    future.set_result((kind, reply))
        except (asyncio.IncompleteReadError, OSError) as error:
            self._hang_up(writer, ConnectionError(f"the line broke: {error}"))

    async def _hold(self, writer: asyncio.StreamWriter) -> None:
        """A connection to a machine that is gone stays silent; Ray is told."""
        while True:
            try:
                await self._engine.hold()
            except NoAnswer:
                continue  # it is held for longer than a call may take
            except RemoteLost as error:
                return self._hang_up(writer, error)

    def _hang_up(self, writer: asyncio.StreamWriter, error: Exception) -> None:
        writer.close()
        if self._writer is not writer:
            return
        self._writer = None
        for task in self._attending:
            if task is not asyncio.current_task():
                task.cancel()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)


def _call(requests: Sequence[CompletionRequest]) -> bytes:
    return _ENCODER.encode(
        [
            _Asked(one.prompt_bytes(), one.adapter, one.choices, one.max_tokens, one.temperature, one.seed)
            for one in requests
        ]
    )


def _asked(call: bytes) -> list[CompletionRequest]:
    return [
        CompletionRequest(array("i", one.prompt), one.adapter, one.choices, one.max_tokens, one.temperature, one.seed)
        for one in _ASKED.decode(call)
    ]
