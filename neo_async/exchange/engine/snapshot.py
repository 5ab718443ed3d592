"""A whole market as plain values, to be kept somewhere and to be built again from.

`Market.snapshot` makes a `State`, `Market.restored` a market from it. Orders, days and listings in
a state are the market's own objects: encode it before the next command.
"""

from __future__ import annotations

import msgspec

from neo_async.exchange.engine.oco_group import Legs
from neo_async.exchange.engine.session_stats import Day
from neo_async.exchange.engine.trading_hours import Phase
from neo_async.exchange.engine.types import Holding, Listing, OrderRecord, Position, Rules
from neo_async.model.enums import Segment, Side


class MakerState(msgspec.Struct, frozen=True, array_like=True):
    reference: int
    """Ticks."""
    generator: bytes
    """State of its random numbers: 625 words, 32 bits each, little end first."""


class RestingState(msgspec.Struct, frozen=True, array_like=True):
    side: Side
    price: int
    quantity: int
    visible: int
    disclosed: int
    number: str
    """Of the order; empty for a quote."""


class DeskState(msgspec.Struct, frozen=True, array_like=True):
    segment: Segment
    token: str
    day: Day
    turn: int
    touched: int
    changed_ns: int
    watchers: int
    resting: list[RestingState]
    """In order of priority on each side."""
    maker: MakerState | None
    basis: float


class WorkingState(msgspec.Struct, frozen=True, array_like=True):
    number: str
    blocked_price: int
    blocks: bool
    stop: int


class AccountState(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    cash: int
    holdings: list[Holding]
    positions: list[Position]
    """Of every exposure, the empty ones too."""
    older_orders: list[str]
    """Numbers of those in the order book that are not of the day: they have waited for its open."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    now_ns: int
    seed: int
    makers: bool
    unmade: list[tuple[Segment, str]]
    rules: Rules
    listings: list[Listing]
    first_prices: list[int]
    """Base prices with which they were listed first."""
    turn: int
    last_stamp: int
    orders_accepted: int
    exchange_numbers: int
    trade_numbers: int
    gui_numbers: int
    stops: int
    accounts: list[AccountState]
    ledger: list[OrderRecord]
    """Empty when it is kept elsewhere."""
    working: list[WorkingState]
    queued: list[str]
    """Numbers of the after-market orders that wait for the open."""
    legs: list[Legs]
    desks: list[DeskState]
    awake: list[tuple[Segment, str]]
    spots: dict[str, tuple[int, float]]
    closes: dict[str, int]
    """Previous closes of the indices, once a day has ended."""
    indices: dict[str, Day]
    """By `nse_cm|26000`."""
    days_begun: int
    day_began: int
    """How many orders the ledger had by then."""
    phases: dict[Segment, Phase]
    """Empty where trading never pauses."""
