"""Decisions to learn from: whose, what each was worth, and in which order they are taken. Pure.

Law: a training set is a function of the committed records and the configuration alone; equal tables give equal sets
in equal order, whatever order the rows arrive in.
"""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from telemetry.tables import STEPS
from trainer.baseline import expected
from trainer.config_objectives import LearningConfig, SftConfig
from trainer.job import TrainingJob

Values = NDArray[np.float64]
Codes = NDArray[np.int64]


EXPERIENCE = pa.schema(
    [
        *(STEPS.field(name) for name in ("individual", "life", "step", "observation", "action")),
        *(STEPS.field(name) for name in ("prompt_ids", "completion_ids", "choice_ids", "completion_logprobs")),
        *(STEPS.field(name) for name in ("behaviour_probability", "temperature", "energy_before", "energy_after")),
        STEPS.field("state"),
        # Whether the life that the step belongs to ended in death, and its fitness; null where nobody knows.
        pa.field("died", pa.bool_(), nullable=False),
        pa.field("worth", pa.float64(), nullable=True),
    ]
)
"""What learning needs of a step."""
COLUMNS = EXPERIENCE.names


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
    values: NDArray[np.float32]
    """What the objective makes of each decision: a weight, a label, an advantage."""
    worths: list[list[float]] = field(default_factory=list)
    """What each of `choice_ids` would have been worth; empty where the objective does not ask."""
    logprobs: list[list[float]] = field(default_factory=list)
    """Of each completion token when it was drawn; empty where the objective does not ask."""
    temperatures: list[float] = field(default_factory=list)
    """At which it was drawn; empty where the objective does not ask."""
    group: int = 1
    """How many rows, one after the other, are one example."""
    dropped: int = 0
    """Decisions left out because nothing could be learned from them."""

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens of one pass."""
        return sum(map(len, self.prompt_ids)) + sum(map(len, self.completion_ids))


@dataclass(frozen=True, slots=True, eq=False)
class Decisions:
    """The parents' decisions that can be learned, sorted by record key, and the credit of each."""

    table: pa.Table
    """Schema EXPERIENCE."""
    credit: Values
    """[decisions], standardised."""

    @property
    def actions(self) -> Codes:
        """[decisions]: small integers, equal where the actions are."""
        return codes(self.table["action"])

    def examples(self, chosen: Codes, values: Values) -> Examples:
        """The chosen rows with what the objective makes of each."""
        rows = self.table.select(["individual", "life", "step", "prompt_ids", "completion_ids", "choice_ids"])
        columns = rows.take(chosen).to_pydict()
        return Examples(
            keys=list(zip(columns["individual"], columns["life"], columns["step"], strict=True)),
            prompt_ids=columns["prompt_ids"],
            completion_ids=columns["completion_ids"],
            choice_ids=columns["choice_ids"],
            values=values.astype(np.float32),
        )


def of_parents(steps: pa.Table, job: TrainingJob) -> pa.Table:
    """Rows of `steps` that the job may learn from, and the columns it needs."""
    parents = pa.array(sorted({parent.individual for parent in job.parents}))
    return steps.select(COLUMNS).filter(pc.is_in(steps["individual"], value_set=parents))


def decisions(steps: pa.Table, job: TrainingJob, config: LearningConfig) -> Decisions:
    """The parents' decisions among committed steps (schema EXPERIENCE), and what each was worth.

    Credit is the discounted change of energy over `lookahead` steps, within the life, or the fitness of the life, less
    the baseline; standardised over all decisions of the parents. Raises NoExamples.
    """
    table = of_parents(steps, job).sort_by([(name, "ascending") for name in ("individual", "life", "step")])
    if config.credit == "life":
        table = table.filter(pc.is_valid(table["worth"]))
    if table.num_rows == 0:
        raise NoExamples("the parents have no committed steps")
    credit = standardise(_credit(table, config))
    trainable = np.minimum(_lengths(table["prompt_ids"]), _lengths(table["completion_ids"])) > 0
    if not trainable.any():
        raise NoExamples(f"none of {len(trainable)} decisions has both a prompt and a completion")
    return Decisions(table.filter(pa.array(trainable)), credit[trainable])


def _credit(table: pa.Table, config: LearningConfig) -> Values:
    """[rows]: what each decision was worth; rows sorted by individual, life and step."""
    raw = _floats(table["worth"]) if config.credit == "life" else advantages(table, config)
    if config.baseline == "mean" or not np.isfinite(raw).all():
        return raw
    if config.credit == "energy" and config.baseline != "observation":
        judged = surprises(table, config)
    else:
        judged = raw - expected(table["observation"].to_pylist(), raw, life_codes(table))
    return agreed(standardise(raw), standardise(judged)) if config.baseline == "both" else judged


def agreed(one: Values, other: Values) -> Values:
    """What two estimates agree on: 0 where their signs differ, else the smaller of the two (the minmod limiter).

    Each errs in its own way: what follows a decision also follows from later ones, and a critic of few lives is often
    wrong. To err together is rare. (As the lesser of two critics in Fujimoto et al. 2018, arXiv 1802.09477.)
    """
    return np.where(one * other > 0, np.sign(one) * np.minimum(np.abs(one), np.abs(other)), 0.0)


