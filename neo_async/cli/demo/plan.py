"""The plan of the demo: instruments and orders, the same ones for the same seed and file."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterable
from operator import itemgetter
from pathlib import Path

from neo_async.errors import UsageError
from neo_async.exchange.engine.matching_engine import MatchingEngine
from neo_async.exchange.engine.types import Listing
from neo_async.model.enums import OrderType, Product, Segment, Side, Validity
from neo_async.model.orders import OrderRequest

INSTRUMENTS = 8

_ORDER_VALUE = 20_000_00
"""Paise: about what one order is worth."""
_LARGEST = 40
"""Companies among which the seed chooses."""

CROSSING = 0.5
"""Percent beyond the last price: such a limit trades at once."""
NEAR = -0.8
"""Percent on the passive side of the last price: such a limit waits."""
FAR = -2.5


def choose_listings(
    market: MatchingEngine, scripmaster: Iterable[Path], seed: int
) -> list[Listing]:
    """Return shares of large companies. Blocks while it reads the files; raises UsageError without
    any."""
    listed = [listing for file in scripmaster for listing in _by_size(market, file)]
    typical = [listing for listing in listed or market.listings if _is_typical(listing)]
    if len(typical) < INSTRUMENTS:
        raise UsageError(
            f"the demo trades {INSTRUMENTS} shares of series EQ between 50 and 5,000 rupees, and "
            f"there are {len(typical)}: give it the file nse_cm.csv"
        )
    return random.Random(seed).sample(typical[:_LARGEST], INSTRUMENTS)


def another_listing(market: MatchingEngine, listings: list[Listing], seed: int) -> Listing:
    """Return a share like these that is none of them: the position of its bracket is its alone.
    Raises UsageError where there is none."""
    others = [
        listing for listing in market.listings if _is_typical(listing) and listing not in listings
    ]
    if not others:
        raise UsageError(
            f"the demo trades {INSTRUMENTS + 1} shares of series EQ between 50 and 5,000 rupees, "
            f"and there are {len(listings)}: give it the file nse_cm.csv"
        )
    return random.Random(seed).choice(others[:_LARGEST])


def limit(market: MatchingEngine, listing: Listing, side: Side, percent: float) -> str:
    """Return a price that far beyond the last one for this side (short of it when negative), in
    rupees, on a tick and inside the circuit limits."""
    last = market.last_price(listing)
    sign = 1 if side is Side.BUY else -1
    paise = round(last * (1 + sign * percent / 100) / listing.tick) * listing.tick
    return rupees(min(max(paise, listing.lower_band), listing.upper_band))


def rupees(paise: int) -> str:
    return f"{paise // 100}.{paise % 100:02d}"


def order(
    market: MatchingEngine,
    listing: Listing,
    side: Side,
    percent: float,
    *,
    product: Product = Product.MIS,
    tag: str = "",
) -> OrderRequest:
    return OrderRequest(
        listing.segment,
        listing.symbol,
        side,
        max(1, _ORDER_VALUE // market.last_price(listing)),
        product,
        limit(market, listing, side, percent),
        tag=tag,
    )


def burst(market: MatchingEngine, listings: list[Listing]) -> list[OrderRequest]:
    """Return three orders an instrument: one that trades at once, one near the market, one far
    away."""
    requests = []
    for position, listing in enumerate(listings):
        # Deliveries are bought, every fourth instrument is sold short for the day, and some of
        # what is bought is to be sold again with a profit.
        side = Side.SELL if position % 4 == 3 else Side.BUY
        product = Product.CNC if position % 4 == 0 else Product.MIS
        near_side = Side.SELL if position % 4 == 1 else side
        requests += [
            order(market, listing, side, CROSSING, product=product, tag="cross"),
            order(market, listing, near_side, NEAR, tag="near"),
            order(market, listing, side, FAR, tag="far"),
        ]
    return requests


def immediate_or_cancel(market: MatchingEngine, listing: Listing) -> OrderRequest:
    """Return an IOC order for more units than the best price has on offer."""
    _, asks = market.depth(listing, 1)
    price, offered, _ = asks[0]
    extra = max(1, _ORDER_VALUE // price)
    return OrderRequest(
        listing.segment,
        listing.symbol,
        Side.BUY,
        offered + extra,
        Product.MIS,
        rupees(price),
        validity=Validity.IOC,
        tag="ioc",
    )


def stop_loss(market: MatchingEngine, listing: Listing) -> OrderRequest:
    """Return an order that buys once the price has risen by half a percent."""
    return OrderRequest(
        listing.segment,
        listing.symbol,
        Side.BUY,
        max(1, _ORDER_VALUE // market.last_price(listing)),
        Product.MIS,
        limit(market, listing, Side.BUY, 1.0),
        OrderType.SL,
        limit(market, listing, Side.BUY, 0.5),
        tag="stop",
    )


def oversell(market: MatchingEngine, listing: Listing, sellable: int) -> OrderRequest:
    """Return a delivery sell of more than the account holds."""
    return OrderRequest(
        listing.segment,
        listing.symbol,
        Side.SELL,
        sellable + 50,
        Product.CNC,
        limit(market, listing, Side.SELL, 0.0),
        tag="oversell",
    )


MALFORMED = OrderRequest(
    Segment.NSE_FO, "NIFTY26DECFUT", Side.BUY, 65, Product.CNC, "24485.20", tag="bad"
)
"""Order that is refused before any byte of it is sent: derivatives have no delivery."""


def _is_typical(listing: Listing) -> bool:
    """Return whether a share is neither cheap nor dear: one whose tick is a percent, or whose order
    is one share, is a poor example."""
    price = listing.base_price
    return listing.series == "EQ" and listing.lot_size == 1 and 50_00 <= price < 5000_00


def _by_size(market: MatchingEngine, scripmaster: Path) -> list[Listing]:
    """Return the shares of a file by market value, the largest company first: nothing else in it
    hints at how much an instrument is traded."""
    sizes: list[tuple[float, Listing]] = []
    with scripmaster.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.reader(file)
        column = {name.strip(): index for index, name in enumerate(next(rows, []))}
        wanted = [column.get(name) for name in ("pExchSeg", "pTrdSymbol", "dIssueCapital")]
        if None in wanted:
            return []
        pick = itemgetter(*wanted)
        for row in rows:
            try:
                segment, symbol, shares = pick(row)
                size = float(shares)
            except (IndexError, ValueError):
                continue  # a cut row, or one without capital
            listing = market.listing(segment, symbol)
            if listing is not None and listing.segment.is_cash and size > 0:
                sizes.append((size * listing.base_price, listing))
    sizes.sort(key=lambda pair: pair[0], reverse=True)
    return [listing for _, listing in sizes]
