"""The digest: independent of how the work was done and how rows lie in memory, sensitive to everything that counts."""

import random
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.digest import digest, hash_table
from orchestrator.run import create, reopen
from orchestrator.state import fold
from telemetry.journal import Journal
from telemetry.ledger import Ledger
from telemetry.store import open_store
from tests.orchestrator.forgery import forge, in_generation, replace
from tests.orchestrator.small_run import Interrupted, Levers, drive, small_config, small_run, state_at
from workers.engines.scripted import CARD

SCHEMA = pa.schema(
    [
        pa.field("text", pa.string()),
        pa.field("number", pa.int32()),
        pa.field("share", pa.float32()),
        pa.field("flag", pa.bool_()),
        pa.field("ids", pa.list_(pa.int32())),
        pa.field("words", pa.list_(pa.string())),
    ]
)

cells = st.fixed_dictionaries(
    {
        "text": st.none() | st.text(max_size=5),
        "number": st.none() | st.integers(-(2**31), 2**31 - 1),
        "share": st.none() | st.floats(width=32, allow_nan=False),
        "flag": st.none() | st.booleans(),
        "ids": st.none() | st.lists(st.integers(0, 99) | st.none(), max_size=3),
        "words": st.none() | st.lists(st.text(max_size=3), max_size=3),
    }
)


def digest_at(place: Path) -> str:
    store, state = state_at(place)
    return digest(state, Ledger(store))


def chopped(rows: list[dict[str, Any]], cuts: list[int]) -> pa.Table:
    """The rows in chunks cut at `cuts`, each chunk a slice of a larger table, so that its offset is not zero."""
    edges = sorted({0, len(rows), *(cut % (len(rows) + 1) for cut in cuts)})
    padded = pa.Table.from_pylist([*rows[-1:], *rows, *rows[:1]], schema=SCHEMA)
    chunks = [padded.slice(1 + start, end - start) for start, end in pairwise(edges)]
    return pa.concat_tables([SCHEMA.empty_table(), *chunks])


@given(st.lists(cells, max_size=12), st.lists(st.integers(0, 12), max_size=4))
def test_chunks_and_offsets_do_not_matter(rows: list[dict[str, Any]], cuts: list[int]) -> None:
    whole = pa.Table.from_pylist(rows, schema=SCHEMA)
    assert hash_table(chopped(rows, cuts)) == hash_table(whole)


def test_what_lies_under_a_null_does_not_matter() -> None:
    validity = pa.py_buffer(b"\x01")
    clean, dirty = (
        pa.Array.from_buffers(pa.int32(), 2, [validity, pa.array([5, hidden], pa.int32()).buffers()[1]])
        for hidden in (0, 77)
    )
    assert clean.to_pylist() == dirty.to_pylist() == [5, None]
    assert hash_table(pa.table({"a": clean})) == hash_table(pa.table({"a": dirty}))


@given(st.lists(cells, min_size=1, max_size=6), st.data())
def test_any_other_cell_is_another_digest(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    index, name = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.sampled_from(SCHEMA.names))
    changed = [dict(row) for row in rows]
    changed[index][name] = data.draw(cells)[name]
    tables = [pa.Table.from_pylist(one, schema=SCHEMA) for one in (rows, changed)]
    same = repr(changed[index][name]) == repr(rows[index][name])
    assert (hash_table(tables[0]) == hash_table(tables[1])) == same


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.table({"a": ["ab", "c"]}), pa.table({"a": ["a", "bc"]})),
        (pa.table({"a": [None]}, schema=pa.schema([("a", pa.string())])), pa.table({"a": [""]})),
        (pa.table({"a": [1]}), pa.table({"b": [1]})),
        (pa.table({"a": pa.array([1], pa.int32())}), pa.table({"a": pa.array([1], pa.int64())})),
        (pa.table({"a": [[1], [2, 3]]}), pa.table({"a": [[1, 2], [3]]})),
        (pa.table({"a": [1, 2]}), pa.table({"a": [2, 1]})),
    ],
    ids=["where strings end", "null or empty", "name", "type", "where lists end", "order"],
)
def test_tables_that_look_alike_differ(first: pa.Table, second: pa.Table) -> None:
    assert hash_table(first) != hash_table(second)


