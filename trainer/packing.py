"""A batch of decisions as rows of tokens, and back from logits to the likelihood of each token.

A row is a prefix tree: what prompts begin with alike (the rules of the world, a parent's strategy, much of what is
seen) is held once, however many go on from there, and an attention mask lets every token see its own past only. That is
the same arithmetic as one padded row per decision, without the padding and the repetition; and the softmax over the
vocabulary runs only where a completion token is predicted.
"""

import math
from collections.abc import Mapping, Sequence
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


class _Tree:
    """Sequences of tokens, each beginning held once; a token comes after its parent."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.parents: list[int] = []
        """Of each token, the one before it; -1 for the first of a sequence."""
        self.depths: list[int] = []
        self._children: dict[tuple[int, int], int] = {}
        """By parent and token."""

    def missing(self, sequence: Sequence[int]) -> int:
        """Tokens that the tree would grow by."""
        node = -1
        for depth, token in enumerate(sequence):
            node = self._children.get((node, token), -2)
            if node == -2:
                return len(sequence) - depth
        return 0

    def add(self, sequence: Sequence[int]) -> list[int]:
        """Where the tokens of a sequence are."""
        node, path = -1, []
        for depth, token in enumerate(sequence):
            parent, node = node, self._children.setdefault((node, token), len(self.tokens))
            if node == len(self.tokens):
                self.tokens.append(token)
                self.parents.append(parent)
                self.depths.append(depth)
            path.append(node)
        return path

    def visible(self) -> torch.Tensor:
        """[tokens, tokens]: true where the second is the first, or before it in a sequence."""
        seen = torch.eye(len(self.tokens), dtype=torch.bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen


def _rows(examples: list[dict[str, Any]]) -> list[Row]:
    rows: list[list[dict[str, Any]]] = []
    tree = _Tree()
    for example in examples:
        tokens = _input(example)
        if not rows or len(tree.tokens) + tree.missing(tokens) > MAX_ROW:
            rows.append([])
            tree = _Tree()
        tree.add(tokens)
        rows[-1].append(example)
    return [pack(row) for row in rows]


def pack(examples: Sequence[dict[str, Any]]) -> Row:
    """One row for several examples.

    `input_ids` and `position_ids` [1, length]; `attention_mask` [1, 1, length, length], true where the second index
    may be seen by the first; `logits_to_keep`, `targets` and `example`, the number in the batch, [completion tokens];
    `allowed` [completion tokens, most choices], padded with -1, and `worth`, what each would have been worth, padded
    with 0, where the examples say it; `value` and `temperature` [examples]; `logprobs` and
    `reference` [completion tokens] and `reference_allowed` [completion tokens, most choices] where the examples have
    them.
    """
    tree, keep = _Tree(), []
    for example in examples:
        keep += tree.add(_input(example))[-len(example["completion_ids"]) :]
    choices = [example["choice_ids"] for example in examples for _ in example["completion_ids"]]
    row = {
        "input_ids": torch.tensor([tree.tokens]),
        "position_ids": torch.tensor([tree.depths]),
        "attention_mask": tree.visible()[None, None],
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


def _input(example: Mapping[str, Any]) -> list[int]:
    """What the model is shown: the last token predicts nothing."""
    tokens: list[int] = example["prompt_ids"] + example["completion_ids"][:-1]
    return tokens
