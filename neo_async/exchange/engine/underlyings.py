"""Underlyings of derivatives: a share, or an index as a basket of shares.

An index moves as its members do, weighted, from its previous close; members that are not listed
are left out and the others weigh more. A share is a basket of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from neo_async.exchange.engine.indices import INDICES, basket
from neo_async.exchange.engine.types import Listing


class Underlying:
    """A basket whose price the market makers of its derivatives follow."""

    def __init__(self, close: int, members: dict[Listing, int]) -> None:
        self.members = tuple(members)
        self.close = close
        """Previous close."""
        self._shares = [
            (listing, weight / listing.base_price / sum(members.values()))
            for listing, weight in members.items()
        ]

    def spot(self, price_of: Callable[[Listing], int]) -> float:
        """Return the present price, in paise or hundredths of a point."""
        return self.close * sum(share * price_of(listing) for listing, share in self._shares)


def underlyings(listings: Iterable[Listing], closes: Mapping[str, int]) -> dict[str, Underlying]:
    """Return the underlyings of the listed derivatives, by `nse_cm|26000`.

    Underlyings without a listed member are left out. `closes` are previous closes of indices that
    differ from the built-in ones.
    """
    listings = list(listings)
    wanted = {listing.underlying for listing in listings if listing.underlying}
    if not wanted:
        return {}
    by_symbol = {(listing.segment, listing.symbol): listing for listing in listings}
    found = {}
    for listing in listings:
        name = f"{listing.segment.value}|{listing.token}"
        if name in wanted and listing.base_price:
            found[name] = Underlying(listing.base_price, {listing: 1})
    for index in INDICES:
        if index.key in wanted:
            members = basket(index, by_symbol)
            if members:
                found[index.key] = Underlying(closes.get(index.key, index.close), members)
    return found
