"""What is asked of a server: answers, a probe of what it is, and to hold adapters."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import exp, log
from typing import Any

import aiohttp
from pydantic import SecretStr

from workers.config_remote import EndpointConfig
from workers.engine import MAX_CHOICES, ModelDescription
from workers.engines.remote_http import (
    Answer,
    CallFailed,
    Card,
    Cards,
    Refused,
    Row,
    Unweighed,
    call,
    decode,
    weighed,
    written,
)

PROBE_TEMPERATURE = 2.0


class Misfit(CallFailed):
    """The server is well, but not what the run file says it is."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What goes to a server in one call: prompts for the same weights, whose answers are of the same form."""

    adapter: str | None
    prompts: tuple[Sequence[int], ...]
    ids: tuple[int, ...] = ()
    """Tokens to be weighed after each prompt; without, one text is written behind the one prompt."""
    temperature: float = 0.0
    """Of the distribution that is told or drawn from. 0 weighs as 1 does, and is cheaper."""
    max_tokens: int = 1
    seed: int = 0

    @property
    def size(self) -> int:
        """Decisions."""
        return len(self.prompts)


class Server:
    """The API of one endpoint. All methods raise CallFailed."""

    def __init__(
        self, config: EndpointConfig, key: SecretStr | None, timeout: float, end_of_turn: tuple[int, ...]
    ) -> None:
        """timeout: seconds per call."""
        self._config = config
        self._key = key
        self._timeout = timeout
        self._end_of_turn = end_of_turn
        self._model = config.model
        self._held: set[str] = set()
        """Adapters that it has, ..."""
        self._loaded: set[str] = set()
        """... and those of them that were loaded from here."""

    async def answer(self, client: aiohttp.ClientSession, job: Job) -> list[Row]:
        """One row per prompt. Raises CallFailed."""
        body: dict[str, Any] = {
            "model": job.adapter or self._model,
            "prompt": [list(prompt) for prompt in job.prompts],
            "max_tokens": job.max_tokens,
            "temperature": job.temperature,
            # A model's own configuration would change these.
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "add_special_tokens": False,
            "return_tokens_as_token_ids": True,
        }
        if job.ids:
            body |= {"logprobs": len(job.ids), "logprob_token_ids": list(job.ids)}
        else:
            stops = list(self._end_of_turn)
            body |= {"seed": job.seed, "logprobs": 0, "return_token_ids": True, "stop_token_ids": stops}
        data = decode(await self._call(client, "/v1/completions", body), Answer)
        return weighed(data, job.size, job.ids) if job.ids else written(data, job.max_tokens)

    async def probe(self, client: aiohttp.ClientSession, description: ModelDescription, vocabulary: int) -> list[float]:
        """Probabilities of tokens from all over the vocabulary, after a fixed prompt.

        Raises Misfit, which says what to change, for a server that could not play its part, CallFailed for none.
        """
        cards = await self._cards(client)
        self._model = self._served(cards, description.context)
        self._held = {card.id for card in cards if card.parent is not None}
        self._loaded &= self._held
        prompt = (*description.before_system, *description.before_user, *description.before_answer)
        count = min(MAX_CHOICES, vocabulary)
        ids = tuple(dict.fromkeys(index * (vocabulary - 1) // max(1, count - 1) for index in range(count)))
        try:
            [(_, plain)] = await self.answer(client, Job(None, (prompt,), ids))
            [(_, flat)] = await self.answer(client, Job(None, (prompt,), ids, temperature=PROBE_TEMPERATURE))
        except Refused as error:
            if error.status >= 500:
                raise
            raise Misfit(f"it refuses a probe ({error}); give `vllm serve` --max-logprobs {MAX_CHOICES}") from error
        except Unweighed as error:
            raise Misfit(
                "it does not weigh given tokens (`logprob_token_ids` of /v1/completions); expected `vllm serve`"
            ) from error
        # At temperature T differences between processed log-probabilities are 1/T of those at 1; raw ones do not move.
        spread = max(plain) - min(plain)
        if spread > 0.1 and abs(max(flat) - min(flat) - spread) < spread / 4:
            raise Misfit(
                "its log-probabilities are not those it samples with; give `vllm serve` --logprobs-mode"
                " processed_logprobs"
            )
        return probabilities(plain)

    async def hold(self, client: aiohttp.ClientSession, paths: Mapping[str, str]) -> None:
        """Loads what it lacks of the working set, by id and path here, and unloads what was loaded for earlier ones.

        Raises Misfit when it cannot load one, CallFailed.
        """
        for adapter in sorted(self._loaded - paths.keys()):
            self._loaded.discard(adapter)
            self._held.discard(adapter)
            # What it has forgotten by itself is gone as well.
            with suppress(Refused):
                await self._call(client, "/v1/unload_lora_adapter", {"lora_name": adapter})
        for adapter in sorted(paths.keys() - self._held):
            root = self._config.adapter_root.rstrip("/")
            place = f"{root}/{adapter}" if root else paths[adapter]
            try:
                await self._call(client, "/v1/load_lora_adapter", {"lora_name": adapter, "lora_path": place})
            except Refused as error:
                # A name is the hash of its content: whoever has it has the right one.
                if adapter not in {card.id for card in await self._cards(client)}:
                    raise Misfit(
                        f"it does not load {place} ({error}); give it --enable-lora,"
                        " VLLM_ALLOW_RUNTIME_LORA_UPDATING=1, a --max-lora-rank of engine.max_rank, and adapter_root,"
                        " where it sees the run's adapters"
                    ) from error
            self._held.add(adapter)
            self._loaded.add(adapter)

    async def _cards(self, client: aiohttp.ClientSession) -> list[Card]:
        return decode(await self._call(client, "/v1/models"), Cards).data

    def _served(self, cards: Sequence[Card], context: int) -> str:
        bases = [card for card in cards if card.parent is None]
        known = {card.id: card for card in bases}
        card = known.get(self._config.model) if self._config.model else next(iter(bases), None)
        if card is None:
            raise Misfit(f"it serves {', '.join(known) or 'no model'}, expected {self._config.model or 'one'}")
        if card.max_model_len is not None and card.max_model_len < context:
            raise Misfit(
                f"it serves {card.max_model_len} tokens, expected engine.context {context}; give `vllm serve`"
                f" --max-model-len {context}"
            )
        return card.id

    async def _call(self, client: aiohttp.ClientSession, path: str, body: Mapping[str, Any] | None = None) -> bytes:
        try:
            return await call(client, self._config.url + path, self._key, self._timeout, body)
        except Refused as error:
            if error.status not in (401, 403):
                raise
            asked = f"the key in {self._config.key}" if self._config.key else "a call without `key`"
            raise Misfit(f"it does not accept {asked} ({error})") from error


def normalised(scores: Sequence[float]) -> tuple[float, ...]:
    """Log-probabilities that sum to one over the scores."""
    highest = max(scores)
    total = highest + log(sum(exp(score - highest) for score in scores))
    return tuple(score - total for score in scores)


def probabilities(scores: Sequence[float]) -> list[float]:
    """Scores as probabilities that sum to one."""
    return [exp(score) for score in normalised(scores)]


def distance(one: Sequence[float], other: Sequence[float]) -> float:
    """Total variation distance of two distributions over the same things."""
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / 2
