"""The base of every room's configuration, and the telemetry room's own."""

from pydantic import BaseModel, ConfigDict, Field

NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"
"""Of runs, lineages and whatever else users name."""
MEMBER = r"^[A-Za-z_]\w{0,62}$"
"""Of JSON objects that worlds write."""


class Config(BaseModel):
    """A closed section of a run file: unknown keys are errors, values are bounded, fields are documented."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


class MetricsConfig(Config):
    """Where Prometheus finds the run."""

    enabled: bool = True
    """Serve /metrics and /health while the run lives."""
    host: str = Field(default="127.0.0.1", pattern=r"^[A-Za-z0-9_:%-]{1,63}(\.[A-Za-z0-9_:%-]{1,63})*$")
    """Address to listen on; anything but loopback exposes the numbers to the network."""
    port: int = Field(default=9464, ge=0, le=65535)
    """TCP port; 0 lets the system pick a free one, which the driver prints."""


class LedgerConfig(Config):
    """How telemetry reaches the store."""

    commit_seconds: float = Field(default=10.0, gt=0, le=3600)
    """Longest time finished lives wait for their commit; many wait for no clock. A crash loses at most these."""
    min_free_gib: float = Field(default=1.0, ge=0, le=1e9)
    """A generation does not start with less free space than this on a local store."""
