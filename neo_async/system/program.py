"""Runs a program to its end, by itself or by a signal, and says then what is open at the broker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any, NamedTuple, TypeVar

from neo_async.errors import UsageError

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)


class OpenAtBroker(NamedTuple):
    """What a client has left at the broker, as far as it knows."""

    ucc: str
    orders: int
    """Number of open orders that were placed by the client."""
    unknown: int
    """Number of order requests whose outcome is not known."""


_left: dict[str, OpenAtBroker] = {}
"""What clients have left open at their logouts while a program runs, by account."""
_stop: _Stop | None = None
"""What ends the program that runs; None while none does."""


def is_stopping() -> bool:
    """Return whether a signal is ending the program."""
    return _stop is not None and _stop.signal is not None


def note_told() -> None:
    """Note that the program has said itself what a signal leaves open: the line at the end is left
    out."""
    if _stop is not None:
        _stop.is_told = True


def note_left_open(left: OpenAtBroker) -> None:
    """Have what a client leaves open said when a signal ends the program. Without `run`, nothing
    is."""
    if _stop is None:
        return
    if left.orders or left.unknown:
        _left[left.ucc] = left
    else:
        _left.pop(left.ucc, None)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a program; see `neo_async.run`."""
    global _stop
    if _is_in_loop():
        main.close()
        raise UsageError(
            "an event loop runs here already, as it does in Jupyter and in async functions: write "
            "`await main()` instead of `neo_async.run(main())`"
        )
    stop = _stop = _Stop()
    try:
        with stop.installed(), asyncio.Runner(loop_factory=_loop_factory()) as runner:
            try:
                return runner.run(stop.guard(main))
            except asyncio.CancelledError:
                if stop.signal is None:
                    raise
        if not stop.is_told:
            sys.stderr.write(f"stopped by {stop.signal.name}{_left_open()}\n")
        raise SystemExit(128 + stop.signal)
    finally:
        _stop = None
        _left.clear()


class _Stop:
    """Ends the program at the first signal by cancelling its main task, and at the second at once.

    The handlers are those of the `signal` module, which exist on Windows as well.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        """The first signal that came."""
        self.is_told = False
        """Whether the program has said itself what is open."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals that nothing else handles. Only the main thread can."""
        ours = []
        if threading.current_thread() is threading.main_thread():
            ours = [one for one in _SIGNALS if signal.getsignal(one) in _DEFAULTS]
        before = {one: signal.signal(one, self._on_signal) for one in ours}
        try:
            yield
        finally:
            for one, handler in before.items():
                # The program may have put another one in its place.
                if signal.getsignal(one) == self._on_signal:
                    signal.signal(one, handler)

    async def guard(self, main: Coroutine[Any, Any, T]) -> T:
        """Await the program in the task that a signal cancels."""
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        return await main

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None or self._loop is None or self._task is None:
            sys.stderr.flush()
            os._exit(128 + number)
        self.signal = signal.Signals(number)
        # Wakes the loop, which may wait for its selector.
        self._loop.call_soon_threadsafe(self._task.cancel)


def _left_open() -> str:
    """Return the words for what all clients have left open; empty when nothing is known to be."""
    if not _left:
        return ""
    parts = [_words(one, with_account=len(_left) > 1) for one in _left.values()]
    is_to_cancel = any(one.orders for one in _left.values())
    return f": {'; '.join(parts)}{': neo-async cancel --all' * is_to_cancel}"


def _words(left: OpenAtBroker, *, with_account: bool) -> str:
    parts = []
    if left.orders:
        verb = "order is" if left.orders == 1 else "orders are"
        parts.append(f"{left.orders} {verb} open at the broker")
    if left.unknown:
        requests = "order request" if left.unknown == 1 else "order requests"
        parts.append(f"the outcome of {left.unknown} {requests} is unknown")
    return f"{left.ucc}: " * with_account + ", and ".join(parts)


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # Windows
        return None
    return uvloop.new_event_loop
