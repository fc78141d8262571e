"""What `forager watch` says: a run's state as lines and cells. Pure, but for the clock that its caller reads."""

from collections.abc import Iterable, Iterator

from rich.text import Text

from orchestrator.events import ends_of
from orchestrator.following import Ended, Follower
from orchestrator.plain import clean, duration, ends_text
from orchestrator.state import RunState
from orchestrator.verdict import Fitness, ranked
from telemetry.numerals import interval, number
from telemetry.records import EndReason, Individual

BAR = 30
"""Cells of the longest bar."""
EIGHTHS = " ▏▎▍▌▋▊▉█"


def heading(follower: Follower, age: float, trouble: str) -> Text:
    """One line: which run, how far, since when nothing was committed. age: seconds."""
    state, progress = follower.state, follower.progress
    config = follower.config
    text = Text.assemble((clean(state.created.run), "bold cyan"), "  ")
    turn = min(progress.generation + 1, progress.generations)
    phase = "finished" if state.finished else progress.phase
    text.append(f"generation {turn - 1} ({turn} of {progress.generations})  ")
    text.append(phase, "green" if state.finished else "cyan")
    if progress.population and progress.phase == "living":
        text.append(f"  {progress.lives_done}/{progress.lives_planned} lives")
    elif progress.births_planned and progress.population:
        text.append(f"  {len(progress.births)}/{progress.births_planned} births")
    text.append(f"  {clean(config.environment.name)}  {clean(config.model)}", "dim")
    if not state.finished:
        text.append(f"  last commit {duration(age)} ago", "yellow" if age > 300 else "dim")
    if trouble:
        text.append(f"\n{clean(trouble, 400)}", "red")
    return text


def totals(follower: Follower) -> Text:
    """One line: what was lived so far, and how fast."""
    state = follower.state
    lives = sum(map(len, state.lives.values()))
    decisions = sum(commit.decisions for commit in state.commits)
    text = f"{lives:,} lives  {decisions:,} decisions"
    rate, tokens = follower.rates()
    if rate:
        text += f"  {number(rate)} decisions/s  {tokens:,.0f} tokens/s"
    return Text(f"{text}  {ends_text(ends_of(state.commits))}")


def curve(state: RunState) -> Text:
    """Fitness by generation: bars for the fittest's mean, its interval behind, the population's mean in words."""
    scores = [(event, ranked(event.fitness)) for event in state.history]
    most = max((one.high for _, order in scores for one in order[:1]), default=0.0)
    least = min(0.0, min((one.value for _, order in scores for one in order), default=0.0))
    lines = Text()
    for event, order in scores:
        if not order:
            continue
        best = order[0]
        mean = sum(one.value for one in order) / len(order)
        lines.append(f"{event.generation:>4}  ", "dim")
        lines.append(bar(best.value - least, most - least), "cyan")
        lines.append(f"  {interval(best.value, best.low, best.high)}", "bold")
        lines.append(f"  mean {number(mean)}  ", "")
        lines.append(f"{best.individual} {clean(state.everyone[best.individual].lineage)}", "dim")
        lines.append("\n")
    return lines if scores else Text("no generation is over yet", "dim")


def bar(value: float, most: float) -> str:
    """A bar of BAR cells that is filled in eighths of a cell."""
    filled = round(8 * BAR * max(0.0, min(1.0, value / most))) if most > 0 else 0
    return ("█" * (filled // 8) + EIGHTHS[filled % 8].strip()).ljust(BAR)


def ended_text(ended: Iterable[Ended]) -> Text:
    """Lives that ended lately, the last one first."""
    lines = Text("lately\n", "dim")
    for one in reversed(list(ended)):
        died = one.end == EndReason.DIED
        fate = f"died ({clean(one.cause, 20)})" if died else clean(one.end, 20)
        lines.append(f"{one.individual}/{one.life} ", "dim")
        lines.append(fate, "red" if died else "green" if one.end == EndReason.SURVIVED else "yellow")
        lines.append(f" at {one.steps}\n", "dim")
    return lines


def people(follower: Follower, generation: int) -> Iterator[tuple[str, tuple[Text, ...]]]:
    """(id, cells) of everybody of a generation: fittest first where that is known, else in order of birth."""
    state = follower.state
    members = [one for one in state.everyone.values() if one.generation == generation]
    event = next((one for one in state.history if one.generation == generation), None)
    known = {one.individual: one for one in event.fitness} if event else {}
    if event:
        order = {one.individual: place for place, one in enumerate(ranked(event.fitness))}
        members.sort(key=lambda one: (order.get(one.id, len(order)), one.id))
    survivors = set(event.selection.survivors) if event else set()
    for one in members:
        survived = one.id in survivors
        fate = "" if event is None else "survived" if survived else "culled"
        lived = state.lives[generation].count(one.id) if generation in state.lives else 0
        yield one.id, _cells(one, lived, known.get(one.id), fate)


def _cells(one: Individual, lived: int, fitness: Fitness | None, fate: str) -> tuple[Text, ...]:
    value = ""
    if fitness and fitness.value is not None:
        value = interval(fitness.value, fitness.low or 0.0, fitness.high or 0.0)
    style = "dim" if fate == "culled" else ""
    return (
        Text(one.id, style),
        Text(clean(one.lineage, 24), style),
        Text(" x ".join(one.parents), style),
        Text(str(lived), style, justify="right"),
        Text(value, style),
        Text(fate, "red" if fate == "culled" else "green"),
        Text(clean(one.genome.strategy, 80), style),
    )
