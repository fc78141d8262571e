"""The dials of the bills world. Law: closed, bounded, and consistent with each other before a world is built."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from telemetry.config import Config
from workers.environments.bills_jobs import LEVELS


class BillsSettings(Config):
    """Dials of the bills world. Energy is money."""

    split: Literal["train", "heldout"] = "train"
    """Which words and numbers the jobs are about; held-out evaluation asks what nobody learned from."""
    horizon: int = Field(default=24, ge=1, le=1000)
    """Offers of a life; whoever still can pay after the last one has survived."""
    start_energy: float = Field(default=20.0, gt=0, le=1e6)
    """Energy at birth."""
    rent: float = Field(default=1.0, ge=0, le=1e6)
    """Energy that is due every step, whatever is done."""
    prompt_token: float = Field(default=0.002, ge=0, le=1e3)
    """Energy for each token that is read: rules, strategy and offer."""
    completion_token: float = Field(default=0.2, ge=0, le=1e3)
    """Energy for each token that is said, the one that ends the answer included."""
    max_tokens: int = Field(default=10, ge=1, le=256)
    """Longest answer."""
    pay: int = Field(default=4, ge=1, le=1000)
    """Energy that a job of level 1 pays, give or take 1; at least 1 is paid."""
    pay_per_level: int = Field(default=1, ge=0, le=1000)
    """Further energy for each level above it."""
    fine: float = Field(default=1.0, ge=0, le=10)
    """Share of the pay that a wrong answer costs."""
    skip_cost: float = Field(default=0.2, ge=0, le=1e6)
    """Energy that refusing a job costs."""
    first_level: int = Field(default=1, ge=1, le=LEVELS)
    """Level of the first offers, on average."""
    last_level: int = Field(default=3, ge=1, le=LEVELS, validate_default=True)
    """Level of the last offers, on average: jobs get harder as life goes on."""

    @field_validator("last_level")
    @classmethod
    def _is_no_easier(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("first_level", value):
            raise ValueError(f"last_level must be at least first_level ({info.data['first_level']})")
        return value
