"""Optional packages that worlds are made of."""

from importlib.util import find_spec

from telemetry.failures import UsageError


def need(package: str, extra: str) -> None:
    """Raises UsageError when an optional package, by its import name, is not installed."""
    if find_spec(package) is None:
        raise UsageError(f"environment {extra}: the package {package} is not installed; pip install 'forager[{extra}]'")
