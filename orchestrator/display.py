"""What a run shows while it lives: plain lines for logs, one calm panel for a terminal.

The law: a display only reads, and a display that cannot be written to any more falls silent instead of failing.
"""

import sys
from collections.abc import Sequence
from time import monotonic
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from orchestrator.config import RunConfig
from orchestrator.events import Event, GenerationCommitted
from orchestrator.lines import describe, opening, progress_line
from orchestrator.plain import clean, duration
from orchestrator.progress import Progress, advance, progress_of
from orchestrator.state import RunState
from orchestrator.verdict import ranked
from telemetry.metrics import Rate
from telemetry.numerals import interval

EVERY = 15.0
"""Seconds between two plain progress lines."""
ROWS = 12
"""Individuals that a terminal shows."""


class Display(Protocol):
    """What the driver tells of its work. A context manager, and a listener of the run."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def __call__(self, event: Event, state: RunState) -> None:
        """Takes one committed event; `state` already contains it."""
        ...

    def tick(self, alive: int, decisions: int) -> None:
        """About once a second: lives under way, decisions so far in this process."""
        ...

    def note(self, text: str) -> None:
        """Says what goes on between events."""
        ...


def open_display(config: RunConfig, state: RunState) -> Display:
    """The display that suits standard output: live on a terminal that can draw it, else plain."""
    console = Console()
    drawable = not console.is_dumb_terminal and (console.encoding or "").lower().startswith("utf")
    return LiveDisplay(config, state, console) if sys.stdout.isatty() and drawable else PlainDisplay(config, state)


class PlainDisplay:
    """Lines on standard output, ASCII only, for logs and pipes."""

    def __init__(self, config: RunConfig, state: RunState) -> None:
        self._config = config
        self._rate = Rate()
        self._progress = progress_of(state, config, monotonic())
        self._next = monotonic() + EVERY
        self._writable = True

    def __enter__(self) -> Self:
        self.note(opening(self._progress, self._config))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to take down."""

    def __call__(self, event: Event, state: RunState) -> None:
        self._progress = advance(self._progress, event, self._config, monotonic())
        for line in describe(event, state):
            self.note(line)

    def tick(self, alive: int, decisions: int) -> None:
        self._progress = self._progress.tick(alive, self._rate(decisions))
        if monotonic() >= self._next:
            self.note(progress_line(self._progress, monotonic()))

    def note(self, text: str) -> None:
        self._next = monotonic() + EVERY
        if self._writable:
            try:
                print(clean(text, 400).encode("ascii", "replace").decode(), flush=True)
            except (OSError, ValueError):  # a closed pipe or file: nobody reads, but the run goes on
                self._writable = False


class LiveDisplay:
    """A panel that stays at the bottom of the terminal, below one line for everything that is over."""

    def __init__(self, config: RunConfig, state: RunState, console: Console) -> None:
        self._config = config
        self._rate = Rate()
        self._progress = progress_of(state, config, monotonic())
        self._lineages = {one.id: one.lineage for one in state.everyone.values()}
        self._note = ""
        self._spinner = Spinner("dots", style="cyan")
        self._console = console
        self._live = Live(console=console, get_renderable=self._draw, refresh_per_second=1, transient=True)

    def __enter__(self) -> Self:
        self._console.print(Text(opening(self._progress, self._config), style="dim"))
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def __call__(self, event: Event, state: RunState) -> None:
        self._note = ""
        self._lineages |= {one.id: one.lineage for one in state.population}
        self._progress = advance(self._progress, event, self._config, monotonic())
        for line in describe(event, state):
            self._console.print(Text(clean(line, 400)), soft_wrap=True)

    def tick(self, alive: int, decisions: int) -> None:
        self._note = ""
        self._progress = self._progress.tick(alive, self._rate(decisions))

    def note(self, text: str) -> None:
        self._note = clean(text)

    def _draw(self) -> RenderableType:
        progress = self._progress
        parts: list[RenderableType] = [self._heading(progress), _bars(progress)]
        tables = Table.grid(padding=(0, 4))
        people = [_people_table(progress)] if progress.population else [Text(f"{progress.alive} alive", style="dim")]
        tables.add_row(*people, _last_table(progress.last, self._lineages) if progress.last else "")
        parts += [Text(), tables]
        title = Text.assemble((" forager ", "bold"), (f"{clean(progress.run)} ", "cyan"))
        subtitle = Text(f" {clean(self._config.environment.name)}  {clean(self._config.model)} ", style="dim")
        return Panel(
            Group(*parts), title=title, title_align="left", subtitle=subtitle, border_style="dim", padding=(1, 2)
        )

    def _heading(self, progress: Progress) -> RenderableType:
        line = Table.grid(padding=(0, 1), expand=True)
        line.add_column(width=1)
        line.add_column(ratio=1)
        line.add_column(justify="right")
        left = progress.remaining(monotonic())
        turn = min(progress.generation + 1, progress.generations)
        what = Text.assemble((f"generation {turn - 1}", "bold"), (f"  {turn} of {progress.generations}  ", "dim"))
        what.append(self._note or progress.phase, style="cyan")
        soon = f"about {duration(left)} to the evaluation" if left else ""
        line.add_row(self._spinner, what, Text(soon, style="dim"))
        return line


def _bars(progress: Progress) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    pace = (
        f"{progress.alive} alive  {progress.rate:.1f} decisions/s" if progress.phase in ("living", "evaluating") else ""
    )
    rows = [("lives", progress.lives_done, progress.lives_planned, pace)] if progress.lives_planned else []
    rows += [("births", len(progress.births), progress.births_planned, "")] if progress.births_planned else []
    for name, done, planned, extra in rows:
        bar = ProgressBar(
            total=max(planned, 1), completed=done, width=32, complete_style="cyan", finished_style="green"
        )
        grid.add_row(name, bar, f"{done}/{planned}", Text(extra, style="dim"))
    return grid


def _people_table(progress: Progress) -> RenderableType:
    rows = [
        (one.id, clean(one.lineage, 20), f"{progress.lives.get(one.id, 0)}/{progress.lives_each}")
        for one in progress.population[:ROWS]
    ]
    return _rows(("alive", "lineage", "lives"), rows, more=len(progress.population) - len(rows))


def _last_table(last: GenerationCommitted, names: dict[str, str]) -> RenderableType:
    fittest = ranked(last.fitness)[:ROWS]
    rows = [
        (
            one.individual,
            clean(names[one.individual], 20),
            interval(one.value, one.low, one.high),
            "survived" if one.individual in last.selection.survivors else "culled",
        )
        for one in fittest
    ]
    return _rows((f"generation {last.generation}", "lineage", "fitness", ""), rows, more=len(last.fitness) - len(rows))


def _rows(columns: Sequence[str], rows: Sequence[Sequence[str]], *, more: int) -> RenderableType:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False)
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(Text(cell, style="dim" if row[-1] == "culled" else "") for cell in row))
    if more:
        table.add_row(Text(f"and {more} more", style="dim"))
    return table
