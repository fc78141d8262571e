"""A trader's books. Law: every unit of wealth that comes or goes has a line here; there is no credit below zero."""

from collections.abc import Sequence
from dataclasses import dataclass, field

START = 100.0
"""Wealth at birth; energy is wealth."""
DAYS_PER_YEAR = 252


@dataclass(slots=True)
class Account:
    """Wealth, what is held of the instrument, and what became of both."""

    wealth: float = START
    """Value of everything at the last close."""
    held: float = 0.0
    """Value of the position at the last close; negative when shares are owed."""
    turnover: float = 0.0
    """Value bought and sold so far, each trade relative to the wealth before it."""
    returns: list[float] = field(default_factory=list)
    """Daily returns after trading and borrowing, before upkeep."""
    drawdown: float = 0.0
    """Deepest fall from a peak so far, as a share of it."""
    _opened: float = START
    """Wealth at the last close, before the trade."""
    _value: float = 1.0
    """The returns compounded."""
    _peak: float = 1.0

    def trade(self, exposure: float, cost: float) -> None:
        """Brings the position to `exposure` times the wealth that is left after paying `cost` per value traded."""
        # Selling and buying differ in sign only, and the sign of the gap is the same before and after the cost.
        signed = cost if exposure * self.wealth > self.held else -cost
        left = max(0.0, (self.wealth + signed * self.held) / (1 + signed * exposure))
        self.turnover += abs(exposure * left - self.held) / self.wealth
        self.wealth, self.held = left, exposure * left

    def live(self, growth: Sequence[float], borrowing: float, upkeep: float, ruin: float) -> int:
        """The days of the instrument's returns `growth`, each with a rate on what is borrowed and the cost of living.

        Returns the days lived, which are fewer when wealth fell to `ruin`.
        """
        wealth, held, opened = self.wealth, self.held, self._opened
        value, peak, drawdown = self._value, self._peak, self.drawdown
        days = 0
        for rate in growth:
            borrowed = -held if held < 0 else held - wealth if held > wealth else 0.0
            wealth += held * rate - borrowed * borrowing
            if wealth < 0:
                wealth = 0.0
            held += held * rate
            gain = wealth / opened
            self.returns.append(gain - 1)
            value *= gain
            if value > peak:
                peak = value
            elif 1 - value / peak > drawdown:
                drawdown = 1 - value / peak
            wealth = opened = wealth - upkeep if wealth > upkeep else 0.0
            days += 1
            if wealth <= ruin:
                break
        self.wealth, self.held, self._opened = wealth, held, opened
        self._value, self._peak, self.drawdown = value, peak, drawdown
        return days
