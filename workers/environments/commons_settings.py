"""The dials of the commons. Law: closed, bounded, and consistent with each other before a world is built."""

from pydantic import Field, ValidationInfo, field_validator

from telemetry.config import Config


class CommonsSettings(Config):
    """Dials of the commons. Goods are counted in whole units; costs are paid in both goods."""

    horizon: int = Field(default=40, ge=1, le=1000)
    """Turns after which a life that still goes on has survived."""
    crowding: int = Field(default=1, ge=1, le=64)
    """Agents per patch at the beginning; there are always at least four patches, and an even number."""
    capacity: int = Field(default=40, ge=2, le=1000)
    """Units that a patch holds when it is full; it begins between half full and full."""
    regrowth: int = Field(default=50, ge=0, le=100)
    """Growth of a nearly bare patch in percent per turn; it slows down as the patch fills up."""
    hold: int = Field(default=30, ge=2, le=1000)
    """Units of each good that an agent can hold."""
    start: int = Field(default=14, ge=1, le=1000, validate_default=True)
    """Units of each good that founders begin with, before up to half of the one is swapped for as much of the other."""
    burn: int = Field(default=2, ge=1, le=100, validate_default=True)
    """What a turn costs."""
    idle: int = Field(default=1, ge=1, le=100, validate_default=True)
    """What a turn costs who rests, calls or warns; at most `burn`."""
    handful: int = Field(default=8, ge=1, le=100)
    """Units that one gathering takes at most."""
    gift: int = Field(default=4, ge=1, le=100)
    """Units that sharing hands over at most; a trade swaps as many each way."""
    loot: int = Field(default=4, ge=1, le=100)
    """Units that a robbery takes at most."""
    birth: int = Field(default=10, ge=1, le=1000, validate_default=True)
    """What a descendant costs its parent."""
    dowry: int = Field(default=8, ge=1, le=1000, validate_default=True)
    """Units of each good, out of that cost, that the descendant begins with."""
    room: int = Field(default=2, ge=1, le=100)
    """Agents that can be alive at once, as a multiple of the founders."""

    @field_validator("start")
    @classmethod
    def _can_be_held(cls, value: int, info: ValidationInfo) -> int:
        return _at_most(value, "start", "hold", info)

    @field_validator("burn")
    @classmethod
    def _leaves_something(cls, value: int, info: ValidationInfo) -> int:
        return _at_most(value, "burn", "start", info)

    @field_validator("idle")
    @classmethod
    def _is_cheaper(cls, value: int, info: ValidationInfo) -> int:
        return _at_most(value, "idle", "burn", info)

    @field_validator("dowry")
    @classmethod
    def _is_paid_for(cls, value: int, info: ValidationInfo) -> int:
        return _at_most(_at_most(value, "dowry", "birth", info), "dowry", "hold", info)


def _at_most(value: int, name: str, other: str, info: ValidationInfo) -> int:
    if value > info.data.get(other, value):
        raise ValueError(f"{name} must be at most {other} ({info.data[other]})")
    return value
