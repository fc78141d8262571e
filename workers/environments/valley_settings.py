"""The dials of the valley. Law: closed and bounded."""

from typing import Literal

from pydantic import Field

from telemetry.config import Config

STORES = ("food", "water", "ammo", "meds", "parts")
"""What the party carries that has a dial."""


class ValleySettings(Config):
    """What a party sets out with, and how long it has to last."""

    horizon: int = Field(default=60, ge=1, le=1000)
    """Decisions after which a life that still goes on has survived."""
    winter: float = Field(default=2.0, ge=0, le=100)
    """Miles that winter comes nearer with every decision; 0 leaves it out, and then the party may dawdle."""
    head_start: int = Field(default=14, ge=1, le=10_000)
    """Miles that winter is behind at the start."""
    food: int = Field(default=10, ge=0, le=200)
    """Food at the start; the game itself gives 50."""
    water: int = Field(default=16, ge=0, le=200)
    """Water at the start; the game itself gives 50."""
    ammo: int = Field(default=12, ge=0, le=100)
    """Ammunition at the start: one a hunt; the game itself gives 20."""
    meds: int = Field(default=2, ge=0, le=20)
    """Medicine at the start; the game itself gives 5."""
    parts: int = Field(default=2, ge=0, le=10)
    """Spare parts at the start; the game itself gives 4."""
    wagon: int = Field(default=80, ge=1, le=100)
    """Condition of the wagon at the start."""
    health: int = Field(default=50, ge=1, le=100)
    """Health of the party at the start, in percent of what the game gives: 80 to 100 points each."""
    pace: Literal["slow", "steady", "hard"] = "steady"
    """How far a step of travel goes and what it takes: 3, 5 or 8 miles for 0.8, 1 or 1.3 times the stores."""
