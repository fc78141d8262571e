"""`forager watch`: a population that can be watched live and die, in a terminal, from the store alone.

The law: what agents, worlds and run files wrote is shown as plain text; nothing is ever written to the run.
"""

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.screen import Screen
from textual.widgets import Static

from telemetry.failures import ForagerError
from telemetry.store import Store


class Opening(Screen[None]):
    """What is there while the journal is read."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self._words = words

    def compose(self) -> ComposeResult:
        yield Static(Text(self._words), id="heading")


class Watch(App[ForagerError]):
    """Begins with the population, as soon as it is known."""

    TITLE = "forager"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #heading, #totals { height: auto; padding: 0 1; }
    #totals { color: $text-muted; }
    #curve { height: auto; max-height: 45%; padding: 1 1 0 1; }
    #below { height: 1fr; margin-top: 1; }
    #people { width: 3fr; }
    #ticker { width: 1fr; min-width: 34; padding: 0 1; border-left: solid $surface-lighten-2; }
    """

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store

    def get_default_screen(self) -> Screen[None]:
        """What is there before anything is known."""
        return Opening(f"reading the journal of {self._store}")

    def on_mount(self) -> None:
        # Not before something is painted: what reads a journal takes longer to load than that.
        self.call_after_refresh(self._open)

    @work(thread=True)
    def _open(self) -> None:
        from orchestrator.following import Follower
        from orchestrator.watch_population import PopulationScreen

        try:
            screen = PopulationScreen(Follower(self._store))
        except ForagerError as error:
            self.call_from_thread(self.exit, error)
        else:
            self.call_from_thread(self.push_screen, screen)


def watch(store: Store) -> None:
    """Shows the run until the user leaves. Raises StateError or StorageError when there is no run to watch."""
    error = Watch(store).run()
    if error is not None:
        raise error
