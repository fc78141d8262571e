"""Numbers for people."""


def number(value: float) -> str:
    """`18.2`, `1.04`, `0.021`: about three digits."""
    return f"{value:.{_decimals(abs(value))}f}"


def interval(value: float, low: float, high: float) -> str:
    """`18.2 [15.9, 20.8]`, `0.021 [-0.003, 0.045]`: as many decimals as the largest of the three needs."""
    decimals = _decimals(max(abs(value), abs(low), abs(high)))
    return f"{value:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"


def _decimals(size: float) -> int:
    return 1 if size >= 5 or size == 0 else 2 if size >= 0.5 else 3
