"""Structs and enums of Kite Connect's mutual funds, with the names of its documentation.

Amounts are rupees, quantities are units of a fund, dates and times are in India. Undocumented
fields are left out. A field that is documented as null is None, and so is an unreadable number,
date or time, with a line in the log. Status, frequency and the like keep the received text, because
there may be undocumented values; the enums compare equal to their text.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum

import msgspec

from neo_async.model import money


class FundOrderStatus(StrEnum):
    """The documented states of an order; others may occur."""

    OPEN = "OPEN"
    """The order waits for the batch, or for money (see its `status_message`), and can be
    cancelled."""
    COMPLETE = "COMPLETE"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"


class SipStatus(StrEnum):
    """The documented states of a SIP; others may occur."""

    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    CANCELLED = "CANCELLED"


class Frequency(StrEnum):
    """The interval between two instalments of a SIP."""

    WEEKLY = "weekly"
    MONTHLY = "monthly"
    QUARTERLY = "quarterly"


class FundOrder(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An order as reported by Kite."""

    order_id: str
    tradingsymbol: str = ""
    """ISIN of the fund."""
    fund: str = ""
    """Name of the fund."""
    transaction_type: str = ""
    """`BUY` or `SELL`."""
    status: str | None = None
    """State of the order: a `FundOrderStatus`, or an undocumented text."""
    status_message: str | None = None
    """Reason of a failure or of waiting: `Insufficient fund. 1/5`."""
    amount: float | None = None
    """Amount of a purchase, in rupees."""
    quantity: float | None = None
    """Units allotted or sold; 0 for a purchase before the allotment."""
    average_price: float | None = None
    """NAV of the allotment or sale; 0 before."""
    price: float | None = None
    """Documented, but absent from every sample."""
    last_price: float | None = None
    """Last NAV of the fund."""
    last_price_date: date | None = None
    order_timestamp: datetime | None = None
    """Time at which Kite accepted the order."""
    exchange_timestamp: date | None = None
    """Date on which the exchange accepted it; None when the order was not sent there."""
    exchange_order_id: str | None = None
    settlement_id: str | None = None
    folio: str | None = None
    """Folio of a completed purchase."""
    variety: str = ""
    """Variety of the order: `regular`, `sip`, `amc_sip`."""
    purchase_type: str | None = None
    """`FRESH` or `ADDITIONAL`; None for a sale."""
    placed_by: str = ""
    tag: str | None = None

    @property
    def is_final(self) -> bool:
        """Whether the order is done, as far as its status is a documented one."""
        return self.status in _FINAL


_FINAL = frozenset({FundOrderStatus.COMPLETE, FundOrderStatus.REJECTED, FundOrderStatus.CANCELLED})


class Sip(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A systematic investment plan as reported by Kite."""

    sip_id: str
    tradingsymbol: str = ""
    """ISIN of the fund."""
    fund: str = ""
    """Name of the fund."""
    dividend_type: str = ""
    transaction_type: str = "BUY"
    status: str = ""
    """State of the SIP: a `SipStatus`, or an undocumented text."""
    created: datetime | None = None
    frequency: str = ""
    """Interval of the instalments: a `Frequency`."""
    instalment_amount: float | None = None
    instalment_day: int = 0
    """Day of the month of a monthly SIP; else 0."""
    instalments: int | None = None
    """Number of instalments; -1 for no end."""
    completed_instalments: int = 0
    pending_instalments: int | None = None
    """Number of instalments left; -1 for no end."""
    last_instalment: datetime | None = None
    """Time of the last instalment; before the first one, of the creation."""
    next_instalment: date | None = None
    """Date of the next instalment, which may be in the past; None for a cancelled SIP."""
    step_up: Mapping[str, float] = {}
    """Percent by which the amount grows every year, by day and month: `{"05-05": 10}`."""
    trigger_price: float = 0.0
    sip_type: str = ""
    """Type of the SIP: `sip`, `amc_sip`."""
    sip_reg_num: str | None = None
    """Registration number of an `amc_sip`."""
    fund_source: str | None = None
    """Source of the money; only in answers for one SIP."""
    tag: str | None = None


class FundHolding(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Units of a fund in the demat account."""

    tradingsymbol: str
    """ISIN of the fund."""
    fund: str = ""
    """Name of the fund."""
    folio: str | None = None
    quantity: float | None = None
    """Units, to three decimals."""
    pledged_quantity: float = 0.0
    average_price: float | None = None
    """Average cost of a unit in rupees. None when Kite does not have it (it sends 0 or null): for
    units that were transferred from elsewhere, or have just been allotted."""
    last_price: float | None = None
    """Last NAV; None when Kite sends 0 or null."""
    last_price_date: date | None = None
    pnl: float | None = None
    """Profit or loss in rupees at the last NAV. Kite sends 0 in every sample of its documentation;
    it is then computed from the prices. None when it cannot be known; `unknown_reason` gives the
    reason."""

    @property
    def value(self) -> float | None:
        """Value of the units in rupees at the last NAV; None when it cannot be known."""
        if self.quantity is None or self.last_price is None:
            return None
        return float(money.rounded(_times(self.quantity, self.last_price), 2))

    @property
    def gain(self) -> float | None:
        """Profit or loss in rupees, computed from quantity, average price and NAV; None when one of
        them is not known."""
        if self.quantity is None or self.last_price is None or self.average_price is None:
            return None
        worth = _times(self.quantity, self.last_price)
        cost = _times(self.quantity, self.average_price)
        return float(money.rounded(money.difference(worth, cost), 2))

    @property
    def unknown_reason(self) -> str:
        """Reason why `pnl` is None; empty when it is not."""
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
        return f"Kite does not report the {' and the '.join(missing)}"


def _times(one: float, other: float) -> Decimal:
    return money.product(money.exact(one), money.exact(other))


class Fund(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A fund in the list of instruments."""

    tradingsymbol: str
    """ISIN of the fund."""
    amc: str
    """Code of the asset management company at the exchange."""
    name: str
    purchase_allowed: bool
    redemption_allowed: bool
    minimum_purchase_amount: float
    """Smallest amount of the first purchase."""
    purchase_amount_multiplier: float
    minimum_additional_purchase_amount: float
    """Smallest amount of further purchases, and of a SIP's instalments."""
    minimum_redemption_quantity: float
    """Smallest quantity of a sale. A smaller holding has to be sold whole."""
    redemption_quantity_multiplier: float
    dividend_type: str
    """Dividend type: `growth`, `payout`, `idcw`."""
    scheme_type: str
    """Scheme type: `equity`, `debt`, `elss` …"""
    plan: str
    """Plan: `direct` or `regular`."""
    settlement_type: str
    """Settlement type: `T1`, `T2` …"""
    last_price: float | None = None
    """Last NAV; None when the list has none, or 0."""
    last_price_date: date | None = None


class KiteLogin(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a login. Its tokens are never printed."""

    access_token: str
    """Token for KiteMutualFunds; it ends at about six in the next morning."""
    user_id: str
    user_name: str = ""
    refresh_token: str = ""
    """Token for `KiteSession.renew`; most applications get none."""
    public_token: str = ""
    login_time: datetime | None = None

    def __repr__(self) -> str:
        return f"KiteLogin(user_id={self.user_id!r}, ...)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        # Structs show rich every field, in tracebacks with locals for instance.
        return [("user_id", self.user_id)]
