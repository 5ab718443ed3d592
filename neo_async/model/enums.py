"""The broker's vocabularies, under their usual names.

Every member's value is the code that travels on the wire, so `Segment("nse_cm")` and
`Segment.NSE_CM` are the same. There are no aliases such as "NSE": a guessed segment could
route an order to another market than the caller meant.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Any, Self


class BrokerCode(StrEnum):
    """A vocabulary of codes to which the broker may add.

    Reports keep a code that is not among the members: it has the type of the enum, `is_known` is
    False, and `str()` of it is the broker's own text, empty where the broker sent none. Nothing is
    sent with such a code: placing with it raises InvalidOrder. Calling the enum, as in
    `Segment("nse")`, raises ValueError for a code that is not a member.
    """

    @classmethod
    def read(cls, text: str) -> Self:
        """Return the member for the code of a report, whatever its case and the blanks around it,
        or for the name of a member (`BUY`); otherwise the text itself, as an unknown code."""
        member = cls._value2member_map_.get(text) or _spelt(cls, text)
        if isinstance(member, cls):
            return member
        unknown = str.__new__(cls, text)
        unknown._name_ = unknown._value_ = text
        return unknown

    @property
    def is_known(self) -> bool:
        """Whether it is a member, not another code of a report."""
        return type(self)._value2member_map_.get(self._value_) is self

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _read, (type(self), self._value_)


def _read(vocabulary: type[BrokerCode], text: str) -> BrokerCode:
    """Return a code that was pickled."""
    return vocabulary.read(text)


def _spelt(vocabulary: type[BrokerCode], text: str) -> BrokerCode | None:
    """Return the member of which a text is another spelling; None when there is none."""
    folded = text.strip().casefold()
    for member in vocabulary:
        if folded in (member.value.casefold(), member.name.casefold()):
            return member
    return None


class Segment(BrokerCode):
    """Exchange segment."""

    NSE_CM = "nse_cm"
    """NSE cash."""
    BSE_CM = "bse_cm"
    """BSE cash."""
    NSE_FO = "nse_fo"
    """NSE equity derivatives."""
    BSE_FO = "bse_fo"
    """BSE equity derivatives."""
    CDE_FO = "cde_fo"
    """NSE currency derivatives."""
    MCX_FO = "mcx_fo"
    """MCX commodity derivatives."""

    @property
    def is_cash(self) -> bool:
        """Whether it is a cash segment, not derivatives."""
        return self is Segment.NSE_CM or self is Segment.BSE_CM


class Side(BrokerCode):
    """The side of an order: buy or sell."""

    BUY = "B"
    SELL = "S"

    @property
    def opposite(self) -> Side:
        """The other side. Raises ValueError for a side that is not known."""
        if not self.is_known:
            raise ValueError(f"{self.value!r} is neither buy nor sell: it has no opposite")
        return Side.SELL if self is Side.BUY else Side.BUY


class OrderType(BrokerCode):
    """Order type: how an order is priced, and whether it waits for a trigger."""

    LIMIT = "L"
    MARKET = "MKT"
    """The broker turns it into a limit at the last price plus or minus a protection band, so a
    market order can rest unfilled."""
    SL = "SL"
    """Stop-loss limit: becomes a limit order once the trigger trades."""
    SL_M = "SL-M"
    """Stop-loss market. Do not use it: since April 2026 the live broker rejects it for API orders
    ("Market order with Algo Id not allowed"). Use SL with a limit price beyond the trigger."""

    @property
    def has_limit(self) -> bool:
        """Whether the order carries a limit price."""
        return self is OrderType.LIMIT or self is OrderType.SL

    @property
    def has_trigger(self) -> bool:
        """Whether the order carries a trigger price."""
        return self is OrderType.SL or self is OrderType.SL_M


class Product(BrokerCode):
    """Product: how a position is carried, and the margin it needs."""

    CNC = "CNC"
    """Cash and carry: delivery, cash segments only."""
    MIS = "MIS"
    """Intraday: squared off by the broker at the end of the day."""
    NRML = "NRML"
    """Normal: carried forward."""
    MTF = "MTF"
    """Margin trading facility, cash segments only."""
    CO = "CO"
    """Cover order: an entry with a compulsory stop-loss leg. Do not use it: since April 2026 the
    live broker refuses it for API orders (code 1017)."""
    BO = "BO"
    """Bracket order: an entry with a target and a stop-loss leg. Do not use it: since April 2026
    the live broker refuses it for API orders (code 1017)."""


class Validity(BrokerCode):
    """Validity: how long an order may rest in the book."""

    DAY = "DAY"
    """Valid until the close of the day."""
    IOC = "IOC"
    """Immediate or cancel: the part that is not filled at once is cancelled."""


class OffsetKind(StrEnum):
    """Unit of the distances of a bracket order from the entry price."""

    ABSOLUTE = "Absolute"
    """Distances in rupees."""
    TICKS = "Ticks"
    """Distances in ticks."""


class OrderStatus(StrEnum):
    """State of an order. The wire's text is free lower-case prose; `parse_status` reads it.

    A text that is not listed becomes `UNKNOWN`, which is never final; the row's `status_text` has
    the broker's own words.
    """

    PUT_RECEIVED = "put order req received"
    VALIDATION_PENDING = "validation pending"
    OPEN_PENDING = "open pending"
    OPEN = "open"
    TRIGGER_PENDING = "trigger pending"
    MODIFY_VALIDATION_PENDING = "modify validation pending"
    MODIFY_PENDING = "modify pending"
    MODIFIED = "modified"
    NOT_MODIFIED = "not modified"
    """A change was refused: the order stands as it was."""
    CANCEL_PENDING = "cancel pending"
    NOT_CANCELLED = "not cancelled"
    """A cancellation was refused: the order stands as it was."""
    AMO_RECEIVED = "after market order req received"
    AMO_MODIFY_RECEIVED = "modify after market order req received"
    COMPLETE = "complete"
    CANCELLED = "cancelled"
    AMO_CANCELLED = "cancelled after market order"
    REJECTED = "rejected"
    EXPIRED = "expired"
    """The day of the order is over. This client also sets it for an order of an earlier day that is
    not in the order book: its real final state was not reported."""
    UNKNOWN = "unknown"

    @property
    def is_final(self) -> bool:
        """Whether the order is done: no fill or change can follow."""
        return self in _FINAL

    @property
    def is_working(self) -> bool:
        """Whether the order rests at the exchange, or waits there for its trigger."""
        return self in _WORKING


_FINAL = frozenset(
    {
        OrderStatus.COMPLETE,
        OrderStatus.CANCELLED,
        OrderStatus.AMO_CANCELLED,
        OrderStatus.REJECTED,
        OrderStatus.EXPIRED,
    }
)
_WORKING = frozenset(
    {
        OrderStatus.OPEN,
        OrderStatus.TRIGGER_PENDING,
        OrderStatus.MODIFY_VALIDATION_PENDING,
        OrderStatus.MODIFY_PENDING,
        OrderStatus.MODIFIED,
        OrderStatus.NOT_MODIFIED,
        OrderStatus.CANCEL_PENDING,
        OrderStatus.NOT_CANCELLED,
    }
)

_STATUS_BY_TEXT: dict[str, OrderStatus] = {
    **{status.value: status for status in OrderStatus if status is not OrderStatus.UNKNOWN},
    # Other spellings that have been seen.
    "traded": OrderStatus.COMPLETE,
    "canceled": OrderStatus.CANCELLED,
    "not canceled": OrderStatus.NOT_CANCELLED,
    "canceled after market order": OrderStatus.AMO_CANCELLED,
    # Spellings of other brokers whose order system has the same states.
    "amo req received": OrderStatus.AMO_RECEIVED,
    "modify amo req received": OrderStatus.AMO_MODIFY_RECEIVED,
    "cancelled amo": OrderStatus.AMO_CANCELLED,
    "modification pending": OrderStatus.MODIFY_PENDING,
}


def parse_status(text: str) -> OrderStatus:
    """Return the status for the broker's text; `UNKNOWN` when it is not listed."""
    status = _STATUS_BY_TEXT.get(text)
    if status is None:
        plain = " ".join(text.replace("_", " ").lower().split())
        status = _STATUS_BY_TEXT.get(plain, OrderStatus.UNKNOWN)
    return status


class Level(IntEnum):
    """Depth of a market-feed subscription; the value is the `level` byte of its packets."""

    LITE = 1
    """Mini touch line: last price, close, change."""
    SCRIP = 4
    """Touch line: prices and volume of the day, best bid and ask."""
    DEPTH = 8
    """Five levels of bids and asks."""
    FULL_DEPTH = 16
    """Full depth: the levels that the exchange publishes; documented only in the official SDK."""
