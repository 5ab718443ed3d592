"""Synthetic history: candles of the days before the exchange opened.

A day has the sessions of the calendar. It is drawn from seed, instrument and date alone, so that
any range answers the same at any time, and its minutes add up to it: the highest minute is the
day's high, their volumes are its volume. Prices wander like a random walk that ends at the previous
close with which the exchange opened.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator
from datetime import date, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

from neo_async.base.india import DAY_SECONDS, IST_SECONDS
from neo_async.calendar import Calendar
from neo_async.exchange.engine.session_stats import initial_open_interest
from neo_async.exchange.engine.trading_hours import CALENDAR
from neo_async.exchange.engine.types import Index, Listing

_EPOCH: Final = date(1970, 1, 1)
_ONE_DAY: Final = timedelta(days=1)

_OCTAVES: Final = 9
"""The walk is a sum of waves of 1, 2, 4 … days, each √2 as high as the one before."""
_WAVE: Final = 0.006
_GAP: Final = 0.003
"""Most that an opening differs from the close before, as a share of it."""
_REACH: Final = 0.006
"""Most that a day goes beyond its opening and close."""
_INTEREST_SWING: Final = 4
"""Factor by which the open interest moves more than the price."""
_TURNOVER: Final = (500_000_000_00, 5_000_000_000_00)
"""Paise a day."""


class Candle(NamedTuple):
    """`minute` counts from midnight in India. Prices in paise."""

    minute: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    open_interest: int = 0
    """Open interest at the end of the candle."""


class SyntheticHistory:
    def __init__(
        self, what: Listing | Index, seed: int, opened: date, calendar: Calendar = CALENDAR
    ) -> None:
        """`opened` is the first day that is not synthetic, `what` as it was then."""
        self._segment = what.segment
        self._calendar = calendar
        if isinstance(what, Listing):
            self._tick, self._lot_size, self._base_price = what.tick, what.lot_size, what.base_price
            self._base_interest = initial_open_interest(what, seed)
        else:
            self._tick, self._lot_size, self._base_price = 1, 0, what.close
            self._base_interest = 0
        self._name = f"{seed}|past|{what.segment.value}|{what.token}"
        self._last = self._day_before(opened)

    def day(self, day: date) -> Candle | None:
        """Return the candle of a whole day; None on a day without a session."""
        session = self._session(day)
        if not session:
            return None
        before = self._close(self._day_before(day))
        return self._whole(session[0], day, before, self._close(day), self._interest(day))

    def minutes(self, day: date) -> Iterator[Candle]:
        """Yield the minutes of a day; none on a day without a session."""
        whole = self.day(day)
        if whole is None:
            return iter(())
        return self._minutes(day, whole, self._interest(self._day_before(day)))

    def missed_day(self, day: date, last: Candle | None) -> Candle | None:
        """Return a day without trades behind a last candle; None stands for the synthetic close.

        It closes where it opened, because the next day goes on from the last candle.
        """
        session = self._session(day)
        if not session:
            return None
        close, interest = self._ended(last)
        return self._whole(session[0], day, close, close, interest)

    def missed_minutes(self, day: date, last: Candle | None) -> Iterator[Candle]:
        whole = self.missed_day(day, last)
        if whole is None:
            return iter(())
        return self._minutes(day, whole, whole.open_interest)

    def _ended(self, last: Candle | None) -> tuple[int, int]:
        """Price and open interest."""
        if last is None:
            return self._close(self._last), self._interest(self._last)
        return last.close, last.open_interest

    def _session(self, day: date) -> list[int]:
        """Return the minutes after midnight of a day at which its segment trades."""
        number = (day - _EPOCH).days
        midnight = number * DAY_SECONDS - IST_SECONDS
        return [
            second // 60
            for times in self._calendar.session_times(self._segment, number)
            for second in range(times.open - midnight, times.close - midnight, 60)
        ]

    def _day_before(self, day: date) -> date:
        """Return the last day with a session before a day."""
        while not self._calendar.session_times(self._segment, (day - _EPOCH).days - 1):
            day -= _ONE_DAY
        return day - _ONE_DAY

    def _whole(self, minute: int, day: date, before: int, close: int, interest: int) -> Candle:
        number = (day - _EPOCH).days
        opening = self._price(before * (1 + _GAP * _noise(self._name, "open", number)))
        higher, lower = (_REACH * abs(_noise(self._name, end, number)) for end in ("high", "low"))
        return Candle(
            minute,
            opening,
            self._price(max(opening, close) * (1 + higher)),
            self._price(min(opening, close) * (1 - lower)),
            close,
            self._volume(number, close),
            interest,
        )

    def _volume(self, number: int, close: int) -> int:
        """Return the volume of a day; 0 for an index."""
        if not self._lot_size:
            return 0
        turnover = random.Random(f"{self._name}|turnover|{number}").randint(*_TURNOVER)
        return max(1, turnover // (close * self._lot_size)) * self._lot_size

    def _minutes(self, day: date, whole: Candle, interest: int) -> Iterator[Candle]:
        """Return minutes that add up to the day; `interest` is the open interest before it."""
        rng = random.Random(f"{self._name}|minutes|{day.isoformat()}")
        session = self._session(day)
        length = len(session)
        _, opening, high, low, close, volume, ending_interest = whole
        opened_lots = (ending_interest - interest) // (self._lot_size or 1)
        highest, lowest = rng.randrange(length), rng.randrange(length)
        sold = self._sold(volume, length, rng)
        step = (high - low) / 20
        last, traded = opening, 0
        for count, minute in enumerate(session):
            left = length - count
            drawn = last + (close - last) / left + rng.gauss(0, step) * (left - 1) / length
            end = close if left == 1 else min(high, max(low, self._price(drawn)))
            reach = self._tick * rng.randrange(3)
            yield Candle(
                minute,
                last,
                high if count == highest else min(high, max(last, end) + reach),
                low if count == lowest else max(low, min(last, end) - reach),
                end,
                sold[count] - traded,
                interest + (opened_lots * sold[count] // (volume or 1)) * self._lot_size,
            )
            last, traded = end, sold[count]

    def _sold(self, volume: int, length: int, rng: random.Random) -> list[int]:
        """Return the volume until the end of each of so many minutes, in lots: more at both ends of
        the day."""
        weights = [(0.4 + (2 * count / length - 1) ** 2) * rng.random() for count in range(length)]
        lots, total, reached = volume // (self._lot_size or 1), sum(weights), 0.0
        sold = []
        for weight in weights:
            reached += weight
            sold.append(int(lots * reached / total) * self._lot_size)
        sold[-1] = volume
        return sold

    def _close(self, day: date) -> int:
        return self._price(self._base_price * self._moved(self._name, day))

    def _interest(self, day: date) -> int:
        """Open at the end of a day, in whole lots."""
        if not self._base_interest:
            return 0
        moved = self._moved(f"{self._name}|interest", day) ** _INTEREST_SWING
        return round(self._base_interest / self._lot_size * moved) * self._lot_size

    def _moved(self, name: str, day: date) -> float:
        """Return the value of a random walk on a day, as a multiple of its end."""
        return math.exp(_level(name, day) - _level(name, self._last))

    def _price(self, price: float) -> int:
        return max(self._tick, round(price / self._tick) * self._tick)


def _level(name: str, day: date) -> float:
    number = (day - _EPOCH).days
    level = 0.0
    for octave in range(_OCTAVES):
        length = 1 << octave
        whole, part = divmod(number, length)
        share = part / length
        start, end = (_noise(name, octave, whole + edge) for edge in (0, 1))
        level += _WAVE * math.sqrt(length) * (start + (end - start) * share)
    return level


@lru_cache(maxsize=65_536)
def _noise(*name: object) -> float:
    """Return a number between -1 and 1 that depends on the name alone."""
    digest = hashlib.blake2b("|".join(map(str, name)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**63 - 1
