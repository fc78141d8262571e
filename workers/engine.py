"""The seam between lives and models: requests of token ids in, completions of token ids out."""

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

from msgspec import Struct

from telemetry.failures import UsageError
from telemetry.foreign import Family
from telemetry.records import BaseModelCard

MAX_CHOICES = 128
"""Legal actions at most: a model is asked for the likelihoods of so many tokens at once."""


class EngineFailure(Exception):
    """The engine cannot answer any more, or answered with numbers that are not finite; it is to be replaced."""


class CompletionRequest(Struct, frozen=True, gc=False):
    """One decision to be made by one individual's weights.

    With `choices` the engine decodes a single token and returns the whole distribution over the choices; the
    caller draws from it with its own addressed seed. Without, the engine samples itself, from `seed`, until the model
    ends its turn or `max_tokens` are reached.
    """

    prompt_ids: Sequence[int]
    adapter: str | None
    """Content id of the individual's adapter; None is the base model."""
    choices: tuple[int, ...] = ()
    """Token ids of the legal actions, distinct; empty for free text."""
    max_tokens: int = 1
    temperature: float = 1.0
    seed: int = 0

    def prompt_bytes(self) -> bytes:
        """The token ids as int32."""
        return (self.prompt_ids if isinstance(self.prompt_ids, array) else array("i", self.prompt_ids)).tobytes()

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickled by itself, an array takes ten times as long as its bytes.
        return _request, (self.prompt_bytes(), self.adapter, self.choices, self.max_tokens, self.temperature, self.seed)

    def check(self, context: int) -> None:
        """Raises UsageError unless a model of this context can answer, choosing among at most MAX_CHOICES."""
        length = len(self.prompt_ids) + self.max_tokens
        if not self.prompt_ids or self.max_tokens < 1 or length > context:
            raise UsageError(
                f"engine.context: got a prompt of {len(self.prompt_ids)} tokens and {self.max_tokens} to answer,"
                f" expected 1 to {context} in all; raise engine.context or shorten rules, strategies and observations"
            )
        if len(self.choices) > MAX_CHOICES or len(set(self.choices)) != len(self.choices):
            raise UsageError(
                f"environment: got {len(self.choices)} legal actions, expected at most {MAX_CHOICES}, all different"
            )
        if not 0 < self.temperature < math.inf:
            raise UsageError(f"engine: got temperature {self.temperature}, expected a positive number")


def _request(prompt: bytes, *others: Any) -> CompletionRequest:
    return CompletionRequest(array("i", prompt), *others)


class Completion(Struct, frozen=True, array_like=True, gc=False):
    """What the model answered.

    With choices: `token_ids` is empty and `choice_logprobs` holds, in the order of the request's choices, natural
    log-probabilities at temperature 1 that sum to one over the choices. Without: the sampled tokens and the
    log-probability of each under the sampling distribution. The token that ended the turn is one of them, since to stop
    is a decision to learn from; `Codec.decode` leaves it out of the text. Texts cut off at `max_tokens` lack it.
    """

    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    choice_logprobs: tuple[float, ...] = ()
    source: str = ""
    """Who answered, where that is somebody without trust. An engine that says so also has `async expelled(sources)`:
    which of them are not believed any more, once every check of what they answered is done."""

    @property
    def tokens(self) -> int:
        """Tokens decoded: one for a choice."""
        return len(self.token_ids) or 1


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What agents and trainers must know of the model behind an engine."""

    card: BaseModelCard
    tokenizer: str
    """Path of a `tokenizer.json`; `bytes` stands for UTF-8 bytes as token ids (scripted engine)."""
    before_system: tuple[int, ...]
    """Chat template, already tokenised: what stands before the system text, ..."""
    before_user: tuple[int, ...]
    """... between the system text and the user text, ..."""
    before_answer: tuple[int, ...]
    """... and between the user text and the answer."""
    context: int
    """Longest prompt plus completion, in tokens."""
    capacity: int
    """How many different adapters one batch serves: 1 when weights are merged. More adapters than these take turns."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What an engine has done since it stands, and what it has to do now."""

    answered: int = 0
    """Requests."""
    prompt_tokens: int = 0
    """Of those."""
    cached_tokens: int = 0
    """Prompt tokens that were not computed again: the prefix cache held them, or the whole decision was remembered."""
    recalled: int = 0
    """Requests that the same weights had answered before, and that were answered from memory."""
    busy_seconds: float = 0.0
    """Time in which it computed."""
    switches: int = 0
    """Changes of the weights in place."""
    running: int = 0
    """Requests in the batch."""
    waiting: int = 0
    """Requests for other weights than those in place."""
    own: tuple[Family, ...] = ()
    """What the library behind it says of itself, about every ten seconds; empty in between, and if there is none."""

    def numbers(self) -> dict[str, float]:
        """Everything but `own`."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "own"}


class Engine(Protocol):
    """Completes prompts. One engine serves the adapters of its last `load`; the base model never changes."""

    async def describe(self) -> ModelDescription: ...

    async def load(self, adapters: Sequence[str | None]) -> None:
        """Declares the working set, of any size: requests may name these adapters; earlier ones are released.

        Returns when all of them are checked and requests are answered by them alone, with no stale prefix cache. Raises
        AdapterRefused or UsageError for one that cannot be served, and goes on as before.
        """
        ...

    async def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """Answers in the order of the requests. Raises EngineFailure."""
        ...

    async def stats(self) -> EngineStats: ...

    async def close(self) -> None: ...
