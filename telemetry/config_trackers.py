"""Configuration of trackers: where people who already use one find a run's numbers.

Secrets are no part of it: they come from the environment, because a run file is kept with the run.
"""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from telemetry.config import Config

LINE = r"^[^\x00-\x1f\x7f-\x9f]{1,1000}$"
NAMED = r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}$"
"""What every tracker takes for the name of an experiment, a project or a team."""


def _server(text: str) -> str:
    """A web address without anything secret in it. What is refused is not repeated: it may hold a password."""
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("expected the http:// or https:// address of an MLflow server; `mlflow server` starts one")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            "expected an address alone; a user name, password or token belongs into MLFLOW_TRACKING_USERNAME,"
            " MLFLOW_TRACKING_PASSWORD or MLFLOW_TRACKING_TOKEN"
        )
    return text


class TensorboardConfig(Config):
    """Event files for TensorBoard; needs no package."""

    kind: Literal["tensorboard"] = "tensorboard"
    directory: str = Field(default="tensorboard", pattern=LINE)
    """What `tensorboard --logdir` is to be given; every run has a directory of its own in it."""


class MlflowConfig(Config):
    """Runs on an MLflow server; needs no package."""

    kind: Literal["mlflow"] = "mlflow"
    uri: Annotated[str, AfterValidator(_server)] = Field(default="http://127.0.0.1:5000", max_length=1000)
    """Address of the server."""
    experiment: str = Field(default="forager", pattern=NAMED)
    """Experiment that the run is shown in; it is made if there is none."""


class WandbConfig(Config):
    """Runs of Weights & Biases; needs the package wandb."""

    kind: Literal["wandb"] = "wandb"
    project: str = Field(default="forager", pattern=NAMED)
    """Project that the run is shown in."""
    entity: str | None = Field(default=None, pattern=NAMED)
    """User or team that owns the project; null is the user's default."""
    mode: Literal["offline", "online"] = "offline"
    """`offline` writes files that `wandb sync` sends later; `online` sends numbers as they come."""
    directory: str = Field(default=".", pattern=LINE)
    """Where wandb makes its directory `wandb`."""


TrackerConfig = Annotated[TensorboardConfig | MlflowConfig | WandbConfig, Field(discriminator="kind")]
