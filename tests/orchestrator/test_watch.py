"""`forager watch` in a terminal of its own: what it draws, what its keys do, what it does not let through."""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.text import Text
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from orchestrator.following import Follower
from orchestrator.verdict import ranked
from orchestrator.watch import Watch
from orchestrator.watch_text import BAR, bar
from telemetry.failures import ForagerError
from telemetry.journal import key_of
from telemetry.ledger import Ledger
from telemetry.store import open_store
from tests.forager import ROOT
from tests.inprocess import forager_here, refused
from tests.orchestrator.small_run import Levers, small_run, state_at

Act = Callable[[Pilot[ForagerError]], Awaitable[None]]


def watched(place: Path, act: Act) -> None:
    """Lets `act` use the screen of a watched run."""

    async def use() -> None:
        async with Watch(open_store(place)).run_test(size=(140, 40)) as pilot:
            await settled(pilot)
            await act(pilot)

    asyncio.run(use())


async def settled(pilot: Pilot[ForagerError]) -> None:
    """Waits until the journal is read, and the ledger after it."""
    for _ in range(3):
        await pilot.pause()
        await pilot.app.workers.wait_for_complete()
    await pilot.pause()


def said(pilot: Pilot[ForagerError], where: str) -> str:
    return str(pilot.app.screen.query_one(where, Static).content)


def cells(pilot: Pilot[ForagerError], where: str) -> list[list[str]]:
    table: DataTable[Text] = pilot.app.screen.query_one(where, DataTable)
    return [[str(cell) for cell in table.get_row_at(row)] for row in range(table.row_count)]


def test_a_finished_run_is_on_one_screen(finished: Path) -> None:
    _, state = state_at(finished)

    async def look(pilot: Pilot[ForagerError]) -> None:
        assert "finished" in said(pilot, "#heading")
        assert f"{sum(map(len, state.lives.values()))} lives" in said(pilot, "#totals")
        curve = said(pilot, "#generations").splitlines()
        assert [line.split()[0] for line in curve] == ["0", "1", "2"]
        order = ranked(state.history[-1].fitness)
        assert [row[0] for row in cells(pilot, "#people")] == [one.individual for one in order]
        assert {row[5] for row in cells(pilot, "#people")} == {"survived", "culled"}
        assert "g002-" in said(pilot, "#ended")

    watched(finished, look)


def test_keys_turn_generations_and_open_a_life(finished: Path) -> None:
    store, state = state_at(finished)

    async def look(pilot: Pilot[ForagerError]) -> None:
        await pilot.press("left")
        assert all(row[0].startswith("g001-") for row in cells(pilot, "#people"))
        for _ in range(5):
            await pilot.press("left")
        assert all(row[0].startswith("g000-") for row in cells(pilot, "#people"))
        who = cells(pilot, "#people")[0][0]
        await pilot.press("enter")
        await pilot.app.workers.wait_for_complete()
        await pilot.pause()
        assert who in said(pilot, "#who")
        lives = Ledger(store).recall("lives", 0, state.vouched(0), state.attempts(0)).to_pylist()
        own = [(str(one["life"]), str(one["steps"])) for one in lives if one["individual"] == who]
        assert [(row[0], row[1]) for row in cells(pilot, "#lives")] == own
        await pilot.press("enter")
        await pilot.pause()
        assert f"{who}/0" in said(pilot, "#step")
        assert "step 1 of" in said(pilot, "#step")
        await pilot.press("right")
        assert "step 2 of" in said(pilot, "#step")
        assert "@" in said(pilot, "#picture")
        assert "Energy" in said(pilot, "#said")
        await pilot.press("escape", "escape")
        assert cells(pilot, "#people")

    watched(finished, look)


def test_it_follows_what_is_committed_meanwhile(tmp_path: Path) -> None:
    whole, half = tmp_path / "whole", tmp_path / "half"
    small_run(whole, Levers(lives_per_commit=4))
    shutil.copytree(whole, half)
    entries = sorted((half / "journal").iterdir())
    for path in entries[3:]:
        path.unlink()
    follower = Follower(open_store(half))
    before = follower.progress.lives_done
    assert not follower.refresh()
    for path in entries[3:]:
        shutil.copy(whole / "journal" / path.name, half / "journal" / path.name)
    assert follower.refresh()
    _, state = state_at(whole)
    assert follower.state == state
    assert before < len(state.lives[0])
    assert follower.ended[-1].individual.startswith("g002-")
    assert follower.rates()[0] > 0


def test_a_run_that_cannot_be_read_any_more_says_so_and_stays_on_the_screen(finished: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(finished, tmp_path / "run")

    async def look(pilot: Pilot[ForagerError]) -> None:
        (copy / key_of(10**6)).write_bytes(b"{}")
        # The first of them may only have waited for a look that began before.
        for _ in range(2):
            pilot.app.screen._look()  # type: ignore[attr-defined]
            await pilot.app.workers.wait_for_complete()
            await pilot.pause()
        assert "missing" in said(pilot, "#heading")
        assert cells(pilot, "#people")

    watched(copy, look)


def test_a_journal_that_cannot_be_read_ends_it_with_the_error(finished: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(finished, tmp_path / "run")
    (copy / key_of(1)).unlink()

    async def open_it() -> ForagerError | None:
        app = Watch(open_store(copy))
        async with app.run_test() as pilot:
            await settled(pilot)
        return app.return_value

    assert "missing" in str(asyncio.run(open_it()))


def test_a_first_picture_loads_no_numerics() -> None:
    heavy = ("numpy", "pandas", "pyarrow", "deltalake", "obstore", "prometheus_client", "ray", "torch")
    first = "import orchestrator.watch, orchestrator.watch_population, sys"
    program = f"{first}; print(*sorted(set({heavy!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_bar_is_as_long_as_its_share() -> None:
    assert bar(0.0, 10.0).strip() == ""
    assert bar(10.0, 10.0) == "█" * BAR
    assert bar(5.0, 10.0) == ("█" * (BAR // 2)).ljust(BAR)
    assert {len(bar(value / 7, 3.0)) for value in range(22)} == {BAR}


def test_without_a_terminal_it_says_what_prints_the_same(finished: Path) -> None:
    refused(forager_here("watch", finished), 2, "terminal", "forager status")
