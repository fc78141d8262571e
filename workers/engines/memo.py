"""Decisions made before: the same weights give the same distribution over the same choices after the same prompt.

Lives meet the same situations again, and the more of them an individual lives, the more often: about a fifth of all
decisions in the demo's world need no forward pass. Law: only whole distributions are remembered, from which callers
draw with seeds of their own; a text that the engine sampled is never given twice.
"""

from array import array
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from workers.engine import Completion, CompletionRequest

Ask = Callable[[Sequence[CompletionRequest]], Awaitable[list[Completion]]]


class _Key(NamedTuple):
    adapter: str | None
    """An id of its content, so that what is remembered never becomes stale."""
    prompt: bytes
    choices: tuple[int, ...]


class Memo:
    """Stands before an engine's `complete` and asks it only for what is new."""

    def __init__(self, ask: Ask, room: int) -> None:
        """room: prompt tokens of remembered decisions, at most; the oldest are forgotten first. 0 asks for all."""
        self._ask = ask
        self._room = room
        self._answers: dict[_Key, Completion] = {}
        self._held = 0
        self.recalled = 0
        """Requests answered from memory, ..."""
        self.tokens = 0
        """... and their prompt tokens."""

    async def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """Answers in the order of the requests; equal ones of a call are asked once. Raises what the engine raises."""
        keys = [_key(request) if request.choices and self._room else place for place, request in enumerate(requests)]
        found: dict[_Key | int, Completion] = {key: self._answers[key] for key in keys if key in self._answers}
        new = {key: request for key, request in zip(keys, requests, strict=True) if key not in found}
        if new:
            found |= zip(new, await self._ask(list(new.values())), strict=True)
        self.recalled += len(requests) - len(new)
        self.tokens += _tokens(requests) - _tokens(new.values())
        for key in new:
            if isinstance(key, _Key):
                self._remember(key, found[key])
        return [found[key] for key in keys]

    def keep(self, adapters: Collection[str | None]) -> None:
        """Forgets the decisions of all other adapters."""
        for key in [key for key in self._answers if key.adapter not in adapters]:
            self._forget(key)

    def _remember(self, key: _Key, answer: Completion) -> None:
        if key not in self._answers:
            self._held += _length(key)
        self._answers[key] = answer
        while self._held > self._room:
            self._forget(next(iter(self._answers)))

    def _forget(self, key: _Key) -> None:
        del self._answers[key]
        self._held -= _length(key)


def _key(request: CompletionRequest) -> _Key:
    return _Key(request.adapter, array("i", request.prompt_ids).tobytes(), request.choices)


def _tokens(requests: Iterable[CompletionRequest]) -> int:
    return sum(len(request.prompt_ids) for request in requests)


def _length(key: _Key) -> int:
    return len(key.prompt) // array("i").itemsize
