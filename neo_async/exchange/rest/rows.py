"""Rows of the reports, with every key that the broker's have.

The order of keys, their spellings (mistakes included) and the JSON types are the broker's; what it
leaves unexplained is constant here. Money comes in as paise and goes out as rupees.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from functools import cache, lru_cache
from typing import Final

from neo_async.exchange.engine.types import (
    Fill,
    Funds,
    Holding,
    Listing,
    OrderRecord,
    Position,
    Transition,
)
from neo_async.model.enums import OrderStatus
from neo_async.model.india import in_india

Row = dict[str, object]

_MONTHS: Final = (
    "Jan",
    "Feb",
    "Mar",
    "Apr",
    "May",
    "Jun",
    "Jul",
    "Aug",
    "Sep",
    "Oct",
    "Nov",
    "Dec",
)
_NS: Final = 1_000_000_000

_BRANCH: Final = "08081"
_LOCATION: Final = "111111111111100"
_NONE: Final = "--"

_FACTORS: Final[Row] = {"genNum": "1", "genDen": "1", "prcNum": "1", "prcDen": "1"}
_ALGO: Final[Row] = {"algId": "NA", "algCat": "NA", "algSeqNo": "NA"}


# --- text -------------------------------------------------------------------------------------


def rupees(paise: int) -> str:
    sign = "-" if paise < 0 else ""
    whole, part = divmod(abs(paise), 100)
    return f"{sign}{whole}.{part:02d}"


def _average(paise: float) -> str:
    return f"{paise / 100:.2f}"


@lru_cache(maxsize=4096)
def _moment(second: int) -> tuple[str, str, str]:
    """Date, time and sortable form of a Unix second, in India. Month names of no locale."""
    at = in_india(second)
    day = f"{at.day:02d}-{_MONTHS[at.month - 1]}-{at.year}"
    clock = f"{at.hour:02d}:{at.minute:02d}:{at.second:02d}"
    return day, clock, f"{at.year}/{at.month:02d}/{at.day:02d} {clock}"


def _date_time(time_ns: int) -> str:
    """`22-Jan-2025 14:28:01`, or `--` for what has not happened."""
    if not time_ns:
        return _NONE
    day, clock, _ = _moment(time_ns // _NS)
    return f"{day} {clock}"


def _sortable(time_ns: int) -> str:
    """`2025/01/22 14:28:01`."""
    return _moment(time_ns // _NS)[2]


def _expiry(expiry: date | None) -> str:
    """`28 Jul, 2026`."""
    return f"{expiry.day:02d} {_MONTHS[expiry.month - 1]}, {expiry.year}" if expiry else "NA"


def _order_source(source: str) -> str:
    return f"ADMINCPPAPI_{source}" if source else ""


# --- instruments: the same for every row of one -------------------------------------------------


@cache
def _instrument(listing: Listing) -> Row:
    return {
        "exSeg": listing.segment.value,
        "trdSym": listing.symbol,
        "sym": listing.name,
        "series": _series(listing),
        "stkPrc": rupees(listing.strike),
        "expDt": _expiry(listing.expiry),
        "lotSz": str(listing.lot_size),
        "multiplier": "1",
        "precision": "2",
        **_FACTORS,
    }


def _series(listing: Listing) -> str:
    return listing.series if listing.segment.is_cash else "XX"


def _kind(listing: Listing) -> str:
    """`it` of books: the series of a share, the kind of a derivative."""
    return listing.kind or listing.series


def _option_type(listing: Listing, none: str) -> str:
    return listing.option_type or none


# --- orders and trades --------------------------------------------------------------------------


_ORDER_CONSTANTS: Final[Row] = {
    "actId": "",
    **_ALGO,
    "brkClnt": _BRANCH,
    "coPct": 0,
    "defMktProV": "0",
    "dscQtyPct": "0",
    "exUsrInfo": "NA",
    "expDtSsb": "-",
    "mktProPct": _NONE,
    "mfdBy": "NA",
    "minQty": 0,
    "mktProFlg": "0",
    "noMktProFlg": "0",
    "ordAutSt": "NA",
    "odCrt": "NA",
    "ordValDt": "NA",
    "refLmtPrc": 0,
    "rmk": _NONE,
    "rptTp": "NA",
    "sipInd": "NA",
    "usrId": "",
    "classification": "0",
    "vendorCode": "",
    "locId": _LOCATION,
    "appInstlId": "NA",
    "ordModNo": "",
    "strategyCode": "NA",
}


def order_row(order: OrderRecord) -> Row:
    """A row of the order book."""
    listing = order.listing
    second = order.updated_ns // _NS
    entered = _date_time(order.accepted_ns)
    return {
        **_ORDER_CONSTANTS,
        **_instrument(listing),
        "avgPrc": _average(order.average_price),
        "brdLtQty": str(listing.lot_size),
        "cnlQty": order.cancelled_quantity,
        "dscQty": order.disclosed_quantity,
        "exCfmTm": _date_time(order.exchange_ns),
        "exOrdId": order.exchange_number,
        "fldQty": order.filled_quantity,
        "boeSec": second,
        "mktPro": f"{order.protection_percent:g}",
        "nOrdNo": order.number,
        "optTp": _option_type(listing, "- "),
        "ordDtTm": entered,
        "ordEntTm": entered,
        "ordGenTp": "AMO" if order.amo else "NA",
        "ordSrc": _order_source(order.source),
        "prod": order.product.value,
        "prc": rupees(order.price),
        "prcTp": order.order_type.value,
        "qty": order.quantity,
        "rejRsn": order.reject_reason or _NONE,
        "reqId": str(order.request_id),
        "stat": order.status.value,
        "ordSt": order.status.value,
        "symOrdId": order.parent_number or "NA",
        "tckSz": f"{listing.tick / 100:.4f}",
        "tok": listing.token,
        "trnsTp": order.side.value,
        "trgPrc": rupees(order.trigger),
        "unFldSz": order.pending_quantity,
        "uSec": str(second),
        "vldt": order.validity.value,
        "hsUpTm": _sortable(order.updated_ns),
        "GuiOrdId": order.gui_order_id,
        "updRecvTm": order.updated_ns,
        "it": _kind(listing),
    }


def order_update(order: OrderRecord, state: Transition) -> Row:
    """`data` of the order feed's message about a state that an order has reached."""
    listing = order.listing
    second = state.time_ns // _NS
    at_exchange = state.exchange_number != "NA"
    pending = 0 if state.status in _CANCELLED else state.quantity - state.filled_quantity
    return {
        "nOrdNo": order.number,
        "exOrdId": state.exchange_number,
        "ordSt": state.status.value,
        "rejRsn": state.reject_reason or _NONE,
        "GuiOrdId": state.gui_order_id,
        "qty": state.quantity,
        "fldQty": state.filled_quantity,
        "unFldSz": pending,
        "dscQty": order.disclosed_quantity,
        "avgPrc": _average(state.average_price),
        "prc": rupees(state.price),
        "trgPrc": rupees(state.trigger),
        "stkPrc": rupees(listing.strike),
        "trnsTp": order.side.value,
        "prcTp": state.order_type.value,
        "prod": order.product.value,
        "vldt": state.validity.value,
        "exSeg": listing.segment.value,
        "sym": listing.name,
        "trdSym": listing.symbol,
        "tok": listing.token,
        "series": _series(listing),
        "optTp": _option_type(listing, "- "),
        "it": _kind(listing),
        "expDt": _expiry(listing.expiry),
        "ordDtTm": _date_time(order.accepted_ns),
        "exCfmTm": _date_time(order.exchange_ns) if at_exchange else _NONE,
        "hsUpTm": _sortable(state.time_ns),
        "updRecvTm": state.time_ns,
        "boeSec": second,
        "uSec": str(second),
        "brdLtQty": str(listing.lot_size),
        "lotSz": str(listing.lot_size),
        "multiplier": "1",
        "precision": "2",
        "mktPro": f"{order.protection_percent:g}",
        "actId": order.account,
        "usrId": order.account,
        "ordSrc": _order_source(order.source),
        "ordGenTp": "AMO" if order.amo else "NA",
        "ordValDt": "NA",
        "symOrdId": order.parent_number or "NA",
        "reqId": str(state.request_id),
        "mfdBy": "NA",
        "strategyCode": "NA",
    }


