"""Settings of the embedded exchange that few of its users change, in groups."""

from __future__ import annotations

import math
import os
import ssl
from pathlib import Path

import msgspec

from neo_async.calendar import Calendar
from neo_async.errors import UsageError
from neo_async.exchange.bank.settings import BankSettings
from neo_async.exchange.engine.trading_hours import CALENDAR
from neo_async.exchange.engine.types import Rules
from neo_async.exchange.feeds.settings import FeedSettings
from neo_async.exchange.rest.settings import BrokerSettings


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """Behaviour of the market, the broker, its feeds and the bank."""

    rules: Rules = Rules()
    """Rules of the market: today's, or those of the older API."""
    broker: BrokerSettings = BrokerSettings()
    """Rules of logging in and of placing orders."""
    feeds: FeedSettings = FeedSettings()
    """Variants in which the broker's feeds have been seen to behave."""
    bank: BankSettings = BankSettings()
    """Plan of the Open Banking clients; their accounts are not in the state file."""
    calendar: Calendar = CALENDAR
    """Holidays and sessions: the days of candles, expiries and the batch of mutual funds, and with
    `Hours.EXCHANGE` the hours at which orders trade."""


class Security(msgspec.Struct, frozen=True, kw_only=True):
    """TLS, and the secret of an exchange that other machines can reach."""

    tls: ssl.SSLContext | None = None
    """Context of a server (`exchange.tls.self_signed` makes one); None serves plain http."""
    ca_file: str | Path = ""
    """Certificate file that clients have to trust."""
    key: str = ""
    """Secret on which the accounts' secrets depend, and which the control surface requires.

    Part of `admin_url`. Empty: none on loopback, a random one on any other host.
    """

    def __post_init__(self) -> None:
        if self.ca_file and self.tls is None:
            raise UsageError(
                f"ca_file={str(self.ca_file)!r} without tls: there is nothing to trust"
            )


class Recording(msgspec.Struct, frozen=True):
    """A recording of a market feed, to be replayed as the market.

    It is played from the first subscription on, to those who subscribe what is in it at the level
    it was recorded at, or at a lower one. The prices of its instruments are then the recording's,
    and orders meet the recorded quotes; other instruments trade as ever.

    The exchange's clock is the recording's: it stands at the first frame until the replay begins,
    and then runs at its speed, so that orders, candles and trading hours are of the recorded day.
    """

    path: str | os.PathLike[str]
    speed: float = 1.0
    """Factor to the recording's own pace; 0 plays as fast as subscribers read."""

    def __post_init__(self) -> None:
        if not isinstance(self.path, str | os.PathLike):
            raise UsageError(f"path={self.path!r}: must be the path of a recording")
        if type(self.speed) not in (int, float) or not 0 <= self.speed < math.inf:
            raise UsageError(
                f"speed={self.speed!r}: must be a factor such as 1 or 10; 0 does not wait"
            )

    @property
    def factor(self) -> float:
        """The speed as a factor; infinite where it is 0."""
        return self.speed or math.inf
