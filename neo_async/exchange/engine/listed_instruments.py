"""The listed instruments by symbol and token, their derivatives, indices and underlyings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import msgspec

from neo_async.exchange.engine.clock import Clock
from neo_async.exchange.engine.indices import LiveIndices
from neo_async.exchange.engine.listings import relisted
from neo_async.exchange.engine.session_stats import SessionStats
from neo_async.exchange.engine.types import Listing
from neo_async.exchange.engine.underlyings import underlyings
from neo_async.model.enums import Segment

Key: TypeAlias = tuple[Segment, str]
"""Segment and token, or segment and symbol."""


class ListedInstrumentsState(msgspec.Struct, frozen=True, kw_only=True):
    """The listings, as a snapshot keeps them."""

    listings: list[Listing]
    first_prices: list[int]
    """Base prices with which the instruments were listed first, in the order of the listings."""
    closes: dict[str, int]
    """Previous closes of the indices, by `nse_cm|26000`, once a session has ended."""
    indices: dict[str, SessionStats]
    """Session figures of the indices, by `nse_cm|26000`."""


class ListedInstruments:
    def __init__(self, listings: Iterable[Listing], clock: Clock) -> None:
        self._clock = clock
        self.by_symbol: dict[Key, Listing] = {}
        self.by_token: dict[Key, Listing] = {}
        self.first_prices: dict[Key, int] = {}
        """Base prices with which the instruments were listed first, by segment and token."""
        self.derivatives: dict[Key, list[str]] = {}
        """Tokens of the derivatives, by segment and name of the underlying."""
        self._closes: dict[str, int] = {}
        self.live_indices = LiveIndices({}, {})
        self.segments: tuple[Segment, ...] = ()
        """Segments in which something is listed."""
        self.add(listings)

    def add(self, listings: Iterable[Listing]) -> None:
        """List instruments that are not listed yet."""
        for listing in listings:
            key = (listing.segment, listing.token)
            self.by_symbol[listing.segment, listing.symbol] = listing
            self.by_token[key] = listing
            self.first_prices[key] = listing.base_price
            if listing.expiry is not None:
                name = (listing.segment, listing.name)
                self.derivatives.setdefault(name, []).append(listing.token)
        self.segments = tuple(dict.fromkeys(segment for segment, _ in self.by_token))
        self._recalculate(self._index_stats())

    def has_expired(self, listing: Listing) -> bool:
        """Return whether the last trading day of a contract is over."""
        return listing.expiry is not None and listing.expiry < self._clock.date

    def begin_session(self, closing_price: Callable[[Listing], int]) -> None:
        """List everything anew from its closing price."""
        for name, live_index in self.live_indices.by_key.items():
            self._closes[name] = live_index.stats.last_price
        for key, listing in self.by_token.items():
            listing = relisted(listing, closing_price(listing))
            self.by_token[key] = listing
            self.by_symbol[listing.segment, listing.symbol] = listing
        for live_index in self.live_indices.by_key.values():
            live_index.begin_session(self.by_token)
        self.underlyings = underlyings(self.by_token.values(), self._closes)

    def _recalculate(self, index_stats: Mapping[str, SessionStats]) -> None:
        """Derive indices and underlyings from the listings."""
        self.live_indices = LiveIndices(self.by_symbol, self._closes, index_stats)
        self.underlyings = underlyings(self.by_token.values(), self._closes)

    def _index_stats(self) -> dict[str, SessionStats]:
        return {key: each.stats for key, each in self.live_indices.by_key.items()}

    # --- snapshot -----------------------------------------------------------------------------

    def snapshot(self) -> ListedInstrumentsState:
        """Return the listings as plain values."""
        return ListedInstrumentsState(
            listings=list(self.by_token.values()),
            first_prices=list(self.first_prices.values()),
            closes=dict(self._closes),
            indices=self._index_stats(),
        )

    def restore(self, state: ListedInstrumentsState) -> None:
        """Take over all but the listings, which the constructor has had."""
        self._closes = state.closes
        self.first_prices = dict(zip(self.by_token, state.first_prices, strict=True))
        self._recalculate(state.indices)
