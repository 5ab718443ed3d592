"""The kill switch: no new orders from this moment on, and none left open.

`halt` turns it, called by the program, by a signal, or by the dead man's switch below: when the
event loop was held up or a feed was down for too long, nobody is looking after the orders.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from typing import TypeAlias
from weakref import WeakKeyDictionary

from neo_async import logs
from neo_async.config import RiskLimits
from neo_async.errors import (
    Halted,
    NeoError,
    NotLoggedIn,
    OrderAlreadyFinal,
    OutcomeUnknown,
    ProtocolError,
    Rejected,
    UsageError,
)
from neo_async.execution.engine import ExecutionEngine, nameless_error
from neo_async.execution.journal import Journal
from neo_async.execution.journal_schema import Intent
from neo_async.execution.order import Order
from neo_async.execution.order_cache import OrderCache
from neo_async.execution.reconciliation import order_of
from neo_async.feeds.column_feed import ColumnFeed
from neo_async.feeds.market_feed import MarketFeed
from neo_async.feeds.order_feed import OrderFeed
from neo_async.feeds.trading_hours import is_trading_time
from neo_async.logs import Subject, log_order
from neo_async.model.enums import OrderStatus, Segment
from neo_async.model.feed_state import FeedState
from neo_async.model.india import day_of
from neo_async.model.orders import OrderRow
from neo_async.transport.backoff import backoff
from neo_async.transport.trading_state import TradingState

log = logging.getLogger(logs.RISK)

Feed: TypeAlias = OrderFeed | MarketFeed | ColumnFeed

AGAIN = 2.0
"""Seconds after which an order whose cancellation was accepted, and which is open all the same, is
cancelled once more."""

RETRY_BASE = 0.1
RETRY_CAP = 5.0
"""Seconds between two looks at what is still open, and between two tries of a cancel that fails."""

CANCELS_AT_ONCE = 200
"""Cancels of one halt that are under way: the tasks of thousands would hold up the event loop."""

LEFT_AT_ONCE = 10
"""Cancels of an earlier process's orders that are under way before a book shows which are open."""
LEFT_TRIES = 3
"""Refusals of such a cancel after which it is left to the order book."""

DOUBT = 120.0
"""Seconds for which an order may stay undecided, at least, before a halt gives it up and says so:
the broker has answered its cancels, and the order book either lacks it or shows a state that this
package does not know."""

REMINDER = 30.0
"""Seconds between two errors in the log that say why a halt is not done."""

BEATS = 10
"""Looks at the loop and the feeds in the shortest time that they may fail."""
LONGEST_BEAT = 1.0


