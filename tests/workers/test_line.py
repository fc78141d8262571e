"""Lines to engines: the same answers and errors as by call, whatever happens to the connection."""

import asyncio
import logging
from array import array
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.failures import UsageError
from telemetry.remote import NoAnswer, RemoteLost, ReplyLost
from workers import line
from workers.config import ScriptedEngineConfig
from workers.engine import Completion, CompletionRequest, EngineFailure
from workers.engines.scripted import ScriptedEngine
from workers.line import Address, Line, Switchboard

REQUESTS = [CompletionRequest(array("i", range(number + 1)), None, tuple(range(6))) for number in range(20)]
FREE = CompletionRequest([1, 2, 3], None, max_tokens=9, temperature=0.5, seed=2**62)


class Moody(ScriptedEngine):
    """Does something else first, if it is told to."""

    first: Callable[[], Awaitable[None]] | None = None

    async def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        if self.first is not None:
            await self.first()
        return await super().complete(requests)


class Handle:
    """An engine as an agent has it in its hands: calls take effect at once, and are counted."""

    timeout = 20.0

    def __init__(self) -> None:
        self.engine = Moody(ScriptedEngineConfig(), Path)
        self.board = Switchboard(self.engine, "127.0.0.1")
        self.called = 0
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def line(self) -> Address:
        if self.lost.done():
            await self.lost
        return await self.board.line()

    async def hold(self) -> None:
        await asyncio.shield(self.lost)

    async def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        self.called += 1
        if self.lost.done():
            await self.lost
        return await self.engine.complete(requests)


def play(scenario: Callable[[Handle, Line], Awaitable[None]]) -> None:
    async def run() -> None:
        handle = Handle()
        await handle.board.load([None])
        opened = Line(handle)  # type: ignore[arg-type]
        try:
            await scenario(handle, opened)
        finally:
            opened.close()
            await handle.board.close()
            if not handle.lost.done():
                handle.lost.cancel()
            await asyncio.sleep(0.05)

    asyncio.run(run())


async def forever() -> None:
    await asyncio.Event().wait()


def raising(error: Exception) -> Callable[[], Awaitable[None]]:
    async def fail() -> None:
        raise error

    return fail


def test_a_line_answers_as_the_engine_does_and_does_not_call_it() -> None:
    async def scenario(handle: Handle, line: Line) -> None:
        for requests in (REQUESTS, [FREE], []):
            assert await line.complete(requests) == await handle.engine.complete(requests)
        answers = await asyncio.gather(*(line.complete([one]) for one in REQUESTS))
        assert [answer for [answer] in answers] == await handle.engine.complete(REQUESTS)
        assert handle.called == 0

    play(scenario)


@given(
    st.lists(
        st.builds(
            CompletionRequest,
            st.lists(st.integers(0, 2**31 - 1), max_size=9),
            st.none() | st.text(max_size=9),
            st.lists(st.integers(0, 2**31 - 1), max_size=4).map(tuple),
            st.integers(1, 99),
            st.floats(0.1, 9.0),
            st.integers(0, 2**63 - 1),
        ),
        max_size=3,
    )
)
def test_requests_arrive_as_they_were_sent(requests: list[CompletionRequest]) -> None:
    arrived = line._asked(line._call(requests))
    assert [list(one.prompt_ids) for one in arrived] == [list(one.prompt_ids) for one in requests]
    for name in ("adapter", "choices", "max_tokens", "temperature", "seed"):
        assert [getattr(one, name) for one in arrived] == [getattr(one, name) for one in requests]


def test_completions_arrive_as_they_were_sent() -> None:
    answers = [
        Completion((1, 2**31 - 1), (-0.1, float("-inf")), source="far/one"),
        Completion(choice_logprobs=(-1e-300, -0.0)),
    ]
    assert line._COMPLETIONS.decode(line._ENCODER.encode(answers)) == answers


