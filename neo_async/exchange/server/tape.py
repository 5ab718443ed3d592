"""The exchange's own trades as candles of one minute."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from datetime import date as Date  # noqa: N812 - fields and arguments are called date
from typing import Final, TypeAlias

from neo_async.exchange.core.types import Printed
from neo_async.exchange.server.past import Candle
from neo_async.model.enums import Segment

Key: TypeAlias = tuple[Segment, str]
"""Segment and token."""

_IST: Final = timedelta(hours=5, minutes=30)
_MINUTE_NS: Final = 60_000_000_000
_IST_MINUTES: Final = 330
_DAY_MINUTES: Final = 1_440
_EPOCH: Final = Date(1970, 1, 1)


class Tape:
    def __init__(self) -> None:
        self._minutes: dict[Key, dict[int, Candle]] = {}
        """Key to minute since 1970 in IST to candle, in order of time."""

    def add(self, trade: Printed) -> Key:
        """Take in a trade; one of quantity 0 moves the price and nothing else."""
        listing, price = trade.listing, trade.price
        key = (listing.segment, listing.token)
        minutes = self._minutes.get(key)
        if minutes is None:
            minutes = self._minutes[key] = {}
        minute = trade.time_ns // _MINUTE_NS + _IST_MINUTES
        candle = minutes.get(minute)
        if candle is None:
            of_day = minute % _DAY_MINUTES
            minutes[minute] = Candle(of_day, price, price, price, price, trade.quantity)
        else:
            of_day, opened, high, low, _, volume = candle
            minutes[minute] = Candle(
                of_day,
                opened,
                price if price > high else high,
                price if price < low else low,
                price,
                volume + trade.quantity,
            )
        return key

    def minutes(self, key: Key, date: Date) -> Iterator[Candle]:
        """Those of one day in India."""
        minutes = self._minutes.get(key, {})
        start = (date - _EPOCH).days * _DAY_MINUTES
        if minutes:
            for minute in range(start, start + _DAY_MINUTES):
                if minute in minutes:
                    yield minutes[minute]


def in_india(time: float) -> datetime:
    return datetime.fromtimestamp(time, UTC) + _IST
