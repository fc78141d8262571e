"""An asyncio loop whose clock jumps to the next timer: hours of waiting pass in microseconds, and nothing is random.

Callbacks run in the order in which they were scheduled, timers when they are due, work for a thread at a time of its
own, and sets of tasks iterate in the order in which the tasks were made. So one seed is one schedule, on any machine.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any


class Deadlock(Exception):
    """Nothing is scheduled any more: whoever waits now waits for ever."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Drives one simulated driver and the cluster that lives and dies with it."""

    def __init__(self, delay: Callable[[], float], turn: Callable[[], None]) -> None:
        """`delay` draws how long a thread works, in seconds; `turn` is called before every turn of the loop."""
        super().__init__()
        self.turn = turn
        self.turns = 0
        self.under_way: dict[int, Callable[[], Any]] = {}
        """Work handed to threads that has not been done yet."""
        self.errors: list[str] = []
        """What raised where nobody catches."""
        self._selector = self._clock = _Clock()
        self._delay = delay
        self._numbers = count()
        self.set_task_factory(partial(_make_task, self._numbers))
        self.set_exception_handler(_note_error)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._clock.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":
        """Does the work after a drawn delay, in one piece, whether or not anybody still waits for it."""
        future, number = self.create_future(), next(self._numbers)
        self.under_way[number] = partial(func, *args)
        self.call_later(self._delay(), self._do, number, future)
        return future

    def abandon(self) -> list[Callable[[], Any]]:
        """Ends every task and closes the loop, as the end of a process does; returns work that threads had begun."""
        self.turn = lambda: None
        begun = list(self.under_way.values())
        self.under_way.clear()
        while left := sorted(asyncio.all_tasks(self), key=hash):
            for task in left:
                task.cancel()
            ended = asyncio.gather(*left, return_exceptions=True)
            # A process that dies just as its main task ends leaves an order to stop the loop, which comes once.
            while not ended.done():
                with suppress(RuntimeError):
                    self.run_until_complete(ended)
        self.close()
        return begun

    def _do(self, number: int, future: "asyncio.Future[Any]") -> None:
        work = self.under_way.pop(number, None)
        if work is None:
            return
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - handed on to whoever waits
            if not future.done():
                future.set_exception(error)
        else:
            if not future.done():
                future.set_result(result)

    def _run_once(self) -> None:
        self.turns += 1
        self.turn()
        super()._run_once()  # type: ignore[misc]

    def _process_events(self, events: list[Any]) -> None:
        pass


class _Clock:
    """Stands where the loop expects a selector: waiting for events moves the time on."""

    def __init__(self) -> None:
        self.now = 0.0

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Deadlock
        self.now += timeout
        return []


class _Task(asyncio.Task[Any]):
    """A task that is its own number in a set."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], *, number: int, **options: Any) -> None:
        self._number = number
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self._number


def _make_task(
    numbers: "count[int]", loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
) -> _Task:
    return _Task(coroutine, number=next(numbers), loop=loop, **options)


def _note_error(loop: VirtualLoop, context: dict[str, Any]) -> None:
    # A task that ended with an error nobody asked for is a dead peer's; an error in a callback is a bug.
    if "handle" in context:
        loop.errors.append(f"{context['message']}: {context.get('exception')!r}")
