"""Texts to prompt token ids and back. Pure.

Law: the turns of a prompt come from the model's chat template, already tokenised; what a world, a genome or another
agent wrote is encoded as plain text and can never become a control token, whatever it spells.
"""

import json
import sys
from array import array
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer

from telemetry.failures import UsageError
from workers.engine import ModelDescription

BYTES = "bytes"
"""The tokenizer whose ids are UTF-8 bytes; the n-th action is the id 256 + n."""
_UTF_32 = f"utf-32-{sys.byteorder[0]}e"
"""Without a byte order mark."""


class Codec:
    """Encodes and decodes for one model."""

    def __init__(self, description: ModelDescription) -> None:
        """Raises UsageError when the tokenizer cannot be read."""
        self._description = description
        self._tokenizer = None if description.tokenizer == BYTES else _open(description.tokenizer)
        self._before_answer = array("i", description.before_answer)
        self._prefix = lru_cache(maxsize=1024)(self._encode_prefix)
        self._first_tokens = lru_cache(maxsize=1024)(self._encode_choices)

    def prompt(self, system: str, user: str) -> "array[int]":
        """Token ids, int32, of one system turn, one user turn and the opening of the answer."""
        return self._prefix(system) + self._encode(user) + self._before_answer

    def choices(self, actions: Sequence[str]) -> tuple[int, ...]:
        """First token of each action where it starts the answer, in order.

        Raises UsageError when two actions begin with the same token, because one token could not tell them apart.
        With the tokenizer `bytes` an action has no text: its id is 256 plus its position.
        """
        return self._first_tokens(tuple(actions))

    def text(self, text: str) -> tuple[int, ...]:
        """Token ids of plain text, none of them a control token."""
        return tuple(self._encode(text))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, control tokens left out."""
        if self._tokenizer is None:
            return bytes(token for token in ids if token < 256).decode(errors="replace")
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def _encode(self, text: str) -> "array[int]":
        if self._tokenizer is None:
            # Of ASCII, UTF-32 is the array itself.
            return array("i", text.encode(_UTF_32) if text.isascii() else list(text.encode()))
        return array("i", self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _encode_prefix(self, system: str) -> "array[int]":
        return array("i", (*self._description.before_system, *self._encode(system), *self._description.before_user))

    def _encode_choices(self, actions: tuple[str, ...]) -> tuple[int, ...]:
        if self._tokenizer is None:
            return tuple(range(256, 256 + len(actions)))
        owner: dict[int, str] = {}
        for action in actions:
            first = next(iter(self._encode(action)), None)
            if first is None:
                raise UsageError(f"environment: got the action {action!r}, expected at least one token")
            if first in owner:
                raise UsageError(
                    f"environment: actions {owner[first]!r} and {action!r} begin with the same token of"
                    f" {self._description.card.id}; rename one of them"
                )
            owner[first] = action
        return tuple(owner)


def _open(path: str) -> Tokenizer:
    try:
        document = json.loads(Path(path).read_bytes())
        # Some models do not call their turn markers special: whatever is more than a word or a gap counts as one.
        for token in document.get("added_tokens", ()):
            token["special"] |= not (token["content"].isalnum() or token["content"].isspace())
        tokenizer = Tokenizer.from_str(json.dumps(document))
    except Exception as error:
        raise UsageError(f"model: {path} is not a tokenizer: {error}") from error
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
