"""Completion to action. Pure: the draw is a function of the decision's address."""

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from math import exp, fsum, log

from msgspec import Struct
from pydantic import ValidationError

from telemetry.records import Hyperparameters
from telemetry.seeds import Stem
from workers.engine import Completion
from workers.environment import Tool


class ParseOutcome(StrEnum):
    """How an action was read from a completion."""

    CHOICE = "choice"
    """Drawn from the model's distribution over the legal actions; nothing had to be parsed."""
    TEXT = "text"
    """Free text, handed to the world as it is."""
    CALL = "call"
    """Free text that calls one of the world's tools."""
    NO_CALL = "no_call"
    """Free text that should have called a tool and did not."""


class Decision(Struct, frozen=True, gc=False):
    """An action, the tokens that stand for it, and how likely they were."""

    action: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Natural log-probability of each token under the model at the individual's temperature, before exploration."""
    behaviour_probability: float
    """Of the tokens under the whole behaviour policy, exploration included."""
    explored: bool
    """True when the action was drawn uniformly instead of from the model."""
    parse: ParseOutcome


def choose(
    completion: Completion,
    legal: Sequence[str],
    choices: Sequence[int],
    numbers: Hyperparameters,
    *,
    taken: Mapping[str, int],
    seed: int,
) -> Decision:
    """Draws an action from the epsilon-greedy mixture of the model's softmax and the uniform distribution.

    choices: the token of each legal action; taken: how often this life has taken each. The completion must hold one
    log-probability per legal action. Novelty tilts the softmax by counts (a count-based bonus as in Bellemare et al.
    2016, arXiv 1606.01868, on actions instead of states).
    """
    epsilon = numbers.epsilon
    model = _softmax(completion.choice_logprobs, numbers.temperature)
    tilted = _tilt(model, [taken[one] for one in legal], numbers.novelty) if numbers.novelty else model
    draws = Stem(seed)
    explored = draws.uniform("explore") < epsilon
    draw = draws.uniform("draw")
    index = int(draw * len(legal)) if explored else _inverse_cdf(tilted, draw)
    return Decision(
        action=legal[index],
        token_ids=(choices[index],),
        logprobs=(log(max(model[index], 1e-45)),),
        behaviour_probability=epsilon / len(legal) + (1 - epsilon) * tilted[index],
        explored=explored,
        parse=ParseOutcome.CHOICE,
    )


def write(completion: Completion, text: str, tools: Sequence[Tool]) -> Decision:
    """What was written, as an action: the text itself, or the call it makes where the world has tools.

    There is no uniform distribution over texts to explore with: all exploration is the sampling's own.
    """
    action, parse = text, ParseOutcome.TEXT
    if tools:
        action = read_call(text, tools)
        parse = ParseOutcome.CALL if action else ParseOutcome.NO_CALL
    return Decision(
        action=action,
        token_ids=completion.token_ids,
        logprobs=completion.logprobs,
        behaviour_probability=exp(min(0.0, fsum(completion.logprobs))),
        explored=False,
        parse=parse,
    )


def read_call(text: str, tools: Sequence[Tool]) -> str:
    """The first JSON object of the text as a canonical call; empty unless it names a tool and fits its arguments."""
    try:
        call, _ = json.JSONDecoder().raw_decode(text, text.index("{"))
        tool = next(tool for tool in tools if tool.name == call["name"])
        arguments = tool.arguments.model_validate_json(json.dumps(call.get("arguments", {}), allow_nan=False))
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError, StopIteration, ValidationError):
        return ""
    found = {"arguments": arguments.model_dump(mode="json"), "name": tool.name}
    return json.dumps(found, sort_keys=True, separators=(",", ":"))


def describe(tools: Sequence[Tool]) -> str:
    """What an agent is told of its tools, behind the rules; empty without tools."""
    if not tools:
        return ""
    lines = [f"{tool.name}({_signature(tool)}): {tool.description}" for tool in tools]
    return "\n".join(("Answer with one call as JSON:", '{"name": ..., "arguments": {...}}', *lines))


def _signature(tool: Tool) -> str:
    fields = tool.arguments.model_json_schema().get("properties", {})
    return ", ".join(f"{name}: {shape.get('type', 'value')}" for name, shape in fields.items())


def _softmax(logprobs: Sequence[float], temperature: float) -> list[float]:
    highest = max(logprobs)
    weights = [exp((logprob - highest) / temperature) for logprob in logprobs]
    total = sum(weights)
    return [weight / total for weight in weights]


def _tilt(probabilities: Sequence[float], taken: Sequence[int], novelty: float) -> list[float]:
    weights = [one * (1 + times) ** -novelty for one, times in zip(probabilities, taken, strict=True)]
    total = sum(weights)
    return [weight / total for weight in weights]


def _inverse_cdf(probabilities: Sequence[float], draw: float) -> int:
    passed = 0.0
    for index, probability in enumerate(probabilities):
        passed += probability
        if draw < passed:
            return index
    return len(probabilities) - 1
