"""What the market keeps of one listing, and of one order at work there."""

from __future__ import annotations

from collections import deque

from neo_async.exchange.engine.accounts import Account, Exposure
from neo_async.exchange.engine.book import Book, Resting
from neo_async.exchange.engine.indices import Meter
from neo_async.exchange.engine.market_maker import MarketMaker
from neo_async.exchange.engine.oco_group import Legs
from neo_async.exchange.engine.session_stats import Day
from neo_async.exchange.engine.snapshot import DeskState, RestingState
from neo_async.exchange.engine.types import Listing, OrderRecord
from neo_async.exchange.engine.underlyings import Underlying


class Desk:
    """Everything that belongs to one listing once somebody has touched it."""

    def __init__(
        self,
        listing: Listing,
        day: Day,
        maker: MarketMaker | None,
        turn: int,
    ) -> None:
        self.listing = listing
        self.has_interest = not listing.segment.is_cash
        """Whether contracts are opened and closed here."""
        self.book = Book()
        self.day = day
        self.maker = maker
        self.quotes: list[Resting] = []
        self.underlying: Underlying | None = None
        """What the maker's reference follows; None: it walks by itself."""
        self.meters: list[tuple[Meter, int]] = []
        """The indices that follow its price, and its place in each."""
        self.basis = 0.0
        """Paise by which a price from outside lay beside the value, kept since."""
        self.turn = turn
        """Last turn the maker has played."""
        self.touched = turn
        self.working = 0
        """Client orders that rest here or wait for their trigger."""
        self.watchers = 0
        self.changed_ns = 0
        # Heaps of (trigger, sequence, order), the next to fire first: the sell triggers negated.
        # A changed or cancelled order leaves its entry behind, told by an outdated sequence.
        self.buy_stops: list[tuple[int, int, Working]] = []
        self.sell_stops: list[tuple[int, int, Working]] = []
        self.fired: deque[tuple[int, Working]] = deque()
        self.trailing: dict[str, Legs] = {}
        """Legs whose stop follows the price, by the number of their entry."""

    def snapshot(self) -> DeskState:
        book = self.book
        return DeskState(
            self.listing.segment,
            self.listing.token,
            self.day,
            self.turn,
            self.touched,
            self.changed_ns,
            self.watchers,
            [
                RestingState(
                    entry.side,
                    entry.price,
                    entry.quantity,
                    entry.visible,
                    entry.disclosed,
                    entry.record.number if isinstance(entry, Working) else "",
                )
                for entry in (*book.bids.entries(), *book.asks.entries())
            ],
            self.maker.snapshot() if self.maker else None,
            self.basis,
        )


class Working(Resting, eq=False):
    """What the market keeps of an order until it is final: its entry in the book, for one thing."""

    record: OrderRecord
    account: Account
    exposure: Exposure
    desk: Desk
    blocked_price: int = 0
    """Price at which the pending quantity is blocked."""
    blocks: bool = True
    """False for a stop beside its target: only one of them can trade."""
    rests: bool = False
    """Whether it stands in the book. What the entry says counts only then."""
    stop: int = 0
    """Sequence of its entry among the stops; 0 once triggered, or if it is none."""


def at_work(record: OrderRecord, account: Account, exposure: Exposure, desk: Desk) -> Working:
    """An order that neither rests nor waits yet."""
    price = record.price
    return Working(record.side, price, 0, 0, 0, None, None, record, account, exposure, desk, price)
