"""`forager watch`, closer: the lives of one individual, and one life step by step."""

from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import DataTable, Footer, Sparkline, Static

from orchestrator.lineage import ancestry
from orchestrator.plain import clean
from orchestrator.replay import Draw, Frame, Life, find_life, recall
from orchestrator.replay import clean as clean_lines
from orchestrator.state import RunState, config_of
from orchestrator.verdict import ranked
from telemetry.failures import ForagerError
from telemetry.ledger import Ledger
from telemetry.numerals import interval, number
from telemetry.records import EndReason
from telemetry.store import Store
from workers.guard import boundary
from workers.registry import find

PLAY = 0.25
"""Seconds per step of a life that is played."""


class LivesScreen(Screen[None]):
    """Who an individual is, where it comes from, and how its lives ended."""

    CSS = """
    #who { height: auto; padding: 0 1 1 1; }
    #lives { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.pop_screen", "back"),
        Binding("q", "app.quit", "quit"),
    ]

    def __init__(self, store: Store, state: RunState, individual: str) -> None:
        super().__init__()
        self._store, self._state, self._one = store, state, state.everyone[individual]

    def compose(self) -> ComposeResult:
        yield Static(self._portrait(), id="who")
        yield DataTable[Text](id="lives", cursor_type="row", zebra_stripes=True)
        yield Footer()

    def on_mount(self) -> None:
        table = self.query_one("#lives", DataTable)
        table.add_columns("life", "steps", "end", "energy", "world seed")
        table.loading = True
        self._load()

    @work(thread=True)
    def _load(self) -> None:
        generation = self._one.generation
        lives = self._state.lives.get(generation)
        attempts = lives.attempts.get(self._one.id, {}) if lives else {}
        columns = ("life", "steps", "end", "cause", "energy", "world_seed", "individual")
        try:
            rows = Ledger(self._store).recall(
                "lives", generation, self._state.vouched(generation), set(attempts.values()), columns
            )
        except ForagerError as error:
            self.app.call_from_thread(self.notify, clean(str(error), 400), severity="error", markup=False)
            return
        own = [row for row in rows.to_pylist() if row["individual"] == self._one.id]
        self.app.call_from_thread(self._fill, own)

    def _fill(self, rows: list[dict[str, object]]) -> None:
        table = self.query_one("#lives", DataTable)
        table.loading = False
        for row in rows:
            died = row["end"] == EndReason.DIED
            end = Text(f"died ({clean(str(row['cause']))})" if died else str(row["end"]), "red" if died else "green")
            energy = Text(f"{row['energy']:g}", justify="right")
            cells = (Text(str(row["life"])), Text(str(row["steps"]), justify="right"), end, energy)
            table.add_row(*cells, Text(str(row["world_seed"]), "dim"), key=str(row["life"]))
        table.focus()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Enter, or a click: the life, step by step."""
        event.stop()
        key = find_life(self._state, f"{self._one.id}/{event.row_key.value}")
        try:
            life = recall(self._state, Ledger(self._store), key)
        except ForagerError as error:
            self.notify(clean(str(error), 400), severity="error", markup=False)
            return
        draw = getattr(find(config_of(self._state).environment.name), "draw", None)
        self.app.push_screen(LifeScreen(life, draw))

    def _portrait(self) -> Text:
        one = self._one
        numbers = one.genome.hyperparameters
        text = Text.assemble((one.id, "bold cyan"), f"  {clean(one.lineage)}  ")
        text.append(f"adapter {one.genome.adapter[:12]}" if one.genome.adapter else "the untouched model", "dim")
        text.append(f"\n{clean(one.genome.strategy, 2000)}\n")
        text.append(
            f"temperature {number(numbers.temperature)}  epsilon {number(numbers.epsilon)}"
            f"  novelty {number(numbers.novelty)}  learning rate {numbers.learning_rate:.2g}\n",
            "dim",
        )
        fitness = {score.individual: score for event in self._state.history for score in ranked(event.fitness)}
        for name in ancestry(one.id, self._state):
            score = fitness.get(name)
            text.append(f"{name}  {interval(score.value, score.low, score.high) if score else 'alive'}\n", "dim")
        return text


class LifeScreen(Screen[None]):
    """One life, step by step: the world, what the agent saw and did, its energy."""

    CSS = """
    #step { height: auto; padding: 0 1 1 1; }
    #energy { height: 4; margin: 0 1 1 1; }
    #picture { width: auto; min-width: 30; padding: 0 2 0 1; }
    #said { width: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.pop_screen", "back"),
        Binding("left", "turn(-1)", "step before", priority=True),
        Binding("right", "turn(1)", "next step", priority=True),
        Binding("space", "play", "play or stop"),
        Binding("q", "app.quit", "quit"),
    ]

    def __init__(self, life: Life, draw: Draw | None) -> None:
        super().__init__()
        self._life, self._draw_state, self._at = life, draw, 0
        self._playing: Timer | None = None

    def compose(self) -> ComposeResult:
        yield Static(id="step")
        yield Sparkline(id="energy")
        with Horizontal():
            yield Static(id="picture")
            with Vertical():
                yield Static(id="said")
        yield Footer()

    def on_mount(self) -> None:
        self._show()

    def action_turn(self, by: int) -> None:
        """Another step of the life."""
        self._at = max(0, min(len(self._life.frames) - 1, self._at + by))
        self._show()

    def action_play(self) -> None:
        """From here to the end, or stop."""
        if self._playing is not None:
            self._playing.stop()
            self._playing = None
        else:
            self._playing = self.set_interval(PLAY, self._next)

    def _next(self) -> None:
        if self._at + 1 >= len(self._life.frames):
            self.action_play()
        else:
            self.action_turn(1)

    def _show(self) -> None:
        life, frame = self._life, self._life.frames[self._at]
        last = self._at + 1 == len(life.frames)
        title = Text.assemble((f"{life.individual}/{life.life}", "bold cyan"), f"  {clean(life.lineage)}  ")
        title.append(f"step {frame.step + 1} of {life.steps}")
        if last:
            died = life.end == EndReason.DIED
            title.append(f"  died ({clean(life.cause)})" if died else f"  {life.end}", "red" if died else "green")
        self.query_one("#step", Static).update(title)
        lived = [max(0.0, one.energy) for one in life.frames[: self._at + 1]]
        self.query_one("#energy", Sparkline).data = lived + [0.0] * (len(life.frames) - len(lived))
        self.query_one("#picture", Static).update(Text(self._picture(frame)))
        said = Text.assemble(("saw  ", "dim"), f"{clean_lines(frame.observation)}\n", ("did  ", "dim"))
        said.append(clean(frame.action), "bold")
        said.append(f"  {frame.probability:.0%}{', explored' if frame.explored else ''}\n", "dim")
        said.append("energy  ", "dim")
        said.append(f"{frame.energy_before:g} -> {frame.energy:g}")
        self.query_one("#said", Static).update(said)

    def _picture(self, frame: Frame) -> str:
        if self._draw_state is None:
            return ""
        try:
            with boundary(self._life.world, f"its picture of step {frame.step}"):
                picture = self._draw_state(frame.state)
        except ForagerError as error:
            return clean(str(error))
        return clean_lines(str(picture))
