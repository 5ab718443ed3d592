"""A loop whose time passes only when nothing is left to do, and then at once.

Sockets are real. A test that waits for the next TOTP code, for 15:15 or for the end of a pause that
the server asked for takes milliseconds and always the same steps.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable
from typing import Any

_GRACE = 0.001
"""Real seconds in which bytes on their way through the kernel may arrive before time is moved."""

_PATIENCE = 5.0
"""Real seconds to wait for something from outside when no timer is left."""

_THREAD_PATIENCE = 1.0
"""Real seconds for which a function in a thread holds up the time. One that takes longer waits, as
a rule, for something that only time brings about."""

_BUSY_TURNS = 100
"""Turns of the loop that take a microsecond. Rounding may leave a wait that is too short to move
the clock, and that would never end."""


class _Selector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.running_in_threads = 0
        self._busy_turns = 0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            ready = super().select(_PATIENCE)
            if not ready:
                raise RuntimeError(
                    "nothing is scheduled and nothing arrives: the program waits for what can "
                    "never happen"
                )
            return ready
        if timeout <= 0:
            self._busy_turns += 1
            if self._busy_turns % _BUSY_TURNS == 0:
                self.now += 1e-6
            return super().select(timeout)
        if self.running_in_threads:
            ready = super().select(_THREAD_PATIENCE)
            if ready:
                return ready
        has_sockets = len(self.get_map()) > 1  # the first is the loop's own
        ready = super().select(_GRACE if has_sockets else 0)
        if not ready:
            self.now += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop over real sockets whose clock advances to the next timer when it is idle.

    `loop.time()` begins at 0. What runs in threads and other processes takes real time.
    """

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Return the virtual seconds since the loop was made."""
        return self._virtual.now

    def run_in_executor(  # type: ignore[override]  # typeshed's form takes type variables
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> Any:
        """Run a function in a thread, which holds up the time while it runs."""
        # The journal's work for a thread is done at once: a real thread would end sooner or later
        # than the traffic beside it, and time would pass meanwhile.
        work = func.args[0] if isinstance(func, functools.partial) and func.args else func
        if not (getattr(work, "__module__", None) or "").startswith("neo_async.execution.journal"):
            self._virtual.running_in_threads += 1
            running = super().run_in_executor(executor, func, *args)
            running.add_done_callback(self._thread_is_done)
            return running
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    def _thread_is_done(self, _: object) -> None:
        self._virtual.running_in_threads -= 1

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for the threads, however long they take."""
        # Threads work in real time: a limit of virtual time would be over before they end.
        await super().shutdown_default_executor()
