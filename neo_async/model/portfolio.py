"""What the account holds: positions and their values, holdings, limits, margin of an order.

Money is rupees, quantities are units (never lots). None means that the broker did not say, and
that nothing else says it; 0 is a number that was received or follows from numbers received.

The fields of a row stand in the order in which the broker writes them: each is then found at the
first look while decoding.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import TypeAlias

import msgspec

from neo_async.model.enums import Segment
from neo_async.model.numbers import Number, Whole

_SEGMENTS = frozenset(Segment)

QUANTITIES = frozenset(
    {"buy_quantity", "sell_quantity", "carried_buy_quantity", "carried_sell_quantity"}
)
"""Fields of a row from which the net quantity follows."""

PositionKey: TypeAlias = tuple[str, str, str]
"""Segment, trading symbol and product of a position, in one spelling: `position_key` makes it."""


class PositionRow(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    gc=False,
    rename={
        "account": "actId",
        "board_lot": "brdLtQty",
        "carried_buy_value": "cfBuyAmt",
        "carried_sell_value": "cfSellAmt",
        "carried_buy_quantity": "cfBuyQty",
        "carried_sell_quantity": "cfSellQty",
        "segment": "exSeg",
        "buy_value": "buyAmt",
        "sell_value": "sellAmt",
        "buy_quantity": "flBuyQty",
        "sell_quantity": "flSellQty",
        "product": "prod",
        "series": "series",
        "token": "tok",
        "symbol": "trdSym",
        "option_type": "optTp",
        "strike": "stkPrc",
        "kind": "type",
        "name": "sym",
        "square_off_flag": "sqrFlg",
        "open_flag": "posFlg",
        "lot_size": "lotSz",
        "multiplier": "multiplier",
        "precision": "precision",
        "price_numerator": "prcNum",
        "price_denominator": "prcDen",
        "time_text": "hsUpTm",
        "expiry_text": "expDt",
        "expiry_seconds": "exp",
        "general_numerator": "genNum",
        "general_denominator": "genDen",
        "updated_ns": "updRecvTm",
        "last_price": "ltp",
        "quantity": "qty",
    },
):
    """One row of the positions report: today's business in one instrument and product."""

    account: str = ""
    board_lot: Whole = 1
    carried_buy_value: Number = 0.0
    """At the previous close, not at cost."""
    carried_sell_value: Number = 0.0
    carried_buy_quantity: Whole = 0
    carried_sell_quantity: Whole = 0
    segment: str
    buy_value: Number = 0.0
    """Traded today."""
    sell_value: Number = 0.0
    buy_quantity: Whole = 0
    """Filled today."""
    sell_quantity: Whole = 0
    product: str = ""
    series: str = ""
    token: str = ""
    symbol: str
    option_type: str = ""
    """`CE`, `PE`; `XX` or a dash otherwise."""
    strike: Number = 0.0
    kind: str = ""
    """`FUTSTK FUTIDX OPTIDX` …"""
    name: str = ""
    square_off_flag: str = ""
    """`Y`: may be squared off."""
    open_flag: str = ""
    lot_size: Whole = 1
    multiplier: Number = 1.0
    precision: Whole = 2
    """Decimals of a price."""
    price_numerator: Number = 1.0
    price_denominator: Number = 1.0
    time_text: str = ""
    """IST, `2026/07/24 12:57:46`."""
    expiry_text: str = ""
    """`28 Jul, 2026`, or `NA`."""
    expiry_seconds: str = ""
    """Unix seconds, as text: instruments without expiry have words here."""
    general_numerator: Number = 1.0
    general_denominator: Number = 1.0
    updated_ns: Whole = 0
    """Unix nanoseconds."""
    last_price: Number | None = None
    """Only on the v2 path, and 0 there now and then."""
    quantity: Whole | None = None
    """Net, on the older path only; `Position.net_quantity` is worked out from the four others."""
    missing: frozenset[str] = msgspec.field(default=frozenset(), name="(missing)")
    """Names of the fields that the broker sent without a value that can be read: what they hold
    here is a default, and says nothing."""
    odd: tuple[str, ...] = msgspec.field(default=(), name="(odd)")
    """What stood in those of them that were not empty: `buyAmt='NaN' is not a number`."""

    @property
    def instrument(self) -> str:
        """`nse_cm|11536`, as feeds and quotes know it."""
        return f"{self.segment.lower()}|{self.token}"

    @property
    def has_instrument(self) -> bool:
        """False when the row lacks a token, as those of the older path may."""
        return self.segment.lower() in _SEGMENTS and self.token.isdecimal()

    @property
    def has_quantities(self) -> bool:
        """False when a quantity of the row cannot be read, so that the net quantity is not
        known."""
        return not self.missing or self.missing.isdisjoint(QUANTITIES)

    @property
    def is_derivative(self) -> bool:
        return self.segment.lower().endswith("_fo")

    @property
    def carried_quantity(self) -> int:
        """Net quantity brought from earlier days; negative when short."""
        return self.carried_buy_quantity - self.carried_sell_quantity

    @property
    def needs_holding(self) -> bool:
        """The cost of what was carried is not in this row but in the holdings."""
        return self.carried_quantity != 0 and not self.is_derivative

    @property
    def factor(self) -> float:
        """Rupees of value per rupee of price and unit; a factor of zero counts as 1."""
        general = (self.general_numerator or 1.0) / (self.general_denominator or 1.0)
        price = (self.price_numerator or 1.0) / (self.price_denominator or 1.0)
        return (self.multiplier or 1.0) * general * price

    @property
    def expiry(self) -> date | None:
        """None for what does not expire."""
        if not self.expiry_seconds.isdecimal():
            return None
        try:
            return datetime.fromtimestamp(int(self.expiry_seconds), UTC).date()
        except (ValueError, OverflowError, OSError):
            return None


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """A position and what it is worth. Amounts that cannot be known are None."""

    segment: str
    symbol: str
    token: str
    product: str
    net_quantity: int | None
    """Carried and today's; negative when short, 0 when closed, None when the broker's row has a
    quantity that cannot be read."""
    average_price: float | None
    """Of all buys when long, of all sells when short; 0 when closed."""
    last_price: float | None
    realised: float | None
    """Of the quantity that was both bought and sold."""
    unrealised: float | None
    pnl: float | None
    """Against cost: realised + unrealised."""
    mtm_pnl: float | None
    """Of the day: what was carried counts at the previous close."""
    unknown_reason: str
    """Why an amount is None; empty when none is."""
    row: PositionRow


