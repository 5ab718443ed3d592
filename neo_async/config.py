"""Settings: rate limits, timeouts, risk limits, pool sizes.

Credentials and addresses belong to the settings, too; they are in accounts.py.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence, Set
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from neo_async.account.accounts import Credentials as Credentials
from neo_async.account.accounts import Endpoints as Endpoints
from neo_async.account.accounts import KiteEndpoints as KiteEndpoints
from neo_async.account.accounts import variable_reader as variable_reader
from neo_async.errors import UsageError
from neo_async.model.enums import Product, Segment
from neo_async.model.orders import Price
from neo_async.model.spellings import choices, member_of

_LARGEST_DEVIATION: Final = 100
"""Largest `max_price_deviation_pct`: more is a mistake in the unit, and no limit."""


class RateLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Starts allowed in any window of one second. The defaults are the published limits.

    The last free start of a window is for cancels, until another one becomes free within 150 ms: of
    10 orders at once, 9 start and the tenth follows within the same second. Below seven a second
    starts are spread evenly after the first ones. The rate over many seconds is not lower.
    """

    orders: int = 10
    """Orders in a window: placements, modifications and cancellations together."""
    total: int = 10
    """Requests of any kind in a window, orders included."""

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
    """Deadlines in seconds, counted from the moment the limiter lets the request start. A call that
    an earlier 429 would hold back for longer than its deadline fails with RateLimited at once; time
    in the limiter's queue does not count."""

    connect: float = 5.0
    """Deadline of one TCP and TLS handshake."""
    order: float = 10.0
    """Deadline of a placement, modification or cancellation, to the last byte of the answer."""
    read: float = 15.0
    """Deadline of a read; for a file, the longest pause between two pieces of it."""
    login: float = 20.0
    """Deadline of each of the two login steps."""
    download: float = 300.0
    """Deadline of a whole file: a scrip master has some tens of megabytes."""
    duplicate_read_after: float | None = 2.0
    """Seconds after which an unanswered read is sent once more on another connection; the first
    good answer wins. None never sends it twice. Answers take some tenths of a second, so a read
    that takes this long has probably hung."""

    def __post_init__(self) -> None:
        _check_seconds(self, optional=("duplicate_read_after",))


class BreakerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a host's circuit breaker: when it opens, and how often the host is probed then.

    Times are in seconds. A failure is a connection that cannot be made, an answer that does not
    come by its deadline, or a gateway's 502, 503 or 504.
    """

    failures: int = 5
    """Number of failures in a row that opens the breaker: calls fail at once from then on."""
    first_wait: float = 0.1
    """Longest wait before the first probe of the host; it doubles after each failed probe."""
    longest_wait: float = 0.5
    """Longest wait between two probes during the first minute of an outage."""

    def __post_init__(self) -> None:
        if type(self.failures) is not int or self.failures < 1:
            raise UsageError(f"failures={self.failures!r}: must be a whole number, 1 or more")
        _check_seconds(self, other=("failures",))
        if self.longest_wait < self.first_wait:
            raise UsageError(
                f"longest_wait={self.longest_wait!r}: is below first_wait={self.first_wait!r}"
            )


class RiskLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Pre-trade limits on every order of this client. None sets no limit.

    Orders are checked before they wait for the rate limit; one that breaks a limit raises its
    RiskRefused, and nothing is sent. A limit whose data is missing refuses as well, with an error
    that names the remedy.
    """

    max_order_quantity: int | None = None
    """Most units of one order."""
    max_order_notional: Price | None = None
    """Most rupees of one order: at its limit or trigger, whichever is higher; a market order at the
    last price. A sale counts at the last price where that is known and higher."""
    max_orders_per_minute: int | None = None
    """Most placements in any 60 seconds."""
    max_open_orders: int | None = None
    """Most open orders of the account, orders being sent included."""
    max_net_position: int | None = None
    """Most units of one instrument over all products, long or short: the position, and every open
    order on the order's side, orders being sent included."""
    max_daily_loss: Price | None = None
    """Largest loss of the day in rupees, by `neo.portfolio.live.total().mtm_pnl`. Orders that can
    only close a position still pass."""
    max_price_deviation_pct: float | None = None
    """Largest distance of a limit or trigger price from the last price, in percent, up to 100."""
    segments: Set[Segment] | None = None
    """The segments in which orders may be placed."""
    products: Set[Product] | None = None
    """The products for which orders may be placed."""
    loop_stall: float | None = None
    """Seconds for which the event loop may be blocked, or the machine suspended, before the client
    halts."""
    feed_outage: float | None = None
    """Seconds for which the order feed, or an open market feed, may be disconnected in trading
    hours before the client halts. The hours are those of `segments`, else of the segments in which
    this client has orders, else of all segments. A market feed with `market_open` uses that."""

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
        percent = self.max_price_deviation_pct
        if percent is not None and percent > _LARGEST_DEVIATION:
            raise UsageError(
                f"max_price_deviation_pct={percent!r}: must be a percentage of the last price, "
                f"{_LARGEST_DEVIATION} at most"
            )
        for name, vocabulary in (("segments", Segment), ("products", Product)):
            value = getattr(self, name)
            if value is not None:
                msgspec.structs.force_setattr(self, name, _choice(name, value, vocabulary))


