"""Persistence of the market: commands are stored before their effects are published.

All commands of one turn of the loop share a transaction. Now and then the market itself takes the
place of its journal, so that going on does not take ever longer; what has changed of its orders is
written ahead of that, a little at a time.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import date
from itertools import islice
from typing import Final, NamedTuple

import msgspec

from neo_async.base.india import in_india
from neo_async.calendar import Calendar
from neo_async.exchange.engine.commands import JournalEntry, SkipTurns
from neo_async.exchange.engine.market_maker import TURN_NS
from neo_async.exchange.engine.market_makers import MarketMakersState
from neo_async.exchange.engine.matching_engine import MatchingEngine
from neo_async.exchange.engine.types import Event, OrderChanged, OrderRecord, Repeated, Rules
from neo_async.exchange.history.trade_tape import TradeTape
from neo_async.exchange.persistence.store import Beginning, Store

_INTERVAL: Final = 600.0
"""Seconds between two compactions, at least."""
_SHARE: Final = 1_000
"""A compaction holds the loop; the next one waits this many times as long as it took."""
_AT_ONCE: Final = 100
"""Orders that are written between two turns of the loop: about two milliseconds."""
_PAUSE: Final = 0.01
"""Seconds between two of those."""
_PORTION: Final = 1_000
"""Entries of a replay after which its trades are put on the tape, and that are dropped at once."""


class RestoredMarket(NamedTuple):
    market: MatchingEngine
    tape: TradeTape
    opened: date
    """First day of the market, in India."""


class Persistence:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._market: MatchingEngine | None = None
        self._tape = TradeTape()
        self._journaled_ns = 0
        """Unix nanoseconds up to which the clock is certain to be in the journal."""
        self._flushed: asyncio.Future[None] | None = None
        self._compacted_at = 0.0
        self._interval = _INTERVAL
        self._changed: dict[str, OrderRecord] = {}
        """Orders that are not in the file as they stand, by number."""
        self._writing: asyncio.TimerHandle | None = None

    def begin(self, market: MatchingEngine, tape: TradeTape, opened_ns: int) -> None:
        """Forget what was, and remember this market from now on."""
        state = market.snapshot()
        beginning = Beginning(
            seed=state.market_makers.seed,
            market_makers=state.market_makers.enabled,
            opened_ns=opened_ns,
        )
        self._store.begin(beginning, state)
        self._changed.clear()
        self._remember(market, tape)

    def restore(self, beginning: Beginning, rules: Rules, calendar: Calendar) -> RestoredMarket:
        """Restore the market as it was, under the rules of today. This is slow.

        It has no watchers: they ended with the process.
        """
        tape = TradeTape()
        tape.load(self._store.candles())
        market = MatchingEngine.restored(self._store.state(), calendar)
        for count, entry in enumerate(self._store.entries(), 1):
            market.advance(entry.now_ns, catch_up=False)
            # What fails now failed then, and its caller got the error; its effects are the same.
            with suppress(Exception):
                market.execute(entry.command)
            if count % _PORTION == 0:
                self._look_at(market, tape)
        self._look_at(market, tape)
        state = market.snapshot()
        state = msgspec.structs.replace(
            state, rules=rules, market_makers=_without_watchers(state.market_makers)
        )
        # Compacted under the new rules: the journal behind it must not be read under the old ones.
        self._store.compact(state, self._changed.values(), tape.take_changed())
        self._changed.clear()
        market = MatchingEngine.restored(self._store.state(), calendar)
        self._remember(market, tape)
        opened = in_india(beginning.opened_ns / 1e9).date()
        return RestoredMarket(market, tape, opened)

    def _look_at(self, market: MatchingEngine, tape: TradeTape) -> None:
        events = market.take_events()
        tape.add_all(events)
        self.note(events)

    def _remember(self, market: MatchingEngine, tape: TradeTape) -> None:
        market.journal = []
        self._market, self._tape = market, tape
        self._journaled_ns = market.now_ns
        self._compacted_at = time.monotonic()

    # --- while it runs ------------------------------------------------------------------------

    def note(self, events: Iterable[Event]) -> None:
        """Note the orders that have changed: the next compaction has to write them."""
        for event in events:
            if isinstance(event, OrderChanged | Repeated):
                self._changed[event.record.number] = event.record

    def flush(self, *, something_happened: bool) -> None:
        """Make durable what was done until now. Raises sqlite3.Error when that fails; nothing is
        forgotten then, and the next flush tries again.

        `something_happened`: the passing of time counts only if it led to something.
        """
        market = self._market
        assert market is not None
        assert market.journal is not None
        if something_happened and market.now_ns > self._journaled_ns:
            # The turns up to here were played, not skipped, however long the pause that follows.
            market.journal.append(JournalEntry(market.now_ns, SkipTurns(market.now_ns // TURN_NS)))
        if market.journal:
            self._store.append(market.journal)
            market.journal.clear()
            self._journaled_ns = market.now_ns

    def flush_soon(self, *, something_happened: bool) -> asyncio.Future[None] | None:
        """Flush with this turn of the loop; None if there is nothing to be flushed.

        The future fails when the flush does.
        """
        market = self._market
        assert market is not None
        if not market.journal and not (something_happened and market.now_ns > self._journaled_ns):
            return None
        if self._flushed is None:
            loop = asyncio.get_running_loop()
            self._flushed = loop.create_future()
            loop.call_soon(self._flush_now)
        return self._flushed

    def _flush_now(self) -> None:
        flushed, self._flushed = self._flushed, None
        assert flushed is not None
        try:
            self.flush(something_happened=True)
        except sqlite3.Error as error:
            if not flushed.done():
                flushed.set_exception(error)
                flushed.exception()  # retrieved, even if no caller waits any more
        else:
            if not flushed.done():
                flushed.set_result(None)

    def compact_when_due(self) -> None:
        """Let the market take the place of its journal, if that is long enough ago. Call it with
        everything noted and on the tape."""
        if time.monotonic() - self._compacted_at < self._interval:
            return
        if len(self._changed) > _AT_ONCE:
            if self._writing is None:
                self._write_on()
            return
        with suppress(sqlite3.Error):
            self._compact()
            if self._writing is None:
                self._shorten_on()

    def _write_on(self) -> None:
        """Write orders ahead, until there are so few left that the rest can go at once."""
        self._writing = None
        numbers = list(islice(self._changed, _AT_ONCE))
        with suppress(sqlite3.Error):
            self._store.write_ahead([self._changed[number] for number in numbers])
            for number in numbers:
                del self._changed[number]
        if len(self._changed) > _AT_ONCE:
            loop = asyncio.get_running_loop()
            self._writing = loop.call_later(_PAUSE, self._write_on)

    def _shorten_on(self) -> None:
        """Drop the journal that the market has taken the place of."""
        self._writing = None
        with suppress(sqlite3.Error):
            if self._store.shorten_journal(_PORTION):
                loop = asyncio.get_running_loop()
                self._writing = loop.call_later(_PAUSE, self._shorten_on)

    def _compact(self) -> None:
        market = self._market
        assert market is not None
        started = time.monotonic()
        # The open of a day changes those that have waited for it without a word.
        orders = {record.number: record for record in market.queued()} | self._changed
        self._store.compact(market.snapshot(orders=False), orders.values(), self._tape.changed())
        self._changed.clear()
        self._tape.take_changed()
        if market.journal:
            market.journal.clear()  # the state has them in it
        self._journaled_ns = market.now_ns
        self._compacted_at = time.monotonic()
        self._interval = max(_INTERVAL, _SHARE * (self._compacted_at - started))

    def close(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
        if self._market is not None:
            with suppress(sqlite3.Error):
                self.flush(something_happened=True)


def _without_watchers(state: MarketMakersState) -> MarketMakersState:
    """Return the instruments of a snapshot without the subscribers of the process before."""
    return msgspec.structs.replace(
        state,
        instruments=[
            msgspec.structs.replace(instrument, watchers=0) for instrument in state.instruments
        ],
    )
