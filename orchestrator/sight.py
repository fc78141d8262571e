"""What an agent in a run's world is shown: what its prompts, and so its decisions, cost."""

from dataclasses import dataclass

from orchestrator.config import RunConfig
from workers.environment import is_shared
from workers.guard import Guard, SharedGuard
from workers.registry import make

TOKENS_PER_CHARACTER = 0.3
"""Rule of thumb for English chat prompts; the ledger records the exact numbers."""
FRAME = 60
"""Characters of a prompt that are neither the agent's instructions nor what it sees."""


@dataclass(frozen=True)
class Sight:
    """What an agent in the run's world is shown, in tokens, and for how long."""

    world: str
    shared: bool
    """All individuals live in one instance."""
    horizon: int
    told: float
    """Rules and strategy: the same at every step."""
    seen: float
    """What the prompt adds at a step."""
    said: int
    """Decoded for a decision, at most: 0 for a choice, which ends with its prompt."""

    @property
    def prompt(self) -> float:
        return self.told + self.seen


def look(config: RunConfig) -> Sight:
    """The world as it shows itself. Raises UsageError when it cannot be made, EnvironmentFailure when it is broken."""
    made = make(config.environment.name, config.environment.settings)
    world = SharedGuard(made) if is_shared(made) else Guard(made)
    shared = isinstance(world, SharedGuard)
    first = world.reset(0, config.population.size)[0] if isinstance(world, SharedGuard) else world.reset(0)
    shown = len(world.rules) + max(len(founder.strategy) for founder in config.population.founders)
    return Sight(
        world=world.name,
        shared=shared,
        horizon=world.horizon,
        told=shown * TOKENS_PER_CHARACTER,
        seen=(len(first.text) + FRAME) * TOKENS_PER_CHARACTER,
        said=0 if first.legal else first.max_tokens,
    )