class OnExit(StrEnum):
    """What becomes of the open orders of a client when the program leaves its `async with`, also
    by an exception or a signal."""

    LEAVE = "leave"
    """They stay open. Their number is logged."""
    CANCEL = "cancel"
    """Those that the client has placed are cancelled before the logout, which waits up to 20 s for
    their confirmation; what may still be open then is logged as an error. Orders of other
    applications are left alone, and so are the exit orders of plans, which protect positions."""
    SQUARE_OFF = "square_off"
    """Open orders are cancelled as by CANCEL, exits of plans included, and then every position of
    the account is closed at the market, also what another application opened; what is left after
    20 s is logged as an error."""


class Durability(StrEnum):
    """The failure that a record in the journal survives."""

    PROCESS = "process"
    """A crash of the process: the record reaches the operating system before the order is sent."""
    POWER = "power"
    """A power failure, too: the record reaches the disk before the order is sent."""


class FeedTimings(msgspec.Struct, frozen=True, kw_only=True):
    """Timings of the live feeds, in seconds."""

    connect: float = 10.0
    """Deadline of TCP, TLS and the websocket's opening handshake."""
    handshake: float = 10.0
    """Deadline of the server's acceptance of the login."""
    connected_grace: float = 2.0
    """Time after which the market feed's code 1119 as the only answer counts as success: the
    production server has been seen to send nothing else."""
    between_logins: float = 300.0
    """Shortest time between two logins that are made because a feed does not accept the session."""
    ping: float = 20.0
    """Time between two pings of the client."""
    pong: float = 10.0
    """Time after a ping without any frame from the server: the connection counts as lost."""
    heartbeat: float = 30.0
    """Time between two text heartbeats of the order feed."""
    silence: float = 30.0
    """Time without data in an open market: the feed counts as stalled and reconnects."""
    quiet: float = 15.0
    """Time without order updates, while orders are open, after which the order book is read."""
    stable: float = 1.0
    """Lifetime of a connection after which its loss is followed by an immediate reconnect, the
    first few times in a row; after ten times this lifetime, always."""
    longest_wait: float = 30.0
    """Longest pause between two tries to connect."""

    def __post_init__(self) -> None:
        _check_seconds(self)


class PoolLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Size of the order lane's pool of connections."""

    warm: int = 2
    """Connections opened at login and kept open."""
    maximum: int = 32
    """Most connections in use by placements and modifications at once."""
    reserved: int = 2
    """Further connections that only cancels use. As many of the warm ones, all but one at most,
    are kept idle for cancels."""
    for_cancels: int = 96
    """Further connections that cancels may open while all others are in use. A cancel without an
    answer keeps its connection for `Timeouts.order` seconds, and no other cancel waits for it: ten
    a second need a hundred."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if type(getattr(self, name)) is not int:
                raise UsageError(f"{name}={getattr(self, name)!r}: must be a whole number")
        if not 1 <= self.warm <= self.maximum:
            raise UsageError(f"warm={self.warm}, maximum={self.maximum}: need 1 <= warm <= maximum")
        for name in ("reserved", "for_cancels"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name}={getattr(self, name)}: must be 0 or more connections")


class OrderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How orders are followed, and what becomes of them after a crash or a lost answer."""

    live_updates: bool = True
    """Keep the order feed connected from login to logout, so that it updates the orders placed
    here. Without it they change when the order book is read. It is connected in any case for
    `RiskLimits` that need it."""
    durability: Durability = Durability.PROCESS
    """The failure that a record in the journal survives."""
    resolution_timeout: float = 30.0
    """Seconds, after an answer was lost, in which an order may still appear in the order book; one
    that has not appeared by then was not accepted."""
    resubmit_unacknowledged: bool = False
    """Send a placement whose answer was lost again under the same tag: the broker's refusal proves
    that the first one arrived. No document states that it always refuses."""

    def __post_init__(self) -> None:
        for name in ("live_updates", "resubmit_unacknowledged"):
            if type(getattr(self, name)) is not bool:
                raise UsageError(f"{name}={getattr(self, name)!r}: must be True or False")
        if not isinstance(self.durability, Durability):
            raise UsageError(
                f"durability={self.durability!r}: must be Durability.PROCESS or Durability.POWER"
            )
        if type(self.resolution_timeout) not in (int, float) or not (
            0 < self.resolution_timeout < math.inf
        ):
            raise UsageError(
                f"resolution_timeout={self.resolution_timeout!r}: must be a number of seconds "
                "above 0"
            )


class ConnectionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The connections to the broker: how many, when a host counts as unreachable, and the timings
    of the feeds. Deadlines of single requests are in Timeouts."""

    pool: PoolLimits = msgspec.field(default_factory=PoolLimits)
    """Size of the order lane's pool of connections."""
    breaker: BreakerConfig = msgspec.field(default_factory=BreakerConfig)
    """When a host counts as unreachable, and how often it is probed then."""
    feed_timings: FeedTimings = msgspec.field(default_factory=FeedTimings)
    """Timings of the market feed and the order feed."""

    def __post_init__(self) -> None:
        for name, kind in (
            ("pool", PoolLimits),
            ("breaker", BreakerConfig),
            ("feed_timings", FeedTimings),
        ):
            if not isinstance(getattr(self, name), kind):
                raise UsageError(f"{name}={getattr(self, name)!r}: must be {kind.__name__}")


def cache_directory() -> Path:
    """Return `$XDG_CACHE_HOME/neo_async`, by default `~/.cache/neo_async`."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "neo_async"


def _is_amount(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, str | Decimal | int | float):
        return False
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return False
    return amount.is_finite() and amount > 0


def _choice(name: str, value: object, vocabulary: type[StrEnum]) -> frozenset[StrEnum]:
    """Return a set of members, which may be given as text. Raises UsageError."""
    rule = f"must be a set of some of {choices(vocabulary)}"
    if not isinstance(value, Set) or not value:
        raise UsageError(f"{name}={value!r}: {rule}")
    try:
        return frozenset(member_of(vocabulary, one) for one in value)
    except ValueError:
        raise UsageError(f"{name}={value!r}: {rule}") from None


def _check_seconds(
    times: msgspec.Struct, *, optional: Sequence[str] = (), other: Sequence[str] = ()
) -> None:
    """Check that every field but the `other` ones is a number of seconds above 0; the `optional`
    ones may be None."""
    for name in times.__struct_fields__:
        value = getattr(times, name)
        if name in other or (value is None and name in optional):
            continue
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise UsageError(f"{name}={value!r}: must be a number of seconds above 0")
