"""The state of one listed instrument, and of one working order in it."""

from __future__ import annotations

from collections import deque

import msgspec

from neo_async.exchange.engine.accounts import Account, Exposure
from neo_async.exchange.engine.book import Book, Resting
from neo_async.exchange.engine.indices import LiveIndex
from neo_async.exchange.engine.market_maker import MarketMaker, MarketMakerState
from neo_async.exchange.engine.oco_group import OcoGroup
from neo_async.exchange.engine.session_stats import SessionStats
from neo_async.exchange.engine.types import Listing, OrderRecord
from neo_async.exchange.engine.underlyings import Underlying
from neo_async.model.enums import Segment, Side


class RestingOrderState(msgspec.Struct, frozen=True, array_like=True):
    """An entry of the book, as a snapshot keeps it."""

    side: Side
    price: int
    quantity: int
    visible: int
    disclosed: int
    number: str
    """Number of the order; empty for a quote."""


class InstrumentSnapshot(msgspec.Struct, frozen=True, array_like=True):
    """An instrument, as a snapshot keeps it."""

    segment: Segment
    token: str
    stats: SessionStats
    turn: int
    last_used_turn: int
    changed_ns: int
    watchers: int
    resting: list[RestingOrderState]
    """Both sides of the book, each in order of priority."""
    market_maker: MarketMakerState | None
    basis: float


class InstrumentState:
    """Book, session figures and market maker of an instrument, from its first use on."""

    def __init__(
        self,
        listing: Listing,
        stats: SessionStats,
        market_maker: MarketMaker | None,
        turn: int,
    ) -> None:
        self.listing = listing
        self.has_open_interest = not listing.segment.is_cash
        """Whether trades open and close contracts here."""
        self.book = Book()
        self.stats = stats
        self.market_maker = market_maker
        self.quotes: list[Resting] = []
        """Entries of the market maker in the book."""
        self.underlying: Underlying | None = None
        """Price that the market maker's reference price follows; None where it walks at random."""
        self.live_indices: list[tuple[LiveIndex, int]] = []
        """The indices that the instrument is a member of, and its position in each."""
        self.basis = 0.0
        """Paise by which the last price from outside differed from the fair value."""
        self.turn = turn
        """Newest turn that the market maker has played."""
        self.last_used_turn = turn
        self.working_count = 0
        """Client orders that rest here or wait for their trigger."""
        self.watchers = 0
        self.changed_ns = 0
        # Heaps of (trigger, sequence, order), the next to fire first: the sell triggers negated.
        # A changed or cancelled order leaves its entry behind; its sequence is then outdated.
        self.buy_stops: list[tuple[int, int, WorkingOrder]] = []
        self.sell_stops: list[tuple[int, int, WorkingOrder]] = []
        self.triggered: deque[tuple[int, WorkingOrder]] = deque()
        self.trailing: dict[str, OcoGroup] = {}
        """Groups whose stop trails, by the number of their entry."""

    def snapshot(self) -> InstrumentSnapshot:
        """Return the instrument as plain values."""
        book = self.book
        return InstrumentSnapshot(
            self.listing.segment,
            self.listing.token,
            self.stats,
            self.turn,
            self.last_used_turn,
            self.changed_ns,
            self.watchers,
            [
                RestingOrderState(
                    entry.side,
                    entry.price,
                    entry.quantity,
                    entry.visible,
                    entry.disclosed,
                    entry.record.number if isinstance(entry, WorkingOrder) else "",
                )
                for entry in (*book.bids.entries(), *book.asks.entries())
            ],
            self.market_maker.snapshot() if self.market_maker else None,
            self.basis,
        )

    def restore(self, state: InstrumentSnapshot) -> None:
        """Take over all but the book, which needs the working orders first."""
        self.basis = state.basis
        self.last_used_turn = state.last_used_turn
        self.changed_ns = state.changed_ns
        self.watchers = state.watchers


class WorkingOrder(Resting, eq=False):
    """An order that is not final yet: its record, its margin, and its entry in the book."""

    record: OrderRecord
    account: Account
    exposure: Exposure
    instrument: InstrumentState
    margin_price: int = 0
    """Price at which margin is reserved for the pending quantity."""
    reserves_margin: bool = True
    """Whether it reserves margin. False for a stop beside its target: only one of the two can
    trade."""
    rests: bool = False
    """Whether it stands in the book. Price and quantities of the entry count only then."""
    stop: int = 0
    """Sequence of its entry among the stops; 0 once triggered, or for any other order type."""


def working_order(
    record: OrderRecord, account: Account, exposure: Exposure, instrument: InstrumentState
) -> WorkingOrder:
    """Return a working order that neither rests nor waits for a trigger yet."""
    # By position: by name it takes several times as long.
    return WorkingOrder(
        record.side,
        record.price,
        0,
        0,
        0,
        None,
        None,
        record,
        account,
        exposure,
        instrument,
        record.price,
    )