@pytest.mark.parametrize("error", [EngineFailure("no number is finite"), UsageError("engine.context: too long")])
def test_what_the_engine_raises_keeps_its_type(error: Exception) -> None:
    async def scenario(handle: Handle, line: Line) -> None:
        handle.engine.first = raising(error)
        with pytest.raises(type(error), match=str(error)):
            await line.complete(REQUESTS)
        handle.engine.first = None
        assert len(await line.complete(REQUESTS)) == len(REQUESTS)
        assert handle.called == isinstance(error, UsageError)

    play(scenario)


def test_what_was_under_way_when_a_line_broke_is_asked_by_call_and_the_line_is_opened_again() -> None:
    async def scenario(handle: Handle, line: Line) -> None:
        handle.engine.first = forever
        under_way = [asyncio.create_task(line.complete([one])) for one in REQUESTS]
        await asyncio.sleep(0.2)
        handle.engine.first = None
        assert line._writer is not None
        line._writer.transport.abort()
        answers = await asyncio.gather(*under_way)
        assert [answer for [answer] in answers] == await handle.engine.complete(REQUESTS)
        assert handle.called == len(REQUESTS)
        assert await line.complete(REQUESTS) == await handle.engine.complete(REQUESTS)
        assert handle.called == len(REQUESTS)

    play(scenario)


@pytest.mark.parametrize("error", [RemoteLost("engine-0: killed", preempted=True), ReplyLost("unavailable")])
def test_whoever_waits_is_told_when_the_engine_is_lost(error: RemoteLost) -> None:
    """Also by a connection that stays silent, as one to a machine without power does."""

    async def scenario(handle: Handle, line: Line) -> None:
        handle.engine.first = forever
        under_way = [asyncio.create_task(line.complete([one])) for one in REQUESTS]
        await asyncio.sleep(0.2)
        handle.lost.set_exception(error)
        for one in under_way:
            with pytest.raises(type(error)) as raised:
                await asyncio.wait_for(one, 5)
            assert raised.value.preempted == error.preempted
        with pytest.raises(type(error)):
            await line.complete(REQUESTS)

    play(scenario)


def test_an_answer_that_takes_too_long_is_none() -> None:
    async def scenario(handle: Handle, line: Line) -> None:
        handle.timeout = 0.2
        handle.engine.first = forever
        with pytest.raises(NoAnswer, match=r"complete: no answer in 0\.2 s"):
            await line.complete(REQUESTS)
        handle.engine.first = None
        assert len(await line.complete(REQUESTS)) == len(REQUESTS)

    play(scenario)


def test_an_engine_that_no_connection_reaches_is_called(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(handle: Handle, line: Line) -> None:
        async def elsewhere() -> Address:
            return Address("127.0.0.1", 1, b"s" * 32)

        handle.line = elsewhere  # type: ignore[method-assign]
        for number in (1, 2):
            assert len(await line.complete(REQUESTS)) == len(REQUESTS)
            assert handle.called == number

    with caplog.at_level(logging.WARNING):
        play(scenario)
    [warning] = caplog.messages
    assert "port=1" in warning
    assert "asked through Ray" in warning
    assert "sss" not in warning


@pytest.mark.parametrize("greeting", [b"", b"short", b"x" * 32, b"GET / HTTP/1.1\r\n" * 4])
def test_nobody_is_listened_to_without_the_secret(greeting: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.line.CONNECT_SECONDS", 0.3)

    async def scenario(handle: Handle, line: Line) -> None:
        handle.engine.first = raising(AssertionError("asked by a stranger"))
        address = await handle.line()
        reader, writer = await asyncio.open_connection(address.host, address.port)
        call = line_call()
        with suppress(ConnectionError):
            writer.write(greeting + (call if len(greeting) >= 32 else b""))
            assert await asyncio.wait_for(reader.read(), 5) == b""
        assert not handle.board._answering
        writer.close()

    play(scenario)


def test_a_call_that_is_too_large_ends_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.line.LARGEST", 400)

    async def scenario(handle: Handle, line: Line) -> None:
        assert len(await line.complete(REQUESTS[:2])) == 2
        assert handle.called == 0
        assert len(await line.complete(REQUESTS)) == len(REQUESTS)
        assert handle.called == 1

    play(scenario)


def line_call() -> bytes:
    call = line._call(REQUESTS)
    return line._CALL.pack(0, len(call)) + call