class TotalPnl(msgspec.Struct, frozen=True, kw_only=True):
    """P&L over all positions; see Position. An amount is None when it is None for any of them."""

    realised: float | None
    unrealised: float | None
    pnl: float | None
    mtm_pnl: float | None
    unknown_reasons: Mapping[PositionKey, str]
    """The `unknown_reason` of each position that has an amount which is None."""


class Holding(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    gc=False,
    rename={
        "kind": "instrumentType",
        "sector": "sector",
        "instrument_token": "instrumentToken",
        "common_code": "commonScripCode",
        "description": "instrumentName",
        "quantity": "quantity",
        "average_price": "averagePrice",
        "cost": "holdingCost",
        "closing_price": "closingPrice",
        "market_value": "mktValue",
        "scrip_id": "scripId",
        "alternate_scrip": "isAlternateScrip",
        "unrealised": "unrealisedGainLoss",
        "square_off_gain": "sqGainLoss",
        "delivery_gain": "delGainLoss",
        "subtotal": "subTotal",
        "previous_last_price": "prevDayLtp",
        "subtype": "subType",
        "status_text": "instrumentStatus",
        "lot_size": "marketLot",
        "expiry_text": "expiryDate",
        "option_type": "optType",
        "strike": "strikePrice",
        "symbol": "symbol",
        "display_symbol": "displaySymbol",
        "segment": "exchangeSegment",
        "series": "series",
        "token": "exchangeIdentifier",
        "sellable_quantity": "sellableQuantity",
        "security_type": "securityType",
        "security_subtype": "securitySubType",
        "logo_url": "logoUrl",
        "cmot_code": "cmotCode",
    },
):
    """Delivery stock. Older servers send a third of the fields; the others are then None or
    empty."""

    kind: str = ""
    """`Equity` …"""
    sector: str = ""
    instrument_token: Whole | None = None
    """Kotak's own id. Not the exchange token: neither orders nor feeds know it."""
    common_code: str = ""
    description: str = ""
    quantity: Whole
    average_price: Number | None = None
    """Cost per unit, rounded to 4 decimals (`cost` is not rounded)."""
    cost: Number | None = None
    closing_price: Number | None = None
    """Of the previous day."""
    market_value: Number | None = None
    """At the closing price."""
    scrip_id: str = ""
    alternate_scrip: bool | str = ""
    """Empty, a boolean or its text, by version; see `is_alternate_scrip`."""
    unrealised: Number | None = None
    """`market_value` less `cost`."""
    square_off_gain: Number | None = None
    delivery_gain: Number | None = None
    subtotal: Number | None = None
    previous_last_price: Number | None = None
    subtype: str = ""
    status_text: str = ""
    """`ACTV` …"""
    lot_size: Whole | None = None
    expiry_text: str = ""
    option_type: str = ""
    strike: Number = 0.0
    symbol: str
    """Without series, `ITBEES`."""
    display_symbol: str = ""
    segment: str = ""
    series: str = ""
    token: str = ""
    """Exchange token, as in the scrip master."""
    sellable_quantity: Whole | None = None
    security_type: str = ""
    security_subtype: str = ""
    logo_url: str = ""
    cmot_code: str = ""
    missing: frozenset[str] = msgspec.field(default=frozenset(), name="(missing)")
    """Names of the fields that the broker sent without a value that can be read: what they hold
    here is a default, and says nothing."""
    odd: tuple[str, ...] = msgspec.field(default=(), name="(odd)")
    """What stood in those of them that were not empty: `buyAmt='NaN' is not a number`."""

    @property
    def is_alternate_scrip(self) -> bool:
        return str(self.alternate_scrip).strip().lower() == "true"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Funds of the account, over all segments. Amounts that the broker left out, or wrote in a
    form that cannot be read, are None."""

    available: float | None
    """What new orders may use (`Net`): cash and margin from pledged shares, less what is in
    use."""
    margin_used: float | None = None
    collateral_value: float | None = None
    """Cash (`CollateralValue`, whatever the broker's name suggests): pledging shares leaves it as
    it is."""
    collateral: float | None = None
    """Margin from pledged shares (`Collateral`)."""
    adhoc_margin: float | None = None
    notional_cash: float | None = None
    pay_in: float | None = None
    """Of the day."""
    pay_out: float | None = None
    unrealised_mtm: float | None = None
    realised_mtm: float | None = None
    span_margin: float | None = None
    exposure_margin: float | None = None
    premium: float | None = None
    var_margin: float | None = None
    special_margin: float | None = None
    used_percent: float | None = None
    """How much of the funds is in use, in percent, as the broker states it."""
    category: str = ""
    """`CLIENT_SPECIAL`, `CLIENT_MTF` …"""
    amounts: dict[str, float] = {}
    """Every number of the answer under the broker's own name, `FoSpanrgnNrmlPrsnt`."""
    odd: tuple[str, ...] = ()
    """What stood in the fields above that are None, where they were not empty:
    `Net='1,039.35' is not a number`."""


class OrderMargin(msgspec.Struct, frozen=True, kw_only=True):
    """What an order would need, beside what the account has."""

    sufficient: bool
    available: float | None
    """Cash, before any margin in use. None, as for each amount here, when the broker wrote none
    that can be read."""
    used: float | None
    """Margin in use without the order."""
    order: float | None
    """Margin of the order itself."""
    required: float | None
    """`used` and `order` together."""
    shortfall: float | None
    """What is missing; 0 when it is sufficient."""
    odd: tuple[str, ...] = ()
    """What stood in the amounts that are None, where they were not empty."""
