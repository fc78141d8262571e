"""Every bit of every file of a run, flipped: `verify` names the file, or neither reading nor resuming needs it.

Verifying the whole run after each of millions of flips would take days. In its place stands the part of `verify` that
such a flip meets, called as `verify` calls it: the journal's reader, the checksum of what an entry vouches for, the
check of what nobody vouches for. None of them looks at any other file's bytes but the journal's. Each file is verified
in full once besides. Of the rest the kernel says that reading and resuming never open it.
"""

import ctypes
import os
import random
import shutil
import struct
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from pathlib import Path
from unittest.mock import patch

from orchestrator import inspection
from orchestrator.digest import digest
from orchestrator.findings import Finding
from orchestrator.places import open_run
from orchestrator.run import create, reopen
from orchestrator.state import config_of
from telemetry import delta_log
from telemetry.failures import StateError
from telemetry.journal import Journal
from telemetry.ledger import SETTINGS, Ledger
from telemetry.store import open_store
from tests.faults.harness import Outcome, every, workspace
from tests.orchestrator.small_run import Interrupted, Levers, drive, small_config, small_run, state_at
from workers.engines.scripted import CARD

HOUSEKEEPING = {
    "driver.lock": b"4711\n",
    "logs/agent-0.log": b"a line\n",
    "report.html": b"<html>",
    "probe/x": b"first",
}
"""What a driver leaves beside its run's record."""

IN_OPEN = 0x20
SAMPLE = 3
"""Bytes of a file, or flips that are found nowhere, that a whole verification or resumption is spent on."""

Sees = Callable[[], bool]


def finished(place: Path, lives_per_commit: int = 5, **changes: object) -> Path:
    """A finished run whose tables hold checkpoints, and rows that nobody acknowledged."""
    with patch.dict(SETTINGS, {"delta.checkpointInterval": "4"}):
        small_run(place, Levers(lives_per_commit, zombies=True), **changes)
    return litter(place)


def interrupted(place: Path) -> Path:
    """The same run killed between an append and its acknowledgement, in its second generation."""
    with patch.dict(SETTINGS, {"delta.checkpointInterval": "4"}):
        run = create(open_store(place), small_config(), CARD)
        try:
            drive(run, Levers(5, zombies=True, commits_left=4))
        except Interrupted:
            return litter(place)
    raise AssertionError("the run was not interrupted")


def litter(place: Path) -> Path:
    for name, content in HOUSEKEEPING.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(content)
    return place


def files(place: Path) -> list[Path]:
    return sorted(path for path in place.rglob("*") if path.is_file())


def errors(place: Path) -> list[Finding]:
    return [finding for finding in inspection.verify(open_store(place)) if finding.severity == "error"]


def digest_of(place: Path) -> str:
    store, state = state_at(place)
    return digest(state, Ledger(store))


def resumed(place: Path) -> str:
    """Digest of the run at `place`, finished in a copy and found in order."""
    copy = Path(shutil.copytree(place, place.parent / "resumed", symlinks=True))
    drive(reopen(open_store(copy), small_config()))
    assert not errors(copy)
    found = digest_of(copy)
    shutil.rmtree(copy)
    return found


def caches(place: Path) -> set[Path]:
    return set(place.glob("ledger/*/_delta_log/*checkpoint*"))


def tail(place: Path) -> dict[Path, tuple[str, int]]:
    """What was appended after the last acknowledgement: table and version of each log entry and data file."""
    store, state = state_at(place)
    found = {}
    for name, version in state.tables.items():
        table = f"ledger/{name}"
        for path in (place / table / "_delta_log").glob("*[0-9].json"):
            if (number := int(path.stem)) > version:
                keys = [key for key, _ in delta_log.added(store, table, number)]
                found |= dict.fromkeys([path, *(place / key for key in keys)], (name, number))
    return found


def unused(place: Path) -> set[Path]:
    """Housekeeping, checkpoints, and what was appended after the last acknowledgement."""
    return {place / name for name in HOUSEKEEPING} | caches(place) | tail(place).keys()


def named(findings: Iterable[Finding], key: str) -> bool:
    return any(key in f"{one.where} {one.what}" for one in findings)


def sees(place: Path, key: str) -> Sees:
    """Whether `verify` names a file, told by the part of it that looks at this file."""
    store = open_store(place)
    entries = Journal(store).read()
    vouched = {ref.key: ref for entry in entries for ref in entry.refs}

    def journal() -> bool:
        try:
            Journal(store).read()
        except StateError as error:
            return key in str(error)
        return False

    def checksum() -> bool:
        found = inspection._check_ref(store, vouched[key])
        return found is not None and found.where == key

    def stranger() -> bool:
        return named(inspection._check_stranger(store, key, set()), key)

    return journal if key.startswith("journal/") else checksum if key in vouched else stranger


