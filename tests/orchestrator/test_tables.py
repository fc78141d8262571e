"""Questions in SQL see the rows that every other reader sees, on a disk and in a bucket, and no others."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from orchestrator.lineage import lineage_rows
from orchestrator.state import config_of
from orchestrator.summary import summarize
from orchestrator.tables import open_run, small_tables
from telemetry import open_run as open_anywhere
from telemetry.analysis import RunTables
from telemetry.failures import StateError, UsageError
from telemetry.ledger import Ledger
from telemetry.store import open_store
from tests.inprocess import forager_here, output, refused
from tests.orchestrator.small_run import Levers, small_run, state_at


def recalled(place: Path, table: str) -> pa.Table:
    store, state = state_at(place)
    parts = [
        Ledger(store).recall(table, generation, state.vouched(generation), state.attempts(generation))
        for generation in state.lives
    ]
    return pa.concat_tables(parts)


@pytest.mark.parametrize("table", ["steps", "lives"])
def test_rows_are_those_of_the_ledger_whatever_zombies_appended(table: str, tmp_path: Path) -> None:
    small_run(tmp_path / "run", Levers(lives_per_commit=5, zombies=True))
    with open_anywhere(str(tmp_path / "run")) as tables:
        found = tables.table(table)
        assert found.equals(recalled(tmp_path / "run", table))
        assert tables.query(f"select count(*) n from {table}")["n"].to_pylist() == [found.num_rows]


def test_rows_in_a_bucket_are_those_on_a_disk(store_url: str, finished: Path) -> None:
    _, state = state_at(finished)
    copy = open_store(store_url)
    for path in finished.rglob("*"):
        if path.is_file():
            copy.put(str(path.relative_to(finished)), path.read_bytes())
    with open_run(store_url) as tables:
        assert tables.table("steps").equals(recalled(finished, "steps"))
        best = tables.query("select id from individuals where generation = 2 order by fitness desc, id limit 1")
        assert best["id"].to_pylist() == [summarize(state, config_of(state)).champion]


@pytest.mark.parametrize("table", ["steps", "lives"])
def test_attempts_that_were_never_acknowledged_are_left_out_of_files_that_were(table: str, finished: Path) -> None:
    store, state = state_at(finished)
    files = [ref for generation in state.files for ref in state.vouched(generation)]
    attempts = [attempt for generation in state.lives for attempt in state.attempts(generation)]
    known = sorted(attempts)[1:]
    with RunTables(store, {}, files, known) as tables:
        found = tables.table(table)
        everything = recalled(finished, table)
        assert found.num_rows < everything.num_rows
        assert set(found["attempt"].to_pylist()) == set(known)


def test_small_tables_say_what_the_other_commands_say(finished: Path) -> None:
    _, state = state_at(finished)
    tables = small_tables(state)
    summary = summarize(state, config_of(state))
    assert tables["individuals"].to_pylist() == [row.model_dump(mode="json") for row in lineage_rows(state)]
    assert tables["generations"].to_pylist(maps_as_pydicts="strict") == [
        row.model_dump(mode="json") for row in summary.history
    ]
    assert tables["training"].to_pylist() == [row.model_dump(mode="json") for row in summary.training]
    assert tables["evaluation"].num_rows == 0


def test_columns_can_be_chosen_and_names_are_checked(finished: Path) -> None:
    with open_run(str(finished)) as tables:
        assert tables.table("lives", ["steps", "cause"]).column_names == ["steps", "cause"]
        with pytest.raises(UsageError, match="got 'life', expected one of steps, lives, individuals"):
            tables.table("life")


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("selec 1", ("Parser Error", "selec")),
        ("select nothing from lives", ("nothing", "Binder Error")),
        ("select 1/0::integer; select error('x')", ("x",)),
        ("", ("no answer", "SELECT")),
    ],
)
def test_what_cannot_be_answered_is_refused_in_one_line(sql: str, words: tuple[str, ...], finished: Path) -> None:
    refused(forager_here("query", finished, sql), 2, "query:", *words)


def test_answers_come_as_a_table_as_json_and_as_csv(finished: Path) -> None:
    sql = "select generation, ends, best, null as nothing, 'nan'::double as none from generations order by 1"
    rows = json.loads(output("query", finished, sql, "--json"))
    assert [row["generation"] for row in rows] == [0, 1, 2]
    assert sum(rows[0]["ends"].values()) == 12
    assert (rows[0]["nothing"], rows[0]["none"]) == (None, None)
    lines = output("query", finished, "select generation, alive from generations", "--csv").splitlines()
    assert lines[0] == '"generation","alive"'
    assert len(lines) == 4
    shown = output("query", finished, "select individual, step from steps order by 1, 2", "--rows", "2")
    assert "2 of" in shown
    assert "g000-000" in shown
    long = "x" * 150
    assert f" {long} " in output("query", finished, f"select '{long}' as text, '{long}' as more")
    refused(forager_here("query", finished, "select 1", "--csv", "--json"), 2, "--json", "--csv")


def test_what_a_world_wrote_moves_no_cursor(finished: Path) -> None:
    shown = output("query", finished, r"select chr(27) || '[2J[bold]x[/bold]' as text, '[red]' as " "" + '"[blue]b"')
    assert "\x1b" not in shown
    assert "[bold]x[/bold]" in shown
    assert "[blue]b" in shown


def test_a_data_file_that_is_missing_or_cut_is_named(finished: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(finished, tmp_path / "run")
    file = next((copy / "ledger" / "steps").rglob("*.parquet"))
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    with pytest.raises(StateError, match=f"{file.name}: has {len(data) - 1} bytes"):
        open_run(str(copy))
    file.unlink()
    refused(forager_here("query", copy, "select 1"), 3, file.name, "missing")


@pytest.mark.parametrize("folder", ["it's [a] *run?", "day=3", "plain"])
def test_a_run_may_lie_in_a_folder_of_any_name(folder: str, finished: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(finished, tmp_path / folder / "run")
    with open_run(str(copy)) as tables:
        assert tables.table("lives").equals(recalled(finished, "lives"))


def test_a_folder_that_reads_as_a_column_is_refused(finished: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(finished, tmp_path / "generation=7" / "run")
    refused(forager_here("query", copy, "select 1"), 2, "generation=7", "column", "move the run")
