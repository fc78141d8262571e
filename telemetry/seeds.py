"""Addressed randomness: every draw is a pure function of where it is used, never of when.

A key is `(run seed, purpose, coordinates...)`; it is hashed into a seed of numpy's counter-based Philox
generator (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). Results therefore do not depend on
the number of workers or on the order in which lives end, and nothing about randomness has to be saved.

World seeds are 63-bit integers. The highest of those bits is clear for every life that a run may learn from
and set for held-out evaluation, so the two sets can never meet, whatever the run seeds are.
"""

from hashlib import blake2b

import numpy as np

HELD_OUT = 1 << 62


def address(*key: int | str) -> int:
    """128-bit hash of an address; equal on every machine and Python version."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(blake2b(text.encode(), digest_size=16).digest(), "big")


def rng(*key: int | str) -> np.random.Generator:
    """Generator for one address, e.g. `rng(run_seed, "select", generation)`."""
    return np.random.Generator(np.random.Philox(key=address(*key)))


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
