"""Replay of a journal of commands."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from neo_async.exchange.engine.commands import JournalEntry
from neo_async.exchange.engine.matching_engine import MatchingEngine
from neo_async.exchange.engine.types import Refusal


def replay(market: MatchingEngine, entries: Iterable[JournalEntry]) -> None:
    """Execute the commands of a journal at the times at which they were executed first.

    The market must have had the same beginnings, or be restored from a snapshot taken where the
    journal begins; it then ends in the same state. Nothing is journaled meanwhile, and the events
    are dropped.
    """
    journal, market.journal = market.journal, None
    try:
        for entry in entries:
            market.advance(entry.now_ns, catch_up=False)
            with suppress(Refusal):
                market.execute(entry.command)
    finally:
        market.journal = journal
    market.take_events()
    market.take_changes()
