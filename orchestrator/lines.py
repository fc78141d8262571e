"""A living run in words: one line of plain text for each thing that happens. Pure."""

from orchestrator.config import RunConfig
from orchestrator.diversity import warning
from orchestrator.events import BirthCommitted, Evaluated, Event, GenerationCommitted, RunFinished, ends_of
from orchestrator.observe import after, culled_by
from orchestrator.plain import clean, duration, ends_text
from orchestrator.population import lineages
from orchestrator.progress import Progress
from orchestrator.state import RunState
from orchestrator.verdict import ranked
from telemetry.numerals import interval
from trainer.job import TrainingResult


def opening(progress: Progress, config: RunConfig) -> str:
    """What is about to run."""
    people = f"{progress.generations} generations of {config.population.size} x {progress.lives_each} lives"
    model = "scripted" if config.engine.kind == "scripted" else config.model
    resumed = f"  resumed at generation {progress.generation}" if progress.last or progress.lives else ""
    return f"run {progress.run}  {people}  world {config.environment.name}  model {model}{resumed}"


def progress_line(progress: Progress, now: float) -> str:
    """How far it has come. now: monotonic time."""
    if progress.phase == "evaluating":
        return f"evaluating  {progress.alive} alive  {progress.rate:.1f} decisions/s"
    left = progress.remaining(now)
    return (
        f"generation {progress.generation} ({progress.generation + 1} of {progress.generations})"
        f"  lives {progress.lives_done}/{progress.lives_planned}  alive {progress.alive}"
        f"  {progress.rate:.1f} decisions/s{f'  about {duration(left)} to the evaluation' if left else ''}"
    )


def describe(event: Event, state: RunState) -> list[str]:
    """A committed event in lines of plain text; none for those that are only steps on the way."""
    if isinstance(event, BirthCommitted):
        return [_birth_line(event.result)]
    if isinstance(event, GenerationCommitted):
        alarm = warning(event.diversity, len(event.fitness))
        lines = [_generation_line(event, state), _ends_line(event, state)]
        return [*lines, f"generation {event.generation}  {alarm}"] if alarm else lines
    if isinstance(event, Evaluated):
        return [
            f"held-out  {row.who}  {interval(row.mean, row.low, row.high)}  {ends_text(row.ends)}" for row in event.rows
        ]
    if isinstance(event, RunFinished):
        return [f"finished  champion {event.champion}  {state.everyone[event.champion].lineage}"]
    return []


def _generation_line(event: GenerationCommitted, state: RunState) -> str:
    order = ranked(event.fitness)
    best, values = order[0], [one.value for one in order]
    culled = culled_by(event, state)
    alive = len(lineages(after(event, state)))
    names = f" ({', '.join(culled[:5])}{', ...' if len(culled) > 5 else ''})" if culled else ""
    phases = "  ".join(
        f"{name} {duration(event.seconds[name])}" for name in ("rollout", "training") if name in event.seconds
    )
    return (
        f"generation {event.generation}  best {interval(best.value, best.low, best.high)}"
        f" {best.individual} {state.everyone[best.individual].lineage}"
        f"  mean {sum(values) / len(values):.1f}  worst {values[-1]:.1f}"
        f"  lineages {alive} alive, {len(culled)} culled{names}  {phases}"
    )


def _ends_line(event: GenerationCommitted, state: RunState) -> str:
    ends = ends_of(commit for commit in state.commits if commit.generation == event.generation)
    return f"generation {event.generation}  {ends_text(ends)}"


def _birth_line(result: TrainingResult) -> str:
    if result.status == "failed":
        return f"birth {result.individual}  failed: {clean(result.reason)}; it keeps its first parent's weights"
    known = result.loss_first is not None and result.loss_last is not None
    loss = f"  loss {result.loss_first:.2f} -> {result.loss_last:.2f}" if known else ""
    return f"birth {result.individual}  {result.examples} examples{loss}  {duration(result.seconds)}"