def test_the_definition_has_not_changed() -> None:
    """Digests are compared between machines and versions: another value here needs another VERSION."""
    table = pa.Table.from_pylist(
        [
            {"text": "ä", "number": 1, "share": 0.5, "flag": True, "ids": [1, None], "words": ["a", ""]},
            {"text": None, "number": None, "share": None, "flag": None, "ids": None, "words": []},
        ],
        schema=SCHEMA,
    )
    assert hash_table(table).hex() == "bb7e7c483898e34425e0901734b38b90e972e1edb59fca7834cdbc8efb3cc16b"


@pytest.mark.parametrize(
    "levers",
    [
        Levers(lives_per_commit=1),
        Levers(lives_per_commit=5, backwards=True),
        Levers(lives_per_commit=4, zombies=True),
    ],
    ids=["one life per commit", "backwards", "with zombies"],
)
def test_who_did_the_work_and_in_which_order_does_not_matter(tmp_path: Path, finished: Path, levers: Levers) -> None:
    small_run(tmp_path / "other", levers)
    assert digest_at(tmp_path / "other") == digest_at(finished)


@pytest.mark.parametrize("commits", [0, 4, 7])
def test_a_crash_and_a_resume_do_not_matter(tmp_path: Path, finished: Path, commits: int) -> None:
    store, config = open_store(tmp_path / "run"), small_config()
    with pytest.raises(Interrupted):
        drive(create(store, config, CARD), Levers(lives_per_commit=5, zombies=True, commits_left=commits))
    drive(reopen(store, config), Levers(lives_per_commit=3))
    assert digest_at(tmp_path / "run") == digest_at(finished)


def test_the_place_does_not_matter_and_the_name_and_the_seed_do(tmp_path: Path, finished: Path) -> None:
    shutil.copytree(finished, tmp_path / "elsewhere")
    assert digest_at(tmp_path / "elsewhere") == digest_at(finished)
    for number, change in enumerate([{"name": "other"}, {"seed": 6}]):
        small_run(tmp_path / str(number), **change)
        assert digest_at(tmp_path / str(number)) != digest_at(finished)


def test_lives_of_an_unfinished_generation_do_not_count(finished: Path) -> None:
    store, _ = state_at(finished)
    entries = Journal(store).read()
    end = next(index for index, entry in enumerate(entries) if entry.kind == "generation") + 1
    assert entries[end].kind == "lives"
    assert digest(fold(entries[:end]), Ledger(store)) == digest(fold(entries[: end + 1]), Ledger(store))


def shift(path: str) -> Callable[[dict[str, Any]], None]:
    """Adds one to the number at a dotted path."""

    def edit(body: dict[str, Any]) -> None:
        node: Any = body
        *above, last = path.split(".")
        for part in above:
            node = node[int(part)] if isinstance(node, list) else node[part]
        node[last] = (node[last] or 0) + 1

    return edit


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("generation", "fitness.0.value"),
        ("generation", "population.1.genome.hyperparameters.temperature"),
        ("birth", "result.examples"),
        ("birth", "result.tokens"),
    ],
)
def test_what_counts(tmp_path: Path, finished: Path, kind: str, path: str) -> None:
    forge(finished, tmp_path / "forged", in_generation(1, shift(path), kind))
    assert digest_at(tmp_path / "forged") != digest_at(finished)


@pytest.mark.parametrize(
    ("kind", "path"), [("birth", "result.seconds"), ("birth", "result.loss_last"), ("lives", "seconds")]
)
def test_what_does_not_count(tmp_path: Path, finished: Path, kind: str, path: str) -> None:
    forge(finished, tmp_path / "forged", in_generation(1, shift(path), kind))
    assert digest_at(tmp_path / "forged") == digest_at(finished)


@pytest.mark.parametrize(
    ("table", "column", "counts"),
    [
        ("steps", "observation", True),
        ("steps", "state", True),
        ("steps", "sampling_seed", True),
        ("lives", "energy", True),
        ("steps", "engine", False),
        ("lives", "seconds", False),
        ("lives", "started_at", False),
    ],
)
def test_which_columns_count(tmp_path: Path, finished: Path, table: str, column: str, counts: bool) -> None:
    def rows(name: str, old: pa.Table) -> pa.Table:
        if name != table:
            return old
        values = old[column].to_pylist()
        random.Random(1).shuffle(values)
        return replace(old, column, [values[0], *values[:-1]])

    forge(finished, tmp_path / "forged", rows=rows)
    assert (digest_at(tmp_path / "forged") != digest_at(finished)) is counts
