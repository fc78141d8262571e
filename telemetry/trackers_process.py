"""The process of one tracker: a message per line comes in, a line goes out once it is taken.

An empty line means taken; any other says what went wrong, and is the last one.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from telemetry.config_trackers import MlflowConfig, TensorboardConfig, WandbConfig
from telemetry.failures import one_line
from telemetry.trackers import END_SECONDS, About, Row
from telemetry.trackers_mlflow import Mlflow
from telemetry.trackers_tensorboard import Tensorboard
from telemetry.trackers_wandb import Wandb


class Sink(Protocol):
    """Where rows go. One that is opened again for the same run leaves out what it has already."""

    def write(self, row: Row) -> None:
        """Takes a row."""
        ...

    def close(self, finished: bool) -> None:
        """No row follows; `finished` if the run has nothing left to do."""
        ...


def open_sink(config: dict[str, Any], about: About) -> Sink:
    """The sink that a configuration describes."""
    kind = config["kind"]
    if kind == "tensorboard":
        return Tensorboard(TensorboardConfig.model_validate(config), about)
    if kind == "mlflow":
        return Mlflow(MlflowConfig.model_validate(config), about)
    return Wandb(WandbConfig.model_validate(config), about)


def main() -> None:
    """Serves until standard input ends, which is how a driver that was killed ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.dup(1)
    # What libraries print is for the log.
    os.dup2(2, 1)

    def attempt(action: Callable[[], Any]) -> Any:
        try:
            result = action()
        except BaseException as error:  # noqa: BLE001 - a library may raise anything; whatever it is, it is the answer
            _answer(answers, one_line(f"{type(error).__name__}: {error}", 300))
            os._exit(1)
        _answer(answers, "")
        return result

    opening = json.loads(sys.stdin.readline())
    sink: Sink = attempt(lambda: open_sink(opening["config"], About(**opening["about"])))
    for line in sys.stdin:
        message = json.loads(line)
        if "row" in message:
            attempt(partial(sink.write, Row(**message["row"])))
        else:
            attempt(partial(sink.close, bool(message["end"])))
            return
    # Nobody is left who would kill a process that hangs.
    signal.alarm(round(END_SECONDS))
    sink.close(False)


def _answer(descriptor: int, text: str) -> None:
    try:
        os.write(descriptor, f"{text}\n".encode())
    except OSError:  # the driver is gone, or does not listen any more
        return


if __name__ == "__main__":
    main()
