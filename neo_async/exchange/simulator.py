"""The embedded exchange: the broker's protocols on a socket of this machine.

    async with Exchange(seed=7) as exchange:
        async with NeoClient(exchange.credentials, endpoints=exchange.endpoints) as neo: ...

What happens to orders is decided in `core/`, what callers see of it in `server/`; this module owns
the socket, the clock and their life.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import re
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, date, datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import msgspec
from aiohttp import web

from neo_async.config import Credentials, Endpoints, KiteEndpoints, RateLimits
from neo_async.errors import UsageError
from neo_async.exchange.bank import Bank, BankSettings
from neo_async.exchange.clock import MovedClock
from neo_async.exchange.engine.listings import default_listings, new_contracts
from neo_async.exchange.engine.matching_engine import MatchingEngine
from neo_async.exchange.engine.types import Holding, Refusal, Rules
from neo_async.exchange.faults.plan import FaultPlan, FeedName
from neo_async.exchange.faults.response_faults import ResponseFaults
from neo_async.exchange.faults.settings import Faults
from neo_async.exchange.feeds.feeds import MARKET_PATH, ORDER_PATH, Feeds
from neo_async.exchange.feeds.settings import FeedSettings
from neo_async.exchange.funds.listing import default_schemes
from neo_async.exchange.funds.login import KiteApplication, KiteLogins, make_application
from neo_async.exchange.funds.service import FundService
from neo_async.exchange.funds.simulator import FundSimulator
from neo_async.exchange.funds.types import FundState
from neo_async.exchange.funds.venue import FundVenue
from neo_async.exchange.persistence.persistence import Persistence, RestoredMarket
from neo_async.exchange.persistence.store import Beginning, Store
from neo_async.exchange.replay.recorded import NOTHING, Recorded, relisted, scan_recording
from neo_async.exchange.replay.replay import Replay, checked_speed
from neo_async.exchange.rest.accounts import make_accounts
from neo_async.exchange.rest.admin import Admin, Request
from neo_async.exchange.rest.broker import Broker
from neo_async.exchange.rest.logins import Logins
from neo_async.exchange.rest.market_data import MarketData
from neo_async.exchange.rest.replies import Reply, json
from neo_async.exchange.rest.requests import read_price
from neo_async.exchange.rest.scrip_files import (
    Catalogue,
    ScripFiles,
    catalogue_of_files,
    catalogue_of_listings,
)
from neo_async.exchange.rest.services import Call, LongAnswer, Service
from neo_async.exchange.rest.settings import BrokerSettings
from neo_async.exchange.rest.throttle import Throttle
from neo_async.exchange.rest.web_origin import foreign_host, foreign_page
from neo_async.exchange.venue import NewListings, Venue
from neo_async.model.address import is_loopback
from neo_async.model.enums import Segment
from neo_async.model.ticks import MarketState

_BASE_PATH = "/neo"
"""The base URL has a path, as the broker's may: whoever replaces it instead of appending fails."""
_ADMIN_PATH = "/admin"
_KEY_BYTES = 16
"""Random bytes in the key of an exchange that other machines can reach."""
_KEY = re.compile(r"[A-Za-z0-9_-]{16,64}")
_BANK_PATH = "/bank"
_TICK = 0.25
"""Seconds between two moments at which time passes although nobody asks."""
_CLOSE_TIMEOUT = 1.0
_IST = timedelta(hours=5, minutes=30)

_STOCK = (
    (Segment.NSE_CM, "ITBEES-EQ", 45, 3871.62),
    (Segment.NSE_CM, "TCS-EQ", 100, 201_235.5),
    (Segment.NSE_CM, "RELIANCE-EQ", 50, 128_315.5),
)
"""What the first account holds: segment, symbol, quantity, average price in paise."""


