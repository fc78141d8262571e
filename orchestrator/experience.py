"""What a generation lived through, as the trainers learn from it: steps, and what became of the life of each. Pure."""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.config import FitnessConfig, RunConfig
from orchestrator.fitness import life_values
from telemetry.records import EndReason
from telemetry.tables import STEPS
from trainer.examples import EXPERIENCE
from trainer.job import TrainingJob

COLUMNS = [name for name in EXPERIENCE.names if name in STEPS.names]
"""Of the steps."""


def lessons(
    table: Callable[[str, Sequence[str]], pa.Table],
    lives: pa.Table,
    jobs: Sequence[TrainingJob],
    config: RunConfig,
    *,
    horizon: int,
) -> pa.Table:
    """What the jobs are to learn from, schema EXPERIENCE. Where none of them learns, no steps are read.

    table: gives columns of the generation's committed rows, such as those of `steps`. Raises as `experience`.
    """
    if not config.trainer.enabled or all(job.perturbation for job in jobs):
        return EXPERIENCE.empty_table()
    return experience(table("steps", COLUMNS), lives, config.fitness, horizon=horizon)


def experience(steps: pa.Table, lives: pa.Table, config: FitnessConfig, *, horizon: int) -> pa.Table:
    """Committed steps (COLUMNS of them) and lives (schema LIVES) of one generation as schema EXPERIENCE.

    A life's worth is its fitness; null for one that infrastructure cut short, and for descendants, who are part of what
    their ancestor's life was worth. Raises UsageError when a custom fitness misbehaves.
    """
    ended, worth = _worth(lives, config, horizon)
    found = pc.index_in(_names(steps), value_set=_names(ended))
    died = pc.equal(ended["end"], EndReason.DIED.value)
    fate = {"died": pc.fill_null(died.combine_chunks().take(found), False), "worth": worth.take(found)}
    return pa.table({name: fate[name] if name in fate else steps[name] for name in EXPERIENCE.names}, schema=EXPERIENCE)


def _worth(lives: pa.Table, config: FitnessConfig, horizon: int) -> tuple[pa.Table, pa.Array]:
    """The lives that came to an end of their own, and the fitness of each; null for descendants."""
    ended = lives.filter(pc.not_equal(lives["end"], EndReason.CENSORED.value))
    first = ended.filter(pc.is_null(ended["parent_seat"]))
    parts, worth = [ended.filter(pc.is_valid(ended["parent_seat"]))], []
    for individual in sorted(set(first["individual"].to_pylist())):
        own = first.filter(pc.equal(first["individual"], individual))
        parts.append(own)
        worth.append(life_values(own, config, horizon))
    values = pa.array(np.concatenate(worth) if worth else [], type=pa.float64())
    return pa.concat_tables(parts), pa.concat_arrays([pa.nulls(parts[0].num_rows, pa.float64()), values])


def _names(table: pa.Table) -> pa.Array:
    life = table["life"].cast(pa.string())
    return pc.binary_join_element_wise(table["individual"], life, "/").combine_chunks()
