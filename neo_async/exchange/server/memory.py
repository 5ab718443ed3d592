"""How a market outlives its process: commands go into the store before anyone hears of them.

All commands of one turn of the loop share a transaction. Now and then the market itself takes the
place of its journal, so that going on does not take ever longer.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import suppress
from datetime import date
from typing import Final, NamedTuple

import msgspec

from neo_async.exchange.core.journal import Entry, Skip, apply
from neo_async.exchange.core.makers import QUANTUM_NS
from neo_async.exchange.core.market import Market
from neo_async.exchange.core.types import Rules
from neo_async.exchange.server.store import Beginning, Store
from neo_async.exchange.server.tape import Tape, in_india

_INTERVAL: Final = 600.0
"""Seconds between two compactions, at least."""
_SHARE: Final = 1_000
"""A compaction holds the loop; the next one waits this many times as long as it took."""
_PORTION: Final = 1_000
"""Entries after which the trades of a replay are put on the tape."""


class Recalled(NamedTuple):
    market: Market
    tape: Tape
    opened: date
    """First day of the market, in India."""


class Memory:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._market: Market | None = None
        self._tape = Tape()
        self._told_ns = 0
        """Up to where the clock is certain to be in the journal."""
        self._flushed: asyncio.Future[None] | None = None
        self._compacted_at = 0.0
        self._interval = _INTERVAL

    def begin(self, market: Market, tape: Tape, opened_ns: int) -> None:
        """Forget what was, and remember this market from now on."""
        state = market.snapshot()
        beginning = Beginning(seed=state.seed, makers=state.makers, opened_ns=opened_ns)
        self._store.begin(beginning, state)
        self._remember(market, tape)

    def recall(self, beginning: Beginning, rules: Rules) -> Recalled:
        """The market as it was, under rules of today. Takes its time.

        Nobody watches it: whoever did went with the process.
        """
        tape = Tape()
        tape.load(self._store.candles())
        market = Market.restored(self._store.state())
        for count, entry in enumerate(self._store.entries(), 1):
            market.advance(entry.now_ns, catch_up=False)
            # What fails now failed then, and its caller was told; what it changed is changed.
            with suppress(Exception):
                apply(market, entry.command)
            if count % _PORTION == 0:
                tape.add_all(market.take_events())
        tape.add_all(market.take_events())
        state = market.snapshot()
        desks = [msgspec.structs.replace(desk, watchers=0) for desk in state.desks]
        state = msgspec.structs.replace(state, rules=rules, desks=desks)
        # Compacted under the new rules: the journal behind it must not be read under the old ones.
        self._store.compact(state, tape.take_changed())
        market = Market.restored(self._store.state())
        self._remember(market, tape)
        opened = in_india(beginning.opened_ns / 1e9).date()
        return Recalled(market, tape, opened)

    def _remember(self, market: Market, tape: Tape) -> None:
        market.journal = []
        self._market, self._tape = market, tape
        self._told_ns = market.now_ns
        self._compacted_at = time.monotonic()

    # --- while it runs ------------------------------------------------------------------------

    def flush(self, *, something_happened: bool) -> None:
        """Make durable what was done until now. Raises sqlite3.Error when that fails; nothing is
        forgotten then, and the next flush tries again.

        `something_happened`: the passing of time counts only if it led to something.
        """
        market = self._market
        assert market is not None
        assert market.journal is not None
        if something_happened and market.now_ns > self._told_ns:
            # The turns up to here were played, not skipped, however long the pause that follows.
            market.journal.append(Entry(market.now_ns, Skip(market.now_ns // QUANTUM_NS)))
        if market.journal:
            self._store.append(market.journal)
            market.journal.clear()
            self._told_ns = market.now_ns

    def flush_soon(self, *, something_happened: bool) -> asyncio.Future[None] | None:
        """Flush with this turn of the loop; None if there is nothing to be flushed.

        The future fails when the flush does.
        """
        market = self._market
        assert market is not None
        if not market.journal and not (something_happened and market.now_ns > self._told_ns):
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
                flushed.exception()  # seen, even if nobody waits any more
        else:
            if not flushed.done():
                flushed.set_result(None)

    def compact_when_due(self) -> None:
        """Let the market take the place of its journal, if that is long enough ago."""
        if time.monotonic() - self._compacted_at >= self._interval:
            with suppress(sqlite3.Error):
                self.compact()

    def compact(self) -> None:
        """Call it with all trades on the tape."""
        market = self._market
        assert market is not None
        started = time.monotonic()
        self._store.compact(market.snapshot(), self._tape.changed())
        self._tape.take_changed()
        if market.journal:
            market.journal.clear()  # the state has them in it
        self._told_ns = market.now_ns
        self._compacted_at = time.monotonic()
        self._interval = max(_INTERVAL, _SHARE * (self._compacted_at - started))

    def close(self) -> None:
        if self._market is not None:
            with suppress(sqlite3.Error):
                self.flush(something_happened=True)
