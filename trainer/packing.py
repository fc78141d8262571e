"""A batch of decisions as rows of tokens, and back from logits to the likelihood of each token.

A row holds the beginning that its prompts share (the rules of the world, the strategy) once, then every prompt's own
rest, which an attention mask lets see the shared beginning and itself. That is the same arithmetic as one padded row
per decision, without the padding and the repetition; and the softmax over the vocabulary runs only where a completion
token is predicted.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch

MAX_ROW = 2048
"""Tokens of a row: attention costs the square of it."""

Row = dict[str, torch.Tensor]
FORWARD = ("input_ids", "position_ids", "attention_mask", "logits_to_keep")
"""What of a row the model is given."""


class Likelihoods(NamedTuple):
    """Of the completion tokens of a row."""

    taken: torch.Tensor
    """[tokens]: log-probability of each, among the allowed tokens where there are some."""
    allowed: torch.Tensor
    """[tokens, choices]: log-probability of each allowed token, 0 probability where padded; empty for free text."""


def collate(examples: list[dict[str, Any]], parts: int = 1) -> dict[str, list[list[Row]]]:
    """A batch in parts, neighbours together, each of rows of at most MAX_ROW tokens.

    A single longer example is a row of its own; a part has no row where there are fewer examples than parts.
    """
    numbered = [example | {"number": number} for number, example in enumerate(examples)]
    bounds = [part * len(examples) // parts for part in range(parts + 1)]
    return {"parts": [_rows(numbered[start:end]) for start, end in pairwise(bounds)]}


def _rows(examples: list[dict[str, Any]]) -> list[Row]:
    rows: list[list[dict[str, Any]]] = []
    for example in examples:
        if not rows or _packed_length([*rows[-1], example]) > MAX_ROW:
            rows.append([])
        rows[-1].append(example)
    return [pack(row) for row in rows]


def pack(examples: Sequence[dict[str, Any]]) -> Row:
    """One row for several examples; the last token of each is left out, because it predicts nothing.

    `input_ids` and `position_ids` [1, length]; `attention_mask` [1, 1, length, length], true where the second index
    may be seen by the first; `logits_to_keep`, `targets` and `example`, the number in the batch, [completion tokens];
    `allowed` [completion tokens, most choices], padded with -1, and `worth`, what each would have been worth, padded
    with 0, where the examples say it; `value` and `temperature` [examples]; `logprobs` and
    `reference` [completion tokens] and `reference_allowed` [completion tokens, most choices] where the examples have
    them.
    """
    inputs = [example["prompt_ids"] + example["completion_ids"][:-1] for example in examples]
    shared = _shared(inputs)
    ids, positions, owners = list(inputs[0][:shared]), list(range(shared)), [0] * shared
    keep: list[int] = []
    for number, (tokens, example) in enumerate(zip(inputs, examples, strict=True), 1):
        ids += tokens[shared:]
        positions += range(shared, len(tokens))
        owners += [number] * (len(tokens) - shared)
        keep += range(len(ids) - len(example["completion_ids"]), len(ids))
    owner, position = torch.tensor(owners), torch.tensor(positions)
    visible = (owner[:, None] == owner) | (owner == 0)
    choices = [example["choice_ids"] for example in examples for _ in example["completion_ids"]]
    row = {
        "input_ids": torch.tensor([ids]),
        "position_ids": position[None],
        "attention_mask": (visible & (position <= position[:, None]))[None, None],
        "logits_to_keep": torch.tensor(keep),
        "targets": torch.tensor([token for example in examples for token in example["completion_ids"]]),
        "example": torch.tensor([example["number"] for example in examples for _ in example["completion_ids"]]),
        "allowed": _padded(choices, -1, torch.long),
        "value": torch.tensor([example["value"] for example in examples], dtype=torch.float32),
        "temperature": torch.tensor([example["temperature"] for example in examples], dtype=torch.float32),
    }
    worths = [example["worths"] for example in examples for _ in example["completion_ids"]]
    row["worth"] = _padded(worths, 0.0, torch.float32)
    for name in ("logprobs", "reference"):
        values = [value for example in examples for value in example[name]]
        row[name] = torch.tensor(values, dtype=torch.float32)
    references = [example["reference_allowed"] for example in examples for _ in example["completion_ids"]]
    row["reference_allowed"] = _padded(references, -math.inf, torch.float32)
    return row


def likelihoods(logits: torch.Tensor, row: Row) -> Likelihoods:
    """From the logits [tokens, vocabulary] at a row's completion tokens, at the temperature of each example."""
    first = row["example"][0]
    scaled = logits / row["temperature"][row["example"] - first, None]
    allowed, targets = row["allowed"], row["targets"]
    among_all = scaled.logsumexp(1)
    scores = scaled.gather(1, allowed.clamp(min=0)).masked_fill(allowed < 0, -math.inf)
    if allowed.shape[1] > 0:
        among_all = torch.where((allowed >= 0).any(1), scores.logsumexp(1), among_all)
    taken = scaled.gather(1, targets[:, None]).squeeze(1) - among_all
    return Likelihoods(taken, scores - among_all[:, None])


def _padded(rows: Sequence[Sequence[Any]], filler: float, dtype: torch.dtype) -> torch.Tensor:
    widest = max(map(len, rows))
    padded = [[*row, *[filler] * (widest - len(row))] for row in rows]
    return torch.tensor(padded, dtype=dtype).reshape(len(rows), widest)


def _shared(inputs: Sequence[list[int]]) -> int:
    """Length of the longest common beginning that leaves every input a token of its own to predict from."""
    limit = min(map(len, inputs)) - 1
    columns = zip(*(tokens[:limit] for tokens in inputs), strict=True)
    return next((index for index, column in enumerate(columns) if len(set(column)) > 1), limit)


def _packed_length(examples: Sequence[dict[str, Any]]) -> int:
    inputs = [example["prompt_ids"] + example["completion_ids"][:-1] for example in examples]
    return sum(map(len, inputs)) - (len(inputs) - 1) * _shared(inputs)
