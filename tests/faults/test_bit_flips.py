"""Any damage to any file of a run is named by `verify`, or the file is one that neither reading nor resuming needs.

That nobody needs a file is proved: without it, and whatever bits of it flip, the run has no errors, has its digest, and
resumes to the end that it would have had.
"""

import json
import os
import random
import shutil
from collections.abc import Callable, Collection, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from orchestrator.findings import Finding
from telemetry import delta_log
from telemetry.journal import ENTRY_KEY
from telemetry.store import open_store
from tests.corpus import parquet
from tests.faults import bit_flips
from tests.faults.bit_flips import digest_of, errors, files, named, resumed, unused
from tests.inprocess import forager_here
from tests.orchestrator.forgery import forge, in_generation
from tests.orchestrator.small_run import small_run, state_at

Spoil = Callable[[Path, Path, random.Random], object]
"""Damages the first file; the second is a copy of it outside the run."""


def flip(path: Path, copy: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def replaced(make: Callable[[Path, Path], object]) -> Spoil:
    def spoil(path: Path, copy: Path, draw: random.Random) -> None:
        path.unlink()
        make(path, copy)

    return spoil


def tail(make: Callable[[int], bytes]) -> Spoil:
    """Puts something else in the place of everything from a random byte on."""

    def spoil(path: Path, copy: Path, draw: random.Random) -> None:
        data = path.read_bytes()
        kept = draw.randrange(len(data))
        path.write_bytes(data[:kept] + make(len(data) - kept))

    return spoil


SPOILS: dict[str, Spoil] = {
    "cut": tail(lambda rest: b""),
    "zeros to its end": tail(bytes),
    "emptied": lambda path, copy, draw: path.write_bytes(b""),
    "grown": lambda path, copy, draw: path.write_bytes(path.read_bytes() + b"\n"),
    "removed": replaced(lambda path, copy: None),
    "pipe": replaced(lambda path, copy: os.mkfifo(path)),
    "folder": replaced(lambda path, copy: path.mkdir()),
    "link to the same bytes": replaced(lambda path, copy: path.symlink_to(copy)),
    "link to nowhere": replaced(lambda path, copy: path.symlink_to("/nowhere")),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bit_flips.finished(tmp_path_factory.mktemp("flips") / "finished")


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bit_flips.interrupted(tmp_path_factory.mktemp("flips") / "interrupted")


@pytest.fixture(params=["finished", "interrupted"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of either run, to be damaged."""
    return Path(shutil.copytree(request.getfixturevalue(request.param), tmp_path / request.param))


def test_the_runs_hold_every_kind_of_file(finished: Path, interrupted: Path) -> None:
    for run, ahead in ((finished, 0), (interrupted, 4)):
        assert not errors(run)
        parts = {path.relative_to(run).parts[0] for path in files(run)}
        assert parts == {"journal", "ledger", "adapters", "driver.lock", "logs", "probe", "report.html"}
        assert len(list(run.glob("ledger/*/_delta_log/*checkpoint*"))) >= 4
        assert len([path for path in unused(run) if path.suffix == ".json" or "generation=" in str(path)]) == ahead
        vouched = {ref.key for refs in state_at(run)[1].files.values() for ref in refs}
        assert (
            len([path for path in run.glob("ledger/*/generation=*/*") if str(path.relative_to(run)) not in vouched]) > 4
        )


def each(place: Path, chosen: list[Path], spoil: Spoil, draw: random.Random) -> Iterator[tuple[Path, list[Finding]]]:
    """Damages one file after the other, tells what verification finds, and mends it again."""
    copy = place.parent / "copy"
    for path in chosen:
        shutil.copy2(path, copy)
        spoil(path, copy, draw)
        yield path, errors(place)
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        path.unlink(missing_ok=True)
        shutil.copy2(copy, path)
    assert not errors(place), "everything is mended"


def check_named(place: Path, spoil: Spoil, draw: random.Random, but: Collection[Path] = (), share: float = 1.0) -> None:
    chosen = [path for path in sorted(set(files(place)) - unused(place) - set(but)) if draw.random() < share]
    for path, found in each(place, chosen, spoil, draw):
        key = str(path.relative_to(place))
        assert named(found, key), f"{key} is not named in {found}"


def check_harmless(place: Path, rounds: int, spoils: list[Spoil]) -> None:
    """Any damage to any of the files that nobody needs changes neither what is read nor how the run ends."""
    before, end, draw = digest_of(place), resumed(place), random.Random(rounds)
    for _ in range(rounds):
        copy = Path(shutil.copytree(place, place.parent / "harmed"))
        free = sorted(unused(copy))
        for path in draw.sample(free, draw.randint(1, len(free))):
            draw.choice(spoils)(path, place / path.relative_to(copy), draw)
        assert digest_of(copy) == before
        assert resumed(copy) == end
        shutil.rmtree(copy)


def test_a_flipped_bit_is_named(place: Path) -> None:
    check_named(place, flip, random.Random(1))


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [2, 3])
def test_flipped_bits_are_named(place: Path, seed: int) -> None:
    check_named(place, flip, random.Random(seed))


@pytest.mark.faults
@pytest.mark.parametrize("name", SPOILS)
def test_other_damage_is_named(place: Path, name: str) -> None:
    # Every prefix of a journal is a run: without its newest entry this one has merely not come that far.
    newest = max(place.glob("journal/*.json"))
    share = 1.0 if place.name == "interrupted" else 0.3
    check_named(place, SPOILS[name], random.Random(name), but=[newest] if name == "removed" else [], share=share)


def test_without_the_files_that_nobody_needs_everything_is_the_same(place: Path) -> None:
    before, end = digest_of(place), resumed(place)
    for path in unused(place):
        path.unlink()
    assert not errors(place)
    assert digest_of(place) == before
    assert resumed(place) == end


def test_damage_to_files_that_nobody_needs_changes_nothing(interrupted: Path, tmp_path: Path) -> None:
    check_harmless(Path(shutil.copytree(interrupted, tmp_path / "run")), 2, [flip])


@pytest.mark.faults
def test_all_damage_to_files_that_nobody_needs_changes_nothing(interrupted: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(interrupted, tmp_path / "run"))
    check_harmless(place, 12, [flip])
    check_harmless(
        place, 12, [flip, *(SPOILS[name] for name in ("cut", "zeros to its end", "emptied", "grown", "removed"))]
    )


@pytest.mark.parametrize(
    "pattern", ["journal/*.json", "adapters/*/*.safetensors", "ledger/lives/generation=*/*.parquet"]
)
def test_files_that_changed_places_are_named_and_the_command_exits_with_3(
    place: Path, tmp_path: Path, pattern: str
) -> None:
    first, second = sorted(place.glob(pattern))[-2:]
    first.rename(tmp_path / "between")
    second.rename(first)
    (tmp_path / "between").rename(second)
    result = forager_here("verify", place)
    assert result.code == 3
    assert str(first.relative_to(place)) in result.out


@pytest.mark.parametrize("folder", ["adapters", "ledger", "ledger/lives", "journal"])
def test_a_run_copied_in_part_is_refused(place: Path, folder: str) -> None:
    shutil.rmtree(place / folder)
    result = forager_here("verify", place)
    assert result.code == 3
    assert f"{folder}/" in result.out + result.err
    assert result.err.count("\n") <= 1


def test_foreign_files_are_noted_with_printable_names(place: Path) -> None:
    names = ["_SUCCESS", "checkpoint-3/optimizer.pt", "adapters/x/adapter_model.bin", "journal/1.json", "a\x1b[31m\nb"]
    for name in [*names, os.fsdecode(b"not \xff Unicode")]:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"")
    os.mkfifo(place / "pipe")
    result = forager_here("verify", place)
    assert result.code == 0
    assert result.out.replace("\n", "").isprintable()
    noted = [line for line in result.out.splitlines() if "is referenced by no journal entry" in line]
    assert len(noted) >= len(names) + 2


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that nobody disturbed."""
    place = tmp_path_factory.mktemp("flips") / "calm"
    small_run(place)
    return place


def plant(calm: Path, place: Path, content: bytes) -> str:
    """Copies the run, with a foreign file in its last version of `lives`; returns the file's key."""
    key = f"generation=2/{sha256(content).hexdigest()}.parquet"
    action = {
        "path": key,
        "partitionValues": {"generation": "2"},
        "size": len(content),
        "modificationTime": 1,
        "dataChange": True,
        "stats": json.dumps({"numRecords": 1}),
    }

    def pin(body: dict[str, Any]) -> None:
        body["tables"]["lives"] += 1
        log = delta_log.key_of("ledger/lives", body["tables"]["lives"])
        for name, data in ((f"ledger/lives/{key}", content), (log, json.dumps({"add": action}).encode())):
            assert open_store(place).put_if_absent(name, data)

    forge(calm, place, in_generation(2, pin, "lives"))
    return f"ledger/lives/{key}"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.faults] * (name != "huge name")) for name in parquet.TRAPS]
)
def test_a_foreign_table_that_cannot_be_read_is_named(calm: Path, tmp_path: Path, name: str) -> None:
    key = plant(calm, tmp_path / "run", parquet.TRAPS[name])
    [finding] = errors(tmp_path / "run")
    assert finding.where == key
    assert finding.what.startswith("is part of the table, but cannot be read")
    assert digest_of(tmp_path / "run") == digest_of(calm), "readers never look at it"


