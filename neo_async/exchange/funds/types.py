"""Value types of the fund simulator. Money is integer paise, units are thousandths, a NAV
ten-thousandths of a rupee, times Unix seconds, days those of India."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from enum import StrEnum

import msgspec


class Side(StrEnum):
    BUY = "BUY"
    SELL = "SELL"


class OrderState(StrEnum):
    OPEN = "OPEN"
    COMPLETE = "COMPLETE"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"


class SipState(StrEnum):
    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    CANCELLED = "CANCELLED"


class Frequency(StrEnum):
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    QUARTERLY = "quarterly"


class FundRefusal(Exception):
    """The service refuses a request, in Kite's words; `status` is the HTTP status."""

    def __init__(self, text: str, *, error_type: str = "InputException", status: int = 400) -> None:
        super().__init__(text)
        self.text = text
        self.error_type = error_type
        self.status = status


class Scheme(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A fund that can be bought here."""

    isin: str
    amc: str
    name: str
    scheme_type: str
    """`equity`, `elss`, `balanced`, `debt`, `liquid`."""
    plan: str
    dividend_type: str
    settlement_type: str
    opening_nav: int
    """NAV with which the simulator begins, in ten-thousandths of a rupee."""
    minimum_purchase: int
    purchase_multiple: int
    minimum_additional: int
    minimum_redemption: int
    redemption_multiple: int
    purchase_allowed: bool = True
    redemption_allowed: bool = True


class NewOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order as requested."""

    isin: str
    side: Side
    amount: int = 0
    """Amount of a purchase, in paise."""
    units: int = 0
    """Units of a redemption, in thousandths."""
    tag: str | None = None


class NewSip(msgspec.Struct, frozen=True, kw_only=True):
    isin: str
    amount: int
    initial_amount: int = 0
    """0 for none."""
    frequency: Frequency
    instalment_day: int = 0
    instalments: int
    tag: str | None = None


class SipChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a SIP; a field of None stays as it is."""

    amount: int | None = None
    frequency: Frequency | None = None
    instalment_day: int | None = None
    instalments: int | None = None
    state: SipState | None = None


class OrderRecord(msgspec.Struct, kw_only=True):
    order_id: str
    isin: str
    side: Side
    state: OrderState = OrderState.OPEN
    message: str | None = None
    amount: int
    """Amount in paise; of a redemption its proceeds, 0 before the batch."""
    units: int
    """Units in thousandths; of a purchase those allotted, 0 before the batch."""
    nav: int = 0
    """NAV at which it was executed."""
    variety: str
    """`regular` or `sip`."""
    purchase_type: str | None
    """`FRESH`, `ADDITIONAL`; None of a SELL."""
    tag: str | None
    placed_s: int
    exchange_order_id: str | None = None
    exchange_day: date | None = None
    settlement_id: str | None = None
    folio: str | None = None
    tries: int = 0
    """Batches in which there was not enough money for it."""


class SipRecord(msgspec.Struct, kw_only=True):
    sip_id: str
    isin: str
    state: SipState = SipState.ACTIVE
    amount: int
    frequency: Frequency
    instalment_day: int
    instalments: int
    """Number of instalments; -1 for a SIP that runs until it is cancelled."""
    pending: int
    """Number of instalments to come; -1 where `instalments` is -1."""
    completed: int = 0
    tag: str | None
    created_s: int
    last_instalment_s: int
    due: date | None
    """The next day by the calendar; the market's next day from there on is the one that counts."""
    step_up: Mapping[str, int] = {}
    """Percent by which the amount grows, by day and month: `{"05-05": 10}`."""
    stepped_to: date
    """The last day whose step-ups are in the amount."""


class FundHolding(msgspec.Struct, kw_only=True):
    isin: str
    folio: str
    units: int
    cost: int


class FundState(msgspec.Struct, kw_only=True):
    """The whole state of a fund simulator."""

    now_s: int
    cash: int
    nav_day: date
    navs: dict[str, int]
    orders: dict[str, OrderRecord] = {}
    """In order of time, oldest first."""
    sips: dict[str, SipRecord] = {}
    """In order of time, oldest first."""
    holdings: dict[str, FundHolding] = {}
    """Holdings by ISIN."""
    invested: set[str] = set()
    """ISINs in which there was an investment at some time."""
    numbers: int = 0
    """Numbers given away."""
