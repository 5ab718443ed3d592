"""Candles of one instrument: synthetic history, and the trade tape since the exchange opened.

On a day that has gone by without a trade here, because the exchange was down or the instrument
unused, it has the candles that it would have had: drawn from the seed, they come back to where the
last trade had left it, and so does the open interest.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from neo_async.exchange.history.synthetic import Candle, SyntheticHistory
from neo_async.exchange.history.trade_tape import Key, TradeTape
from neo_async.exchange.rest.candles import merged


class History:
    def __init__(
        self, synthetic: SyntheticHistory, tape: TradeTape, key: Key, opened: date, today: date
    ) -> None:
        """`opened` is the first day that is not synthetic."""
        self._synthetic = synthetic
        self._tape = tape
        self._key = key
        self._opened = opened
        self._today = today

    def minutes(self, day: date) -> Iterable[Candle]:
        if day < self._opened:
            return self._synthetic.minutes(day)
        traded = list(self._tape.minutes(self._key, day))
        if traded or day >= self._today:
            return traded
        return self._synthetic.missed_minutes(day, self._tape.last_before(self._key, day))

    def day(self, day: date) -> Candle | None:
        if day < self._opened:
            return self._synthetic.day(day)
        traded = merged(self._tape.minutes(self._key, day))
        if traded is not None or day >= self._today:
            return traded
        return self._synthetic.missed_day(day, self._tape.last_before(self._key, day))
