"""The dials of the foraging world. Law: closed, bounded, and consistent with each other before a world is built."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from telemetry.config import Config


class ForageSettings(Config):
    """Dials of the foraging world. Energy is counted in whole units."""

    size: int = Field(default=10, ge=5, le=64)
    """Cells along each side of the land."""
    maps: Literal["train", "unseen"] = "train"
    """Family of maps: `train` strews bushes and patches evenly; `unseen` has groves, belts of terrain and a near den,
    to be asked for in held-out evaluation."""
    horizon: int = Field(default=60, ge=1, le=1000)
    """Steps after which a life that still goes on has survived."""
    max_energy: int = Field(default=20, ge=1, le=1000)
    """Energy that a body can hold; food beyond it is wasted."""
    start_energy: int = Field(default=10, ge=1, le=1000, validate_default=True)
    """Energy at birth."""
    metabolism: int = Field(default=1, ge=1, le=100)
    """Energy that every step costs."""
    food_energy: int = Field(default=8, ge=1, le=1000)
    """Energy that one ripe bush gives."""
    bushes: int = Field(default=16, ge=0, le=1024, validate_default=True)
    """Bushes on the land; at most a quarter of its cells."""
    regrow_steps: int = Field(default=20, ge=1, le=1000)
    """Steps until an eaten bush is ripe again."""
    sight: int = Field(default=3, ge=1, le=64)
    """Steps away that agent and wolf can see; halved (rounded up) by rain."""
    marsh_cost: int = Field(default=1, ge=0, le=100)
    """Further energy that entering a marsh costs."""
    frost_cost: int = Field(default=1, ge=0, le=100)
    """Further energy that a step in frost costs, unless the agent rests."""
    weather: bool = True
    """False keeps the sky clear."""
    predator: bool = True
    """False leaves the wolf out."""
    predator_speed: float = Field(default=0.6, ge=0, le=1)
    """Probability that the wolf moves in a step; an agent moves in every step that it wants to."""
    bite: int = Field(default=10, ge=1, le=1000)
    """Energy that a bite costs; the wolf then goes back to its den."""

    @field_validator("start_energy")
    @classmethod
    def _fits_the_body(cls, value: int, info: ValidationInfo) -> int:
        if value > info.data.get("max_energy", value):
            raise ValueError(f"start_energy must be at most max_energy ({info.data['max_energy']})")
        return value

    @field_validator("bushes")
    @classmethod
    def _fit_the_land(cls, value: int, info: ValidationInfo) -> int:
        room = info.data.get("size", 64) ** 2 // 4
        if value > room:
            raise ValueError(f"bushes must be at most a quarter of the cells ({room})")
        return value