@pytest.mark.faults
def test_a_foreign_table_of_countless_pieces_is_not_read(calm: Path, tmp_path: Path) -> None:
    key = plant(calm, tmp_path / "run", parquet.parquet(pa.table({"attempt": ["x"] * 70_000}), row_group_size=1))
    [finding] = errors(tmp_path / "run")
    assert finding.where == key


@pytest.mark.parametrize(
    "name", [b"ray.data.arrow_tensor", b"ray.data.arrow_pickled_object", b"arrow.py_extension_type"]
)
def test_nothing_in_a_foreign_table_is_ever_unpickled(calm: Path, tmp_path: Path, name: bytes) -> None:
    nest, place = tmp_path / "nest", tmp_path / "run"
    plant(calm, place, parquet.pickled_extension(nest, name))
    assert not errors(place)
    assert digest_of(place) == digest_of(calm)
    assert not nest.exists()
    parquet.spring(parquet.pickled_extension(nest, name))
    assert nest.exists(), "the trap itself works"


def test_journal_entries_of_every_kind_were_flipped(finished: Path) -> None:
    kinds = {
        json.loads(path.read_text())["kind"]
        for path in files(finished)
        if ENTRY_KEY.fullmatch(str(path.relative_to(finished)))
    }
    assert {"run", "epoch", "lives", "birth", "generation", "finish"} <= kinds
