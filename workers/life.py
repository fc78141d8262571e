"""The inner loop: observe, prompt, complete, act, record - one life from birth to its end."""

from collections.abc import Awaitable, Callable

from telemetry.records import EndReason
from telemetry.seeds import seed63
from workers.action import decide
from workers.engine import Completion, CompletionRequest
from workers.environment import Environment, Guard
from workers.environment import EnvironmentFailure as EnvironmentFailure
from workers.prompt import Codec
from workers.recorder import LifeRecord, LifeTask

Ask = Callable[[CompletionRequest], Awaitable[Completion]]
"""Gets one completion from whatever engine serves the individual."""


async def live(task: LifeTask, environment: Environment, codec: Codec, ask: Ask, run_seed: int) -> LifeRecord:
    """Lives one life. Raises EnvironmentFailure when the world breaks, or whatever `ask` raises.

    The world is reset with the task's seed; every decision draws from an address of its own, so the record
    depends on nothing but the task and the engine's answers.
    """
    record, world = LifeRecord(task), Guard(environment)
    genome, numbers = task.individual.genome, task.individual.genome.hyperparameters
    system = f"{world.rules} {genome.strategy}"
    observation = world.reset(task.world_seed)
    while True:
        step = len(record.action)
        prompt, choices = codec.prompt(system, observation.text), codec.choices(observation.legal)
        request = CompletionRequest(prompt, genome.adapter, choices)
        seed = seed63(run_seed, "decision", task.individual.id, task.life, step)
        decision = decide(
            await ask(request), observation.legal, temperature=numbers.temperature, epsilon=numbers.epsilon, seed=seed
        )
        outcome = world.step(step, decision.action)
        record.add(observation, request, decision, seed, outcome.observation.energy, world.state(step))
        observation = outcome.observation
        if outcome.end is not None or step + 1 == world.horizon:
            record.close(outcome.end or EndReason.SURVIVED, outcome.cause)
            return record
