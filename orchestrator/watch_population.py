"""The first screen of `forager watch`: a whole run, redrawn whenever something was committed."""

from time import time
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Static
from textual.worker import get_current_worker

from orchestrator.following import Follower
from orchestrator.watch_text import curve, ended_text, heading, people, totals
from telemetry.failures import ForagerError

EVERY = 2.0
"""Seconds between two looks at the store."""
COLUMNS = ("individual", "lineage", "parents", "lives", "fitness", "fate", "strategy")


class PopulationScreen(Screen[None]):
    """Fitness by generation, the individuals of one, and who died lately."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "app.quit", "quit"),
        Binding("left", "turn(-1)", "generation before", priority=True),
        Binding("right", "turn(1)", "generation after", priority=True),
    ]

    def __init__(self, follower: Follower) -> None:
        super().__init__()
        self._follower = follower
        self._shown: int | None = None
        """Generation in the table; None follows the newest."""
        self._trouble = ""
        self._looking = False

    def compose(self) -> ComposeResult:
        yield Static(id="heading")
        yield Static(id="totals")
        with VerticalScroll(id="curve", can_focus=False):
            yield Static(id="generations")
        with Horizontal(id="below"):
            yield DataTable[Text](id="people", cursor_type="row", zebra_stripes=True)
            yield Vertical(Static(id="ended"), id="ticker")
        yield Footer()

    def on_mount(self) -> None:
        table = self.query_one("#people", DataTable)
        table.add_columns(*COLUMNS)
        table.focus()
        self._draw()
        self.query_one("#curve", VerticalScroll).scroll_end(animate=False)
        # Not before it is painted: the ledger takes longer to load than that, and both want the processor.
        self.call_after_refresh(self._look)
        self.set_interval(EVERY, self._look)

    def _look(self) -> None:
        """Asks the store, unless that is under way: a bucket may take longer to answer than EVERY."""
        if not self._looking:
            self._looking = True
            self._ask()

    @work(thread=True)
    def _ask(self) -> None:
        """In a thread: a slow bucket must not freeze the keys."""
        trouble = ""
        try:
            self._follower.refresh()
        except ForagerError as error:
            trouble = str(error)
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self._looked, trouble)

    def _looked(self, trouble: str) -> None:
        self._looking, self._trouble = False, trouble
        self._draw()

    def action_turn(self, by: int) -> None:
        """Shows the people of another generation."""
        newest = self._newest()
        shown = (newest if self._shown is None else self._shown) + by
        self._shown = None if shown >= newest else max(0, shown)
        self._draw()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Enter, or a click: the lives of the individual."""
        event.stop()
        # Not above: it looks into the ledger, which takes longer to load than the first picture may take.
        from orchestrator.watch_life import LivesScreen

        if event.row_key.value is not None:
            self.app.push_screen(LivesScreen(self._follower.store, self._follower.state, event.row_key.value))

    def _newest(self) -> int:
        """The generation that lives now, or the last one that did."""
        state = self._follower.state
        return state.generation if state.population else max(0, state.generation - 1)

    def _draw(self) -> None:
        follower, newest = self._follower, self._newest()
        age = max(0.0, time() - follower.committed_at())
        self.query_one("#heading", Static).update(heading(follower, age, self._trouble))
        self.query_one("#totals", Static).update(totals(follower))
        self.query_one("#generations", Static).update(curve(follower.state))
        self.query_one("#ended", Static).update(ended_text(follower.ended))
        table = self.query_one("#people", DataTable)
        cursor = table.cursor_row
        table.clear()
        for name, cells in people(follower, newest if self._shown is None else self._shown):
            table.add_row(*cells, key=name)
        table.move_cursor(row=cursor)