def missed(path: Path, found: Sees) -> Iterator[int]:
    """Flips every bit of a file in turn; yields those that are not found, while they are flipped."""
    data = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        for place in range(8 * len(data)):
            at, bit = divmod(place, 8)
            os.pwrite(file.fileno(), bytes([data[at] ^ 1 << bit]), at)
            if not found():
                yield place
            os.pwrite(file.fileno(), data[at : at + 1], at)


def name_every_flip(run: Path, key: str) -> Outcome:
    """Of a file that verification has to name."""
    with workspace() as place:
        path = Path(shutil.copytree(run, place / "run")) / key
        problems = [f"bit {bit} is not seen" for bit in missed(path, sees(place / "run", key))]
        data = bytearray(whole := path.read_bytes())
        bit = random.Random(key).randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        if not named(errors(place / "run"), key):
            problems.append(f"bit {bit} is not named by the whole verification")
        return Outcome("bit flips", f"{key}, named", 8 * len(whole) + 1, tuple(problems))


def drop_every_flip(run: Path, key: str) -> Outcome:
    """Of a file appended and never acknowledged: a resumed run drops it, or ends as if nothing had happened."""
    with workspace() as place:
        copy = Path(shutil.copytree(run, place / "run"))
        end, (name, version) = resumed(copy), tail(copy)[copy / key]
        earlier = {delta_log.key_of(f"ledger/{name}", number) for number in range(version)}
        ledger, problems, kept = Ledger(open_store(copy)), [], 0
        for bit in missed(copy / key, lambda: bool(list(ledger.damaged(name, version, earlier)))):
            kept += 1
            if kept <= SAMPLE and resumed(copy) != end:
                problems.append(f"bit {bit} changes how the run ends")
        size = 8 * (copy / key).stat().st_size
        return Outcome("bit flips", f"{key}, dropped, {kept} bits kept", size, tuple(problems))


def survive_flips(run: Path, key: str) -> Outcome:
    """Of a cache: verification says that it is damaged, or nothing. Of a sample, since it is slow, all eight bits."""
    with workspace() as place:
        copy = Path(shutil.copytree(run, place / "run"))
        known = [str(path.relative_to(copy)) for path in caches(copy)]
        data, problems = (copy / key).read_bytes(), []
        sample = random.Random(key).sample(range(len(data)), min(SAMPLE, len(data)))
        for at, bit in ((at, bit) for at in sample for bit in range(8)):
            (copy / key).write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
            found = [
                one for one in errors(copy) if one.where not in known and not one.where.endswith("_last_checkpoint")
            ]
            problems += [f"bit {8 * at + bit}: {one}" for one in found]
        return Outcome("bit flips", f"{key}, a cache", 8 * len(sample), tuple(problems))


def stay_closed(run: Path, keys: Collection[str]) -> Iterator[Outcome]:
    """Files that neither reading nor resuming opens: no bit of them matters."""
    with workspace() as place:
        copy = Path(shutil.copytree(run, place / "run"))

        def use() -> None:
            digest_of(copy)
            store, state = open_run(str(copy))
            drive(reopen(store, config_of(state)))

        touched = opened(files(copy), use)
        assert any(path.name.endswith(".parquet") for path in touched), "nothing was seen to be opened"
        for key in sorted(keys):
            size = 8 * (run / key).stat().st_size
            problems = ("is opened",) * (copy / key in touched)
            yield Outcome("bit flips", f"{key}, never opened", size, problems)


def opened(paths: Collection[Path], action: Callable[[], object]) -> set[Path]:
    """Which of the files anybody opens meanwhile."""
    libc = ctypes.CDLL(None, use_errno=True)
    watcher = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    by_watch = {libc.inotify_add_watch(watcher, os.fsencode(path), IN_OPEN): path for path in paths}
    assert len(by_watch) == len(paths), os.strerror(ctypes.get_errno())
    found = set()
    try:
        action()
        while True:
            events = os.read(watcher, 1 << 16)
            while events:
                watch, mask, _, length = struct.unpack_from("iIII", events)
                found |= {by_watch[watch]} if mask & IN_OPEN else set()
                events = events[16 + length :]
    except BlockingIOError:
        return found
    finally:
        os.close(watcher)


def cases() -> Iterator[Outcome]:
    """An outcome per file of a finished run, and of what only an interrupted one has; what lands is counted in bits."""
    with workspace() as place:
        runs = [finished(place / "finished", 6, generations=2), interrupted(place / "interrupted")]
        for run in runs:
            keys = {path: str(path.relative_to(run)) for path in files(run)}
            last, cached, free = tail(run), caches(run), unused(run)
            if run is runs[0]:
                yield from every(partial(name_every_flip, run), [keys[path] for path in keys if path not in free])
                yield from every(partial(survive_flips, run), [keys[path] for path in sorted(cached)])
            yield from every(partial(drop_every_flip, run), [keys[path] for path in sorted(last)])
            yield from stay_closed(run, [keys[path] for path in free - last.keys()])
