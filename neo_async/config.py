"""What a caller sets: who logs in, where, how fast, how patiently."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Set
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from neo_async.errors import UsageError
from neo_async.model.address import SOCKET, WEB, address_problem, shown_address
from neo_async.model.enums import Product, Segment
from neo_async.model.orders import Price

PRODUCTION_LOGIN: Final = "https://mis.kotaksecurities.com"
KITE_API: Final = "https://api.kite.trade"
KITE_LOGIN: Final = "https://kite.zerodha.com"

_KEY = re.compile(r"[!-~]+")
_MOBILE = re.compile(r"\+91[0-9]{10}")
_MPIN = re.compile(r"[0-9]{6}")


def variable_reader(environ: Mapping[str, str] | None = None) -> Callable[[str], str]:
    """A function that returns a variable of `environ`, by default the process's own environment;
    empty when it is not set.

    Its `repr` shows no variable, unlike that of a mapping and of its `get`, so that secrets stay
    out of tracebacks that show local variables.
    """
    variables = os.environ if environ is None else environ
    return lambda name: variables.get(name) or ""


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """What the broker wants to know before it lets anyone trade. Never printed."""

    consumer_key: str
    """Access token of the API dashboard application."""
    mobile_number: str
    """With country code: +91 and ten digits."""
    ucc: str
    """Client code."""
    mpin: str
    """Six digits, kept as text: leading zeros count."""
    totp_secret: str = ""
    """Base32 secret of the authenticator; without it every login needs a code handed in."""

    def __post_init__(self) -> None:
        if not self.consumer_key:
            raise UsageError("consumer_key is empty: copy the access token of the API dashboard")
        if not _KEY.fullmatch(self.consumer_key):
            raise UsageError("consumer_key holds blanks, line ends or letters beyond ASCII")
        if not _MOBILE.fullmatch(self.mobile_number):
            raise UsageError("mobile_number must be +91 and ten digits")
        if not self.ucc:
            raise UsageError("ucc is empty: it is the client code of the trading account")
        if not _MPIN.fullmatch(self.mpin):
            raise UsageError("mpin must be six digits")

    def __repr__(self) -> str:
        return f"Credentials(ucc={self.ucc!r}, ...)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        # Structs show rich every field, in tracebacks with locals for instance.
        return [("ucc", self.ucc)]

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Credentials:
        """Read `NEO_CONSUMER_KEY NEO_MOBILE_NUMBER NEO_UCC NEO_MPIN` and `NEO_TOTP_SECRET`.

        Raises UsageError that lists every variable that is missing.
        """
        fields = {
            "NEO_CONSUMER_KEY": "consumer_key",
            "NEO_MOBILE_NUMBER": "mobile_number",
            "NEO_UCC": "ucc",
            "NEO_MPIN": "mpin",
            "NEO_TOTP_SECRET": "totp_secret",
        }
        read = variable_reader(environ)
        del environ  # tracebacks may show local variables
        missing = [name for name in fields if name != "NEO_TOTP_SECRET" and not read(name)]
        if missing:
            raise UsageError(f"environment lacks {', '.join(missing)}")
        return cls(**{field: read(name) for name, field in fields.items()})


class Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    """Where the broker is. Only `login` is ever needed: the rest comes from the login answer,
    and a value set here wins over that answer."""

    login: str = PRODUCTION_LOGIN
    base: str = ""
    feed: str = ""
    realtime: str = ""
    ca_file: str = ""
    """PEM file of the authority to trust instead of the system's, for servers of one's own."""
    insecure: bool = False
    """Allow plain http and ws to other machines than this one: credentials, tokens and orders then
    cross the network in clear text. What a login over https answers must use TLS all the same."""

    def __post_init__(self) -> None:
        if self.login:
            _check_address("login", self.login, insecure=self.insecure, is_base=True)
        if self.base:
            _check_address("base", self.base, insecure=self.insecure, is_base=True)
        for name in ("feed", "realtime"):
            url = getattr(self, name)
            if url:
                _check_address(name, url, schemes=SOCKET + WEB, insecure=self.insecure)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Endpoints:
        """Read `NEO_LOGIN_URL` and `NEO_CA_FILE`; without them, production and the system's
        authorities. `NEO_INSECURE=1` is `insecure`.

        Raises UsageError for an address that cannot be used."""
        read = variable_reader(environ)
        del environ  # tracebacks may show local variables
        return cls(
            login=read("NEO_LOGIN_URL") or PRODUCTION_LOGIN,
            ca_file=read("NEO_CA_FILE"),
            insecure=_switch("NEO_INSECURE", read("NEO_INSECURE")),
        )


class KiteEndpoints(msgspec.Struct, frozen=True, kw_only=True):
    """Where Kite Connect is."""

    api: str = KITE_API
    login: str = KITE_LOGIN
    """The website on which people log in."""
    ca_file: str = ""
    """PEM file of the authority to trust instead of the system's, for servers of one's own."""
    insecure: bool = False
    """Allow plain http to other machines than this one: keys, tokens and orders then cross the
    network in clear text."""

    def __post_init__(self) -> None:
        for name in ("api", "login"):
            _check_address(name, getattr(self, name), insecure=self.insecure, is_base=True)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> KiteEndpoints:
        """Read `KITE_URL` (another server, for both) and `KITE_CA_FILE`; without them, production
        and the system's authorities. `KITE_INSECURE=1` is `insecure`.

        Raises UsageError for an address that cannot be used."""
        read = variable_reader(environ)
        del environ  # tracebacks may show local variables
        url = read("KITE_URL")
        return cls(
            api=url or KITE_API,
            login=url or KITE_LOGIN,
            ca_file=read("KITE_CA_FILE"),
            insecure=_switch("KITE_INSECURE", read("KITE_INSECURE")),
        )


class RateLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Starts allowed in any window of one second. The defaults are the published limits.

    The last free start of a window is for cancels, until another one becomes free within 150 ms: of
    10 orders at once, 9 start and the tenth follows within the same second. Below seven a second
    starts are spread evenly after the first ones. The rate over many seconds is not lower.
    """

    orders: int = 10
    """Place, modify and cancel together."""
    total: int = 10
    """Every request, orders included."""

    def __post_init__(self) -> None:
        for name in ("orders", "total"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise UsageError(f"{name}={value!r}: must be at least 1 a second, a whole number")
        if self.total < self.orders:
            raise UsageError(
                f"total={self.total} is below orders={self.orders}: orders count towards the total"
            )


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Deadlines in seconds, each from the moment the limiter lets the request go. A call that an
    earlier 429 would hold back for longer than its deadline fails with RateLimited at once; waiting
    for its turn behind other calls does not count."""

    connect: float = 5.0
    """One TCP and TLS handshake."""
    order: float = 10.0
    """Place, modify, cancel: from leaving the limiter to the last byte of the answer."""
    read: float = 15.0
    """Books, positions, quotes, candles and the like; of a file, between two pieces of it."""
    login: float = 20.0
    """Each of the two login steps."""
    download: float = 300.0
    """A whole file: a scrip master has some tens of megabytes."""
    duplicate_read_after: float | None = 2.0
    """A read without an answer by then is made once more on another connection, and the first
    good answer wins; None never does. Answers take some tenths of a second, so what takes this
    long hangs, and asking twice costs a start where the alternative is the deadline."""

    def __post_init__(self) -> None:
        _check_positive(self)


class BreakerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """When a host is taken for gone, and how often it is tried then. Times are in seconds.

    Gone is what gives no connection, no answer by its deadline, or a gateway's 502, 503 or 504.
    """

    failures: int = 5
    """In a row, after which calls fail at once."""
    first_wait: float = 0.1
    """Before one call is let through to see whether the host is back: anything up to this, at
    first; twice as long after each that was in vain."""
    longest_wait: float = 0.5
    """That wait at most, during the first minute of an outage."""

    def __post_init__(self) -> None:
        _check_positive(self)
        if self.longest_wait < self.first_wait:
            raise UsageError(
                f"longest_wait={self.longest_wait!r}: is below first_wait={self.first_wait!r}"
            )


class RiskLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What no order of this client may exceed, whatever the program asks for. None sets no limit.

    Orders of a client with limits are held against them before they wait for the speed limit; an
    order that breaks one raises its RiskRefused, and nothing is sent. A limit that needs something
    that is not known refuses as well, and says what to do about it.
    """

    max_order_quantity: int | None = None
    """Units of one order."""
    max_order_notional: Price | None = None
    """Rupees of one order: by its limit or trigger, whichever is higher, and market orders by the
    last price. Sales count at the last price where that is known and higher."""
    max_orders_per_minute: int | None = None
    """Placements in any 60 seconds."""
    max_open_orders: int | None = None
    """Of the account that are not final; those on their way count."""
    max_net_position: int | None = None
    """Units of one instrument over all products, bought or sold: what is held, and everything
    that is open or on its way on the order's side."""
    max_daily_loss: Price | None = None
    """Rupees; `neo.portfolio.live.total().mtm_pnl` is what it is held against. Orders that can
    only close a position still pass."""
    max_price_deviation_pct: float | None = None
    """Of the last price: the distance at which a limit or trigger may lie on either side."""
    segments: Set[Segment] | None = None
    """The only ones in which orders are placed."""
    products: Set[Product] | None = None
    """The only ones of which orders are placed."""
    loop_stall: float | None = None
    """Seconds for which the event loop may be held up, or the machine suspended, before the client
    halts."""
    feed_outage: float | None = None
    """Seconds for which the order feed, or a market feed that is open, may be disconnected in
    trading hours before the client halts: those of `segments`, or else of the segments in which
    this client knows orders, or else of all. A market feed with `market_open` goes by that."""

    def __post_init__(self) -> None:
        for name in (
            "max_order_quantity",
            "max_orders_per_minute",
            "max_open_orders",
            "max_net_position",
        ):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise UsageError(f"{name}={value!r}: must be a whole number, 1 or more")
        for name in ("max_order_notional", "max_daily_loss"):
            value = getattr(self, name)
            if value is not None and not _is_amount(value):
                raise UsageError(f"{name}={value!r}: must be an amount of rupees above 0")
        for name in ("max_price_deviation_pct", "loop_stall", "feed_outage"):
            value = getattr(self, name)
            if value is not None and not (type(value) in (int, float) and 0 < value < math.inf):
                raise UsageError(f"{name}={value!r}: must be a number above 0")
        for name, vocabulary in (("segments", Segment), ("products", Product)):
            value = getattr(self, name)
            if value is not None and not _is_choice(value, vocabulary):
                codes = ", ".join(vocabulary)
                raise UsageError(f"{name}={value!r}: must be a set of some of {codes}")


class Durability(StrEnum):
    """What an order in the journal survives."""

    PROCESS = "process"
    """The end of this process, whatever its cause: the system has it before the order is sent."""
    POWER = "power"
    """The end of the machine, too: the disk has it before the order is sent."""


class FeedTimings(msgspec.Struct, frozen=True, kw_only=True):
    """Patience of the live streams, in seconds."""

    connect: float = 10.0
    """TCP, TLS and the websocket's opening."""
    handshake: float = 10.0
    """Until the server has accepted who we are."""
    connected_grace: float = 2.0
    """The market feed's code 1119 as the only answer counts as success after this: production was
    seen to do that."""
    between_logins: float = 300.0
    """Between two logins for the sake of a stream that accepts none of them, at least."""
    ping: float = 20.0
    """Between two pings of ours."""
    pong: float = 10.0
    """Beyond a ping, without any sign of life: the connection is lost."""
    heartbeat: float = 30.0
    """Between two text heartbeats of the order feed."""
    silence: float = 30.0
    """Without data in an open market: the feed has stalled and is connected anew."""
    quiet: float = 15.0
    """Without order updates while orders are open: the order book is read, once a while of it."""
    stable: float = 1.0
    """A connection that lived that long is tried again at once when it is lost, the first few times
    in a row; one that lived ten times as long always."""
    longest_wait: float = 30.0
    """Between two tries, at most."""

    def __post_init__(self) -> None:
        _check_positive(self)


class PoolLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Size of the order lane's pool of connections."""

    warm: int = 2
    """Connections opened at login and kept open."""
    maximum: int = 32
    """Connections that placements and changes use at most at once."""
    reserved: int = 2
    """Connections beyond these that are the cancels' own. Of the warm ones as many are kept idle
    for cancels, all but one."""
    for_cancels: int = 96
    """Connections that cancels may open beyond both while all others are in use. A cancel
    whose answer does not come keeps its connection for `Timeouts.order` seconds, and no other
    cancel waits for it: ten a second need a hundred."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if type(getattr(self, name)) is not int:
                raise UsageError(f"{name}={getattr(self, name)!r}: must be a whole number")
        if not 1 <= self.warm <= self.maximum:
            raise UsageError(f"warm={self.warm}, maximum={self.maximum}: need 1 <= warm <= maximum")
        for name in ("reserved", "for_cancels"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name}={getattr(self, name)}: must be 0 or more connections")


def cache_directory() -> Path:
    """`$XDG_CACHE_HOME/neo_async`, by default `~/.cache/neo_async`."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "neo_async"


def _check_address(
    name: str,
    url: str,
    *,
    schemes: tuple[str, ...] = WEB,
    insecure: bool,
    is_base: bool = False,
) -> None:
    problem = address_problem(url, schemes=schemes, insecure=insecure, is_base=is_base)
    if problem:
        raise UsageError(f"{name}={shown_address(url)}: {problem}")


def _switch(name: str, text: str) -> bool:
    """A variable of the environment that is on or off."""
    word = text.strip().lower()
    if word in ("1", "true", "yes"):
        return True
    if word in ("", "0", "false", "no"):
        return False
    raise UsageError(f"{name}={text!r}: must be 1 or 0")


def _is_amount(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, str | Decimal | int | float):
        return False
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return False
    return amount.is_finite() and amount > 0


def _is_choice(value: object, vocabulary: type[StrEnum]) -> bool:
    return isinstance(value, Set) and bool(value) and value <= set(vocabulary)


def _check_positive(times: msgspec.Struct) -> None:
    for name in times.__struct_fields__:
        value = getattr(times, name)
        if value is not None and not value > 0:
            raise UsageError(f"{name}={value!r}: must be above 0")
