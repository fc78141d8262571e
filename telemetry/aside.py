"""Blocking work in a thread that nobody has to wait for, not even the end of this process."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Any


def aside(work: Callable[[], Any]) -> "Future[Any]":
    """What the work returns or raises, once it does."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - raised where the work is awaited, if it still is
            future.set_exception(error)

    Thread(target=run, name="aside", daemon=True).start()
    return future
