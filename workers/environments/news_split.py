"""Which articles may be learned from, which are held out, and the unit that returns are counted in.

Law: nothing of what is held out reaches training. Held-out articles are the latest ones; training ends an embargo
before the first of them, longer than any return takes; a text that is held out is nowhere in training; and the unit of
returns is the standard deviation of the training returns alone.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from telemetry.failures import UsageError
from workers.environments.news_settings import NO_SIGNAL, NewsSettings
from workers.environments.news_synthetic import synthetic
from workers.environments.news_table import DAY, Table, read


@dataclass(frozen=True, slots=True)
class Articles:
    """One side of the split, in order of time. Place `i` of every tuple belongs together."""

    ids: tuple[int, ...]
    """Row in the data, counted from 0."""
    days: tuple[int, ...]
    """Days from 1970-01-01 to the article's, in UTC."""
    texts: tuple[str, ...]
    returns: tuple[float, ...]
    """Less the mean, in standard deviations of the training returns."""
    counted: tuple[float, ...]
    """The same, winsorised."""
    deviation: float
    """That standard deviation, as a fraction."""


def load(settings: NewsSettings) -> Articles:
    """The articles that a world with these settings reads, each text cut; kept for further worlds of this process.

    Raises UsageError when the file is not as it must be, or one side has too few articles for a life.
    """
    stamp = None
    if not settings.is_synthetic and (path := Path(settings.data)).is_file():
        stamp = path.stat().st_mtime_ns, path.stat().st_size
    return _load(settings, stamp)


@lru_cache(maxsize=8)
def _load(settings: NewsSettings, stamp: tuple[int, int] | None) -> Articles:
    """`stamp` tells an overwritten file from the one read before."""
    table = _table(settings)
    texts = [text[: settings.max_chars].rstrip() for text in table.texts]
    training, held_out = split(table.times, texts, settings.heldout_share, settings.embargo_days)
    for name, side in (("training", training), ("held-out", held_out)):
        if len(side) < settings.horizon:
            raise UsageError(
                f"environment.settings.data: {settings.data}: got {len(side)} {name} articles, expected at least"
                f" {settings.horizon}, those of one life; give more rows or change horizon, heldout_share, embargo_days"
            )
    known = table.returns[training]
    mean, deviation = float(known.mean()), float(known.std())
    if not deviation > 1e-12 * max(1.0, abs(mean)):
        raise UsageError(
            f"environment.settings.data: {settings.data}: got equal returns in training, expected different ones"
        )
    side = training if settings.split == "train" else held_out
    returns = (table.returns[side] - mean) / deviation
    return Articles(
        ids=tuple(side.tolist()),
        days=tuple((table.times[side] // DAY).tolist()),
        texts=tuple(texts[index] for index in side),
        returns=tuple(returns.tolist()),
        counted=tuple(returns.clip(-settings.winsor, settings.winsor).tolist()),
        deviation=deviation,
    )


def split(
    times: NDArray[np.int64], texts: list[str], heldout_share: float, embargo_days: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows for training and rows held out. times: ascending microseconds."""
    if not texts:
        return np.arange(0), np.arange(0)
    first = times[first_held_out(len(texts), heldout_share)]
    held_out = np.flatnonzero(times >= first)
    fresh = {texts[index] for index in held_out}
    before = np.flatnonzero(times < first - embargo_days * DAY)
    return before[[texts[index] not in fresh for index in before]], held_out


def first_held_out(count: int, share: float) -> int:
    """Row whose time begins what is held out."""
    return min(count - 1, count - round(count * share))


def _table(settings: NewsSettings) -> Table:
    if not settings.is_synthetic:
        return read(Path(settings.data))
    return synthetic(
        settings.articles,
        first_held_out(settings.articles, settings.heldout_share),
        settings.signal,
        settings.data_seed,
        shuffled=settings.data == NO_SIGNAL,
    )
