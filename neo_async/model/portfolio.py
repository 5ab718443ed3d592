"""Contents of the account: positions and their values, holdings, limits, margin of an order.

Amounts are rupees; quantities are units, never lots. None means that the value is not known; 0 is a
value that was received, or follows from values received.

The fields of a row are declared in the order in which the broker writes them, because the decoder
then finds each of them at the first comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import TypeAlias

import msgspec

from neo_async.model.enums import Product, Segment
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
    """A row of the positions report: today's trading in one instrument and product."""

    account: str = ""
    board_lot: Whole = 1
    carried_buy_value: Number = 0.0
    """Value of the carried buys at the previous close, not at cost."""
    carried_sell_value: Number = 0.0
    carried_buy_quantity: Whole = 0
    carried_sell_quantity: Whole = 0
    segment: Segment
    buy_value: Number = 0.0
    """Rupees bought today."""
    sell_value: Number = 0.0
    buy_quantity: Whole = 0
    """Units bought today."""
    sell_quantity: Whole = 0
    product: Product = Product.read("")
    series: str = ""
    token: str = ""
    symbol: str
    option_type: str = ""
    """`CE` or `PE`; `XX` or a dash for other instruments."""
    strike: Number = 0.0
    kind: str = ""
    """Kind of the instrument: `FUTSTK FUTIDX OPTIDX` …"""
    name: str = ""
    square_off_flag: str = ""
    """`Y` when the position may be squared off."""
    open_flag: str = ""
    lot_size: Whole = 1
    multiplier: Number = 1.0
    precision: Whole = 2
    """Decimals of a price."""
    price_numerator: Number = 1.0
    price_denominator: Number = 1.0
    time_text: str = ""
    """Time in IST: `2026/07/24 12:57:46`."""
    expiry_text: str = ""
    """Expiry date: `28 Jul, 2026`, or `NA`."""
    expiry_seconds: str = ""
    """Unix seconds of the expiry, as text: other instruments have words here."""
    general_numerator: Number = 1.0
    general_denominator: Number = 1.0
    updated_ns: Whole = 0
    """Unix nanoseconds of the broker's last change."""
    last_price: Number | None = None
    """Last price; only on the v2 path, and sometimes 0 there."""
    quantity: Whole | None = None
    """Net quantity, on the older path only; `Position.net_quantity` is computed from the others."""
    missing: frozenset[str] = msgspec.field(default=frozenset(), name="(missing)")
    """Names of the fields without a readable value: they hold a default that means nothing."""
    odd: tuple[str, ...] = msgspec.field(default=(), name="(odd)")
    """The unreadable values of missing fields: `buyAmt='NaN' is not a number`."""

    @property
    def instrument(self) -> str:
        """The instrument in the notation of feeds and quotes: `nse_cm|11536`."""
        return f"{self.segment.lower()}|{self.token}"

    @property
    def has_instrument(self) -> bool:
        """Whether the row has a segment and a token; rows of the older path may lack them."""
        return self.segment.lower() in _SEGMENTS and self.token.isdecimal()

    @property
    def has_quantities(self) -> bool:
        """Whether every quantity of the row is readable, so that the net quantity is known."""
        return not self.missing or self.missing.isdisjoint(QUANTITIES)

    @property
    def is_derivative(self) -> bool:
        """Whether the instrument is a derivative."""
        return self.segment.lower().endswith("_fo")

    @property
    def carried_quantity(self) -> int:
        """Net quantity carried from earlier days; negative when short."""
        return self.carried_buy_quantity - self.carried_sell_quantity

    @property
    def needs_holding(self) -> bool:
        """Whether the cost of the carried quantity is not in the row but in the holdings."""
        return self.carried_quantity != 0 and not self.is_derivative

    @property
    def factor(self) -> float:
        """Value in rupees of one unit at a price of one rupee; a factor of 0 counts as 1."""
        general = (self.general_numerator or 1.0) / (self.general_denominator or 1.0)
        price = (self.price_numerator or 1.0) / (self.price_denominator or 1.0)
        return (self.multiplier or 1.0) * general * price

    @property
    def expiry(self) -> date | None:
        """Expiry date; None for instruments without expiry."""
        if not self.expiry_seconds.isdecimal():
            return None
        try:
            return datetime.fromtimestamp(int(self.expiry_seconds), UTC).date()
        except (ValueError, OverflowError, OSError):
            return None


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """A position and its valuation. Amounts that cannot be known are None."""

    segment: Segment
    symbol: str
    token: str
    product: Product
    net_quantity: int | None
    """Carried and today's quantity; negative when short, 0 when closed, None when a quantity of the
    broker's row is unreadable."""
    average_price: float | None
    """Average price of all buys when long, of all sells when short; 0 when closed."""
    last_price: float | None
    realised: float | None
    """Profit of the quantity that was both bought and sold."""
    unrealised: float | None
    pnl: float | None
    """Profit against cost: realised plus unrealised."""
    mtm_pnl: float | None
    """Profit of the day: carried quantities count at the previous close."""
    unknown_reason: str
    """Reason why an amount is None; empty when none is."""
    row: PositionRow


