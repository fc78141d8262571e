"""Addressed randomness: every draw is a pure function of where it is used, never of when.

A key is `(run seed, purpose, coordinates...)`; it is hashed into a seed of numpy's counter-based Philox
generator (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). Results therefore do not depend on
the number of workers or on the order in which lives end, and nothing about randomness has to be saved.

World seeds are 63-bit integers. The highest of those bits is clear for every life that a run may learn from
and set for held-out evaluation, so the two sets can never meet, whatever the run seeds are.
"""

from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray

HELD_OUT = 1 << 62


class _Key(ISeedSequence):
    """A generator's key as it is. Asked to take a key, numpy first gathers entropy that it then does not use."""

    def __init__(self, words: NDArray[np.uint64]) -> None:
        self._words = words

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> NDArray[np.uint64]:
        """The two words of the key, the lower one first."""
        return self._words


def _hash(key: tuple[int | str, ...]) -> bytes:
    text = "\x1f".join([f"{type(part).__name__}:{part}" for part in key])
    return blake2b(text.encode(), digest_size=16).digest()


class Stem:
    """The beginning of addresses that differ in their last coordinate only, put into words once: for the hot path."""

    __slots__ = ("_text",)

    def __init__(self, first: int | str, *more: int | str) -> None:
        text = f"{type(first).__name__}:{first}"
        if more:
            text = "\x1f".join([text, *[f"{type(part).__name__}:{part}" for part in more]])
        self._text = text.encode()

    def seed63(self, last: int | str) -> int:
        """As `seed63(*beginning, last)`."""
        return self._address(last) >> 65

    def uniform(self, last: int | str) -> float:
        """As `uniform(*beginning, last)`."""
        return (self._address(last) >> 75) * 2.0**-53

    def _address(self, last: int | str) -> int:
        # To go on from a hash of the beginning takes longer: an address is a few dozen bytes, and a block is 128.
        return int.from_bytes(blake2b(self._text + _last(last), digest_size=16).digest(), "big")


@lru_cache(maxsize=4096, typed=True)
def _last(part: int | str) -> bytes:
    """The end of an address; they are few words, and the numbers of steps."""
    return f"\x1f{type(part).__name__}:{part}".encode()


def address(*key: int | str) -> int:
    """128-bit hash of an address; equal on every machine and Python version."""
    return int.from_bytes(_hash(key), "big")


def rng(*key: int | str) -> np.random.Generator:
    """Generator for one address, e.g. `rng(run_seed, "select", generation)`."""
    words = np.frombuffer(_hash(key)[::-1], "<u8").astype(np.uint64, copy=False)
    # It takes any ISeedSequence, its stubs only numpy's own.
    return np.random.Generator(np.random.Philox(_Key(words)))  # type: ignore[arg-type]


def seed63(*key: int | str) -> int:
    """Non-negative 63-bit seed for one address: fits a signed 64-bit column."""
    return address(*key) >> 65


def uniform(*key: int | str) -> float:
    """One draw from [0, 1), 53 bits, without building a generator: for the hot path."""
    return (address(*key) >> 75) * 2.0**-53


def world_seed(run_seed: int, generation: int, life: int) -> int:
    """Seed of the `life`-th world of a generation; shared by all individuals (common random numbers)."""
    return seed63(run_seed, "world", generation, life) & ~HELD_OUT


def held_out_world_seed(index: int) -> int:
    """Seed of the `index`-th held-out world; the same for every run, and used by none for learning."""
    return seed63("held-out world", index) | HELD_OUT
