"""Verification: a healthy run passes, any damage is named, and what a crash leaves behind is only a note."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from orchestrator.digest import digest
from orchestrator.findings import Finding
from orchestrator.inspection import verify
from orchestrator.run import create
from orchestrator.state import fold
from telemetry import segments
from telemetry.journal import Journal, key_of
from telemetry.ledger import Ledger
from telemetry.store import open_store
from tests.orchestrator.forgery import EditBody, EditRows, forge, in_generation, replace
from tests.orchestrator.small_run import Interrupted, Levers, drive, small_config, small_run, state_at
from workers.engines.scripted import CARD


def errors(place: Path) -> list[Finding]:
    return [finding for finding in verify(open_store(place)) if finding.severity == "error"]


def files(place: Path) -> list[Path]:
    return sorted(path for path in place.rglob("*") if path.is_file())


def snapshot(place: Path) -> dict[str, tuple[bytes, int]]:
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files(place)}


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copied"))


def test_a_healthy_run_has_no_findings_and_is_left_as_it_is(finished: Path) -> None:
    before = snapshot(finished)
    assert verify(open_store(finished)) == []
    assert snapshot(finished) == before


def test_a_copy_made_by_the_forger_is_healthy(finished: Path, tmp_path: Path) -> None:
    assert verify(forge(finished, tmp_path / "forged")) == []


def test_no_run_at_all(tmp_path: Path) -> None:
    [finding] = verify(open_store(tmp_path / "empty"))
    assert finding == Finding("error", "journal", "journal: empty, expected a run; nothing was started here")


@pytest.mark.parametrize("commits", [0, 4])
def test_an_interrupted_run_is_healthy_and_its_leftovers_are_notes(tmp_path: Path, commits: int) -> None:
    store = open_store(tmp_path / "run")
    with pytest.raises(Interrupted):
        drive(create(store, small_config(), CARD), Levers(lives_per_commit=4, zombies=True, commits_left=commits))
    findings = verify(store)
    assert findings
    assert {(one.severity, one.what) for one in findings} == {
        ("note", "was appended but never acknowledged; no reader sees its rows")
    }


def test_an_entry_is_verified_itself_whatever_a_segment_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SIZE", 4)
    small_run(tmp_path / "run")
    store = open_store(tmp_path / "run")
    assert verify(store) == []
    (tmp_path / "run" / key_of(1)).unlink()
    assert fold(Journal(store).read()).finished
    [finding] = verify(store)
    assert finding.what.startswith(f"{key_of(1)}: missing")


def test_every_flipped_bit_is_found_and_its_file_named(copied: Path) -> None:
    for path in files(copied):
        healthy = path.read_bytes()
        damaged = bytearray(healthy)
        damaged[len(damaged) // 2] ^= 4
        path.write_bytes(damaged)
        key = str(path.relative_to(copied))
        assert any(key in f"{one.where} {one.what}" for one in errors(copied)), key
        path.write_bytes(healthy)
    assert verify(open_store(copied)) == []


KINDS_OF_FILES = [
    "journal/00000000000000000004.json",
    "ledger/steps/generation=1/*.parquet",
    "ledger/lives/generation=0/*.parquet",
    "ledger/lives/_delta_log/00000000000000000002.json",
    "adapters/*/adapter_model.safetensors",
    "adapters/*/adapter_config.json",
]


@pytest.mark.parametrize("pattern", KINDS_OF_FILES)
@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1])])
def test_missing_and_truncated_files_are_named(copied: Path, pattern: str, spoil: Callable[[Path], object]) -> None:
    path = next(copied.glob(pattern))
    spoil(path)
    key = str(path.relative_to(copied))
    assert any(key in f"{one.where} {one.what}" for one in errors(copied))


def test_a_link_in_place_of_a_file_is_an_error(copied: Path, tmp_path: Path) -> None:
    path = next(copied.glob("adapters/*/adapter_config.json"))
    path.rename(tmp_path / "outside")
    path.symlink_to(tmp_path / "outside")
    assert any("symbolic link" in one.what for one in errors(copied))


def test_what_belongs_to_no_record_is_a_note(copied: Path) -> None:
    for name in ("adapters/notes.txt", "journal/.staged", "ledger/steps/generation=0/extra.parquet"):
        (copied / name).write_text("left")
    for name in ("report.html", "driver.lock", "logs/engine-0.log"):
        (copied / name).parent.mkdir(exist_ok=True)
        (copied / name).write_text("ours")
    found = verify(open_store(copied))
    assert {(one.severity, one.where) for one in found} == {
        ("note", "adapters/notes.txt"),
        ("note", "journal/.staged"),
        ("note", "ledger/steps/generation=0/extra.parquet"),
    }


def own(index: int, **changes: Any) -> Callable[[dict[str, Any]], None]:
    """Changes fields of one individual of the next population."""
    return lambda body: body["population"][index].update(changes)


def give_adapter(body: dict[str, Any]) -> None:
    body["population"][1]["genome"]["adapter"] = None


def unknown_adapter(kind: str, body: dict[str, Any]) -> None:
    if kind == "birth" and body["result"]["status"] == "trained":
        body["result"]["adapter"] = "a" * 64


POPULATIONS: dict[str, tuple[EditBody, str, str]] = {
    "culled parent": (
        in_generation(0, lambda body: own(1, parents=[body["selection"]["culled"][0]])(body)),
        "g001-001",
        "has parents",
    ),
    "parent that never lived": (in_generation(1, own(1, parents=["g000-000"])), "g002-001", "has parents"),
    "no parents": (in_generation(0, own(2, parents=[])), "g001-002", "has parents ()"),
    "id used before": (in_generation(1, own(2, id="g001-002")), "g001-002", "was born into generation 2, but the id"),
    "other generation": (in_generation(1, own(2, generation=7)), "g002-002", "says generation 7, expected 2"),
    "other lineage": (in_generation(0, own(3, lineage="stranger")), "g001-003", "has lineage stranger, which is not"),
    "too few": (in_generation(0, lambda body: body["population"].pop()), "generation 1", "has 3 members, expected 4"),
    "elite with another genome": (
        in_generation(0, lambda body: body["population"][0]["genome"].update(strategy="New.")),
        "g001-000",
        "has neither a training result nor the unchanged genome of an elite",
    ),
    "not the trained adapter": (in_generation(0, give_adapter), "g001-001", "has adapter None, but its training"),
    "adapter that does not exist": (unknown_adapter, f"adapters/{'a' * 64}", "missing"),
    "fitness of a stranger": (
        in_generation(1, lambda body: body["fitness"][0].update(individual="g000-000")),
        "generation 1",
        "its fitness table does not have exactly one row for every individual",
    ),
    "both alive and culled": (
        in_generation(1, lambda body: body["selection"]["culled"].append(body["selection"]["survivors"][0])),
        "generation 1",
        "not every individual is either a survivor or culled",
    ),
    "elite that is not fittest": (
        in_generation(1, lambda body: body["selection"].update(elites=body["selection"]["culled"][:1])),
        "generation 1",
        "its elites",
    ),
    "founder with an adapter": (
        lambda kind, body: kind == "run" and body["founders"][0]["genome"].update(adapter="b" * 64),
        "g000-000",
        "is not a founder",
    ),
}


def acknowledge_ghost(body: dict[str, Any]) -> None:
    body["lives"].append(["g001-000", 77, "ghost"])


def acknowledge_under_another_name(body: dict[str, Any]) -> None:
    body["lives"][0][1], body["lives"][1][1] = body["lives"][1][1], body["lives"][0][1]


def pin_earlier(body: dict[str, Any]) -> None:
    body["tables"]["steps"] = 1


ACKNOWLEDGEMENTS: dict[str, tuple[EditBody, str, str]] = {
    "a life without rows": (
        in_generation(1, acknowledge_ghost, "lives"),
        "g001-000/77",
        "was acknowledged, but has 0 rows in lives",
    ),
    "attempts swapped": (
        in_generation(1, acknowledge_under_another_name, "lives"),
        "g001-000/0",
        "has a row in lives that was acknowledged for another life",
    ),
    "version that goes back": (
        in_generation(2, pin_earlier, "lives"),
        "ledger/steps/",
        "its pinned versions go backwards: [1, 2, 1]",
    ),
    "decisions": (
        in_generation(0, lambda body: body.update(decisions=1), "lives"),
        "generation 0",
        "the journal counts 1 decisions, the ledger holds",
    ),
    "ends": (
        in_generation(0, lambda body: body["ends"].update({"died:wolf": 99}), "lives"),
        "generation 0",
        "the journal counts ends",
    ),
}


def has(found: list[Finding], where: str, what: str) -> bool:
    return any(one.severity == "error" and one.where == where and one.what.startswith(what) for one in found)


@pytest.mark.parametrize(
    ("body", "where", "what"),
    [*POPULATIONS.values(), *ACKNOWLEDGEMENTS.values()],
    ids=[*POPULATIONS, *ACKNOWLEDGEMENTS],
)
def test_journals_that_cannot_be_true(finished: Path, tmp_path: Path, body: EditBody, where: str, what: str) -> None:
    found = verify(forge(finished, tmp_path / "forged", body))
    assert has(found, where, what), "\n".join(f"{one.where}: {one.what}" for one in found)


def of_table(table: str, edit: Callable[[pa.Table], pa.Table]) -> EditRows:
    return lambda name, rows: edit(rows) if name == table else rows


def without_step(rows: pa.Table) -> pa.Table:
    return rows.filter(pc.not_equal(rows["step"], 1))


def with_steps_twice(rows: pa.Table) -> pa.Table:
    return pa.concat_tables([rows, rows.slice(0, 1)])


def renumbered(rows: pa.Table) -> pa.Table:
    return replace(rows, "step", [step + 1 for step in rows["step"].to_pylist()])


def with_adapter(rows: pa.Table) -> pa.Table:
    return replace(rows, "adapter", ["c" * 64, *rows["adapter"].to_pylist()[1:]])


def without_first_life(rows: pa.Table) -> pa.Table:
    return rows.slice(1)


def with_lives_twice(rows: pa.Table) -> pa.Table:
    return pa.concat_tables([rows, rows.slice(0, 1)])


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        (of_table("steps", without_step), "numbered 0 to"),
        (of_table("steps", with_steps_twice), "numbered 0 to"),
        (of_table("steps", renumbered), "numbered 1 to"),
        (of_table("steps", with_adapter), "has steps of another attempt or adapter than its row in lives"),
        (of_table("lives", without_first_life), "was acknowledged, but has 0 rows in lives"),
        (of_table("lives", without_first_life), "has steps, but no row in lives"),
        (of_table("lives", with_lives_twice), "was acknowledged, but has 2 rows in lives"),
        (of_table("lives", with_adapter), "run, generation, lineage and adapter are"),
    ],
    ids=["gap", "step twice", "renumbered", "step's adapter", "no life", "orphans", "life twice", "life's adapter"],
)
def test_rows_that_cannot_be_true(finished: Path, tmp_path: Path, rows: EditRows, what: str) -> None:
    found = verify(forge(finished, tmp_path / "forged", rows=rows))
    assert any(one.severity == "error" and what in one.what and one.where.startswith("g000-000/") for one in found)


def test_acknowledged_rows_that_nobody_vouches_for_are_an_error(tmp_path: Path, finished: Path) -> None:
    """Somebody appends other rows under acknowledged attempts, and has a later version of the table pinned."""
    store, state = state_at(finished)
    copies = {name: Ledger(store).read(name, version) for name, version in state.tables.items()}
    copies["lives"] = replace(copies["lives"], "energy", [9.0] * len(copies["lives"]))

    def pin_latest(body: dict[str, Any]) -> None:
        body["tables"] = Ledger(target).append(copies["steps"], copies["lives"], "sneaky").versions

    target = open_store(tmp_path / "forged")
    forge(finished, tmp_path / "forged", in_generation(2, pin_latest, "lives"))
    found = verify(target)
    assert any(one.what == "holds rows of acknowledged lives, but no journal entry vouches for it" for one in found)
    forged = fold(Journal(target).read())
    assert digest(forged, Ledger(target)) == digest(state, Ledger(store)), "readers never look at them"


def test_a_config_of_another_version_is_named(finished: Path, tmp_path: Path) -> None:
    store = forge(finished, tmp_path / "forged", lambda kind, body: kind == "run" and body["config"].update(crown=1))
    [finding] = verify(store)
    assert finding.what == "journal entry 0 (run): config.crown: Extra inputs are not permitted"


def test_a_resumed_run_with_zombies_is_healthy(tmp_path: Path) -> None:
    small_run(tmp_path / "run", Levers(lives_per_commit=5, zombies=True, backwards=True))
    assert errors(tmp_path / "run") == []