_CANCELLED: Final = (OrderStatus.CANCELLED, OrderStatus.AMO_CANCELLED)


_HISTORY_CONSTANTS: Final[Row] = {
    **_ALGO,
    "rptTp": "NA",
    "cstFrm": "C",
    "legOrdInd": "NA",
    "ordUsrMsg": "NA",
    "mfdBy": "XX",
    "vendorCode": "",
    "classification": "0",
    "locId": _LOCATION,
    "strategyCode": "NA",
    "ordValDt": "NA",
}


def history_row(order: OrderRecord, state: Transition) -> Row:
    """A state that an order went through."""
    listing = order.listing
    at_exchange = state.exchange_number != "NA"
    return {
        **_HISTORY_CONSTANTS,
        **_instrument(listing),
        "prc": rupees(state.price),
        "qty": state.quantity,
        "ordSt": state.status.value,
        "trnsTp": order.side.value,
        "prcTp": state.order_type.value,
        "brdLtQty": listing.lot_size,
        "exch": listing.segment.value.partition("_")[0].upper(),
        "exchTmstp": _date_time(order.exchange_ns) if at_exchange else _NONE,
        "tok": listing.token,
        "nOrdNo": order.number,
        "nReqId": str(state.request_id),
        "avgPrc": _average(state.average_price),
        "trgPrc": rupees(state.trigger),
        "dclQty": str(order.disclosed_quantity),
        "exchOrdId": state.exchange_number,
        "rejRsn": state.reject_reason or _NONE,
        "ordDur": state.validity.value,
        "prod": order.product.value,
        "ordSrc": _order_source(order.source),
        "flDtTm": _date_time(state.time_ns),
        "ordGenTp": "AMO" if order.amo else _NONE,
        "scripName": listing.name,
        "fldQty": state.filled_quantity,
        "unFldSz": max(0, state.quantity - state.filled_quantity),
        "mktPro": f"{order.protection_percent:.2f}",
        "GuiOrdId": state.gui_order_id,
        "symOrdId": order.parent_number or "NA",
        "optTp": _option_type(listing, "XX"),
        "updRecvTm": state.time_ns,
        "boeSec": state.time_ns // _NS,
        "uSec": str(state.time_ns // 1_000_000),
    }


_TRADE_CONSTANTS: Final[Row] = {
    "actId": "",
    "algCat": "NA",
    "algId": "NA",
    "brkClnt": "NA",
    "cstFrm": "C",
    "exp": "-",
    "minQty": 0,
    "ordDur": "NA",
    "rmk": _NONE,
    "rptTp": "fill",
    "locId": _LOCATION,
    "ordSrc": "NA",
    "strategyCode": "",
    # Empty in the broker's own newer rows: readers have to go by trading symbol and fill.
    "tok": "",
    "posFlg": "",
    "prc": "",
    "qty": 0,
    "tm": "",
}


def trade_row(fill: Fill, order: OrderRecord) -> Row:
    """A fill."""
    listing = order.listing
    second = fill.time_ns // _NS
    day, clock, sortable = _moment(second)
    return {
        **_TRADE_CONSTANTS,
        **_instrument(listing),
        "avgPrc": rupees(fill.price),
        "boeSec": second,
        "brdLtQty": listing.lot_size,
        "exOrdId": order.exchange_number,
        "exTm": f"{day} {clock}",
        "fldQty": fill.quantity,
        "flDt": day,
        "flId": fill.trade_number,
        "flLeg": fill.leg,
        "flTm": clock,
        "nOrdNo": order.number,
        "nReqId": str(order.request_id),
        "optTp": _option_type(listing, "- "),
        "ordGenTp": "AMO" if order.amo else _NONE,
        "prcTp": order.order_type.value,
        "prod": order.product.value,
        "trnsTp": order.side.value,
        "usrId": order.account,
        "hsUpTm": sortable,
        "GuiOrdId": order.gui_order_id,
        "updRecvTm": fill.time_ns,
        "uSec": str(second),
        "it": _kind(listing),
    }


# --- positions and holdings -----------------------------------------------------------------------


def position_row(account: str, position: Position) -> Row:
    """A row without what only one of the two endpoints adds: `ltp` or `qty`."""
    listing = position.listing
    return {
        **_instrument(listing),
        "actId": account,
        "brdLtQty": listing.lot_size,
        "cfBuyAmt": rupees(position.carried_buy_value),
        "cfSellAmt": rupees(position.carried_sell_value),
        "cfBuyQty": str(position.carried_buy_quantity),
        "cfSellQty": str(position.carried_sell_quantity),
        "buyAmt": rupees(position.buy_value),
        "sellAmt": rupees(position.sell_value),
        "flBuyQty": str(position.buy_quantity),
        "flSellQty": str(position.sell_quantity),
        "prod": position.product.value,
        "tok": listing.token,
        "optTp": _option_type(listing, "XX"),
        "type": listing.kind,
        "sqrFlg": "Y",
        "posFlg": "true",
        "hsUpTm": _sortable(position.updated_ns),
        "exp": str(_unix_midnight(listing.expiry)) if listing.expiry else "",
        "dscQty": "",
        "upldPrc": "0.00",
        "updRecvTm": position.updated_ns,
    }


def position_update(account: str, position: Position) -> Row:
    """`data` of the order feed's message about a position; text throughout.

    Trading symbol and token are not among the broker's keys: they say which instrument it is.
    """
    listing = position.listing
    return {
        "actId": account,
        "sym": listing.name,
        "exSeg": listing.segment.value,
        "prod": position.product.value,
        "flBuyQty": str(position.buy_quantity),
        "flSellQty": str(position.sell_quantity),
        "buyAmt": rupees(position.buy_value),
        "sellAmt": rupees(position.sell_value),
        "posFlg": "true",
        "sqrFlg": "true",
        "lotSz": str(listing.lot_size),
        "multiplier": "1",
        "hsUpTm": _sortable(position.updated_ns),
        "trdSym": listing.symbol,
        "tok": listing.token,
    }


def net_quantity(position: Position) -> int:
    bought = position.carried_buy_quantity + position.buy_quantity
    sold = position.carried_sell_quantity + position.sell_quantity
    return bought - sold


def _unix_midnight(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


_HOLDING_CONSTANTS: Final[Row] = {
    "instrumentType": "Equity",
    "sector": "Others",
    "scripId": "",
    "isAlternateScrip": "",
    "sqGainLoss": 0,
    "delGainLoss": 0,
    "subTotal": 0,
    "prevDayLtp": 0,
    "instrumentStatus": "ACTV",
    "expiryDate": "",
    "optType": "",
    "strikePrice": "0.00",
}


def holding_row(holding: Holding) -> Row:
    """Delivery stock, valued at the previous close. Numbers are numbers here."""
    listing = holding.listing
    average = round(holding.average_price / 100, 4)
    cost = round(holding.average_price * holding.quantity / 100, 4)
    value = listing.base_price * holding.quantity / 100
    # The name is all a listing says about it, and exchange-traded funds are what it tells apart.
    kind = "ETF" if listing.name.endswith(("BEES", "ETF")) else "EQUITY"
    return {
        **_HOLDING_CONSTANTS,
        "instrumentToken": _kotak_token(listing.token),
        "commonScripCode": listing.name,
        "instrumentName": listing.description or listing.name,
        "quantity": holding.quantity,
        "averagePrice": _number(average),
        "holdingCost": _number(cost),
        "closingPrice": _number(listing.base_price / 100),
        "mktValue": _number(value),
        "unrealisedGainLoss": _number(round(value - cost, 4)),
        "subType": kind,
        "marketLot": listing.lot_size,
        "symbol": listing.name,
        "displaySymbol": listing.name,
        "exchangeSegment": listing.segment.value,
        "series": listing.series,
        "exchangeIdentifier": listing.token,
        "sellableQuantity": holding.sellable_quantity,
        "securityType": kind,
        "securitySubType": kind,
        "logoUrl": "",
        "cmotCode": "",
    }


def _number(amount: float) -> int | float:
    """The broker writes whole amounts without decimals."""
    return int(amount) if amount == int(amount) else amount


def _kotak_token(token: str) -> int:
    """`instrumentToken` is an id of Kotak's own: never the exchange's token, so that whoever takes
    it for one is found out."""
    return int(token) + 1 if token.isdigit() else 1


# --- money ----------------------------------------------------------------------------------------


_ZERO_NAMES: Final = """
    Collateral RmsCollateral AdhocMargin NotionalCash CdsSpreadBenefit AmountUtilizedPrsnt
    UnrealizedMtomPrsnt ExposureMarginPrsnt SpanMarginPrsnt NfospreadBenefit PremiumPrsnt
    MarginVarPrsnt MarginScripBasketPrsnt MtomWarningPrcntPrsnt MtomSquareOffWarningPrcntPrsnt
    RmsPayInAmt RmsPayOutAmt SpecialMarginPrsnt DaneLimit DeliveryMarginPresent
    ComSpanMrgnNrmlPrsnt ComSpanMrgnMisPrsnt ComExpsrMrgnNrmlPrsnt ComExpsrMrgnMisPrsnt
    AddMrgnNrmlPrsnt AddMrgnMisPrsnt AddPreExpMrgnNrmlPrsnt AddPreExpMrgnMisPrsnt
    SplMrgnNrmlPrsnt SplMrgnMisPrsnt TenderMrgnNrmlPrsnt TenderMrgnMisPrsnt
    DeliveryMrgnNrmlPrsnt DeliveryMrgnMisPrsnt CurExpMrgnNrmlPrsnt CurExpMrgnMisPrsnt
    CurPremiumNrmlPrsnt CurPremiumMisPrsnt CurSpanMrgnNrmlPrsnt CurSpanMrgnMisPrsnt
    FoPremiumNrmlPrsnt FoPremiumMisPrsnt FoExpMrgnNrmlPrsnt FoExpMrgnMisPrsnt
    FoSpanrgnNrmlPrsnt FoSpanrgnMisPrsnt MrgnScrpBsktNrmlPrsnt MrgnScrpBsktMisPrsnt
    MrgnScrpBsktCncPrsnt MrgnVarNrmlPrsnt MrgnVarMisPrsnt AmtUntilizedPrsnt CncMrgnVarPrsnt
    CashUnRlsMtomPrsnt FoUnRlsMtomPrsnt ComUnRlsMtomPrsnt CurUnRlsMtomPrsnt CashRlsMtomPrsnt
    FoRlsMtomPrsnt ComRlsMtomPrsnt CurRlsMtomPrsnt BrokeragePrsnt SlbmLimit RmsMutualFundAmt
    AuxRmsCollateral AuxNotionalCash AuxAdhocMargin RmsIpoAmt
"""
_ONE_NAMES: Final = "CollateralValueMult AdhocLimitMult RmsCollateralMult NationalCashMult"

_LIMITS_CONSTANTS: Final[Row] = {
    **dict.fromkeys(_ZERO_NAMES.split(), "0"),
    **dict.fromkeys(_ONE_NAMES.split(), "1"),
    "Category": "CLIENT_SPECIAL",
    "BoardLotLimit": "5000",
    "SlbmVarElm": "",
    "SlbmMtom": "",
    "LendingFee": "",
    "stCode": 200,
    "stat": "Ok",
}


def limits_row(account: str, funds: Funds, time_ns: int) -> Row:
    """The limits, at the root of their answer: Net = CollateralValue + credits - MarginUsed."""
    used = rupees(funds.margin_used)
    share = 100 * funds.margin_used / funds.cash if funds.cash else 0.0
    return {
        **_LIMITS_CONSTANTS,
        "EntityId": f"account-{account}",
        "CollateralValue": rupees(funds.cash),
        "RealizedMtomPrsnt": rupees(funds.realised),
        "MarginWarningPrcntPrsnt": f"{share:.6f}",
        "MarginUsed": used,
        "MarginUsedPrsnt": used,
        "CncSellcrdPresent": rupees(funds.delivery_credit),
        "Net": rupees(funds.available),
        "TimeStamp": str(time_ns // 1_000_000),
    }


def margin_row(funds: Funds, order_margin: int) -> Row:
    """What an order would need. The last three are zero when there is enough."""
    cash = funds.available + funds.margin_used
    total = funds.margin_used + order_margin
    enough = total <= cash
    return {
        "avlCash": _six(cash),
        "totMrgnUsd": _six(total),
        "mrgnUsd": _six(funds.margin_used),
        "ordMrgn": _six(order_margin),
        "rmsVldtd": "OK" if enough else "NOT_OK",
        "reqdMrgn": _six(0 if enough else total),
        "avlMrgn": _six(0 if enough else cash),
        "insufFund": _six(0 if enough else total - cash),
        "stat": "Ok",
        "stCode": 200,
    }


def _six(paise: int) -> str:
    return f"{rupees(paise)}0000"
