"""What goes over the wire to an endpoint and back: bounded, typed, and nothing believed.

    CallFailed         no usable answer: nobody there, too slow, broken off, or not what was asked for
    |-- Busy           it asks to be left alone for a while
    |-- Refused        it says no, with a status from 400 up
    `-- Unweighed      it answers, but not what the given tokens weigh

Law: an endpoint that means ill can waste one call's time and at most MAX_ANSWER bytes of memory, nothing else.
Redirects are not followed, certificates are verified, proxies and cookies are not used, and no text that it sends is
shown with the key in it.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import aiohttp
import msgspec
from pydantic import SecretStr

from telemetry.failures import one_line

MAX_ANSWER = 1 << 24
"""Bytes of one answer."""
CONNECT_SECONDS = 10.0
MAX_REST = 300.0
"""Seconds for which an endpoint may ask to be left alone."""
TOKEN = "token_id:"
"""How vLLM writes a token that is not to be decoded."""

Row = tuple[tuple[int, ...], tuple[float, ...]]
"""One answer: the tokens written, none if given ones were weighed, and the log-probability of each token."""


class CallFailed(Exception):
    """The endpoint gave no answer that can be used."""


class Busy(CallFailed):
    """The endpoint is there and asks to be left alone for some seconds."""

    def __init__(self, reason: str, seconds: float) -> None:
        super().__init__(reason)
        self.seconds = seconds


class Refused(CallFailed):
    """The endpoint says no, with a status from 400 up; below 500 the call is at fault, by its account."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.status = status


class Unweighed(CallFailed):
    """The endpoint answered without the log-probabilities that it was asked for."""


class Card(msgspec.Struct):
    """A model that is served, or an adapter of one."""

    id: str
    max_model_len: int | None = None
    parent: str | None = None
    """The model that it adapts."""


class Cards(msgspec.Struct):
    """Answer to `GET /v1/models`."""

    data: list[Card]


class Logprobs(msgspec.Struct):
    """By position of the text."""

    token_logprobs: list[float | None] = []
    top_logprobs: list[dict[str, float] | None] = []


class Choice(msgspec.Struct):
    """The text behind one prompt."""

    index: int
    logprobs: Logprobs | None = None
    token_ids: list[int] | None = None


class Answer(msgspec.Struct):
    """Answer to `POST /v1/completions`."""

    choices: list[Choice]


T = TypeVar("T")


def session() -> aiohttp.ClientSession:
    """Connections to all endpoints; belongs to the event loop that runs."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept-Encoding": "identity"},
        auto_decompress=False,
        trust_env=False,
    )


async def call(
    client: aiohttp.ClientSession,
    url: str,
    key: SecretStr | None,
    timeout: float,
    body: Mapping[str, Any] | None = None,
) -> bytes:
    """What is answered to a POST of the body, or to a GET without one. Raises CallFailed.

    timeout: seconds, for all of it.
    """
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key.get_secret_value()}"
    limits = aiohttp.ClientTimeout(total=timeout, sock_connect=min(CONNECT_SECONDS, timeout))
    data = None if body is None else msgspec.json.encode(body)
    method = "GET" if body is None else "POST"
    try:
        async with client.request(
            method, url, data=data, headers=headers, timeout=limits, allow_redirects=False
        ) as response:
            answer = await _read(response)
    except TimeoutError as error:
        raise CallFailed(f"no answer in {timeout:g} s") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise CallFailed(_clean(f"{type(error).__name__}: {error}", key)) from error
    if response.status == 200:
        return answer
    reason = _clean(f"status {response.status}: {_said(answer)}", key)
    if response.status in (429, 503) and (seconds := _rest(response.headers.get("Retry-After"))) is not None:
        raise Busy(reason, seconds)
    if response.status == 429:
        raise Busy(reason, 1.0)
    if response.status >= 400:
        raise Refused(reason, response.status)
    raise CallFailed(reason)


def decode(data: bytes, kind: type[T]) -> T:
    """The answer as this type. Raises CallFailed; JSON knows no NaN, so an answer with one is none."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise CallFailed(f"what it answers is no {kind.__name__}: {one_line(str(error), 200)}") from error


def weighed(answer: Answer, prompts: int, ids: Sequence[int]) -> list[Row]:
    """Log-probabilities of the same tokens after each of so many prompts. Raises CallFailed for anything less."""
    names = [f"{TOKEN}{token}" for token in ids]
    rows: list[Row] = []
    for choice in _in_order(answer, prompts):
        found = choice.logprobs.top_logprobs[0] if choice.logprobs and choice.logprobs.top_logprobs else None
        if found is None or not all(name in found for name in names):
            raise Unweighed("its answer lacks the log-probabilities of the tokens that were asked for")
        rows.append(((), _sound([found[name] for name in names])))
    return rows


def written(answer: Answer, most: int) -> list[Row]:
    """The one text of an answer, of 1 to `most` tokens. Raises CallFailed."""
    [choice] = _in_order(answer, 1)
    tokens = choice.token_ids or []
    scores = choice.logprobs.token_logprobs if choice.logprobs else []
    if not 1 <= len(tokens) <= most or len(scores) != len(tokens) or min(tokens) < 0:
        raise CallFailed(f"its text has {len(tokens)} tokens and {len(scores)} log-probabilities")
    return [(tuple(tokens), _sound(scores))]


def _in_order(answer: Answer, prompts: int) -> list[Choice]:
    choices = sorted(answer.choices, key=lambda choice: choice.index)
    if [choice.index for choice in choices] != list(range(prompts)):
        raise CallFailed(f"it gave {len(choices)} answers to {prompts} prompts")
    return choices


def _sound(scores: Sequence[float | None]) -> tuple[float, ...]:
    """Log-probabilities that are some. Rounding may put one a little above zero."""
    kept = tuple(score for score in scores if score is not None and math.isfinite(score) and score < 1e-3)
    if len(kept) != len(scores):
        raise CallFailed("its log-probabilities are no finite numbers below zero")
    return kept


async def _read(response: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for part in response.content.iter_chunked(1 << 16):
        size += len(part)
        if size > MAX_ANSWER:
            raise ValueError(f"an answer of more than {MAX_ANSWER} bytes")
        parts.append(part)
    return b"".join(parts)


def _rest(header: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds them or a date (RFC 9110, 10.2.3)."""
    if header is None:
        return None
    seconds = math.nan
    with suppress(ValueError, TypeError, OverflowError):
        seconds = float(header) if header[:1].isdigit() else _until(parsedate_to_datetime(header))
    return min(MAX_REST, max(0.0, seconds)) if math.isfinite(seconds) else None


def _until(moment: datetime) -> float:
    return (moment - datetime.now(UTC)).total_seconds()


def _said(answer: bytes) -> str:
    """The message of an error in OpenAI's form, or the beginning of whatever it is."""
    with suppress(msgspec.MsgspecError, ValueError, RecursionError):
        found = msgspec.json.decode(answer)
        inner = found.get("error", found) if isinstance(found, dict) else found
        return str(inner.get("message", inner) if isinstance(inner, dict) else inner)
    return answer[:4096].decode(errors="replace")


def _clean(text: str, key: SecretStr | None) -> str:
    line = text if key is None else text.replace(key.get_secret_value(), "[key]")
    return one_line(line, 300)
