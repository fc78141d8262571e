"""The dials of the market world. Law: closed, bounded, and only data that is installed."""

from datetime import date
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from telemetry.config import Config
from workers.environments.market_data import missing

MOST_DAYS = 5000
"""Longest life: its daily returns have to fit the lives table."""


class MarketSettings(Config):
    """Dials of the market world. Wealth is energy: a life begins with 100 of it."""

    data: tuple[Literal["sp500", "nasdaq", "stocks"], ...] = Field(
        default=("sp500", "nasdaq", "stocks"), min_length=1, validate_default=True
    )
    """Data sets that lives are drawn from: two indices (package arch) and twenty shares (package skfolio)."""
    split: Literal["train", "heldout"] = "train"
    """Which side of the boundary lives are drawn from."""
    boundary: date = date(2013, 1, 1)
    """Training windows end before this day; held-out windows begin an embargo after it. One day for all series,
    because series move together."""
    until: date = date.max
    """Last day that a held-out window may touch."""
    horizon: int = Field(default=50, ge=1, le=1000)
    """Decisions after which a life that still goes on has survived."""
    days: int = Field(default=5, ge=1, le=60, validate_default=True)
    """Trading days from one decision to the next; a life is at most MOST_DAYS long."""
    leverage: float = Field(default=1.0, gt=0, le=5)
    """Size of a long or short position, as a multiple of wealth when it is taken."""
    cost_bps: float = Field(default=5.0, ge=0, le=500)
    """Commission on what is bought or sold, in basis points of its value."""
    slippage_bps: float = Field(default=5.0, ge=0, le=500)
    """What the price moves against a trade, in basis points of its value."""
    borrow_bps: float = Field(default=300.0, ge=0, le=10_000)
    """Yearly price of borrowed shares and borrowed money, in basis points of their value; 252 days are a year."""
    upkeep: float = Field(default=0.1, ge=0, le=100)
    """Energy that every trading day costs, whatever the agent does."""
    ruin: float = Field(default=80.0, gt=0, lt=100)
    """Energy at which a life is ruined."""

    @field_validator("data")
    @classmethod
    def _is_installed(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("data sets must differ")
        for name in value:
            if package := missing(name):
                raise ValueError(f"{name} needs the package {package}; pip install 'forager[market]' or leave it out")
        return value

    @field_validator("days")
    @classmethod
    def _fit_a_life(cls, value: int, info: ValidationInfo) -> int:
        if value * info.data.get("horizon", 1) > MOST_DAYS:
            raise ValueError(f"horizon * days must be at most {MOST_DAYS}")
        return value
