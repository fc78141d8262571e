"""The inner loop: observe, prompt, complete, act, record - one life from birth to its end."""

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from telemetry.failures import ForagerError
from telemetry.records import EndReason
from telemetry.seeds import seed63
from workers.action import decide
from workers.engine import Completion, CompletionRequest
from workers.environment import Environment
from workers.prompt import Codec
from workers.recorder import LifeRecord, LifeTask

Ask = Callable[[CompletionRequest], Awaitable[Completion]]
"""Gets one completion from whatever engine serves the individual."""


class EnvironmentFailure(ForagerError):
    """A world broke its contract; the fault of its author, never of the agent."""

    exit_code = 2


@contextmanager
def boundary(environment: Environment, what: str) -> Iterator[None]:
    """The one place where a world's exceptions are turned into a failure with a name."""
    try:
        yield
    except Exception as error:  # a world is foreign code and may raise anything
        raise EnvironmentFailure(
            f"environment {environment.name}: {what} raised {type(error).__name__}: {error}"
        ) from error


async def live(task: LifeTask, environment: Environment, codec: Codec, ask: Ask, run_seed: int) -> LifeRecord:
    """Lives one life. Raises EnvironmentFailure when the world breaks, or whatever `ask` raises.

    The world is reset with the task's seed; every decision draws from an address of its own, so the record
    depends on nothing but the task and the engine's answers.
    """
    record = LifeRecord(task)
    genome, numbers = task.individual.genome, task.individual.genome.hyperparameters
    system = f"{environment.rules} {genome.strategy}"
    with boundary(environment, "reset"):
        observation = environment.reset(task.world_seed)
    while True:
        prompt, choices = codec.prompt(system, observation.text), codec.choices(observation.legal)
        request = CompletionRequest(prompt, genome.adapter, choices)
        seed = seed63(run_seed, "decision", task.individual.id, task.life, len(record.action))
        decision = decide(
            await ask(request), observation.legal, temperature=numbers.temperature, epsilon=numbers.epsilon, seed=seed
        )
        with boundary(environment, f"step {len(record.action)}"):
            outcome = environment.step(decision.action)
            state = json.dumps(environment.state(), separators=(",", ":"), allow_nan=False)
        record.add(observation, request, decision, seed, outcome.observation.energy, state)
        observation = outcome.observation
        if outcome.end is not None or len(record.action) == environment.horizon:
            record.close(outcome.end or EndReason.SURVIVED, outcome.cause)
            return record
