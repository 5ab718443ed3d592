"""Positions and their valuation, holdings, limits, and the margin of an order.

Amounts are rupees; quantities are units, never lots. None means that the value is not known; 0 is a
value that was received, or follows from values received.

The fields of a row are declared in the order in which the broker writes them, because the decoder
then finds each of them at the first comparison.
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime

import msgspec

from neo_async.model.enums import Segment
from neo_async.model.numbers import Number, Whole

_SEGMENTS = frozenset(Segment)


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
    segment: str
    buy_value: Number = 0.0
    """Rupees bought today."""
    sell_value: Number = 0.0
    buy_quantity: Whole = 0
    """Units bought today."""
    sell_quantity: Whole = 0
    product: str = ""
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
        return not self.missing or self.missing.isdisjoint(_QUANTITIES)

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

    segment: str
    symbol: str
    token: str
    product: str
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
    """Every number of the answer by the broker's own name, such as `FoSpanrgnNrmlPrsnt`."""
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


def value_position(row: PositionRow, holding: Holding | None, last_price: float | None) -> Position:
    """Value a position by the broker's documented arithmetic.

    `holding` is the one whose `token` equals the row's (None when there is none): equity carried
    from earlier days is valued at its average price, which the row does not know. A `last_price`
    of 0 is the broker's way of not knowing it; an average price of 0 counts as what was paid, as
    with the broker itself.
    Only the average price is rounded, to the row's precision: amounts are to be rounded where they
    are shown.

    An amount that needs a number which the row lacks, or that is no finite number, is None.
    """
    lacking = _lacking(row)
    net = average = realised = unrealised = pnl = mtm_pnl = None
    reasons = []
    bought = row.carried_buy_quantity + row.buy_quantity
    sold = row.carried_sell_quantity + row.sell_quantity
    if row.has_quantities:
        net = bought - sold
    price = last_price if last_price and math.isfinite(last_price) else None

    if not lacking.isdisjoint(_NEEDED):
        reasons.append(f"quantity, average price and P&L: {_problem(row, lacking & _NEEDED)}")
    elif net is not None:
        factor = row.factor
        cost = _carried_cost(row, holding, lacking)
        if cost is None:
            reasons.append(f"average price and P&L: {_lack_of_cost(row, holding, lacking)}")
        else:
            total_buy = row.buy_value + cost[0]
            total_sell = row.sell_value + cost[1]
            buy_average = _average(total_buy, bought * factor)
            sell_average = _average(total_sell, sold * factor)
            average = buy_average if net > 0 else sell_average if net < 0 else 0.0
            average = round(average, _decimals(row))
            closed = min(bought, sold)
            realised = closed * (sell_average - buy_average) * factor if closed else 0.0
        if net and price is None:
            reasons.append("P&L: there is no last price")
        else:
            open_value = net * price * factor if price else 0.0
            if not lacking.isdisjoint(_CARRIED_VALUES):
                reasons.append(f"P&L of the day: {_problem(row, lacking & _CARRIED_VALUES)}")
            else:
                mtm_pnl = (
                    (row.sell_value + row.carried_sell_value)
                    - (row.buy_value + row.carried_buy_value)
                    + open_value
                )
            if realised is not None:
                pnl = (total_sell - total_buy) + open_value
                unrealised = pnl - realised
        if not all(map(_is_finite, (average, realised, unrealised, pnl, mtm_pnl))):
            average = realised = unrealised = pnl = mtm_pnl = None
            reasons.append("average price and P&L: a number of the row is not finite")
    return Position(
        segment=row.segment,
        symbol=row.symbol,
        token=row.token,
        product=row.product,
        net_quantity=net,
        average_price=average,
        last_price=price,
        realised=realised,
        unrealised=unrealised,
        pnl=pnl,
        mtm_pnl=mtm_pnl,
        unknown_reason="; ".join(reasons),
        row=row,
    )


_QUANTITIES = frozenset(
    {"buy_quantity", "sell_quantity", "carried_buy_quantity", "carried_sell_quantity"}
)
_CARRIED_VALUES = frozenset({"carried_buy_value", "carried_sell_value"})
_NEEDED = _QUANTITIES | {
    "segment",
    "buy_value",
    "sell_value",
    "multiplier",
    "price_numerator",
    "price_denominator",
    "general_numerator",
    "general_denominator",
}
"""Fields without which neither cost nor P&L of a position can be worked out."""

_QUANTITY_OF = {
    "buy_value": "buy_quantity",
    "sell_value": "sell_quantity",
    "carried_buy_value": "carried_buy_quantity",
    "carried_sell_value": "carried_sell_quantity",
}


def _lacking(row: PositionRow) -> frozenset[str]:
    """The fields of a row that say nothing. The value of no units is 0, whatever stands there."""
    if not row.missing:
        return row.missing
    return frozenset(
        name
        for name in row.missing
        if (quantity := _QUANTITY_OF.get(name)) is None
        or quantity in row.missing
        or getattr(row, quantity)
    )


def _problem(row: PositionRow, lacking: frozenset[str]) -> str:
    return "; ".join(row.odd) or f"the broker's row has no {', '.join(sorted(lacking))}"


def _carried_cost(
    row: PositionRow, holding: Holding | None, lacking: frozenset[str]
) -> tuple[float, float] | None:
    """Cost of the carried quantity as (buy side, sell side); None when it is not known."""
    carried = row.carried_quantity
    if carried == 0:
        return 0.0, 0.0
    if row.is_derivative:
        if not lacking.isdisjoint(_CARRIED_VALUES):
            return None
        return (row.carried_buy_value, 0.0) if carried > 0 else (0.0, row.carried_sell_value)
    if holding is None or holding.average_price is None:
        return None
    cost = holding.average_price * abs(carried)
    return (cost, 0.0) if carried > 0 else (0.0, cost)


def _lack_of_cost(row: PositionRow, holding: Holding | None, lacking: frozenset[str]) -> str:
    if row.is_derivative:
        return _problem(row, lacking & _CARRIED_VALUES)
    lack = "no holding" if holding is None else "no average price in the holding"
    return (
        f"{row.carried_quantity} units were carried from earlier days, and there is {lack} with "
        f"token {row.token!r}"
    )


def _average(total: float, quantity: float) -> float:
    return total / quantity if quantity else 0.0


def _decimals(row: PositionRow) -> int:
    """Of a price; the usual two where the row has none that any price has."""
    return row.precision if 0 < row.precision <= _MOST_DECIMALS else 2


_MOST_DECIMALS = 8


def _is_finite(amount: float | None) -> bool:
    return amount is None or math.isfinite(amount)
