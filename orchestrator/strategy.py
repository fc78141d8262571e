"""Strategy texts as genes: sentences that are exchanged, joined and dropped. Pure."""

import re
from collections.abc import Sequence

import numpy as np

MOST_SENTENCES = 4
MOST_CHARACTERS = 2000
"""Of a genome's strategy."""


def mutate_strategy(text: str, founding: Sequence[str], rng: np.random.Generator) -> str:
    """The text with one sentence replaced by one of the founding strategies', joined by one, or dropped.

    The text itself where nothing else is possible.
    """
    own = sentences(text)
    others = sorted({one for strategy in founding for one in sentences(strategy)} - set(own))
    changes = [[*own[:place], *own[place + 1 :]] for place in range(len(own)) if len(own) > 1]
    if others:
        donor = others[rng.integers(len(others))]
        changes += [[*own[:place], donor, *own[place + 1 :]] for place in range(len(own))]
        changes += [[*own, donor]] if len(own) < MOST_SENTENCES else []
    possible = [changed for one in changes if len(changed := " ".join(one)) <= MOST_CHARACTERS]
    return possible[rng.integers(len(possible))] if possible else text


def sentences(text: str) -> list[str]:
    """What is told apart by full stops, question marks, exclamation marks and semicolons."""
    return [one for one in re.split(r"(?<=[.!?;])\s+", text.strip()) if one]
