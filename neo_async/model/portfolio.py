"""What the account holds: positions and their valuation, holdings, limits, margin of an order.

Money is rupees, quantities are units (never lots). None means that the broker did not say, and
that nothing else says it; 0 is a number that was received or follows from numbers received.

The fields of a row stand in the order in which the broker writes them: each is then found at the
first look while decoding.
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime

import msgspec

from neo_async.model.enums import Segment

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
    """One row of the positions report: today's business in one instrument and product."""

    account: str = ""
    board_lot: int = 1
    carried_buy_value: float = 0.0
    """At the previous close, not at cost."""
    carried_sell_value: float = 0.0
    carried_buy_quantity: int = 0
    carried_sell_quantity: int = 0
    segment: str
    buy_value: float = 0.0
    """Traded today."""
    sell_value: float = 0.0
    buy_quantity: int = 0
    """Filled today."""
    sell_quantity: int = 0
    product: str = ""
    series: str = ""
    token: str = ""
    symbol: str
    option_type: str = ""
    """`CE`, `PE`; `XX` or a dash otherwise."""
    strike: float = 0.0
    kind: str = ""
    """`FUTSTK FUTIDX OPTIDX` …"""
    name: str = ""
    square_off_flag: str = ""
    """`Y`: may be squared off."""
    open_flag: str = ""
    lot_size: int = 1
    multiplier: float = 1.0
    precision: int = 2
    """Decimals of a price."""
    price_numerator: float = 1.0
    price_denominator: float = 1.0
    time_text: str = ""
    """IST, `2026/07/24 12:57:46`."""
    expiry_text: str = ""
    """`28 Jul, 2026`, or `NA`."""
    expiry_seconds: str = ""
    """Unix seconds, as text: instruments without expiry have words here."""
    general_numerator: float = 1.0
    general_denominator: float = 1.0
    updated_ns: int = 0
    """Unix nanoseconds."""
    last_price: float | None = None
    """Only on the v2 path, and 0 there now and then."""
    quantity: int | None = None
    """Net, on the older path only; `Position.net_quantity` is there always."""

    @property
    def instrument(self) -> str:
        """`nse_cm|11536`, as feeds and quotes know it."""
        return f"{self.segment.lower()}|{self.token}"

    @property
    def has_instrument(self) -> bool:
        """False when the row lacks a token, as those of the older path may."""
        return self.segment.lower() in _SEGMENTS and self.token.isdecimal()

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
    net_quantity: int
    """Carried and today's; negative when short, 0 when closed."""
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
    instrument_token: int | None = None
    """Kotak's own id. Not the exchange token: neither orders nor feeds know it."""
    common_code: str = ""
    description: str = ""
    quantity: int
    average_price: float | None = None
    """Cost per unit, rounded to 4 decimals (`cost` is not rounded)."""
    cost: float | None = None
    closing_price: float | None = None
    """Of the previous day."""
    market_value: float | None = None
    """At the closing price."""
    scrip_id: str = ""
    alternate_scrip: bool | str = ""
    """Empty, a boolean or its text, by version; see `is_alternate_scrip`."""
    unrealised: float | None = None
    """`market_value` less `cost`."""
    square_off_gain: float | None = None
    delivery_gain: float | None = None
    subtotal: float | None = None
    previous_last_price: float | None = None
    subtype: str = ""
    status_text: str = ""
    """`ACTV` …"""
    lot_size: int | None = None
    expiry_text: str = ""
    option_type: str = ""
    strike: float = 0.0
    symbol: str
    """Without series, `ITBEES`."""
    display_symbol: str = ""
    segment: str = ""
    series: str = ""
    token: str = ""
    """Exchange token, as in the scrip master."""
    sellable_quantity: int | None = None
    security_type: str = ""
    security_subtype: str = ""
    logo_url: str = ""
    cmot_code: str = ""

    @property
    def is_alternate_scrip(self) -> bool:
        return str(self.alternate_scrip).strip().lower() == "true"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Funds of the account, over all segments. Amounts the broker left out are None."""

    available: float
    """What new orders may use (`Net`)."""
    margin_used: float | None = None
    collateral_value: float | None = None
    """Cash and collateral before use."""
    collateral: float | None = None
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
    """`margin_used` in percent of `collateral_value`."""
    category: str = ""
    """`CLIENT_SPECIAL`, `CLIENT_MTF` …"""
    amounts: dict[str, float] = {}
    """Every number of the answer under the broker's own name, `FoSpanrgnNrmlPrsnt`."""


class OrderMargin(msgspec.Struct, frozen=True, kw_only=True):
    """What an order would need, beside what the account has."""

    sufficient: bool
    available: float
    """Cash, before any margin in use."""
    used: float
    """Margin in use without the order."""
    order: float
    """Margin of the order itself."""
    required: float
    """`used` and `order` together."""
    shortfall: float
    """What is missing; 0 when it is sufficient."""


def value_position(row: PositionRow, holding: Holding | None, last_price: float | None) -> Position:
    """Value a position by the broker's documented arithmetic.

    `holding` is the one whose `token` equals the row's (None when there is none): equity carried
    from earlier days is valued at its average price, which the row does not know. A `last_price`
    of 0 is the broker's way of not knowing it. Only the average price is rounded, to the row's
    precision.
    """
    bought = row.carried_buy_quantity + row.buy_quantity
    sold = row.carried_sell_quantity + row.sell_quantity
    net = bought - sold
    factor = row.factor
    average = realised = unrealised = pnl = mtm_pnl = None
    reasons = []

    cost = _carried_cost(row, holding)
    if cost is None:
        lack = "no holding" if holding is None else "no average price in the holding"
        reasons.append(
            f"average price and P&L: {row.carried_quantity} units were carried from earlier days, "
            f"and there is {lack} with token {row.token!r}"
        )
    else:
        total_buy = row.buy_value + cost[0]
        total_sell = row.sell_value + cost[1]
        buy_average = _average(total_buy, bought * factor)
        sell_average = _average(total_sell, sold * factor)
        average = buy_average if net > 0 else sell_average if net < 0 else 0.0
        average = round(average, row.precision or 2)
        closed = min(bought, sold)
        realised = closed * (sell_average - buy_average) * factor if closed else 0.0

    price = last_price if last_price and math.isfinite(last_price) else None
    if net and price is None:
        reasons.append("P&L: there is no last price")
    else:
        open_value = net * price * factor if price else 0.0
        mtm_pnl = (
            (row.sell_value + row.carried_sell_value)
            - (row.buy_value + row.carried_buy_value)
            + open_value
        )
        if realised is not None:
            pnl = (total_sell - total_buy) + open_value
            unrealised = pnl - realised
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


def _carried_cost(row: PositionRow, holding: Holding | None) -> tuple[float, float] | None:
    """Cost of the carried quantity as (buy side, sell side); None when nobody knows it."""
    carried = row.carried_quantity
    if carried == 0:
        return 0.0, 0.0
    if row.is_derivative:
        return (row.carried_buy_value, 0.0) if carried > 0 else (0.0, row.carried_sell_value)
    if holding is None or holding.average_price is None:
        return None
    cost = holding.average_price * abs(carried)
    return (cost, 0.0) if carried > 0 else (0.0, cost)


def _average(total: float, quantity: float) -> float:
    return total / quantity if quantity else 0.0
