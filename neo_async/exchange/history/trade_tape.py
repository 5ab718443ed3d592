"""The exchange's own trades, and the values of its indices, as candles of one minute."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from typing import Final, NamedTuple, TypeAlias

from neo_async.base.india import IST_SECONDS
from neo_async.exchange.engine.types import Event, IndexMoved, Printed
from neo_async.exchange.history.synthetic import Candle
from neo_async.model.enums import Segment

Key: TypeAlias = tuple[Segment, str]
"""Segment and token."""

_MINUTE_NS: Final = 60_000_000_000
_IST_MINUTES: Final = IST_SECONDS // 60
_DAY_MINUTES: Final = 1_440
_EPOCH: Final = date(1970, 1, 1)


class TradeTapeRow(NamedTuple):
    """A candle with what it is of, and its minute since 1970 in India."""

    segment: str
    token: str
    minute: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    open_interest: int


class TradeTape:
    def __init__(self) -> None:
        self._minutes: dict[Key, dict[int, Candle]] = {}
        """Key to minute since 1970 in India to candle."""
        self._changed: set[tuple[Key, int]] = set()
        """Key and minute of candles that have changed since they were last taken."""

    def add_all(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, Printed):
                listing = event.listing
                key = (listing.segment, listing.token)
                self._add(key, event.time_ns, event.price, event.quantity, event.open_interest)
            elif isinstance(event, IndexMoved):
                key = (event.index.segment, event.index.token)
                self._add(key, event.time_ns, event.value, 0, 0)

    def _add(self, key: Key, time_ns: int, price: int, quantity: int, interest: int) -> None:
        """Add a trade to its minute. One of quantity 0 moves the price and nothing else."""
        minutes = self._minutes.get(key)
        if minutes is None:
            minutes = self._minutes[key] = {}
        minute = time_ns // _MINUTE_NS + _IST_MINUTES
        candle = minutes.get(minute)
        if candle is None:
            of_day = minute % _DAY_MINUTES
            minutes[minute] = Candle(of_day, price, price, price, price, quantity, interest)
        else:
            of_day, opened, high, low, _, volume, _ = candle
            minutes[minute] = Candle(
                of_day,
                opened,
                price if price > high else high,
                price if price < low else low,
                price,
                volume + quantity,
                interest,
            )
        self._changed.add((key, minute))

    def minutes(self, key: Key, day: date) -> Iterator[Candle]:
        """Return the candles of one day in India."""
        minutes = self._minutes.get(key)
        if minutes:
            start = (day - _EPOCH).days * _DAY_MINUTES
            for minute in range(start, start + _DAY_MINUTES):
                if minute in minutes:
                    yield minutes[minute]

    def last_before(self, key: Key, day: date) -> Candle | None:
        """Return the last candle of all earlier days."""
        minutes = self._minutes.get(key, {})
        start = (day - _EPOCH).days * _DAY_MINUTES
        return next((minutes[minute] for minute in reversed(minutes) if minute < start), None)

    # --- to keep it elsewhere -------------------------------------------------------------------

    def load(self, rows: Iterable[TradeTapeRow]) -> None:
        for row in rows:
            candle = Candle(row.minute % _DAY_MINUTES, *row[3:])
            self._minutes.setdefault((Segment(row.segment), row.token), {})[row.minute] = candle

    def changed(self) -> list[TradeTapeRow]:
        """Return the candles that have changed since the last `take_changed`."""
        return [
            TradeTapeRow(segment.value, token, minute, *self._minutes[segment, token][minute][1:])
            for (segment, token), minute in self._changed
        ]

    def take_changed(self) -> list[TradeTapeRow]:
        rows = self.changed()
        self._changed.clear()
        return rows
