"""Records for another model: the same texts and decisions, in that model's tokens. Pure.

Law: records are text. What an agent read and did is told again exactly as an agent on the other model would have read
and done it; only the tokens differ.
"""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from telemetry.tables import STEPS
from workers.action import describe
from workers.environment import World
from workers.prompt import Codec
from workers.recorder import id_lists

TOKENS = ("prompt_ids", "completion_ids", "choice_ids")


def retell(
    steps: pa.Table, strategies: Mapping[str, str], world: World, codec: Codec, end: tuple[int, ...]
) -> pa.Table:
    """Steps (columns individual, observation, legal and action at least) with the token columns of another model.

    strategies: by individual. end: the token that ends a turn, empty where the model has none. Raises UsageError when
    two actions begin with the same token of that model.
    """
    told: dict[str, list[Sequence[int]]] = {name: [] for name in TOKENS}
    tools = describe(getattr(world, "tools", ()))
    systems = {
        individual: " ".join(part for part in (world.rules, tools, strategy) if part)
        for individual, strategy in strategies.items()
    }
    columns = (steps[name].to_pylist() for name in ("individual", "observation", "legal", "action"))
    for individual, observation, legal, action in zip(*columns, strict=True):
        choices = codec.choices(legal) if legal else ()
        told["prompt_ids"].append(codec.prompt(systems[individual], observation))
        told["choice_ids"].append(choices)
        told["completion_ids"].append((choices[legal.index(action)],) if legal else (*codec.text(action), *end))
    for name, values in told.items():
        steps = steps.set_column(steps.column_names.index(name), STEPS.field(name), id_lists(values))
    return steps
