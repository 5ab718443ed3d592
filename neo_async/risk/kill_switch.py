"""The kill switch: no order is placed or changed from a halt on, and every open order is cancelled.

`halt` is called by the program, by a signal, or by the dead man's switch (see watchdog.py). The
cancelling itself is in cancellation.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

from neo_async.base import logs
from neo_async.base.logs import logger_of
from neo_async.errors import (
    Halted,
    NeoError,
    UsageError,
)
from neo_async.execution.engine import ExecutionEngine
from neo_async.execution.journal import Journal
from neo_async.execution.journal_schema import CancelScope, Intent
from neo_async.execution.order import Order
from neo_async.risk.cancellation import OpenOrderCancellation
from neo_async.transport.trading_state import TradingState

GIVE_UP_SECONDS = 120.0
"""Shortest time after which a halt gives up an order that the broker does not account for, and
reports it: the broker has answered its cancels, and the order book lacks it or shows an unknown
status."""


class KillSwitch:
    """Halts trading until `resume`, and cancels open orders.

    `close` ends a cancelling that is not done; the next login continues it. With a journal, the
    next process on that journal does.
    """

    def __init__(
        self,
        engine: ExecutionEngine,
        state: TradingState,
        *,
        journal: Journal | None = None,
        resolution_timeout: float = 30.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """See NeoClient for `resolution_timeout` and `clock`."""
        self._engine = engine
        self.log = logger_of(logs.RISK, engine.ucc)
        self._state = state
        self._journal = journal
        self._give_up_after = max(GIVE_UP_SECONDS, 2 * resolution_timeout)
        self._clock = clock
        self._listeners: list[Callable[[Halted], None]] = []
        self._cancellation: OpenOrderCancellation | None = None
        self._task: asyncio.Task[list[Order | NeoError]] | None = None
        """The task that runs `_cancellation`."""
        self._tasks: set[asyncio.Task[list[Order | NeoError]]] = set()
        """Running tasks: that of `_cancellation`, and those of earlier halts."""
        self._signals: dict[int, asyncio.AbstractEventLoop] = {}
        """Event loops with a handler of ours, by signal number."""
        self._logins = 0
        """Number of logins under way."""
        self._scope = CancelScope.NONE
        """The orders that the present halt cancels, late orders included."""
        self._is_pending = False
        """Whether the present halt cancels orders and has not proved yet that none is open."""
        self._is_announced = True
        """Whether the listeners were called for the present halt."""
        self._was_resumed = False
        """Whether the program has resumed, and the journal may still hold the halt."""
        self._earlier_placements: Sequence[Intent] = ()
        """Placements of an earlier process whose orders may be open, while a login is under way."""
        engine.on_late_order(self._cancel_late_order)

    @property
    def halted(self) -> Halted | None:
        """Why and since when trading is halted; None while it is not. See NeoClient.halted."""
        return self._state.halted

    def halt(
        self, *, scope: CancelScope = CancelScope.ALL, reason: str = "halt() was called"
    ) -> Awaitable[list[Order | NeoError]]:
        """Halt trading and cancel open orders. A later halt cancels no fewer. See
        NeoClient.halt."""
        if self.halted is None:
            self._is_announced = self._was_resumed = False
            self._state.halt(Halted(reason, since=self._clock()))
        loop = asyncio.get_running_loop()
        if scope is CancelScope.NONE:
            self._persist_and_announce()
            nothing: asyncio.Future[list[Order | NeoError]] = loop.create_future()
            nothing.set_result([])
            return nothing
        self._scope = scope if self._scope is CancelScope.NONE else min(scope, self._scope)
        self._is_pending = True
        task = self._start_cancelling()
        # A handler made by signal.signal runs while the loop waits for its selector: the new task
        # would not start before the next event. This wakes the loop.
        loop.call_soon_threadsafe(lambda: None)
        # A caller that stops waiting must not cancel the task.
        return asyncio.shield(task)

    def resume(self) -> None:
        """End the halt, and leave open orders open."""
        if self.halted is not None:
            self._announce()
            self.log.warning("trading resumed after the halt (%s)", self.halted.reason)
        self._state.activate()
        self._scope, self._is_pending = CancelScope.NONE, False
        self._was_resumed = True
        if self._cancellation is not None:
            self._cancellation.end()
        self._persist()

    def on_halt(self, listener: Callable[[Halted], None]) -> None:
        """Call `listener` at every halt. See NeoClient.on_halt."""
        self._listeners.append(listener)

    def on_signal(self, number: int) -> None:
        """Halt at a signal. See NeoClient.halt_on_signal."""
        loop = asyncio.get_running_loop()
        name = signal.Signals(number).name
        try:
            loop.add_signal_handler(number, lambda: self.halt(reason=f"signal {name}"))
        except (NotImplementedError, RuntimeError, ValueError) as error:
            raise UsageError(
                f"signal {name} cannot be handled ({error or 'not on this system'}): it takes an "
                "event loop in the main thread, and not Windows"
            ) from error
        self._signals[number] = loop

    def ignore_signals(self) -> None:
        """Remove the handlers of `on_signal`."""
        for number, loop in self._signals.items():
            loop.remove_signal_handler(number)
        self._signals.clear()

    def stop(self) -> None:
        """Stop cancelling until the next login."""
        if self._cancellation is not None:
            self._cancellation.end()

    async def close(self) -> None:
        """Stop, and wait until the cancels under way are answered or have failed."""
        self.stop()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # --- logins and processes -----------------------------------------------------------------

    @contextlib.contextmanager
    def login(self) -> Iterator[None]:
        """Enclose a login: a halt is not done before it ends, because requests that an earlier
        process left open are not resolved until then."""
        self._logins += 1
        try:
            yield
        finally:
            self._logins -= 1
            if not self._logins:
                # From now on the order book has shown which orders are open.
                self.set_earlier_placements(())
            if self._cancellation is not None:
                self._cancellation.retry_now()

    def set_earlier_placements(self, placements: Sequence[Intent]) -> None:
        """Set the placements of an earlier process whose orders may be open, newest first. A halt
        cancels them by their numbers until the login has read the order book."""
        self._earlier_placements = placements
        if self._cancellation is not None:
            self._cancellation.set_earlier_placements(placements)

    def logged_in(self) -> None:
        """Start cancelling for a halt that was called without a login, or was not done at the last
        logout."""
        if self._is_pending:
            self._start_cancelling()

    def restore(self) -> None:
        """Reconcile this switch with the journal, once that is open: halt as the process before was
        halted, unless this one has halted or resumed already."""
        if self._journal is None:
            return
        if self.halted is not None or self._was_resumed:
            self._persist()
            return
        recorded = self._journal.read_halt()
        if recorded is None:
            return
        halted, self._scope = recorded
        self._is_pending = self._scope is not CancelScope.NONE
        self._is_announced = False
        self._state.halt(Halted(halted.reason, since=halted.since, from_earlier_process=True))
        self._announce()

    def _persist(self) -> None:
        if self._journal is None:
            return
        if self.halted is None:
            self._journal.clear_halt()
        else:
            scope = self._scope if self._is_pending else CancelScope.NONE
            self._journal.write_halt(self.halted, scope=scope)

    def _persist_and_announce(self) -> None:
        """Record the halt and call the listeners. Cancels do not wait for either."""
        self._persist()
        self._announce()

    def _announce(self) -> None:
        """Call the listeners, once for each halt."""
        if self._is_announced or self.halted is None:
            return
        self._is_announced = True
        halted = self.halted
        self.log.critical("%s", halted)
        for listener in [*self._listeners]:
            try:
                listener(halted)
            except (Exception, asyncio.CancelledError):
                self.log.exception("a listener of the kill switch failed on %r", halted)

    # --- open orders --------------------------------------------------------------------------

    def _cancel_late_order(self, order: Order) -> None:
        """Cancel again: an order has appeared after its placement was ruled out, possibly after the
        halt was done."""
        if self._scope is not CancelScope.NONE:
            self.halt(scope=self._scope)

    def _start_cancelling(self) -> asyncio.Task[list[Order | NeoError]]:
        """Return the task that cancels open orders; start one unless it is running."""
        if (
            self._task is None
            or self._task.done()
            or self._cancellation is None
            or self._cancellation.is_ending
            or self._cancellation.scope is not self._scope
        ):
            if self._cancellation is not None:
                self._cancellation.end()
            cancellation = self._cancellation = OpenOrderCancellation(
                self._engine,
                self.log,
                earlier_placements=self._earlier_placements,
                is_logging_in=lambda: self._logins > 0,
                scope=self._scope,
                give_up_after=self._give_up_after,
                clock=self._clock,
            )
            self._task = asyncio.create_task(self._cancel_open(cancellation), name="halt")
            self._tasks.add(self._task)
            self._task.add_done_callback(self._tasks.discard)
        else:
            self._cancellation.retry_now()
        return self._task

    async def _cancel_open(self, cancellation: OpenOrderCancellation) -> list[Order | NeoError]:
        """Cancel until the order book proves that nothing is open and nothing of this client can
        still arrive; return every order that was open."""
        results = await cancellation.run(self._persist_and_announce)
        problems = [result for result in results if isinstance(result, NeoError)]
        if cancellation is self._cancellation and cancellation.is_done and not problems:
            self._is_pending = False
            if self.halted is not None:
                self._persist()
        self.log.log(
            logging.ERROR if problems else logging.WARNING,
            "halt: %d orders were open, %d of them may still be open",
            len(results),
            len(problems),
        )
        return results
