"""What could be expected of a situation, whatever was decided in it: a critic, by regression. Pure."""

from collections.abc import Sequence
from itertools import pairwise
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

FEATURES = 1024
"""Words and pairs of neighbouring words are hashed into so many (Weinberger et al. 2009, arXiv 0902.2206)."""
RIDGE = 3.0
"""Penalty on squared weights, in rows."""
FOLDS = 4

BLOCK = 16_384
"""Rows that features are made of at a time, and at most fitted to."""

Values = NDArray[np.float64]


def expected(observations: Sequence[str], credit: Values, lives: NDArray[np.int64]) -> Values:
    """[rows]: credit that a ridge regression on the words of the observation expects.

    lives: [rows], equal for rows of one life. Cross-fitted (Chernozhukov et al. 2018): nobody's expectation is fitted
    to his own life, or it would take away just what is to be learned from it.
    """
    folds = np.unique(lives, return_inverse=True)[1] % FOLDS
    found = np.empty(len(credit))
    for fold in range(FOLDS):
        own, others = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        others = others[:: -(-len(others) // BLOCK) or 1]
        mean, centre, weights = _regress(_features(observations, others), credit[others])
        for start in range(0, len(own), BLOCK):
            rows = own[start : start + BLOCK]
            found[rows] = mean + (_features(observations, rows) - centre) @ weights
    return found


def _features(observations: Sequence[str], rows: NDArray[np.int64]) -> Values:
    """[rows, FEATURES]: 1 where a word, or a pair of neighbouring words, occurs."""
    found = np.zeros((len(rows), FEATURES))
    for place, row in enumerate(rows):
        words = observations[row].lower().split()
        for term in (*words, *map(" ".join, pairwise(words))):
            found[place, crc32(term.encode()) % FEATURES] = 1.0
    return found


def _regress(features: Values, credit: Values) -> tuple[float, Values, Values]:
    """Mean credit, mean features, and weights; in the dual where there are fewer rows than features."""
    if len(credit) == 0:
        return 0.0, np.zeros(FEATURES), np.zeros(FEATURES)
    mean, centre = float(credit.mean()), features.mean(axis=0)
    known = features - centre
    if len(known) < FEATURES:
        weights = known.T @ np.linalg.solve(known @ known.T + RIDGE * np.eye(len(known)), credit - mean)
    else:
        weights = np.linalg.solve(known.T @ known + RIDGE * np.eye(FEATURES), known.T @ (credit - mean))
    return mean, centre, weights