class Exchange:
    """An exchange and broker of one's own, open while the `async with` block runs."""

    def __init__(
        self,
        *,
        seed: int = 0,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        ca_file: str | Path = "",
        scripmaster: Sequence[Path] = (),
        limits: RateLimits | None = RateLimits(),  # noqa: B008 - frozen
        clock: Callable[[], float] = time.time,
        cash: str = "1000000.00",
        accounts: int = 2,
        market_makers: bool = True,
        feeds: FeedSettings = FeedSettings(),  # noqa: B008 - frozen
        replay: Path | None = None,
        speed: float = 1.0,
        state: Path | None = None,
        rules: Rules = Rules(),  # noqa: B008 - frozen
        service: BrokerSettings = BrokerSettings(),  # noqa: B008 - frozen
        bank: BankSettings = BankSettings(),  # noqa: B008 - frozen
        faults: Faults = Faults(),  # noqa: B008 - frozen
        holidays: Collection[date] = (),
        key: str = "",
    ) -> None:
        """Port 0 takes a free one. `tls` is a server's context, and `ca_file` what clients have to
        trust then (`server.tls.self_signed` makes both). `scripmaster` names the broker's own
        files, one a segment, to trade instead of the built-in instruments. `limits` of None lets
        everyone through. `clock` gives Unix seconds, `cash` is each account's, in rupees. There
        are so many `accounts`; the first one holds some stock. `feeds` chooses between the ways in
        which the broker's feeds have been seen to behave.

        `replay` is a recording of a market feed. It is played from the first subscription on, at
        `speed` times its own pace (0: as fast as subscribers read), to those who subscribe what is
        in it at the level it was recorded at. The prices of its instruments are then the
        recording's, and orders meet the recorded quotes; other instruments trade as ever.

        `state` is a file that keeps accounts, orders, positions, holdings, candles and mutual
        funds: the exchange may be killed at any moment, and goes on where it was when it is opened
        with that file again. It is made when it is not there. Cash stays as it was then; seed and
        makers must be the same; new instruments are added. Logins end with the process.

        `rules` chooses between the market's habits of today and those of the older API, `door`
        between those of logging in and of being let in. `bank` sets the plan of Open Banking's
        clients; their accounts are not in the state file. `faults` says how often what goes wrong.
        `holidays` are days, besides weekends, on which the batch of mutual funds does not run.

        A `host` beyond loopback opens the exchange to the network. What is made from the seed is
        known to everybody, so it takes a `key` then, a random one unless it is given: the secrets
        of all accounts depend on it, and the control surface refuses requests without it. It is
        part of `admin_url`.
        """
        if ca_file and tls is None:
            raise UsageError(f"ca_file={str(ca_file)!r} without tls: there is nothing to trust")
        if state is not None and replay is not None:
            raise UsageError("state with replay: what a recording moves is not kept; use one")
        self._seed = seed
        self._host = host
        self._port = port
        self._tls = tls
        self._ca_file = str(ca_file)
        self._scripmaster = tuple(scripmaster)
        self._limits = limits
        self._clock = MovedClock(clock)
        self._cash = _read_cash(cash)
        self._market_makers = market_makers
        self._feed_settings = feeds
        self._replay_path = replay
        self._speed = checked_speed(speed)
        self._state = state
        self._rules = rules
        self._door_settings = service
        self._faults = FaultPlan(seed, faults)
        if accounts < 1:
            raise UsageError(f"accounts={accounts}: must be at least 1")
        self._holidays = frozenset(holidays)
        self._date = (0, "")
        self._on_loopback = is_loopback(host)
        self._admin_path = _ADMIN_PATH
        if not self._on_loopback:
            key = key or secrets.token_urlsafe(_KEY_BYTES)
        if key:
            if not _KEY.fullmatch(key):
                raise UsageError("key: must be 16 to 64 letters, digits, '-' and '_'")
            self._admin_path += f"/{key}"
        self._accounts = make_accounts(seed, accounts, key)
        self._application = make_application(seed, key)
        self._bank = Bank(bank, seed, self._clock, self._faults, _BANK_PATH, key)
        self._parts: _Parts | None = None
        self._closing = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Exchange:
        if self._parts is not None:
            raise UsageError("the exchange is open already")
        recorded = NOTHING
        if self._replay_path is not None:
            recorded = await asyncio.to_thread(scan_recording, self._replay_path)
        async with contextlib.AsyncExitStack() as stack:
            store = await self._open_store(stack)
            persistence, beginning = self._open_memory(store, stack)
            catalogue = await self._load_catalogue(recorded)
            # Bound before anything is built: the addresses that callers get name the port.
            listener = stack.enter_context(_listen(self._host, self._port))
            stack.callback(self._forget)
            restored = None
            if store is not None and persistence is not None and beginning is not None:
                with store.read_as_foreign():
                    restored = await asyncio.to_thread(persistence.restore, beginning, self._rules)
                    self._open_accounts(restored.market)
                    # It may have been moved on, the last time.
                    self._clock.catch_up(restored.market.now_ns / 1e9)
            port = listener.getsockname()[1]
            self._parts = self._build(catalogue, recorded, store, persistence, restored, port)
            _collect_garbage()
            server = web.Server(self._handle, access_log=None)
            runner = web.ServerRunner(server, shutdown_timeout=_CLOSE_TIMEOUT)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            stack.callback(self._parts.response_faults.close)
            await web.SockSite(runner, listener, ssl_context=self._tls, backlog=1024).start()
            stack.push_async_callback(self._parts.feeds.close)
            ticker = asyncio.create_task(self._let_time_pass(), name="exchange clock")
            stack.push_async_callback(_stop, ticker)
            teller = asyncio.create_task(self._parts.feeds.market.run(), name="market feed")
            stack.push_async_callback(_stop, teller)
            if self._parts.replay is not None:
                player = asyncio.create_task(self._parts.replay.run(), name="replay")
                stack.push_async_callback(_stop, player)
            self._closing = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._closing.aclose()

    def __repr__(self) -> str:
        where = self._parts.root_url if self._parts else "closed"
        return f"<Exchange {where}, seed {self._seed}>"

    # --- what callers need to know ------------------------------------------------------------

    @property
    def credentials(self) -> Credentials:
        """Of the first account, which holds some stock."""
        return self._accounts[0].credentials

    @property
    def accounts(self) -> tuple[Credentials, ...]:
        return tuple(account.credentials for account in self._accounts)

    @property
    def endpoints(self) -> Endpoints:
        return Endpoints(
            login=self.login_url, ca_file=self._ca_file, insecure=not self._on_loopback
        )

    @property
    def market(self) -> MatchingEngine:
        """The market as it stands; another one after a reset."""
        return self._open.venue.market

    @property
    def login_url(self) -> str:
        return self._open.root_url

    @property
    def base_url(self) -> str:
        return f"{self._open.root_url}{_BASE_PATH}"

    @property
    def feed_url(self) -> str:
        return f"{self._open.root_url}{MARKET_PATH}"

    @property
    def realtime_url(self) -> str:
        return f"{self._open.root_url}{ORDER_PATH}"

    @property
    def kite_url(self) -> str:
        """Of Kite Connect's mutual funds."""
        return self._open.root_url

    @property
    def bank_url(self) -> str:
        """Open Banking's gateway."""
        return f"{self._open.root_url}{_BANK_PATH}"

    @property
    def bank(self) -> Bank:
        """Open Banking's far end: its clients with their secrets, and the hand that pays in."""
        return self._bank

    @property
    def admin_url(self) -> str:
        """The exchange's control surface. On the network it holds the key: keep it secret."""
        return f"{self._open.root_url}{self._admin_path}"

    # --- mutual funds, behind Kite Connect's protocol ------------------------------------------

    @property
    def kite(self) -> KiteApplication:
        """The made-up application, and the access token of the one investor."""
        return self._application

    @property
    def kite_endpoints(self) -> KiteEndpoints:
        return KiteEndpoints(
            api=self.kite_url,
            login=self.kite_url,
            ca_file=self._ca_file,
            insecure=not self._on_loopback,
        )

    @property
    def funds(self) -> FundSimulator:
        """The fund house as it stands; another one after a reset."""
        return self._open.funds.now()

    def ready(self) -> dict[str, object]:
        """The ready line of `neo-async exchange`. Holds the accounts' made-up secrets."""
        return {
            "event": "ready",
            "login_url": self.login_url,
            "base_url": self.base_url,
            "feed_url": self.feed_url,
            "realtime_url": self.realtime_url,
            "kite_url": self.kite_url,
            "bank_url": self.bank_url,
            "admin_url": self.admin_url,
            "bank_clients": msgspec.to_builtins(self._bank.clients),
            "accounts": [
                {name: getattr(credentials, name) for name in credentials.__struct_fields__}
                for credentials in self.accounts
            ],
            "kite": {name: getattr(self.kite, name) for name in self.kite.__struct_fields__},
        }

    def advance_clock(self, seconds: float) -> None:
        """Move the exchange's clock on. Raises UsageError for a step back.

        Callers' clocks stay where they are: one-time codes, rate limits and the `Date` of answers
        go by those.
        """
        self._clock.advance(seconds)
        self.tick()

    def end_sessions(self) -> None:
        """End every login, as the broker does at midnight."""
        self._open.logins.end_all()

    def tick(self) -> None:
        """Let time pass, and the feeds tell what that led to; happens by itself four times a
        second."""
        parts = self._open
        parts.logins.end_expired(self._clock())
        parts.venue.now()
        parts.feeds.tick()

    # --- the feeds, for tests and for people who want to see what a bad day is like -------------

    @property
    def feeds(self) -> Feeds:
        return self._open.feeds

    @property
    def subscribed(self) -> set[str]:
        """Instruments that somebody takes from the market feed: `{"nse_cm|11536"}`. Indices by
        their number."""
        return self._open.feeds.market.subscribed

    def set_market_status(self, state: MarketState, segment: Segment | None = None) -> None:
        """Announce a state of a market, or of all. In word only: orders go on being matched."""
        self._open.feeds.market.set_status(state, segment)

    def send_auction(
        self,
        instrument: str,
        *,
        reference_price: float,
        imbalance_quantity: int = 0,
        imbalance_at_market: int = 0,
    ) -> None:
        """Announce where the closing call auction of an instrument stands. Price in rupees."""
        self._open.feeds.market.send_auction(
            instrument,
            reference_price=reference_price,
            imbalance_quantity=imbalance_quantity,
            imbalance_at_market=imbalance_at_market,
        )

    def stall_feeds(self, seconds: float | None = None) -> None:
        """Fall silent on both feeds, sockets open; None: until `resume_feeds`.

        Order updates wait meanwhile; of prices, only the newest.
        """
        self._open.feeds.stall(seconds)

    def resume_feeds(self) -> None:
        self._open.feeds.resume()

    def drop_connections(self, feed: FeedName | None = None) -> None:
        """Break every feed connection without a word, or those of one feed.

        Raises `UsageError` for a feed that is none.
        """
        self._open.feeds.drop(feed)

    def send_garbage(self, feed: FeedName | None = None) -> None:
        """Send everyone on the feeds, or on one, what is neither packet nor frame.

        Raises `UsageError` for a feed that is none.
        """
        self._open.feeds.send_garbage(feed)

    def truncate_batches(self, count: int = 1) -> None:
        """Cut each of the market feed's next binary messages somewhere."""
        self._open.feeds.market.truncate(count)

    def set_faults(self, faults: Faults) -> None:
        """From now on let these happen, and no others; `Faults()` ends all. What was drawn before
        takes its course."""
        self._faults.set(faults)

    @property
    def injected(self) -> dict[str, int]:
        """How often each fault has happened since they were set, or since a reset."""
        return dict(self._faults.counts)

    @property
    def replay(self) -> Replay | None:
        """The recording that is played: what is in it, how far it is, and whether it has ended."""
        return self._open.replay

    @property
    def _open(self) -> _Parts:
        if self._parts is None:
            raise UsageError("the exchange is not open: use it inside its `async with` block")
        return self._parts

    # --- construction -------------------------------------------------------------------------

    async def _open_store(self, stack: contextlib.AsyncExitStack) -> Store | None:
        """The state file, if there is to be one."""
        if self._state is None:
            return None
        store = await asyncio.to_thread(Store, self._state)
        stack.callback(store.close)
        return store

    def _open_memory(
        self, store: Store | None, stack: contextlib.AsyncExitStack
    ) -> tuple[Persistence | None, Beginning | None]:
        """What the state file remembers, and what the market in it began with."""
        if store is None:
            return None, None
        persistence = Persistence(store)
        stack.callback(persistence.close)
        with store.read_as_foreign():
            beginning = store.beginning()
        if beginning is not None:
            for name, wanted in (("seed", self._seed), ("market_makers", self._market_makers)):
                began = getattr(beginning, name)
                if wanted != began:
                    raise UsageError(
                        f"state file {self._state}: was begun with {name}={began}, not {wanted}; "
                        "go on with that, or name a file that is not there yet"
                    )
        return persistence, beginning

    async def _load_catalogue(self, recorded: Recorded) -> Catalogue:
        today = (datetime.fromtimestamp(self._clock(), UTC) + _IST).date()
        if not self._scripmaster:
            return catalogue_of_listings(relisted(default_listings(today), recorded))
        catalogue = await asyncio.to_thread(catalogue_of_files, self._scripmaster, today)
        listings = relisted(catalogue.listings, recorded)
        return msgspec.structs.replace(catalogue, listings=listings)

    def _build(
        self,
        catalogue: Catalogue,
        recorded: Recorded,
        store: Store | None,
        persistence: Persistence | None,
        restored: RestoredMarket | None,
        port: int,
    ) -> _Parts:
        scheme = "https" if self._tls else "http"
        root_url = f"{scheme}://{_reachable(self._host)}:{port}"
        feed_url, realtime_url = f"{root_url}{MARKET_PATH}", f"{root_url}{ORDER_PATH}"
        replayed = recorded.listed(catalogue.listings)
        venue = Venue(
            lambda now_ns: self._build_market(catalogue, replayed, now_ns),
            self._clock,
            self._new_listings(catalogue),
            persistence,
            restored,
        )
        logins = Logins(
            self._accounts,
            base_url=f"{root_url}{_BASE_PATH}",
            feed_url=feed_url,
            realtime_url=realtime_url,
        )
        broker = Broker(
            venue=venue,
            logins=logins,
            throttle=Throttle(self._limits),
            settings=self._door_settings,
            scrip_files=ScripFiles(catalogue, venue, is_fixed=bool(self._scripmaster)),
            market_data=MarketData(venue, self._seed),
            root_url=root_url,
            base_path=_BASE_PATH,
            feed_url=feed_url,
            realtime_url=realtime_url,
        )
        feeds = Feeds(venue, logins, self._feed_settings, self._seed, self._faults, recorded)
        replay = None
        if self._replay_path is not None:
            replay = Replay(
                self._replay_path, recorded, venue, feeds.market, feeds.notice_soon, self._speed
            )
        funds = FundVenue(self._build_fund_simulator, self._clock, store)
        kite = FundService(
            funds, KiteLogins(self._application), Throttle(self._limits), root_url=root_url
        )
        services: tuple[Service, ...] = (self._bank, kite)
        admin = Admin(venue, self._clock, self._faults, services, self._admin_path)
        response_faults = ResponseFaults(self._faults, self._response)
        return _Parts(
            root_url, venue, funds, logins, broker, services, admin, feeds, replay, response_faults
        )

    def _build_fund_simulator(self, now_s: int, state: FundState | None) -> FundSimulator:
        return FundSimulator(
            default_schemes(),
            seed=self._seed,
            now_s=now_s,
            cash=self._cash,
            holidays=self._holidays,
            state=state,
        )

    def _build_market(
        self, catalogue: Catalogue, replayed: Collection[tuple[Segment, str]], now_ns: int
    ) -> MatchingEngine:
        market = MatchingEngine(
            catalogue.listings,
            seed=self._seed,
            now_ns=now_ns,
            market_makers=self._market_makers,
            without_market_maker=replayed,
            rules=self._rules,
        )
        self._open_accounts(market)
        return market

    def _new_listings(self, catalogue: Catalogue) -> NewListings:
        if self._scripmaster:
            return lambda market: catalogue.listings
        return lambda market: new_contracts(market.today, market.spots(), market.tokens)

    def _open_accounts(self, market: MatchingEngine) -> None:
        """Those that the market does not have yet."""
        for number, account in enumerate(self._accounts):
            holdings = () if number else _stock(market)
            with contextlib.suppress(ValueError):
                market.open_account(account.ucc, cash=self._cash, holdings=holdings)

    def _forget(self) -> None:
        self._parts = None
        self._bank.reset()

    # --- while it runs ------------------------------------------------------------------------

    async def _let_time_pass(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            self.tick()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        parts = self._open
        if (why := self._refusal(request)) is not None:
            return self._response(json({"error": why}, status=403))
        if parts.feeds.takes(request.path):
            parts.admin.requests.append(Request(self._clock(), request.method, request.path))
            return await parts.feeds.serve(request)
        body = await request.read()
        if parts.admin.takes(request.path):
            return self._response(await self._answer(parts.admin.answer, request, body))
        parts.admin.requests.append(Request(self._clock(), request.method, request.path))
        service = next((each for each in parts.services if each.takes(request.path)), parts.broker)
        if not self._faults.hits_requests:
            return self._response(await self._answer(service.answer, request, body))
        return await parts.response_faults.serve(
            request,
            service.kind(request.method, request.path),
            service.error_responses,
            lambda: self._answer(service.answer, request, body),
        )

    def _refusal(self, request: web.BaseRequest) -> str | None:
        """Why the request is refused before anybody looks at what it asks for."""
        headers = request.headers
        if why := foreign_page(headers, request.method, on_loopback=self._on_loopback):
            return f"{why}: the exchange takes no requests from web pages of others"
        # The GET of a page whose own name was rebound to this machine says so in nothing else.
        if self._on_loopback and (why := foreign_host(headers)):
            return f"{why}: use one of those, such as 127.0.0.1"
        if not request.path.startswith(f"{_ADMIN_PATH}/"):
            return None
        within = f"{self._admin_path}/".encode()
        if not secrets.compare_digest(request.path.encode()[: len(within)], within):
            return (
                "the control surface wants the key of `admin_url` in the path: see the ready line"
            )
        return None

    async def _answer(self, answer: LongAnswer, request: web.BaseRequest, body: bytes) -> Reply:
        """As soon as nothing can be lost of what the request has led to."""
        parts = self._open
        call = Call(
            method=request.method,
            path=request.path,
            headers=request.headers,
            body=body,
            client_ip=request.remote or "",
            time=self._clock(),
            wall_time=self._clock.unmoved(),
            query=request.query,
        )
        reply = answer(call)
        if not isinstance(reply, Reply):
            reply = await reply
        await parts.venue.durable()
        parts.feeds.notice_soon()
        return reply

    def _response(self, reply: Reply) -> web.Response:
        headers = {
            "Content-Type": reply.content_type,
            "Date": self._http_date(self._clock.unmoved()),
        }
        headers.update(reply.headers)
        return web.Response(body=reply.body, status=reply.status, headers=headers)

    def _http_date(self, now: float) -> str:
        """From the exchange's clock, so that callers can see how far theirs is off."""
        second = int(now)
        if self._date[0] != second:
            self._date = (second, formatdate(second, usegmt=True))
        return self._date[1]


class _Parts(NamedTuple):
    """What lives as long as the socket."""

    root_url: str
    venue: Venue
    funds: FundVenue
    logins: Logins
    broker: Broker
    services: tuple[Service, ...]
    """Those with a path of their own."""
    admin: Admin
    feeds: Feeds
    replay: Replay | None
    response_faults: ResponseFaults


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=1024)


async def _stop(ticker: asyncio.Task[None]) -> None:
    ticker.cancel()
    await asyncio.wait([ticker])
    if not ticker.cancelled():
        ticker.result()  # it ended by itself: a fault of ours, to be seen


def _reachable(host: str) -> str:
    """The host to put into addresses: every interface is not one that a client can call."""
    if host in ("", "0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _read_cash(text: str) -> int:
    try:
        return read_price(text)
    except Refusal:
        raise UsageError(f"cash={text!r}: must be rupees as text, such as '1000000.00'") from None


def _stock(market: MatchingEngine) -> list[Holding]:
    """What of `_STOCK` is listed here."""
    return [
        Holding(
            listing=listing,
            quantity=quantity,
            average_price=average_price,
            sellable_quantity=quantity,
        )
        for segment, symbol, quantity, average_price in _STOCK
        if (listing := market.listing(segment, symbol)) is not None
    ]


@functools.cache
def _collect_garbage() -> None:
    """Once a process, after so much was made: otherwise it happens amid the first orders, holds
    their arrival for 15 ms and more, and those of the next second come too early for the limit."""
    gc.collect()