class KillSwitch:
    """Turned by `halt`, and back by `resume` only. `close` ends what a halt has not finished; the
    next login goes on with it. Where there is a journal, a halt is kept there for the processes
    that follow."""

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
        self._state = state
        self._journal = journal
        self._doubt = max(DOUBT, 2 * resolution_timeout)
        self._clock = clock
        self._listeners: list[Callable[[Halted], None]] = []
        self._cancelling: _Cancelling | None = None
        self._task: asyncio.Task[list[Order | NeoError]] | None = None
        """Of `_cancelling`."""
        self._tasks: set[asyncio.Task[list[Order | NeoError]]] = set()
        """That one, and those of halts before it which are ending."""
        self._signals: dict[int, asyncio.AbstractEventLoop] = {}
        self._logins = 0
        """Logins under way."""
        self._cancels = False
        """Whether the present halt is to cancel orders, those that appear later included."""
        self._is_pending = False
        """Whether it has not yet proved that none is open."""
        self._is_announced = True
        self._was_resumed = False
        """Whether the program has ended a halt, and the journal may still hold it."""
        self._left: Sequence[Intent] = ()
        """Placements of an earlier process whose orders may be open, while a login is under way."""
        engine.on_late_order(self._cancel_late_order)

    @property
    def halted(self) -> Halted | None:
        """See NeoClient.halted."""
        return self._state.halted

    def halt(
        self, *, cancel_open: bool = True, reason: str = "halt() was called"
    ) -> Awaitable[list[Order | NeoError]]:
        """See NeoClient.halt."""
        if self.halted is None:
            self._is_announced = self._was_resumed = False
            self._state.halt(Halted(reason, since=self._clock()))
        loop = asyncio.get_running_loop()
        if not cancel_open:
            self._tell_others()
            nothing: asyncio.Future[list[Order | NeoError]] = loop.create_future()
            nothing.set_result([])
            return nothing
        self._cancels = self._is_pending = True
        task = self._start_cancelling()
        # A handler made by signal.signal runs between two steps of a loop that may be asleep.
        loop.call_soon_threadsafe(lambda: None)
        # A caller that gives up waiting does not take the cancelling with it.
        return asyncio.shield(task)

    def resume(self) -> None:
        """Let orders go out again, and leave those that are still open."""
        if self.halted is not None:
            self._announce()
            log.warning("the halt is over (%s)", self.halted.reason)
        self._state.activate()
        self._cancels = self._is_pending = False
        self._was_resumed = True
        if self._cancelling is not None:
            self._cancelling.end()
        self._persist()

    def on_halt(self, listener: Callable[[Halted], None]) -> None:
        self._listeners.append(listener)

    def on_signal(self, number: int) -> None:
        """See NeoClient.halt_on_signal."""
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
        """Let go of the signals of `on_signal`."""
        for number, loop in self._signals.items():
            loop.remove_signal_handler(number)
        self._signals.clear()

    def stop(self) -> None:
        """Leave alone what is still open, until the next login."""
        if self._cancelling is not None:
            self._cancelling.end()

    async def close(self) -> None:
        """Stop, and wait until what was being cancelled is known or has failed."""
        self.stop()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # --- logins and processes -----------------------------------------------------------------

    @contextlib.contextmanager
    def login(self) -> Iterator[None]:
        """Around a login: a halt waits for its end, and is not done before. Requests that an
        earlier process has left open are not looked into until then."""
        self._logins += 1
        try:
            yield
        finally:
            self._logins -= 1
            if not self._logins:
                self.know_left(())  # from now on the order book has shown what is open
            if self._cancelling is not None:
                self._cancelling.hurry()

    def know_left(self, left: Sequence[Intent]) -> None:
        """Take note of placements of an earlier process whose orders may be open, newest first: a
        halt cancels them by their numbers until the login has read the order book."""
        self._left = left
        if self._cancelling is not None:
            self._cancelling.take_left(left)

    def logged_in(self) -> None:
        """Go on with a halt that was asked for when there was no login, or was not done before
        the last one ended."""
        if self._is_pending:
            self._start_cancelling()

    def restore(self) -> None:
        """Bring switch and journal together once the journal is open: halt as the process before
        was halted, unless this one has halted or resumed already."""
        if self._journal is None:
            return
        if self.halted is not None or self._was_resumed:
            self._persist()
            return
        left = self._journal.read_halt()
        if left is None:
            return
        halted, self._cancels = left
        self._is_pending = self._cancels
        self._is_announced = False
        self._state.halt(Halted(halted.reason, since=halted.since, from_earlier_process=True))
        self._announce()

    def _persist(self) -> None:
        if self._journal is None:
            return
        if self.halted is None:
            self._journal.clear_halt()
        else:
            self._journal.write_halt(self.halted, cancels_open=self._is_pending)

    # --- new orders ---------------------------------------------------------------------------

    def _tell_others(self) -> None:
        """Everything that a halt does besides cancelling, and that cancels must not wait for."""
        self._persist()
        self._announce()

    def _announce(self) -> None:
        """Call the listeners, once a halt."""
        if self._is_announced or self.halted is None:
            return
        self._is_announced = True
        halted = self.halted
        log.critical("%s", halted)
        for listener in [*self._listeners]:
            try:
                listener(halted)
            except (Exception, asyncio.CancelledError):
                log.exception("a listener of the kill switch failed on %r", halted)

    # --- open orders --------------------------------------------------------------------------

    def _cancel_late_order(self, order: Order) -> None:
        """It appeared longer after its placement than any order was thought to take."""
        if self._cancels:
            self.halt()

    def _start_cancelling(self) -> asyncio.Task[list[Order | NeoError]]:
        """The task that is at work on it, or a new one."""
        if (
            self._task is None
            or self._task.done()
            or self._cancelling is None
            or self._cancelling.is_ending
        ):
            cancelling = self._cancelling = _Cancelling(
                self._engine,
                left=self._left,
                is_logging_in=lambda: self._logins > 0,
                doubt=self._doubt,
                clock=self._clock,
            )
            self._task = asyncio.create_task(self._cancel_open(cancelling), name="halt")
            self._tasks.add(self._task)
            self._task.add_done_callback(self._tasks.discard)
        else:
            self._cancelling.hurry()
        return self._task

    async def _cancel_open(self, cancelling: _Cancelling) -> list[Order | NeoError]:
        """Until the book shows that nothing is open and nothing of ours can still arrive."""
        results = await cancelling.run(self._tell_others)
        problems = [result for result in results if isinstance(result, NeoError)]
        if cancelling is self._cancelling and cancelling.is_done and not problems:
            self._is_pending = False
            if self.halted is not None:
                self._persist()
        log.log(
            logging.ERROR if problems else logging.WARNING,
            "halt: %d orders were open, %d of them may still be",
            len(results),
            len(problems),
        )
        return results


