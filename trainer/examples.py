"""Training set of one job: which of the parents' recorded decisions to learn, and how strongly. Pure.

Law: the set is a function of the committed records and the configuration alone; equal tables give equal sets in
equal order, whatever order the rows arrive in.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from trainer.config import SftConfig
from trainer.job import TrainingJob

Values = NDArray[np.float64]
Codes = NDArray[np.int64]


COLUMNS = [
    *("individual", "life", "step", "prompt_ids", "completion_ids", "choice_ids"),
    *("action", "energy_before", "energy_after"),
]
"""What learning needs of a step."""


class NoExamples(Exception):
    """The records hold nothing to learn from; the text says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Decisions to learn: row `i` of every field belongs together."""

    keys: list[tuple[str, int, int]]
    """Record key within the run: individual, life, step."""
    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]
    choice_ids: list[list[int]]
    """Tokens that the one token of the completion was chosen from; empty for free text."""
    weights: NDArray[np.float32]
    """Factor of each decision's loss; their mean is 1."""

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens of one pass."""
        return sum(map(len, self.prompt_ids)) + sum(map(len, self.completion_ids))


def of_parents(steps: pa.Table, job: TrainingJob) -> pa.Table:
    """Rows of `steps` that the job may learn from, and the columns it needs."""
    parents = pa.array(sorted({parent.individual for parent in job.parents}))
    return steps.select(COLUMNS).filter(pc.is_in(steps["individual"], value_set=parents))


def build(steps: pa.Table, job: TrainingJob, config: SftConfig) -> Examples:
    """Training set of `job` out of committed steps (schema STEPS).

    A decision's advantage is the discounted sum of energy changes over `lookahead` steps from it, within its life,
    standardised over all decisions of the parents. Decisions above the threshold are candidates; those at or below
    the mean never are, because their weight would not be positive. If there are more than `max_examples`, they are
    taken in rounds: each round takes the best decision left of every action, so an action gives more examples than
    another only once the other has none left. A decision's weight is its advantage, capped at `max_weight`, over
    the mean of the set. Ties go to the smaller record key.

    Raises NoExamples.
    """
    table = of_parents(steps, job).sort_by([(name, "ascending") for name in ("individual", "life", "step")])
    if table.num_rows == 0:
        raise NoExamples("the parents have no committed steps")
    scores = _standardise(advantages(table, config.lookahead, config.discount))
    trainable = np.minimum(_lengths(table["prompt_ids"]), _lengths(table["completion_ids"])) > 0
    candidates = np.flatnonzero((scores > max(config.threshold, 0.0)) & trainable)
    if len(candidates) == 0:
        raise NoExamples(f"none of {table.num_rows} decisions lies {config.threshold:g} deviations above the mean")
    chosen = _in_rounds(candidates, scores, _codes(table["action"]))[: config.max_examples]
    weights = np.minimum(scores[chosen], config.max_weight)
    rows = table.select(COLUMNS[:6]).take(chosen).to_pydict()
    return Examples(
        keys=list(zip(rows["individual"], rows["life"], rows["step"], strict=True)),
        prompt_ids=rows["prompt_ids"],
        completion_ids=rows["completion_ids"],
        choice_ids=rows["choice_ids"],
        weights=(weights / weights.mean()).astype(np.float32),
    )


def advantages(table: pa.Table, lookahead: int, discount: float) -> Values:
    """Discounted change of energy over `lookahead` steps from each row; rows sorted by individual, life and step."""
    change = _floats(table["energy_after"]) - _floats(table["energy_before"])
    lives = _codes(table["individual"]) << 32 | _floats(table["life"]).astype(np.int64)
    total = change.copy()
    for ahead in range(1, min(lookahead, len(change))):
        same_life = lives[ahead:] == lives[:-ahead]
        if not same_life.any():
            break
        total[:-ahead] += np.where(same_life, discount**ahead * change[ahead:], 0.0)
    return total


def _standardise(values: Values) -> Values:
    deviation = float(values.std())
    if not np.isfinite(deviation):
        raise NoExamples("the parents' energies are not finite")
    # A sum of equal changes in another order differs in the last bits: that is no difference to learn from.
    if deviation <= 1e-9 * max(1.0, float(np.abs(values).max())):
        raise NoExamples(f"all {len(values)} decisions of the parents did equally well")
    standard: Values = (values - values.mean()) / deviation
    return standard


def _in_rounds(candidates: Codes, scores: Values, actions: Codes) -> Codes:
    """Candidates by round, then score; the round of a candidate is its rank by score within its action."""
    by_action = candidates[np.lexsort((candidates, -scores[candidates], actions[candidates]))]
    starts = np.flatnonzero(np.diff(actions[by_action], prepend=-1))
    sizes = np.diff(starts, append=len(by_action))
    rounds = np.arange(len(by_action)) - np.repeat(starts, sizes)
    ordered: Codes = by_action[np.lexsort((by_action, -scores[by_action], rounds))]
    return ordered


def _floats(column: pa.ChunkedArray) -> Values:
    values: Values = column.to_numpy().astype(np.float64)
    return values


def _codes(column: pa.ChunkedArray) -> Codes:
    """Small integers, equal where the strings are."""
    codes: Codes = column.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    return codes


def _lengths(column: pa.ChunkedArray) -> Codes:
    lengths: Codes = pc.list_value_length(column).to_numpy().astype(np.int64)
    return lengths