class SquaredOff(msgspec.Struct, frozen=True, kw_only=True):
    """A position that a square-off has closed: it is flat."""

    segment: str
    symbol: str
    product: str
    quantity: int
    """Units that were closed; 0 where the position was flat once its orders were cancelled."""
    orders: tuple[str, ...]
    """Numbers of the orders that closed it."""


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
    """A delivery holding. Older servers send a third of the fields; the rest is None or empty."""

    kind: str = ""
    """Kind of the instrument: `Equity` …"""
    sector: str = ""
    instrument_token: Whole | None = None
    """Kotak's own id. It is not the exchange token, and not valid in orders or feeds."""
    common_code: str = ""
    description: str = ""
    quantity: Whole
    average_price: Number | None = None
    """Cost per unit, rounded to 4 decimals; `cost` is not rounded."""
    cost: Number | None = None
    closing_price: Number | None = None
    """Closing price of the previous day."""
    market_value: Number | None = None
    """Value at the closing price."""
    scrip_id: str = ""
    alternate_scrip: bool | str = ""
    """Empty, a boolean or its text, depending on the server's version; see
    `is_alternate_scrip`."""
    unrealised: Number | None = None
    """Unrealised profit: `market_value` less `cost`."""
    square_off_gain: Number | None = None
    delivery_gain: Number | None = None
    subtotal: Number | None = None
    previous_last_price: Number | None = None
    subtype: str = ""
    status_text: str = ""
    """Status of the instrument: `ACTV` …"""
    lot_size: Whole | None = None
    expiry_text: str = ""
    option_type: str = ""
    strike: Number = 0.0
    symbol: str
    """Symbol without series: `ITBEES`."""
    display_symbol: str = ""
    segment: Segment = Segment.read("")
    series: str = ""
    token: str = ""
    """Exchange token, as in the scrip master."""
    sellable_quantity: Whole | None = None
    security_type: str = ""
    security_subtype: str = ""
    logo_url: str = ""
    cmot_code: str = ""
    missing: frozenset[str] = msgspec.field(default=frozenset(), name="(missing)")
    """Names of the fields without a readable value: they hold a default that means nothing."""
    odd: tuple[str, ...] = msgspec.field(default=(), name="(odd)")
    """The unreadable values of missing fields: `buyAmt='NaN' is not a number`."""

    @property
    def is_alternate_scrip(self) -> bool:
        """Whether `alternate_scrip` is true in any of its forms."""
        return str(self.alternate_scrip).strip().lower() == "true"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Funds of the account over all segments. Missing and unreadable amounts are None."""

    available: float | None
    """Funds for new orders (`Net`): cash and margin from pledged shares, less margin in use."""
    margin_used: float | None = None
    collateral_value: float | None = None
    """Cash (`CollateralValue`, in spite of the broker's name): pledging shares does not change
    it."""
    collateral: float | None = None
    """Margin from pledged shares (`Collateral`)."""
    adhoc_margin: float | None = None
    notional_cash: float | None = None
    pay_in: float | None = None
    """Amount paid in today."""
    pay_out: float | None = None
    unrealised_mtm: float | None = None
    realised_mtm: float | None = None
    span_margin: float | None = None
    exposure_margin: float | None = None
    premium: float | None = None
    var_margin: float | None = None
    special_margin: float | None = None
    used_percent: float | None = None
    """Share of the funds in use, in percent, as the broker reports it."""
    category: str = ""
    """Category of the client: `CLIENT_SPECIAL`, `CLIENT_MTF` …"""
    amounts: dict[str, float] = {}
    """Numbers of the answer by the broker's own names, such as `FoSpanrgnNrmlPrsnt`."""
    odd: tuple[str, ...] = ()
    """The unreadable values of the fields that are None: `Net='1,039.35' is not a number`."""


class OrderMargin(msgspec.Struct, frozen=True, kw_only=True):
    """The margin that an order needs, and the margin that the account has."""

    sufficient: bool
    available: float | None
    """Cash before any margin in use. This and the other amounts are None when unreadable."""
    used: float | None
    """Margin in use without the order."""
    order: float | None
    """Margin of the order itself."""
    required: float | None
    """Margin in use and margin of the order together."""
    shortfall: float | None
    """Missing margin; 0 when it is sufficient."""
    odd: tuple[str, ...] = ()
    """The unreadable values of the amounts that are None."""