def advantages(table: pa.Table, config: LearningConfig) -> Values:
    """[rows]: discounted change of energy over `lookahead` steps; rows sorted by individual, life and step."""
    lives = life_codes(table)
    change = _changes(table, lives, config)
    total = change.copy()
    for ahead in range(1, min(config.lookahead, len(change))):
        same_life = lives[ahead:] == lives[:-ahead]
        if not same_life.any():
            break
        total[:-ahead] += np.where(same_life, config.discount**ahead * change[ahead:], 0.0)
    return total


def surprises(table: pa.Table, config: LearningConfig) -> Values:
    """[rows]: generalised advantage estimates; rows sorted by individual, life and step.

    What a step brought and what may be expected after it, less what was to be expected before it: later decisions, good
    or bad, are none of its credit. (Schulman et al. 2016, arXiv 1506.02438, with a cross-fitted critic.)
    """
    lives = life_codes(table)
    change = _changes(table, lives, config)
    if not np.isfinite(change).all():
        return change
    last = _last(lives)
    values = expected(table["observation"].to_pylist(), _to_come(change, last, config.discount), lives)
    following = np.where(last, 0.0, np.append(values[1:], 0.0))
    return _to_come(change + config.discount * following - values, last, config.discount * config.trace)


def _to_come(values: Values, last: NDArray[np.bool_], factor: float) -> Values:
    """[rows]: of a row and all later ones of its life, discounted by `factor` per row."""
    total = values.copy()
    for row in np.flatnonzero(~last)[::-1] if factor > 0 else ():
        total[row] += factor * total[row + 1]
    return total


def _changes(table: pa.Table, lives: Codes, config: LearningConfig) -> Values:
    """[rows]: change of energy, and what dying costs besides."""
    change = _floats(table["energy_after"]) - _floats(table["energy_before"])
    last = _last(lives)
    change -= config.death * (last & table["died"].to_numpy())
    return change


def _last(lives: Codes) -> NDArray[np.bool_]:
    """[rows]: true where a life ends."""
    ends: NDArray[np.bool_] = np.append(lives[1:] != lives[:-1], True)
    return ends


def standardise(values: Values) -> Values:
    """In standard deviations from the mean. Raises NoExamples where all are equal or one is not finite."""
    deviation = float(values.std())
    if not np.isfinite(deviation):
        raise NoExamples("the parents' energies are not finite")
    # A sum of equal changes in another order differs in the last bits: that is no difference to learn from.
    if deviation <= 1e-9 * max(1.0, float(np.abs(values).max())):
        raise NoExamples(f"all {len(values)} decisions of the parents did equally well")
    standard: Values = (values - values.mean()) / deviation
    return standard


def good_decisions(found: Decisions, config: SftConfig) -> Examples:
    """The decisions above the threshold, each weighted by its credit over the mean of the set, capped.

    If there are more than `max_examples`, they are taken in rounds over the actions. Raises NoExamples.
    """
    good = np.flatnonzero(found.credit > max(config.threshold, 0.0))
    if len(good) == 0:
        total = found.table.num_rows
        raise NoExamples(f"none of {total} decisions lies {config.threshold:g} deviations above the mean")
    chosen = in_rounds(good, found.credit, found.actions)[: config.max_examples]
    weights = np.minimum(found.credit[chosen], config.max_weight)
    return found.examples(chosen, weights / weights.mean())


def in_rounds(candidates: Codes, scores: Values, kinds: Codes) -> Codes:
    """Candidates by round, then score; the round of a candidate is its rank by score within its kind.

    Each round takes the best one left of every kind, so a kind gives more examples than another only once the other
    has none left. Ties go to the smaller index.
    """
    if len(candidates) == 0:
        return candidates
    by_kind = candidates[np.lexsort((candidates, -scores[candidates], kinds[candidates]))]
    starts = np.flatnonzero(np.diff(kinds[by_kind], prepend=-1))
    sizes = np.diff(starts, append=len(by_kind))
    rounds = np.arange(len(by_kind)) - np.repeat(starts, sizes)
    ordered: Codes = by_kind[np.lexsort((by_kind, -scores[by_kind], rounds))]
    return ordered


def life_codes(table: pa.Table) -> Codes:
    """[rows]: integers, equal where the life is."""
    return codes(table["individual"]) << 32 | _floats(table["life"]).astype(np.int64)


def codes(column: pa.ChunkedArray) -> Codes:
    """[rows]: small integers, equal where the strings are."""
    found: Codes = column.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    return found


def _floats(column: pa.ChunkedArray) -> Values:
    values: Values = column.to_numpy().astype(np.float64)
    return values


def _lengths(column: pa.ChunkedArray) -> Codes:
    lengths: Codes = pc.list_value_length(column).to_numpy().astype(np.int64)
    return lengths
