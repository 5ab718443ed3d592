"""The facts of an exit plan: what was asked, what has filled, and the exit orders so far.

Nothing here does I/O, reads a clock or awaits. The structs are written to the journal as JSON, and
a login reads them again.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from enum import StrEnum

import msgspec

from neo_async.model.enums import OrderType, Product, Segment, Side


class Aim(StrEnum):
    """What an exit order is to do."""

    STOP = "stop"
    """Limit the loss: a stop-loss order that rests at the broker."""
    TARGET = "target"
    """Take the profit: a limit order at the target."""
    CLOSE = "close"
    """Close at the market, inside the broker's protection band."""


class Resting(StrEnum):
    """Which of the two exits of a plan rests at the broker; the other one is watched here."""

    STOP = "stop"
    """The stop rests. A client that dies leaves a position with a stop."""
    TARGET = "target"
    """The target rests, and keeps its place in the queue. A client that dies leaves a position
    without a stop."""


class Unprotected(StrEnum):
    """What happens when the broker refuses the stop."""

    TELL = "tell"
    """The plan keeps trying, and the log and `health().problems` say so."""
    EXIT = "exit"
    """The position is closed at the market."""


class PlanStatus(StrEnum):
    """The state of a plan."""

    ENTERING = "entering"
    """The entry order is working; what has filled of it has an exit already."""
    OPEN = "open"
    """The entry is final, and units of it are to be exited."""
    EXITED = "exited"
    """Every unit has been exited: by stop, target, hand, or the broker's square-off."""
    CANCELLED = "cancelled"
    """It was cancelled, or its entry was before anything filled."""
    FAILED = "failed"
    """It could not be carried out; the reason says why, and `unprotected` how many units are left
    without an exit."""

    @property
    def is_final(self) -> bool:
        """Whether the plan has ended."""
        return self in (PlanStatus.EXITED, PlanStatus.CANCELLED, PlanStatus.FAILED)


class ExitReason(StrEnum):
    """What has exited the last unit of a plan."""

    STOP = "stop"
    TARGET = "target"
    CLOSED = "closed"
    """Closed at the market: exit_now(), a halt, or a stop that did not fill at its limit."""
    ELSEWHERE = "elsewhere"
    """Closed by hand, by another program, or by the broker's square-off."""


class PlanTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan is to do. Prices are rupees, quantities units."""

    segment: Segment
    symbol: str
    instrument: str
    """The instrument as the market feed names it, `nse_cm|19084`."""
    side: Side
    """Side of the entry; exits are on the other one."""
    product: Product
    tick: Decimal
    """Price step of the instrument."""
    largest: int
    """Most units that one order may have: the freeze quantity in whole lots."""
    target: Decimal | None = None
    stop: Decimal | None = None
    trail: Decimal | None = None
    """Distance at which the stop follows the best price since the entry; None does not move it."""
    trail_step: Decimal | None = None
    """Least distance by which the stop is moved; at least a tick."""
    stop_limit: Decimal = Decimal(0)
    """Distance of the stop's limit behind its trigger."""
    chase: float = 2.0
    """Seconds after which a triggered stop that has not filled is changed to a market price, and
    then again."""
    resting: Resting = Resting.STOP
    on_unprotected: Unprotected = Unprotected.TELL
    until: date | None = None
    """Last day of the plan; None has no last day."""

    @property
    def sign(self) -> int:
        """1 for a long position, -1 for a short one."""
        return 1 if self.side is Side.BUY else -1

    @property
    def exit_side(self) -> Side:
        """Side of the exit orders."""
        return Side.SELL if self.side is Side.BUY else Side.BUY

    def is_beyond(self, price: Decimal, level: Decimal, *, strictly: bool = False) -> bool:
        """Return whether `price` is more favourable to the position than `level`, or at it unless
        `strictly`."""
        distance = self.sign * (price - level)
        return distance > 0 if strictly else distance >= 0


class ExitTerms(msgspec.Struct, frozen=True):
    """The terms that an exit order has, or is to have."""

    aim: Aim
    order_type: OrderType
    price: Decimal | None = None
    trigger: Decimal | None = None
    revision: int = 0
    """Number of the present market price: each chase asks for a new one."""


class ExitOrder(msgspec.Struct, kw_only=True):
    """An exit order of a plan."""

    step: int
    """Its number in the plan, from 1: part of its client tag."""
    quantity: int
    """Units in total, as far as is known for certain."""
    terms: ExitTerms
    number: str = ""
    """Order number; empty until the broker has given one."""
    filled: int = 0
    is_final: bool = False
    is_resting: bool = False
    """Whether a report has shown it as a stop that waits for its trigger."""
    is_triggered: bool = False
    """Whether the stop has been triggered: it is a limit order in the book now."""
    was_cancelled: bool = False
    """Whether the plan itself has asked for its cancel."""
    is_under_way: bool = False
    """Whether its placement or a change has no answer yet, or its outcome is unknown."""
    asked_quantity: int = 0
    """Units of a change that is under way; 0 when none is."""
    asked_terms: ExitTerms | None = None
    """Terms of a change that is under way."""

    @property
    def working(self) -> int:
        """Most units that may still fill. A request whose outcome is unknown counts as done."""
        if self.is_final:
            return 0
        return max(0, max(self.quantity, self.asked_quantity) - self.filled)


class PlanState(msgspec.Struct, kw_only=True, tag="plan"):
    """All that is known of a plan. It is what the journal keeps."""

    id: str
    """Short id, unique in the account: it begins the client tags of the plan's orders."""
    terms: PlanTerms
    day: date
    """Day in India on which the plan was last at work; its orders are of this day."""
    status: PlanStatus = PlanStatus.ENTERING
    entry_numbers: list[str] = []
    """Numbers of the entry orders: several where the quantity is above the freeze quantity."""
    entry_quantity: int = 0
    entry_filled: int = 0
    entry_price: Decimal | None = None
    """Average price of the entry's fills."""
    is_entry_final: bool = False
    exits: list[ExitOrder] = []
    closed_elsewhere: int = 0
    """Units that were closed without the plan: by hand, or by the broker."""
    stop: Decimal | None = None
    """Trigger of the stop at present: that of the terms until it trails."""
    best: Decimal | None = None
    """Most favourable price since the entry."""
    aim: Aim = Aim.STOP
    is_closing: bool = False
    """Whether everything is to be closed at the market, whatever the price does."""
    revision: int = 0
    """Number of market prices asked for so far."""
    changes_type: bool = True
    """Whether the broker changes the type of an order; where it has refused, the plan cancels the
    order, waits until that is proven, and places another one."""
    reason: str = ""
    """Why the plan has ended, or why units are without an exit."""
    exited_by: ExitReason | None = None

    # --- quantities -----------------------------------------------------------------------

    @property
    def exits_filled(self) -> int:
        """Units that the plan's own exit orders have closed."""
        return sum(order.filled for order in self.exits)

    @property
    def held(self) -> int:
        """Units that are to be exited: the fills of the entry less all that was closed."""
        return self.entry_filled - self.exits_filled - self.closed_elsewhere

    @property
    def working(self) -> int:
        """Units of exit orders that may still fill; requests of unknown outcome count in full."""
        return sum(order.working for order in self.exits)

    @property
    def unprotected(self) -> int:
        """Units that have no exit order at the broker for certain."""
        certain = sum(
            max(0, order.quantity - order.filled)
            for order in self.exits
            if order.number and not order.is_final
        )
        return max(0, self.held - certain)

    @property
    def open_exits(self) -> list[ExitOrder]:
        """Exit orders that are not final."""
        return [order for order in self.exits if not order.is_final]