class _Cancelling:
    """One halt's work on what is open: cancels go out as soon as an order is known, and beside them
    the order book is read, until it proves that nothing is open.

    What proves it is a book that was asked for when nothing of ours was on its way any more, that
    holds every order placed here today, and shows none that is open; and no order is known that is
    not final. A refusal of a cancel proves nothing: a broker that does not know an order yet words
    it like one that does not have it any more.
    """

    def __init__(
        self,
        engine: ExecutionEngine,
        *,
        left: Sequence[Intent],
        is_logging_in: Callable[[], bool],
        doubt: float,
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._cache = engine.cache
        self._left = deque(left)
        """Placements of an earlier process whose orders may be open, and which no order book has
        shown yet."""
        self._left_under_way = 0
        """Cancels of those."""
        self._left_again_at = -math.inf
        """Time of the loop from which more of them go out although requests wait for room."""
        self._is_logging_in = is_logging_in
        self._doubt = doubt
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._remind_at = self._began + REMINDER
        self._news = asyncio.Event()
        """Set when there may be something to do."""
        self._is_ended = False
        self._is_over = False
        """Whether looking again is of no use."""
        self.is_done = False
        """Whether it is proved that nothing is open, but for orders that were given up."""

        self._tried: set[str] = set()
        """Orders that were cancelled at least once."""
        self._met: dict[str, Order] = {}
        """Every order that was open."""
        self._cancels: dict[str, asyncio.Task[None]] = {}
        """Those under way, by order number."""
        self._again_at: dict[str, float] = {}
        """Times of the loop before which an order is not cancelled once more."""
        self._failures: dict[str, int] = {}
        """Tries in a row that have failed."""
        self._problems: dict[str, NeoError] = {}
        self._answered: set[str] = set()
        """Orders whose cancel the broker has accepted or refused."""
        self._idle_since = self._began
        """Time of the loop since which no cancel is under way."""
        self._looks_at_repeat = 0
        """Looks that had ended when cancels were last repeated."""

        self._look: asyncio.Task[list[OrderRow]] | None = None
        self._look_at = self._began
        self._looks = 0
        self._looks_in_vain = 0
        """Looks in a row that found nothing new."""
        self._was_quiet = False
        """Whether nothing could arrive any more when the present look began."""
        self._blindness: NeoError | None = None
        """Why the order book could not be read."""
        self._empty_books = 0
        """Books in a row without any order."""
        self._shown_open: dict[str, Order] = {}
        """Orders that the last book shows as not final."""
        self._doubted_since: dict[str, float] = {}
        self._given_up: dict[str, NeoError] = {}
        self._book_doubted_since: float | None = None
        self._book_problem: NeoError | None = None
        """Why a book that was read proves nothing."""

    @property
    def is_ending(self) -> bool:
        """Whether it will not look again."""
        return self._is_ended or self._is_over

    def end(self) -> None:
        """Leave open what is open."""
        self._is_ended = True
        self._news.set()

    def hurry(self) -> None:
        """Try and look again at once: circumstances have changed."""
        self._look_at = self._loop.time()
        self._again_at.clear()
        self._news.set()

    def take_left(self, left: Iterable[Intent]) -> None:
        """See KillSwitch.know_left."""
        self._left = deque(left)
        self._news.set()

    async def run(self, started: Callable[[], None]) -> list[Order | NeoError]:
        """Work until it is done or ended, and return what became of every order that was open.
        `started` is called once the first cancels are on their way."""
        try:
            self._start_cancels()
            await asyncio.sleep(0)  # the tasks of the cancels have their turn first
            started()
            while not self.is_ending:
                try:
                    await self._step()
                except Exception:  # a brake does not stop working for an error of the program
                    log.exception("halt: going on after an error")
                    await asyncio.sleep(RETRY_BASE)
        finally:
            await self._finish()
        return self._results()

    async def _step(self) -> None:
        self._news.clear()
        self._start_cancels()
        self._start_look()
        rest = AGAIN if self._look is not None else self._look_at - self._loop.time()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(max(rest, 0.0), AGAIN)):
                await self._news.wait()
        self._take_look()
        if not self.is_ending and self._loop.time() >= self._remind_at:
            self._remind()

    async def _finish(self) -> None:
        tasks: list[asyncio.Task[None] | asyncio.Task[list[OrderRow]]] = [*self._cancels.values()]
        if self._look is not None:
            self._look.cancel()
            tasks.append(self._look)
        if tasks:
            await asyncio.wait(tasks)

    # --- cancels ------------------------------------------------------------------------------

    def _open_orders(self) -> dict[str, Order]:
        """Orders that may be open, by number, but for those that were given up."""
        known = {order.number: order for order in self._cache.open_orders} | self._shown_open
        return {number: known[number] for number in known if number not in self._given_up}

    def _start_cancels(self) -> None:
        """Cancel what is open: at once what was not tried yet; again what is due."""
        now = self._loop.time()
        # A look between two rounds of cancels: where the speed limit is the bottleneck, cancels
        # that are repeated at once would keep the order book from being read for ever.
        may_repeat = self._looks > self._looks_at_repeat or (
            not self._cancels and now >= self._idle_since + AGAIN
        )
        for number, order in self._open_orders().items():
            self._met.setdefault(number, order)
            if len(self._cancels) >= CANCELS_AT_ONCE:
                continue
            if number not in self._tried:
                self._tried.add(number)
            elif not may_repeat or number in self._cancels or now < self._again_at.get(number, now):
                continue
            else:
                self._looks_at_repeat = self._looks
            task = asyncio.create_task(self._cancel(order), name=f"halt: cancel {number}")
            self._cancels[number] = task
        if self._left and self._engine.is_logged_in:
            self._start_cancels_of_left(now)

    def _start_cancels_of_left(self, now: float) -> None:
        """Cancel orders of an earlier process by their numbers, newest first, before any order book
        has shown which of them are open. Only a few at once: where the speed limit is the
        bottleneck, the reading of the book must not wait for them all."""
        if self._engine.is_throttled and now < self._left_again_at:
            return
        self._left_again_at = now + AGAIN
        while self._left and self._left_under_way < LEFT_AT_ONCE:
            intent = self._left.popleft()
            number = intent.order_number
            if number in self._cancels or self._cache.get(number) is not None:
                continue
            self._tried.add(number)
            self._left_under_way += 1
            task = asyncio.create_task(self._cancel_left(intent), name=f"halt: cancel {number}")
            self._cancels[number] = task

    async def _cancel_left(self, intent: Intent) -> None:
        number, left = intent.order_number, self._left
        try:
            await self._cancel(order_of(intent))
        finally:
            self._left_under_way -= 1
        problem = self._problems.get(number)
        is_answered = problem is None or isinstance(problem, OrderAlreadyFinal)
        # An order that is not found may be one that the broker knows only seconds later.
        if isinstance(problem, Rejected) and self._failures[number] >= LEFT_TRIES:
            is_answered = True
        if not is_answered:
            self._loop.call_at(self._again_at[number], left.append, intent)

    async def _cancel(self, order: Order) -> None:
        number = order.number
        problem: NeoError | None = None
        try:
            await self._engine.cancel(order, wait_for_outcome=False)
        except NeoError as error:
            problem = error
        except Exception as error:
            log.exception("halt: cancelling order %s failed", number)
            problem = NeoError(f"cancelling order {number} failed: {error!r}")
        finally:
            now = self._loop.time()
            del self._cancels[number]
            if not self._cancels:
                self._idle_since = self._look_at = now
            self._news.set()
        if problem is None:
            self._answered.add(number)
            self._problems.pop(number, None)
            self._failures.pop(number, None)
            self._again_at[number] = now + AGAIN
            return
        if isinstance(problem, Rejected):
            self._answered.add(number)
        self._problems[number] = problem
        failures = self._failures[number] = self._failures.get(number, 0) + 1
        self._again_at[number] = now + backoff(failures, base=RETRY_BASE, cap=RETRY_CAP)
        # The book tells of the first; cancelling twice what is known of by the second does no harm.
        if not isinstance(problem, OrderAlreadyFinal | OutcomeUnknown):
            subject = Subject("cancel", order.client_tag, number)
            level = logging.WARNING if failures == 1 else logging.DEBUG
            log_order(log, level, subject, "the halt could not cancel it: %s", problem)

    # --- evidence -----------------------------------------------------------------------------

    def _is_quiet(self) -> bool:
        """Whether nothing of ours can arrive any more, and no report is missing that a login is
        about to make."""
        return self._engine.is_quiet and not self._cancels and not self._is_logging_in()

    def _start_look(self) -> None:
        if self._look is None and self._loop.time() >= self._look_at:
            self._was_quiet = self._is_quiet()
            reading = self._engine.read_order_book()
            self._look = asyncio.create_task(reading, name="halt: order book")
            self._look.add_done_callback(lambda _: self._news.set())

    def _take_look(self) -> None:
        look = self._look
        if look is None or not look.done():
            return
        self._look = None
        self._looks += 1
        is_news = False
        try:
            rows = look.result()
        except NotLoggedIn as error:
            self._blindness = error
            self._is_over = not self._is_logging_in()
        except NeoError as error:
            self._blindness = error
            log.warning("halt: the order book could not be read: %s", error)
        except (Exception, asyncio.CancelledError) as error:
            self._blindness = NeoError(f"reading the order book failed: {error!r}")
            log.exception("halt: the order book could not be read")
        else:
            self._blindness = None
            is_news = self._judge(rows)
        self._looks_in_vain = 0 if is_news else self._looks_in_vain + 1
        pause = backoff(self._looks_in_vain, base=RETRY_BASE, cap=RETRY_CAP) if not is_news else 0.0
        self._look_at = self._loop.time() + pause

    def _judge(self, rows: list[OrderRow]) -> bool:
        """Take in a whole book. Returns whether it shows open orders that were not met before."""
        now = self._loop.time()
        self._shown_open = {
            row.number: self._cache.register(row)
            for row in rows
            if row.has_number and not row.status.is_final
        }
        if self._left:
            shown = {row.number for row in rows}
            left = [intent for intent in self._left if intent.order_number not in shown]
            self._left.clear()
            self._left.extend(left)
        standing = {row.number for row in rows if row.status is not OrderStatus.UNKNOWN}
        self._give_up(standing & self._shown_open.keys(), now)
        is_whole = self._is_whole(rows, now)
        still_open = self._open_orders()
        if self._was_quiet and self._is_quiet() and not still_open:
            self.is_done = is_whole
            since = self._book_doubted_since
            self._is_over = is_whole or (since is not None and now >= since + self._doubt)
        return any(number not in self._met for number in still_open)

    def _give_up(self, standing: Collection[str], now: float) -> None:
        """Judge orders of which the broker gives no account: it has answered their cancels, and
        they are neither final nor among `standing`, those that the book shows in a state in which
        orders are known to be open."""
        for number, order in self._met.items():
            is_final = order.is_final and number not in self._shown_open
            if number in standing or is_final or number not in self._answered:
                self._doubted_since.pop(number, None)
                self._given_up.pop(number, None)
                continue
            since = self._doubted_since.setdefault(number, now)
            if now < since + self._doubt or number in self._given_up:
                continue
            if number in self._shown_open:
                state = f"is {order.status_text!r}, a state that this package does not know"
            else:
                state = f"is {order.status_text!r} here, and not in the order book"
            said = self._problems.get(number, "accepted")
            error = Rejected(
                f"order {number} {state}: cancelled for {now - since:.0f} s without any effect to "
                f"be seen (last answer: {said}); it may be open"
            )
            self._given_up[number] = error
            log.error("halt: %s", error)

    def _is_whole(self, rows: list[OrderRow], now: float) -> bool:
        """Whether a book can prove that nothing else is open. It must hold every order placed here
        today, and none that is open and has no number to cancel it by; and since many a broken
        answer reads like an empty book, it takes two of those."""
        self._empty_books = 0 if rows else self._empty_books + 1
        numbers = {row.number for row in rows}
        today = day_of(self._clock())
        lacking = [
            number
            for number in self._cache.own
            if number[:6] == today and number not in numbers and number not in self._given_up
        ]
        nameless = [row for row in rows if not (row.has_number or row.status.is_final)]
        if not (lacking or nameless):
            self._book_doubted_since = self._book_problem = None
            return self._empty_books != 1
        if self._book_doubted_since is None:
            self._book_doubted_since = now
        if nameless:
            self._book_problem = nameless_error(nameless[0])
        else:
            self._book_problem = ProtocolError(
                f"the order book lacks {len(lacking)} orders that were placed today, such as "
                f"{lacking[0]}: it does not prove that nothing is open"
            )
        return False

    # --- reports ------------------------------------------------------------------------------

    def _remind(self) -> None:
        """Say in the log why the halt is not done."""
        now = self._loop.time()
        self._remind_at = now + REMINDER
        reasons = []
        if still_open := self._open_orders():
            first = next(iter(still_open))
            said = f" ({self._problems[first]})" if first in self._problems else ""
            reasons.append(f"{len(still_open)} orders may be open, such as {first}{said}")
        if self._left:
            first = self._left[0].order_number
            reasons.append(
                f"{len(self._left)} orders of an earlier process may be open, such as {first}"
            )
        reasons += [str(each) for each in (self._blindness, self._book_problem) if each is not None]
        if self._is_logging_in():
            reasons.append("a login is under way")
        if not self._engine.is_quiet:
            reasons.append("placements or changes may still arrive")
        log.error("halt: not done after %.0f s: %s", now - self._began, "; ".join(reasons))

    def _results(self) -> list[Order | NeoError]:
        """What became of every order that was open."""
        results: list[Order | NeoError] = []
        for number, order in self._met.items():
            if number in self._given_up:
                results.append(self._given_up[number])
            elif order.is_final and number not in self._shown_open:
                results.append(order)
            else:
                results.append(self._problems.get(number) or _left_open(order))
        has_error = any(isinstance(result, NeoError) for result in results)
        if not self.is_done and (self._book_problem is not None or not has_error):
            results.append(
                self._blindness
                or self._book_problem
                or UsageError("the halt was ended before it was done")
            )
        return results


