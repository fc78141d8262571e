"""The dials of the news world. Law: closed, bounded; what is held out begins after every training return is known."""

import re
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from telemetry.config import Config

SYNTHETIC, NO_SIGNAL = "synthetic", "synthetic-no-signal"
"""Data made by code: with returns that the text explains in part, and with the same returns in random order."""


class NewsSettings(Config):
    """Dials of the news world. Forecasts and returns are counted in standard deviations of the training returns."""

    data: str = Field(default=SYNTHETIC, max_length=4096)
    """`synthetic`, `synthetic-no-signal`, or the absolute path of a .parquet or .csv file with the columns `time`,
    `text` and `return`, which every machine of the run finds at the same place."""
    split: Literal["train", "heldout"] = "train"
    """Which articles are read; held-out evaluation reads the others."""
    heldout_share: float = Field(default=0.25, ge=0.01, le=0.99)
    """Share of the articles, the latest ones, that is held out."""
    return_days: int = Field(default=1, ge=1, le=3650)
    """Calendar days over which a return is earned; articles so close together are one observation in statistics."""
    embargo_days: int = Field(default=7, ge=1, le=3650, validate_default=True)
    """Calendar days before the first held-out article from which nobody learns; at least `return_days`."""
    max_chars: int = Field(default=600, ge=20, le=20_000)
    """Characters of an article that are shown."""
    horizon: int = Field(default=24, ge=1, le=500)
    """Articles of a life."""
    start_energy: float = Field(default=10.0, gt=0, le=1e6)
    """Energy at birth."""
    upkeep: float = Field(default=0.5, gt=0, le=1e6)
    """Energy that every step costs."""
    scale: float = Field(default=2.0, gt=0, le=1e6)
    """Energy for each unit of squared error less than that of forecasting zero."""
    grade: float = Field(default=0.5, gt=0, le=10)
    """Return that `rise` forecasts; `jump` forecasts twice as much, `slip` and `drop` the same below zero."""
    winsor: float = Field(default=4.0, ge=1, le=100)
    """Returns further from zero than this count as this, in energy, score and skill."""
    articles: int = Field(default=3000, ge=100, le=1_000_000)
    """Articles of synthetic data."""
    signal: float = Field(default=0.5, ge=0, le=1)
    """Share of the variance of synthetic returns that the stated facts explain."""
    data_seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of synthetic data."""

    @property
    def is_synthetic(self) -> bool:
        return self.data in (SYNTHETIC, NO_SIGNAL)

    @field_validator("data")
    @classmethod
    def _is_known_or_a_path(cls, value: str) -> str:
        if value not in (SYNTHETIC, NO_SIGNAL) and not re.fullmatch(r"/[^\0]*\.(parquet|csv)", value, re.DOTALL):
            raise ValueError(f"expected {SYNTHETIC}, {NO_SIGNAL}, or an absolute path that ends in .parquet or .csv")
        return value

    @field_validator("embargo_days")
    @classmethod
    def _covers_the_return(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("return_days", value):
            raise ValueError(f"embargo_days must be at least return_days ({info.data['return_days']})")
        return value
