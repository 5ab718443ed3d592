"""Nouns of Kite Connect's mutual funds, under the names of its document.

Money is rupees, quantities are units of a fund, dates and times are those of India. Fields that the
document does not have are left out; what it calls null is None, and so is a number, date or time
that cannot be read, with a line in the log. Status, frequency and the like stay
the text that came, since there may be values that nobody has documented; the enums beside them
compare equal to their text.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum

import msgspec

from neo_async.model import money


class FundOrderStatus(StrEnum):
    """The documented states of an order. There may be others."""

    OPEN = "OPEN"
    """Waits for the batch, and can be cancelled; also for money, see its `status_message`."""
    COMPLETE = "COMPLETE"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"


class SipStatus(StrEnum):
    """The documented states of a SIP."""

    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    CANCELLED = "CANCELLED"


class Frequency(StrEnum):
    """How often a SIP invests."""

    WEEKLY = "weekly"
    MONTHLY = "monthly"
    QUARTERLY = "quarterly"


class FundOrder(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An order as Kite reports it."""

    order_id: str
    tradingsymbol: str = ""
    """ISIN of the fund."""
    fund: str = ""
    """Its name."""
    transaction_type: str = ""
    """`BUY` or `SELL`."""
    status: str | None = None
    """One of `FundOrderStatus`, or another one."""
    status_message: str | None = None
    """Why it failed, or what it waits for: `Insufficient fund. 1/5`."""
    amount: float | None = None
    """Placed for the purchase of units."""
    quantity: float | None = None
    """Units allotted or sold; of a purchase, 0 before."""
    average_price: float | None = None
    """NAV at which they were; 0 before."""
    price: float | None = None
    """In the document, and in none of its samples."""
    last_price: float | None = None
    """The last NAV of the fund."""
    last_price_date: date | None = None
    order_timestamp: datetime | None = None
    """When Kite took the order."""
    exchange_timestamp: date | None = None
    """The day on which the exchange did; None when the order never got there."""
    exchange_order_id: str | None = None
    settlement_id: str | None = None
    folio: str | None = None
    """Of a completed purchase."""
    variety: str = ""
    """`regular`, `sip`, `amc_sip`."""
    purchase_type: str | None = None
    """`FRESH` or `ADDITIONAL`; None of a sale."""
    placed_by: str = ""
    tag: str | None = None

    @property
    def is_final(self) -> bool:
        """Nothing can happen to the order any more, as far as its status is a documented one."""
        return self.status in _FINAL


_FINAL = frozenset({FundOrderStatus.COMPLETE, FundOrderStatus.REJECTED, FundOrderStatus.CANCELLED})


class Sip(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A systematic investment plan as Kite reports it."""

    sip_id: str
    tradingsymbol: str = ""
    """ISIN of the fund."""
    fund: str = ""
    """Its name."""
    dividend_type: str = ""
    transaction_type: str = "BUY"
    status: str = ""
    """One of `SipStatus`, or another one."""
    created: datetime | None = None
    frequency: str = ""
    """One of `Frequency`."""
    instalment_amount: float | None = None
    instalment_day: int = 0
    """Day of the month, of a monthly one; else 0."""
    instalments: int | None = None
    """-1 until it is cancelled."""
    completed_instalments: int = 0
    pending_instalments: int | None = None
    """-1 until it is cancelled."""
    last_instalment: datetime | None = None
    """The creation, before the first one."""
    next_instalment: date | None = None
    """May lie in the past. None of one that was cancelled."""
    step_up: Mapping[str, float] = {}
    """Percent by which the amount grows every year, by day and month: `{"05-05": 10}`."""
    trigger_price: float = 0.0
    sip_type: str = ""
    """`sip`, `amc_sip`."""
    sip_reg_num: str | None = None
    """Of an `amc_sip`."""
    fund_source: str | None = None
    """In answers for one SIP only."""
    tag: str | None = None


class FundHolding(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Units of a fund in the demat account."""

    tradingsymbol: str
    """ISIN of the fund."""
    fund: str = ""
    """Its name."""
    folio: str | None = None
    quantity: float | None = None
    """To three decimals."""
    pledged_quantity: float = 0.0
    average_price: float | None = None
    """Rupees that a unit has cost; None when Kite does not know it (it sends 0 or null): of units
    that were moved in from elsewhere, or that have just been allotted."""
    last_price: float | None = None
    """The last NAV; None when Kite sends 0 or null."""
    last_price_date: date | None = None
    pnl: float | None = None
    """Profit or loss in rupees of what is held, at the last NAV. Kite sends 0 in every sample of
    its document; it is computed from the prices then. None when it cannot be known, and
    `unknown_reason` says why."""

    @property
    def value(self) -> float | None:
        """Rupees that the units are worth at the last NAV; None when that cannot be known."""
        if self.quantity is None or self.last_price is None:
            return None
        return float(money.rounded(_times(self.quantity, self.last_price), 2))

    @property
    def gain(self) -> float | None:
        """Profit or loss in rupees as quantity, average price and NAV give it; None when one of
        them is not known."""
        if self.quantity is None or self.last_price is None or self.average_price is None:
            return None
        worth = _times(self.quantity, self.last_price)
        cost = _times(self.quantity, self.average_price)
        return float(money.rounded(money.difference(worth, cost), 2))

    @property
    def unknown_reason(self) -> str:
        """Why `pnl` is None; empty when it is not."""
        if self.pnl is not None:
            return ""
        missing = [
            name
            for name, value in (
                ("quantity", self.quantity),
                ("average price", self.average_price),
                ("NAV", self.last_price),
            )
            if value is None
        ]
        return f"Kite does not say the {' and the '.join(missing)}"


def _times(one: float, other: float) -> Decimal:
    return money.product(money.exact(one), money.exact(other))


class Fund(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A fund of the list of instruments."""

    tradingsymbol: str
    """ISIN."""
    amc: str
    """Code of the company at the exchange."""
    name: str
    purchase_allowed: bool
    redemption_allowed: bool
    minimum_purchase_amount: float
    """Of the first purchase."""
    purchase_amount_multiplier: float
    minimum_additional_purchase_amount: float
    """Of further purchases, and of a SIP's instalments."""
    minimum_redemption_quantity: float
    """Who holds less has to sell all of it."""
    redemption_quantity_multiplier: float
    dividend_type: str
    """`growth`, `payout`, `idcw`."""
    scheme_type: str
    """`equity`, `debt`, `elss` …"""
    plan: str
    """`direct` or `regular`."""
    settlement_type: str
    """`T1`, `T2` …"""
    last_price: float | None = None
    """The last NAV; None when the list has none, or 0."""
    last_price_date: date | None = None


class KiteLogin(msgspec.Struct, frozen=True, kw_only=True):
    """What a login gives. Its tokens are never printed."""

    access_token: str
    """For KiteMutualFunds; ends at about six in the next morning."""
    user_id: str
    user_name: str = ""
    refresh_token: str = ""
    """For KiteSession.renew; most applications get none."""
    public_token: str = ""
    login_time: datetime | None = None

    def __repr__(self) -> str:
        return f"KiteLogin(user_id={self.user_id!r}, ...)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        # Structs show rich every field, in tracebacks with locals for instance.
        return [("user_id", self.user_id)]
