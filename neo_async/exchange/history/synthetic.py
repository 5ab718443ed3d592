"""Synthetic history: candles of the days before the exchange opened.

Every weekday has one session, 09:15 to 15:30. A day is drawn from seed, instrument and date alone,
so that any range answers the same at any time, and its minutes add up to it: the highest minute is
the day's high, their volumes are its volume. Prices wander like a random walk that ends at the
previous close with which the exchange opened.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator
from datetime import date, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

from neo_async.exchange.engine.session_stats import initial_open_interest
from neo_async.exchange.engine.types import Index, Listing

OPENING_MINUTE: Final = 9 * 60 + 15
MINUTES: Final = 375

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
    def __init__(self, what: Listing | Index, seed: int, opened: date) -> None:
        """`opened` is the first day that is not synthetic, `what` as it was then."""
        if isinstance(what, Listing):
            self._tick, self._lot_size, self._base_price = what.tick, what.lot_size, what.base_price
            self._base_interest = initial_open_interest(what, seed)
        else:
            self._tick, self._lot_size, self._base_price = 1, 0, what.close
            self._base_interest = 0
        self._name = f"{seed}|past|{what.segment.value}|{what.token}"
        self._last = _weekdays(opened) - 1

    def day(self, day: date) -> Candle | None:
        """Return the candle of a whole day; None on weekends."""
        if day.weekday() > 4:
            return None
        number = _weekdays(day)
        return self._whole(
            number, self._close(number - 1), self._close(number), self._interest(number)
        )

    def minutes(self, day: date) -> Iterator[Candle]:
        """Yield the minutes of a day; none on weekends."""
        whole = self.day(day)
        if whole is None:
            return iter(())
        return self._minutes(day, whole, self._interest(_weekdays(day) - 1))

    def missed_day(self, day: date, last: Candle | None) -> Candle | None:
        """Return a day without trades behind a last candle; None stands for the synthetic close.

        It closes where it opened, because the next day goes on from the last candle.
        """
        if day.weekday() > 4:
            return None
        close, interest = self._ended(last)
        return self._whole(_weekdays(day), close, close, interest)

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

    def _whole(self, number: int, before: int, close: int, interest: int) -> Candle:
        opening = self._price(before * (1 + _GAP * _noise(self._name, "open", number)))
        higher, lower = (_REACH * abs(_noise(self._name, end, number)) for end in ("high", "low"))
        return Candle(
            OPENING_MINUTE,
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
        _, opening, high, low, close, volume, ending_interest = whole
        opened_lots = (ending_interest - interest) // (self._lot_size or 1)
        highest, lowest = rng.randrange(MINUTES), rng.randrange(MINUTES)
        sold = self._sold(volume, rng)
        step = (high - low) / 20
        last, traded = opening, 0
        for count in range(MINUTES):
            left = MINUTES - count
            drawn = last + (close - last) / left + rng.gauss(0, step) * (left - 1) / MINUTES
            end = close if left == 1 else min(high, max(low, self._price(drawn)))
            reach = self._tick * rng.randrange(3)
            yield Candle(
                OPENING_MINUTE + count,
                last,
                high if count == highest else min(high, max(last, end) + reach),
                low if count == lowest else max(low, min(last, end) - reach),
                end,
                sold[count] - traded,
                interest + (opened_lots * sold[count] // (volume or 1)) * self._lot_size,
            )
            last, traded = end, sold[count]

    def _sold(self, volume: int, rng: random.Random) -> list[int]:
        """Return the volume until the end of each minute, in lots: more at both ends of the day."""
        weights = [
            (0.4 + (2 * count / MINUTES - 1) ** 2) * rng.random() for count in range(MINUTES)
        ]
        lots, total, reached = volume // (self._lot_size or 1), sum(weights), 0.0
        sold = []
        for weight in weights:
            reached += weight
            sold.append(int(lots * reached / total) * self._lot_size)
        sold[-1] = volume
        return sold

    def _close(self, number: int) -> int:
        return self._price(self._base_price * self._moved(self._name, number))

    def _interest(self, number: int) -> int:
        """Open at the end of a day, in whole lots."""
        if not self._base_interest:
            return 0
        moved = self._moved(f"{self._name}|interest", number) ** _INTEREST_SWING
        return round(self._base_interest / self._lot_size * moved) * self._lot_size

    def _moved(self, name: str, number: int) -> float:
        """Return the value of a random walk on a day, as a multiple of its end."""
        return math.exp(_level(name, number) - _level(name, self._last))

    def _price(self, price: float) -> int:
        return max(self._tick, round(price / self._tick) * self._tick)


def _level(name: str, number: int) -> float:
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


def _weekdays(day: date) -> int:
    """Count Mondays to Fridays; a weekend counts as the Monday after it."""
    weeks, weekday = divmod((day - _MONDAY) // timedelta(days=1), 7)
    return 5 * weeks + min(weekday, 5)


_MONDAY: Final = date(2001, 1, 1)
