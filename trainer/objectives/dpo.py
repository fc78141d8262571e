"""Direct preference optimisation: of two decisions in the same situation, the better over the worse."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch.nn.functional import logsigmoid

from trainer.config_objectives import DpoConfig
from trainer.examples import Codes, Decisions, Examples, NoExamples, codes, decisions, in_rounds
from trainer.job import TrainingJob
from trainer.objectives.learned import Batch, Learned


class Dpo(Learned[DpoConfig]):
    """Widens the margin between better and worse beyond that of the reference."""

    def compares(self) -> bool:
        """Always."""
        return True

    def examples(self, steps: pa.Table, job: TrainingJob) -> Examples:
        """Pairs in rows: the better decision, then the worse one after the better one's prompt."""
        found, config = decisions(steps, job, self.config), self.config
        better, worse = pairs(found, config.gap)
        if len(better) == 0:
            raise NoExamples(
                f"no two of {found.table.num_rows} decisions were made in the same situation and lie"
                f" {config.gap:g} deviations apart"
            )
        order = np.arange(len(better))
        gaps = found.credit[better] - found.credit[worse]
        chosen = in_rounds(order, gaps, found.actions[better])[: max(1, config.max_examples // 2)]
        rows = np.stack([better[chosen], worse[chosen]], axis=1).ravel()
        examples = found.examples(rows, np.ones(len(rows)))
        prompts, choices = examples.prompt_ids, examples.choice_ids
        return replace(
            examples,
            prompt_ids=[prompts[index - index % 2] for index in range(len(rows))],
            choice_ids=[choices[index - index % 2] for index in range(len(rows))],
            group=2,
        )

    def loss(self, batch: Batch) -> torch.Tensor:
        """Equation 7 of the paper."""
        ratio = batch.sums(batch.taken - batch.reference)
        return -logsigmoid(self.config.beta * (ratio[::2] - ratio[1::2])).mean()


def pairs(found: Decisions, gap: float) -> tuple[Codes, Codes]:
    """Rows of better and worse decisions: the best with the worst of each situation, and on towards the middle."""
    blank = pc.replace_substring_regex(found.table["observation"], r"\d+", "#")
    situations, actions = codes(blank), found.actions
    order = np.lexsort((np.arange(len(situations)), -found.credit, situations))
    ends = np.flatnonzero(np.diff(situations[order], append=-1)) + 1
    choices = found.table["choice_ids"].to_pylist()
    tokens = found.table["completion_ids"].to_pylist()
    better, worse = [], []
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        high, low = start, end - 1
        while high < low and found.credit[order[high]] - found.credit[order[low]] >= gap:
            one, other = order[high], order[low]
            possible = not choices[one] or tokens[other][0] in choices[one]
            if actions[one] != actions[other] and possible:
                better.append(one)
                worse.append(other)
                high += 1
            low -= 1
    return np.asarray(better, dtype=np.int64), np.asarray(worse, dtype=np.int64)
