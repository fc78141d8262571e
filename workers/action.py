"""Completion to action. Pure: the draw is a function of the decision's address."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from telemetry.seeds import uniform
from workers.engine import Completion


class ParseOutcome(StrEnum):
    """How an action was read from a completion."""

    CHOICE = "choice"
    """Drawn from the model's distribution over the legal actions; nothing had to be parsed."""


@dataclass(frozen=True, slots=True)
class Decision:
    """An action and how likely it was."""

    action: str
    index: int
    """Position among the legal actions."""
    logprob: float
    """Natural log-probability under the model at the individual's temperature, before exploration."""
    behaviour_probability: float
    """Probability under the whole behaviour policy, exploration included."""
    explored: bool
    """True when the action was drawn uniformly instead of from the model."""
    parse: ParseOutcome


def decide(completion: Completion, legal: Sequence[str], *, temperature: float, epsilon: float, seed: int) -> Decision:
    """Draws an action from the epsilon-greedy mixture of the model's softmax and the uniform distribution.

    The completion must hold one log-probability per legal action.
    """
    model = _softmax(completion.choice_logprobs, temperature)
    explored = uniform(seed, "explore") < epsilon
    draw = uniform(seed, "draw")
    index = int(draw * len(legal)) if explored else _inverse_cdf(model, draw)
    return Decision(
        action=legal[index],
        index=index,
        logprob=math.log(max(model[index], 1e-45)),
        behaviour_probability=epsilon / len(legal) + (1 - epsilon) * model[index],
        explored=explored,
        parse=ParseOutcome.CHOICE,
    )


def _softmax(logprobs: Sequence[float], temperature: float) -> list[float]:
    highest = max(logprobs)
    weights = [math.exp((logprob - highest) / temperature) for logprob in logprobs]
    total = sum(weights)
    return [weight / total for weight in weights]


def _inverse_cdf(probabilities: Sequence[float], draw: float) -> int:
    passed = 0.0
    for index, probability in enumerate(probabilities):
        passed += probability
        if draw < passed:
            return index
    return len(probabilities) - 1