def seconds_asleep() -> float:
    """Seconds for which this machine was suspended since it was started; 0 where the system does
    not count them apart."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0.0
    # Preempted between the two readings, a difference may come out a little too large or small.
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


class DeadMansSwitch:
    """Turns the kill switch when nobody can be looking after the orders.

    A machine that was suspended counts as a loop that was held up. A feed counts as down only in
    the trading hours of the segments that the limits allow, or else of those in which this client
    knows orders, or else of all; a market feed that was given `market_open` asks that instead.
    """

    def __init__(
        self,
        switch: KillSwitch,
        state: TradingState,
        limits: RiskLimits,
        cache: OrderCache,
        order_feed: OrderFeed,
        market_feeds: Collection[MarketFeed | ColumnFeed],
        *,
        clock: Callable[[], float] = time.time,
        asleep: Callable[[], float] = seconds_asleep,
    ) -> None:
        """`clock` gives Unix seconds, and `asleep` the seconds for which the machine was suspended
        so far, which the loop's clock leaves out."""
        self._switch = switch
        self._state = state
        self._limits = limits
        self._cache = cache
        self._clock = clock
        self._asleep = asleep
        self._loop_stall = limits.loop_stall
        self._feed_outage = limits.feed_outage
        self._order_feed = order_feed
        self._market_feeds = market_feeds
        shortest = min(filter(None, (self._loop_stall, self._feed_outage)), default=LONGEST_BEAT)
        self._interval = min(LONGEST_BEAT, shortest / BEATS)
        self._beat_at = 0.0
        """Time of the loop."""
        self._asleep_at_beat = 0.0
        self._down_since: WeakKeyDictionary[Feed, float] = WeakKeyDictionary()
        """Times of the loop."""
        self._task: asyncio.Task[None] | None = None

    @property
    def is_set(self) -> bool:
        """Whether there is anything to watch."""
        return self._loop_stall is not None or self._feed_outage is not None

    def start(self) -> None:
        """Watch from now on; a second time changes nothing."""
        if not self.is_set or self._task is not None:
            return
        self._beat()
        self._task = asyncio.create_task(self._watch(), name="dead man's switch")
        if self._loop_stall is not None:
            self._state.set_watchdog(self.check_loop)

    async def close(self) -> None:
        self._state.set_watchdog(None)
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._down_since.clear()

    def check_loop(self) -> None:
        """Halt when the last beat is too long ago: an order may be on its way out before the next
        beat notices."""
        age = asyncio.get_running_loop().time() - self._beat_at
        age += self._asleep() - self._asleep_at_beat
        if self._loop_stall is not None and age > self._loop_stall and self._switch.halted is None:
            self._switch.halt(reason=f"the event loop was held up for {age:.1f} s")

    def _check_feeds(self, now: float) -> None:
        if self._feed_outage is None:
            return
        if self._switch.halted is not None:
            self._down_since.clear()  # once it is over, they have as long as ever
            return
        feed: Feed
        for feed in (self._order_feed, *self._market_feeds):
            is_up = feed.state in (FeedState.LIVE, FeedState.CLOSED)
            if is_up or not self._is_market_open(feed):
                self._down_since.pop(feed, None)
                continue
            since = self._down_since.setdefault(feed, now)
            if now - since >= self._feed_outage:
                name = "order" if feed is self._order_feed else "market"
                self._switch.halt(reason=f"the {name} feed was down for {now - since:.1f} s")

    def _is_market_open(self, feed: Feed) -> bool:
        if isinstance(feed, MarketFeed | ColumnFeed) and feed.market_open is not None:
            return feed.market_open()
        segments: Collection[str] = self._limits.segments or {
            str(order.segment) for order in self._cache.orders.values()
        }
        return is_trading_time(segments or Segment, self._clock())

    def _beat(self) -> None:
        self._beat_at = asyncio.get_running_loop().time()
        self._asleep_at_beat = self._asleep()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                self.check_loop()
                self._beat()
                self._check_feeds(self._beat_at)
            except Exception:  # such as one of the program's own market_open
                log.exception("the dead man's switch goes on after an error")


def _left_open(order: Order) -> NeoError:
    return UsageError(f"order {order.number} is {order.status_text}: the halt was ended before")
