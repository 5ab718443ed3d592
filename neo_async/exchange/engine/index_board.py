"""Look-up of the market's indices by name or number."""

from __future__ import annotations

from neo_async.exchange.engine.indices import IndexSnapshot, LiveIndex
from neo_async.exchange.engine.matching_engine import MatchingEngine
from neo_async.exchange.engine.types import Index, Listing


def names_of(index: Index) -> tuple[str, ...]:
    """Return what an index can be requested by, spelled exactly."""
    return (index.token, index.name, *index.aliases)


class IndexBoard:
    def __init__(self, market: MatchingEngine) -> None:
        self._market = market
        self._by_text = {
            (live_index.index.segment.value, text.casefold()): live_index
            for live_index in market.live_indices
            for text in names_of(live_index.index)
        }

    def find(self, segment: str, text: str) -> Index | None:
        """Return the index of that number or name, in any case."""
        live_index = self._by_text.get((segment, text.casefold()))
        return live_index.index if live_index is not None else None

    def members(self, index: Index) -> list[Listing]:
        """Return the listed members of an index."""
        return self._live_index(index).members

    def snapshot(self, index: Index) -> IndexSnapshot:
        """Return an index as of now, its members' market makers active."""
        live_index = self._live_index(index)
        for member in live_index.members:
            self._market.session_stats(member)
        return IndexSnapshot(live_index.index, live_index.stats)

    def _live_index(self, index: Index) -> LiveIndex:
        return self._by_text[index.segment.value, index.token]
