"""Well: an animal beside a well that runs dry and fills again; digging costs, drinking mud harms."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, Field

from telemetry.records import EndReason
from telemetry.seeds import rng
from workers.environment import Observation, Outcome


class Dials(BaseModel, extra="forbid"):
    horizon: int = Field(default=40, ge=1, le=1000)
    """Steps after which a life has survived."""
    springs: float = Field(default=0.5, ge=0, le=1)
    """How often digging finds water."""


class Well:
    name: ClassVar[str] = "well-v1"
    Settings: ClassVar[type[BaseModel]] = Dials
    rules = "Do not die of thirst. Say drink, dig or rest."
    actions = ("drink", "dig", "rest")

    def __init__(self, settings: Dials) -> None:
        self.settings = settings
        self.horizon = settings.horizon

    def reset(self, seed: int) -> Observation:
        self.luck = rng(seed, "well").random(self.horizon).tolist()
        self.energy, self.water, self.day = 8, 2, 0
        return self.observe()

    def step(self, action: str) -> Outcome:
        found = action == "dig" and self.luck[self.day] < self.settings.springs
        drunk = action == "drink" and self.water > 0
        self.water += 3 * found - drunk
        self.energy += -2 if action == "dig" else 3 if drunk else -3 if action == "drink" else -1
        self.energy, self.day = min(self.energy, 12), self.day + 1
        dead = self.energy <= 0
        return Outcome(self.observe(), EndReason.DIED if dead else None, "thirst" if dead else "")

    def state(self) -> Mapping[str, Any]:
        return {"day": self.day, "energy": self.energy, "water": self.water}

    def observe(self) -> Observation:
        sight = "water" if self.water else "mud"
        return Observation(f"Energy {self.energy}. The well holds {sight}.", self.actions, float(self.energy))

    @staticmethod
    def heuristic(observation: Observation) -> str:
        if "water" not in observation.text:
            return "dig"
        return "drink" if observation.energy <= 9 else "rest"
