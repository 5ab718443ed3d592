"""The trading client: composes the services, and offers what they can do.

More than 500 lines, because the docstrings of all that a client does are here.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, overload
from weakref import WeakSet

from neo_async.account.accounts import endpoints_of
from neo_async.calendar import INDIA, Calendar
from neo_async.config import (
    ConnectionSettings,
    Credentials,
    Endpoints,
    OnExit,
    OrderSettings,
    RateLimits,
    RiskLimits,
    Timeouts,
)
from neo_async.errors import Halted, NeoError, UsageError
from neo_async.execution.engine import ExecutionEngine
from neo_async.execution.exit_cancellation import EXIT_SECONDS, leave
from neo_async.execution.journal import Journal
from neo_async.execution.journal_schema import CancelScope
from neo_async.execution.order import Order
from neo_async.execution.reconciliation import Reconciliation
from neo_async.feeds.buffers import DEFAULT_BOUND, Policy
from neo_async.feeds.column_feed import ColumnFeed
from neo_async.feeds.market_feed import MarketFeed
from neo_async.feeds.order_feed import OrderFeed
from neo_async.life_cycle import LifeCycle
from neo_async.market_data.instruments import Instruments
from neo_async.market_data.market import Market
from neo_async.model.enums import Level
from neo_async.model.health import Health
from neo_async.model.metrics import Metrics
from neo_async.model.session import Session
from neo_async.model.ticks import LiteTick, PriceTick, ScripTick
from neo_async.model.updates import OrderUpdate, PositionUpdate
from neo_async.monitoring import Monitor
from neo_async.orders import Orders
from neo_async.portfolio.portfolio import Portfolio
from neo_async.risk.engine import RiskEngine
from neo_async.risk.exposure import ReferencePrices
from neo_async.risk.kill_switch import KillSwitch
from neo_async.risk.watchdog import DeadMansSwitch
from neo_async.session.manager import SessionManager
from neo_async.session.requests import SessionRequests
from neo_async.session.session_file import SessionFile, default_path
from neo_async.system.program import OpenAtBroker, note_left_open
from neo_async.transport.hidden import Hidden
from neo_async.transport.kinds import Kind
from neo_async.transport.limiter import Limiter
from neo_async.wire.endpoints import CLIENT_IP
from neo_async.wire.login import read_client_ip

if TYPE_CHECKING:
    from neo_async.exits.exits import Exits


class NeoClient:
    """The trading client of one account.

        async with NeoClient() as neo:
            order = await neo.orders.place(
                Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10, price="39.35", product=Product.CNC
            )

    Without arguments, account and server are those of the environment (NEO_UCC and the like;
    NEO_LOGIN_URL leads to another server, such as an exchange on this machine for trading on
    paper). `is_paper` and the log line of the login say which it is.

    Belongs to the event loop in which it logs in, and needs nothing else of it.
    """

    def __init__(
        self,
        credentials: Credentials | None = None,
        *,
        endpoints: Endpoints | None = None,
        session: str | os.PathLike[str] | Literal[True] | None = None,
        totp: str | None = None,
        risk: RiskLimits | None = None,
        limits: RateLimits | None = None,
        timeouts: Timeouts | None = None,
        journal: str | os.PathLike[str] | None = None,
        orders: OrderSettings | None = None,
        on_exit: OnExit | str = OnExit.LEAVE,
        connections: ConnectionSettings | None = None,
        instruments_directory: Path | None = None,
        calendar: Calendar = INDIA,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`credentials` are those of the environment unless given (Credentials.from_env), and
        `endpoints` those of the account's file, or else of the environment (Endpoints.from_env).

        `session` is a file that keeps the login until midnight IST, for this client's restarts and
        for other processes on this machine: one of them logs in, and the others take its session
        up. True is the file of the `neo-async` commands. Without a file, every client logs in, and
        waits for the next TOTP code where the present one has been used.

        `totp` is a code for the first login, for accounts whose secret is not at hand. It is not
        needed where `session` has a login to take up.

        `risk` holds the limits that no order may exceed; see RiskLimits. Login reads the state of
        the account that the limits need, and fails when it cannot.

        `limits` are the requests allowed in a second, `timeouts` their deadlines, and `connections`
        the pool of connections, the circuit breakers and the timings of the feeds.

        `journal` is a file that keeps every order request from before it is sent, and its outcome.
        After a crash, login first resolves the requests that the process before left open, which
        takes up to `OrderSettings.resolution_timeout`. `orders` sets how orders are followed; see
        OrderSettings.

        `on_exit` is `leave`, `cancel` or `square_off`: what becomes of open orders and positions at
        the end of `async with`; see OnExit.

        Scrip masters are kept in `instruments_directory`, `$XDG_CACHE_HOME/neo_async` unless given.

        `calendar` knows the holidays: hand another one in for a holiday that was declared late.
        `clock` gives the Unix seconds from which codes are made and days are known. Only an
        exchange whose clock is not this machine's needs another one.

        Raises UsageError for settings that cannot be meant, such as endpoints of the live broker
        while NEO_LOGIN_URL leads to an exchange on this machine.
        """
        if credentials is None:
            credentials = Credentials.from_env()
        endpoints = endpoints_of(credentials, endpoints)
        orders = orders or OrderSettings()
        connections = connections or ConnectionSettings()
        self._on_exit = _on_exit_of(on_exit)
        self.ucc = credentials.ucc
        """Client code of the account."""
        self.loop: asyncio.AbstractEventLoop | None = None
        """The event loop of the last login; None before the first."""
        self._totp = totp
        self._clock = clock
        self.calendar = calendar.with_clock(clock)
        """Sessions and holidays of the exchanges, on this client's clock."""
        self.limiter = Limiter(limits or RateLimits())
        self._session = SessionManager(
            credentials,
            endpoints,
            limiter=self.limiter,
            timeouts=timeouts or Timeouts(),
            pool=connections.pool,
            breaker=connections.breaker,
            session_file=_session_file(session, credentials, endpoints, clock),
            clock=clock,
        )
        self._requests = SessionRequests(self._session)
        self._feed_timings = connections.feed_timings
        self.order_feed = OrderFeed(self._session, self._feed_timings)
        """The feed of the account's orders and positions: its state and events."""
        # Weak: one that is open is held by its own task.
        self._market_feeds: WeakSet[MarketFeed[PriceTick] | ColumnFeed] = WeakSet()
        self.instruments = Instruments(
            self._requests,
            directory=instruments_directory,
            server=endpoints.login,
            clock=clock,
        )
        self._journal: Journal | None = None
        if journal is not None:
            self._journal = Journal(
                journal, ucc=credentials.ucc, durability=orders.durability, clock=clock
            )
        self._engine = ExecutionEngine(
            self._requests,
            order_feed=self.order_feed,
            journal=self._journal,
            quiet=self._feed_timings.quiet,
            resolution_timeout=orders.resolution_timeout,
            resubmit_unacknowledged=orders.resubmit_unacknowledged,
            clock=clock,
        )
        self.market = Market(self._requests, self.instruments, clock=clock)
        self.portfolio = Portfolio(
            self._requests,
            self.market,
            self.instruments,
            square_off=lambda **which: self.exits.square_off(**which),
            clock=clock,
        )
        self.portfolio.live.attach(self._engine.updates)
        self.portfolio.live.ignore_fills_if(self._engine.cache.has_odd_fill)
        self._engine.on_missed_fill(self.portfolio.live.on_missed_fill)
        self._guard: RiskEngine | None = None
        if risk is not None and risk != RiskLimits():
            self._guard = RiskEngine(
                risk,
                self._engine,
                self.portfolio.live,
                ReferencePrices(self._market_feeds, self.instruments, self.calendar),
            )
        self.orders = Orders(self._requests, self._engine, self.instruments, guard=self._guard)
        self._switch = KillSwitch(
            self._engine,
            self.limiter.state,
            journal=self._journal,
            resolution_timeout=orders.resolution_timeout,
            clock=clock,
        )
        watchdog = DeadMansSwitch(
            self._switch,
            self.limiter.state,
            risk or RiskLimits(),
            self._engine.cache,
            self.order_feed,
            self._market_feeds,
            self.calendar,
        )
        self._monitor = Monitor(
            self._session,
            self.limiter,
            self._engine,
            self._switch,
            self._journal,
            self.order_feed,
            self._market_feeds,
            self.portfolio.live,
            self._guard,
            plan_problems=self._plan_problems,
            clock=clock,
        )

        self._life_cycle = LifeCycle(
            session=self._session,
            engine=self._engine,
            order_feed=self.order_feed,
            market_feeds=self._market_feeds,
            live_positions=self.portfolio.live,
            limits=risk or RiskLimits(),
            guard=self._guard,
            switch=self._switch,
            watchdog=watchdog,
            journal=self._journal,
            live_updates=orders.live_updates,
        )

    async def login(self, totp: str | None = None, *, fresh: bool = False) -> Session:
        """Log in and warm the order lane; `async with` does it. Return the session.

        With a session file, the session in it is taken up where the broker still accepts it, unless
        a code is given, or `fresh`. Otherwise the code is `totp`, or made from the secret. A code
        made from the secret that the broker refuses, because an earlier process has used it, is
        followed by the next one, once, after up to 30 s. A wrong MPIN is never sent twice.

        Raises WrongTotp, WrongMpin or ClockSkew, LoginFailed for what else the broker finds wrong,
        TransportError when it cannot be reached, and NotLoggedIn when `logout` is called meanwhile.
        Waits for a logout under way.
        """
        code = Hidden(totp)
        del totp  # tracebacks may show local variables
        if code.value is None:
            code.value, self._totp = self._totp, None
        else:
            fresh = True
        self.loop = asyncio.get_running_loop()
        async with self._life_cycle.login():
            session = await self._session.login(code.value, fresh=fresh)
        await self._start_exits()
        return session

    def save(self, path: str | os.PathLike[str]) -> None:
        """Store the present session in a file that only this user can read; `resume` takes it up.

        For clients that are given `session=`, this is done by itself. Raises NotLoggedIn without a
        login, and OSError when the file cannot be written.
        """
        manager = self._session
        current = manager.current
        file = SessionFile(path, manager.credentials, manager.endpoints, clock=self._clock)
        file.save(current, made_at=manager.logged_in_at)

    async def resume(self, session: Session | str | os.PathLike[str]) -> None:
        """Take up an earlier login instead of making one, and warm the order lane. It is a session
        that `login` returned, or the path of a file that `save` or a client with `session=` has
        written. A session that the broker has ended meanwhile is renewed by the first call.

        Raises UsageError when the session cannot be used: a file of another account, server,
        machine or day, or one that other users can read; TransportError when its server cannot be
        reached.
        """
        if not isinstance(session, Session):
            manager = self._session
            file = SessionFile(session, manager.credentials, manager.endpoints, clock=self._clock)
            session = file.session()
        self.loop = asyncio.get_running_loop()
        async with self._life_cycle.login():
            await self._session.resume(session)
        await self._start_exits()

    @cached_property
    def exits(self) -> Exits:
        """Plans that exit positions: brackets, covers, stops and targets, and price triggers."""
        from neo_async.exits.exits import Exits  # a client without plans does not pay for it

        return Exits(
            self._engine,
            self.orders,
            self.market,
            self.portfolio,
            self.instruments,
            new_feed=lambda on_tick: self.market_feed(level=Level.LITE, on_tick=on_tick),
            journal=self._journal,
            calendar=self.calendar,
            clock=self._clock,
        )

    def _plan_problems(self) -> Sequence[str]:
        return self.exits.problems if "exits" in self.__dict__ else ()

    async def _start_exits(self) -> None:
        """Go on with the plans that have not ended: of this client, and those in its journal."""
        plans = [] if self._journal is None else await self._journal.plans()
        if plans or "exits" in self.__dict__:
            await self.exits.start(plans)

    @property
    def reconciliation(self) -> Reconciliation:
        """The orders and requests of the process before, as the last login found them."""
        return self._life_cycle.reconciliation

    def halt(
        self,
        *,
        cancel_open: bool = True,
        keep_stops: bool = False,
        square_off: bool = False,
        reason: str = "halt() was called",
    ) -> Awaitable[list[Order | NeoError]]:
        """Turn the kill switch. Place and modify raise Halted from this call on, also those that
        wait and were not sent. With `cancel_open`, every open order of the account is cancelled
        ahead of everything else, also where the journal cannot be written or a login is under way.

        Exit plans end with it, and their positions stay without exits. With `keep_stops` their exit
        orders stay and the plans go on; only entries are cancelled. With `square_off` every
        position is closed at the market once no order is open, and the result holds those orders
        and a PositionOpen for each position that is left; see `portfolio.square_off`.

        Cancels are repeated until the order book proves that no order is open and nothing of this
        client can arrive any more, or until the logout; meanwhile the log shows every 30 s, as an
        error, why it is not done. Awaiting the result waits for that. The result holds every order
        that was open: an Order that is final now, or the error for which it may still be open. Such
        an error is an order whose cancels the broker has answered for two minutes (or twice the
        resolution timeout) while its order book lacks it, shows an unknown state, or shows no order
        number. Orders can be cancelled by hand during a halt.

        Without a login the result holds NotLoggedIn, and the next login cancels the open orders;
        while a login is under way, the result waits for it. With a journal a halt outlives the
        process: the next client on it is halted from its login on, and cancels what is left.

        Needs the running loop, but no `await`: callbacks may call it.
        """
        if keep_stops and (square_off or not cancel_open):
            raise UsageError("keep_stops=True: leave out square_off, and cancel_open=False")
        if square_off and not cancel_open:
            raise UsageError("square_off=True cancels what is open first: leave out cancel_open")
        scope = CancelScope.ALL if cancel_open else CancelScope.NONE
        if keep_stops:
            scope = CancelScope.ALL_BUT_EXITS
        halting = self._switch.halt(scope=scope, reason=reason)
        if scope is CancelScope.ALL and "exits" in self.__dict__:
            self.exits.end(reason=f"halted: {reason}")
        return self._square_off_after(halting) if square_off else halting

    def _square_off_after(
        self, halting: Awaitable[list[Order | NeoError]]
    ) -> Awaitable[list[Order | NeoError]]:
        """Return a task that closes every position once a halt has cancelled what is open."""
        exits = self.exits

        async def work() -> list[Order | NeoError]:
            results = await halting
            closed = await exits.square_off()
            for one in closed:
                if isinstance(one, NeoError):
                    results.append(one)
                else:
                    results += map(self._engine.cache.orders.__getitem__, one.orders)
            return results

        return asyncio.shield(asyncio.create_task(work(), name="halt: square-off"))

    @property
    def halted(self) -> Halted | None:
        """Why and since when no orders are sent; None while they are. A halt that an earlier
        process has left in the journal shows from the login on, with `from_earlier_process` set."""
        return self._switch.halted

    def resume_orders(self) -> None:
        """End a halt, also one of an earlier process: neither a logout nor a restart with the same
        journal ends it. Orders that the halt has not cancelled by then stay open."""
        self._switch.resume()

    def on_halt(self, listener: Callable[[Halted], None]) -> None:
        """Call `listener` at every halt, whatever makes it, once the first cancels are on their
        way; and at the login when an earlier process has left the account halted. An exception in
        it is logged, and stops nothing."""
        self._switch.on_halt(listener)

    def halt_on_signal(self, number: int) -> None:
        """Halt when this process gets a signal, such as signal.SIGUSR1; until the logout.

        Raises UsageError where that cannot be done: on Windows, and beside the main thread.
        """
        self._switch.on_signal(number)

    @overload
    def market_feed(
        self,
        *,
        level: Literal[Level.LITE],
        policy: Policy = ...,
        bound: int = ...,
        on_tick: Callable[[LiteTick], None] | None = ...,
        market_open: Callable[[], bool] | None = ...,
        time_ns: Callable[[], int] | None = ...,
    ) -> MarketFeed[LiteTick]: ...

    @overload
    def market_feed(
        self,
        *,
        level: Literal[Level.SCRIP, Level.DEPTH, Level.FULL_DEPTH] = ...,
        policy: Policy = ...,
        bound: int = ...,
        on_tick: Callable[[ScripTick], None] | None = ...,
        market_open: Callable[[], bool] | None = ...,
        time_ns: Callable[[], int] | None = ...,
    ) -> MarketFeed[ScripTick]: ...

    @overload
    def market_feed(
        self,
        *,
        level: Level | str | None,
        policy: Policy = ...,
        bound: int = ...,
        on_tick: Callable[[PriceTick], None] | None = ...,
        market_open: Callable[[], bool] | None = ...,
        time_ns: Callable[[], int] | None = ...,
    ) -> MarketFeed[PriceTick]: ...

    def market_feed(
        self,
        *,
        level: Level | str | None = Level.SCRIP,
        policy: Policy = Policy.CONFLATE,
        bound: int = DEFAULT_BOUND,
        on_tick: Callable[[Any], None] | None = None,
        market_open: Callable[[], bool] | None = None,
        time_ns: Callable[[], int] | None = None,
    ) -> MarketFeed[Any]:
        """Return a new connection to the market feed; see MarketFeed.

        It yields LiteTick at `Level.LITE` and ScripTick at every other level; `level=None` takes
        subscriptions at all levels and yields both.
        """
        feed = MarketFeed[Any](
            self._session,
            self._feed_timings,
            level=level,
            policy=policy,
            bound=bound,
            on_tick=on_tick,
            market_open=market_open,
            calendar=self.calendar,
            time_ns=time_ns,
            key_of=self.instruments.key,
        )
        self._market_feeds.add(feed)
        return feed

    def column_feed(
        self, *, level: Level | str = Level.LITE, market_open: Callable[[], bool] | None = None
    ) -> ColumnFeed:
        """Return the market feed as arrays; see ColumnFeed. Needs numpy."""
        feed = ColumnFeed(
            self._session,
            self._feed_timings,
            level=level,
            market_open=market_open,
            calendar=self.calendar,
            key_of=self.instruments.key,
        )
        self._market_feeds.add(feed)
        return feed

    def order_updates(self) -> AsyncIterator[OrderUpdate | PositionUpdate]:
        """Yield every order and position update of the account from now on."""
        self.order_feed.start()
        return self.order_feed.updates()

    async def logout(self, *, forget: bool = False) -> None:
        """Close every connection, and forget the login. Cancelling for a halt that is not done yet
        ends, and goes on after the next login.

        A session that is kept in a file stays there, for the next start and for the processes that
        use it; `forget` removes it. Processes that use it then go on all the same: the broker has
        no call to end a session.

        Raises OSError when the session cannot be removed from its file.
        """
        self._switch.ignore_signals()
        engine = self._engine
        note_left_open(
            OpenAtBroker(engine.ucc, len(engine.open_own_orders), len(engine.in_flight_requests))
        )
        if "exits" in self.__dict__:
            await self.exits.close()
        await self._life_cycle.end()
        if forget:
            self._session.forget()

    async def client_ip(self) -> str:
        """Return the address from which the broker sees this machine, IPv4 or IPv6. Orders are
        accepted only from the static addresses registered with the broker, and from the one that
        the login came from.

        Source: `GET /login/1.0/get-client-ip`, the official SDK's `whatsmyip()`.
        """
        return await self._requests.read(CLIENT_IP, read_client_ip)

    def health(self) -> Health:
        """Return the state of every service; `health().ok` is False while something is wrong, and
        `problems` lists what."""
        return self._monitor.health()

    def metrics(self) -> Metrics:
        """Return the present state as numbers, and counts and times so far.
        `metrics().to_prometheus()` is text for a scraper; `neo_async.prometheus` is for registries
        of `prometheus_client`."""
        return self._monitor.metrics()

    @property
    def session(self) -> Session:
        """The present login. Raises NotLoggedIn before login and after logout."""
        return self._session.current

    @property
    def is_paper(self) -> bool:
        """Whether this client trades on this machine (on a loopback address, as the embedded
        exchange is), without real money. Everything else is live. Known before the login."""
        return self._session.is_paper

    @property
    def round_trips(self) -> Sequence[tuple[Kind, float]]:
        """Kind of each of the last order requests that were answered, oldest first, and the seconds
        from its hand-over to the socket to its answer."""
        return self._session.lane.round_trips

    async def __aenter__(self) -> Self:
        try:
            await self.login()
        except BaseException:
            await self.logout()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await leave(self._engine, self._on_exit)
            if self._on_exit is OnExit.SQUARE_OFF and self._engine.is_logged_in:
                for result in await self.portfolio.square_off(timeout=EXIT_SECONDS):
                    if isinstance(result, NeoError):
                        self._engine.cache.log.error("exit: %s", result)
        finally:
            await self.logout()

    def __repr__(self) -> str:
        return f"<NeoClient {self._session!r}, {self.limiter!r}>"


def _on_exit_of(value: str) -> OnExit:
    try:
        return OnExit(value)
    except ValueError:
        choices = " or ".join(repr(each.value) for each in OnExit)
        raise UsageError(f"on_exit={value!r}: must be {choices}") from None


def _session_file(
    session: str | os.PathLike[str] | Literal[True] | None,
    credentials: Credentials,
    endpoints: Endpoints,
    clock: Callable[[], float],
) -> SessionFile | None:
    """Return the file of a `session=`. Raises UsageError for what is no path."""
    if session is None:
        return None
    if session is True:
        session = default_path(credentials, endpoints)
    elif not isinstance(session, str | os.PathLike) or not os.fspath(session):
        raise UsageError(f"session={session!r}: must be the path of a file, or True")
    return SessionFile(session, credentials, endpoints, clock=clock)
