"""The embedded exchange: the broker's protocols on a socket of this machine.

    async with Exchange(seed=7) as exchange:
        async with NeoClient(exchange.credentials, endpoints=exchange.endpoints) as neo: ...

`engine/` decides what happens to orders, the packages beside it show that to clients, build.py
connects them; this module owns the socket, the clock and their life cycle.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import msgspec
from aiohttp import web

from neo_async.config import Credentials, Endpoints, KiteEndpoints, RateLimits
from neo_async.errors import UsageError
from neo_async.exchange.addresses import BANK_PATH, addresses_of, admin_path_of, key_of
from neo_async.exchange.bank.service import Bank
from neo_async.exchange.build import Builder, Parts, paise_of
from neo_async.exchange.clock import MovedClock
from neo_async.exchange.engine.lookup import find_listing
from neo_async.exchange.engine.matching_engine import MatchingEngine
from neo_async.exchange.faults.plan import FaultPlan
from neo_async.exchange.faults.settings import Faults
from neo_async.exchange.feeds.feeds import Feeds
from neo_async.exchange.funds.login import KiteApplication, make_application
from neo_async.exchange.funds.simulator import FundSimulator
from neo_async.exchange.http_server import HttpServer
from neo_async.exchange.persistence.persistence import Persistence, RestoredMarket
from neo_async.exchange.persistence.store import Beginning, Store
from neo_async.exchange.replay.recorded import NOTHING, scan_recording
from neo_async.exchange.replay.replay import Replay
from neo_async.exchange.rest.accounts import make_accounts
from neo_async.exchange.rest.requests import read_rupees
from neo_async.exchange.settings import Behaviour, Recording, Security
from neo_async.model.address import is_loopback

_TICK = 0.25
"""Seconds between two moments at which time passes without a request."""
_CLOSE_TIMEOUT = 1.0


class Exchange:
    """An exchange and broker of one's own, open while the `async with` block runs."""

    def __init__(
        self,
        *,
        seed: int = 0,
        clock: Callable[[], float] = time.time,
        host: str = "127.0.0.1",
        port: int = 0,
        limits: RateLimits | None = RateLimits(),  # noqa: B008 - frozen
        accounts: int = 2,
        cash: str = "1000000.00",
        market_makers: bool = True,
        scripmaster: Sequence[Path] = (),
        state: Path | None = None,
        recording: Recording | None = None,
        faults: Faults = Faults(),  # noqa: B008 - frozen
        behaviour: Behaviour = Behaviour(),  # noqa: B008 - frozen
        security: Security = Security(),  # noqa: B008 - frozen
    ) -> None:
        """`clock` gives Unix seconds. Port 0 takes a free one. `limits` of None sets no limits.
        There are so many `accounts`, each with `cash` in rupees; the first one holds some stock.
        `scripmaster` names the broker's own files, one a segment, to trade instead of the built-in
        instruments.

        `state` is a file that keeps accounts, orders, positions, holdings, candles and mutual
        funds: the exchange may be killed at any moment, and goes on where it was when it is opened
        with that file again. It is made when it is not there. Cash stays as it was then; seed and
        market makers must be the same; new instruments are added. Logins end with the process.

        `recording` replays a market feed, `faults` are the probabilities of faults, `behaviour`
        chooses between variants of market, broker, feeds and bank.

        A `host` beyond loopback opens the exchange to the network. What is made from the seed is
        known to everybody, so it takes a key then: see `Security`.
        """
        if state is not None and recording is not None:
            raise UsageError("state with replay: what a recording moves is not kept; use one")
        if accounts < 1:
            raise UsageError(f"accounts={accounts}: must be at least 1")
        self._seed = seed
        self._host = host
        self._port = port
        self._security = security
        self._state = state
        self._recording = recording
        self._clock = MovedClock(clock)
        self._on_loopback = is_loopback(host)
        key = key_of(host, security.key)
        self._admin_path = admin_path_of(key)
        self.faults = FaultPlan(seed, faults)
        """The faults that are injected, to be set and counted."""
        self.bank = Bank(behaviour.bank, seed, self._clock, self.faults, BANK_PATH, key)
        """Open Banking's server: its clients with their secrets, and payments into accounts."""
        self.kite: KiteApplication = make_application(seed, key)
        """The made-up application of Kite Connect, with the access token of its one investor."""
        self._builder = Builder(
            seed=seed,
            clock=self._clock,
            limits=limits,
            cash=paise_of(cash),
            accounts=make_accounts(seed, accounts, key),
            market_makers=market_makers,
            scripmaster=tuple(scripmaster),
            recording=recording,
            behaviour=behaviour,
            faults=self.faults,
            bank=self.bank,
            application=self.kite,
        )
        self._parts: Parts | None = None
        self._closing = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Exchange:
        if self._parts is not None:
            raise UsageError("the exchange is open already")
        recorded = NOTHING
        if self._recording is not None:
            recorded = await asyncio.to_thread(scan_recording, Path(self._recording.path))
            self._clock.begin_at(recorded.first_ns / 1e9)
        async with contextlib.AsyncExitStack() as stack:
            store = await self._open_store(stack)
            persistence, beginning = self._open_persistence(store, stack)
            catalogue = await self._builder.load_catalogue(recorded)
            # Bound before anything is built: the addresses that callers get name the port.
            listener = stack.enter_context(_listen(self._host, self._port))
            stack.callback(self._forget)
            restored = None
            if store is not None and persistence is not None and beginning is not None:
                restored = await self._restore(store, persistence, beginning)
            addresses = addresses_of(
                self._host,
                listener.getsockname()[1],
                is_tls=self._security.tls is not None,
                admin_path=self._admin_path,
            )
            self._parts = self._builder.build(
                addresses, catalogue, recorded, store, persistence, restored
            )
            _collect_garbage()
            await self._start(listener, self._parts, stack)
            self._closing = stack.pop_all()
        return self

    async def _start(
        self, listener: socket.socket, parts: Parts, stack: contextlib.AsyncExitStack
    ) -> None:
        """Serve requests, and let time pass."""
        http = HttpServer(parts, self._clock, self.faults, on_loopback=self._on_loopback)
        self._http = http
        server = web.Server(self._handle, access_log=None)
        runner = web.ServerRunner(server, shutdown_timeout=_CLOSE_TIMEOUT)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        stack.callback(http.response_faults.close)
        await web.SockSite(runner, listener, ssl_context=self._security.tls, backlog=1024).start()
        stack.push_async_callback(parts.feeds.close)
        ticker = asyncio.create_task(self._let_time_pass(), name="exchange clock")
        stack.push_async_callback(_stop, ticker)
        publisher = asyncio.create_task(parts.feeds.market.run(), name="market feed")
        stack.push_async_callback(_stop, publisher)
        if parts.replay is not None:
            player = asyncio.create_task(parts.replay.run(), name="replay")
            stack.push_async_callback(_stop, player)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._closing.aclose()

    def __repr__(self) -> str:
        where = self._parts.addresses.root_url if self._parts else "closed"
        return f"<Exchange {where}, seed {self._seed}>"

    # --- addresses and accounts ------------------------------------------------------------

    @property
    def credentials(self) -> Credentials:
        """Credentials of the first account, which holds some stock."""
        return self.accounts[0]

    @property
    def accounts(self) -> tuple[Credentials, ...]:
        """Credentials of all accounts."""
        return tuple(account.credentials for account in self._builder.accounts)

    @property
    def endpoints(self) -> Endpoints:
        """Endpoints for `NeoClient`."""
        return Endpoints(
            login=self.login_url,
            ca_file=str(self._security.ca_file),
            insecure=not self._on_loopback,
        )

    @property
    def market(self) -> MatchingEngine:
        """The matching engine; another one after a reset."""
        return self._open.venue.market

    @property
    def login_url(self) -> str:
        """Address of the broker's login."""
        return self._open.addresses.root_url

    @property
    def base_url(self) -> str:
        """Base URL of the broker's trading calls."""
        return self._open.addresses.base_url

    @property
    def feed_url(self) -> str:
        """Address of the market feed."""
        return self._open.addresses.feed_url

    @property
    def realtime_url(self) -> str:
        """Address of the order feed."""
        return self._open.addresses.realtime_url

    @property
    def kite_url(self) -> str:
        """Address of Kite Connect's mutual funds."""
        return self._open.addresses.root_url

    @property
    def bank_url(self) -> str:
        """Address of Open Banking's gateway."""
        return self._open.addresses.bank_url

    @property
    def admin_url(self) -> str:
        """Address of the control surface. On the network it holds the key: keep it secret."""
        return self._open.addresses.admin_url

    @property
    def kite_endpoints(self) -> KiteEndpoints:
        """Endpoints for the mutual-fund client."""
        return KiteEndpoints(
            api=self.kite_url,
            login=self.kite_url,
            ca_file=str(self._security.ca_file),
            insecure=not self._on_loopback,
        )

    @property
    def funds(self) -> FundSimulator:
        """The fund simulator; another one after a reset."""
        return self._open.funds.now()

    def ready(self) -> dict[str, object]:
        """Return the ready line of `neo-async exchange`, the accounts' made-up secrets included."""
        return {
            "event": "ready",
            "login_url": self.login_url,
            "base_url": self.base_url,
            "feed_url": self.feed_url,
            "realtime_url": self.realtime_url,
            "kite_url": self.kite_url,
            "bank_url": self.bank_url,
            "admin_url": self.admin_url,
            "bank_clients": msgspec.to_builtins(self.bank.clients),
            "accounts": [
                {
                    name: getattr(credentials, name)
                    for name in credentials.__struct_fields__
                    if name != "endpoints"  # they are the exchange's own, above
                }
                for credentials in self.accounts
            ],
            "kite": {name: getattr(self.kite, name) for name in self.kite.__struct_fields__},
        }

    def print_price(self, instrument: str, price: str | float) -> None:
        """Print a trade in an instrument at a price in rupees.

        The instrument is a symbol (`RELIANCE-EQ`), or a symbol or token behind its segment
        (`nse_cm|2885`). Resting orders that the price passes are filled at their own limits, stops
        that it reaches are triggered, and the market makers go on from there. Raises UsageError for
        an instrument that is not listed, which names the nearest, and for an invalid price.
        """
        market = self.market
        listing = find_listing(market, instrument)
        market.print_price(listing.segment, listing.token, read_rupees(price))

    def set(self, **settings: object) -> None:
        """Change settings by their names in `Rules`, `BrokerSettings` and `FeedSettings`, from now
        on: `exchange.set(covered_orders=True)`.

        Raises UsageError, and changes nothing, for an unknown name, an invalid value, and what an
        exchange can only be opened with: the hours, and the plan of the bank's clients.
        """
        self._open.switches.set(settings)

    def time_ns(self) -> int:
        """Return the time of the exchange's clock in Unix nanoseconds. With a recording, that is
        the recorded time."""
        return int(self._clock() * 1e9)

    def advance_clock(self, seconds: float) -> None:
        """Move the exchange's clock forward. Raises UsageError for a step back.

        Callers' clocks stay where they are: one-time codes, rate limits and the `Date` of answers
        go by those.
        """
        self._clock.advance(seconds)
        self.tick()

    def end_sessions(self) -> None:
        """End every login, as the broker does at midnight."""
        self._open.logins.end_all()

    def tick(self) -> None:
        """Let time pass, and the feeds publish what it has led to; happens by itself four times a
        second."""
        parts = self._open
        parts.logins.end_expired(self._clock())
        parts.venue.now()
        parts.feeds.tick()

    @property
    def feeds(self) -> Feeds:
        """Both feeds, with what tests can do to them."""
        return self._open.feeds

    @property
    def replay(self) -> Replay | None:
        """The recording that is played: its instruments, frames played, and whether it has
        ended."""
        return self._open.replay

    @property
    def _open(self) -> Parts:
        if self._parts is None:
            raise UsageError("the exchange is not open: use it inside its `async with` block")
        return self._parts

    # --- opening and closing ------------------------------------------------------------------

    async def _open_store(self, stack: contextlib.AsyncExitStack) -> Store | None:
        """Open the state file, if there is to be one."""
        if self._state is None:
            return None
        store = await asyncio.to_thread(Store, self._state)
        stack.callback(store.close)
        return store

    def _open_persistence(
        self, store: Store | None, stack: contextlib.AsyncExitStack
    ) -> tuple[Persistence | None, Beginning | None]:
        """Return the persistence of a state file, and what its market began with."""
        if store is None:
            return None, None
        persistence = Persistence(store)
        stack.callback(persistence.close)
        with store.read_as_foreign():
            beginning = store.beginning()
        if beginning is not None:
            for name in ("seed", "market_makers"):
                began, wanted = getattr(beginning, name), getattr(self._builder, name)
                if wanted != began:
                    raise UsageError(
                        f"state file {self._state}: was begun with {name}={began}, not {wanted}; "
                        "go on with that, or name a file that is not there yet"
                    )
        return persistence, beginning

    async def _restore(
        self, store: Store, persistence: Persistence, beginning: Beginning
    ) -> RestoredMarket:
        behaviour = self._builder.behaviour
        with store.read_as_foreign():
            restored = await asyncio.to_thread(
                persistence.restore, beginning, behaviour.rules, behaviour.calendar
            )
            self._builder.open_accounts(restored.market)
            # Its clock may have been moved forward, the last time.
            self._clock.catch_up(restored.market.now_ns / 1e9)
        return restored

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._http.handle(request)

    def _forget(self) -> None:
        self._parts = None
        self.bank.reset()

    async def _let_time_pass(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            self.tick()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=1024)


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()  # it ended by itself: raise why


@functools.cache
def _collect_garbage() -> None:
    """Collect garbage once a process, after so many objects were made.

    Otherwise it happens amid the first orders and holds their arrival for 15 ms and more: those of
    the next second then come too early for the rate limit.
    """
    gc.collect()
