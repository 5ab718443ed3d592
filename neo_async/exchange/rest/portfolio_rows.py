"""Rows of positions, holdings, limits and margins."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Final

from neo_async.exchange.engine.types import Funds, Holding, Position
from neo_async.exchange.rest.fields import (
    Row,
    instrument_fields,
    option_type_text,
    rupees,
    sortable_time,
)

# --- positions and holdings -----------------------------------------------------------------------


def position_row(account: str, position: Position) -> Row:
    """Return a position's row without what only one of the two endpoints adds: `ltp` or `qty`."""
    listing = position.listing
    return {
        **instrument_fields(listing),
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
        "optTp": option_type_text(listing, "XX"),
        "type": listing.kind,
        "sqrFlg": "Y",
        "posFlg": "true",
        "hsUpTm": sortable_time(position.updated_ns),
        "exp": str(_unix_midnight(listing.expiry)) if listing.expiry else "",
        "dscQty": "",
        "upldPrc": "0.00",
        "updRecvTm": position.updated_ns,
    }


def position_update(account: str, position: Position) -> Row:
    """Return `data` of the order feed's message about a position; text throughout.

    Trading symbol and token, which identify the instrument, are not among the broker's keys.
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
        "hsUpTm": sortable_time(position.updated_ns),
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
    """Return the row of a holding, valued at the previous close. Its numbers are not text."""
    listing = holding.listing
    average = round(holding.average_price / 100, 4)
    cost = round(holding.average_price * holding.quantity / 100, 4)
    value = listing.base_price * holding.quantity / 100
    # Only the name of a listing distinguishes an exchange-traded fund.
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
    """Return an amount as the broker writes it: whole ones without decimals."""
    return int(amount) if amount == int(amount) else amount


def _kotak_token(token: str) -> int:
    """Return `instrumentToken`, an id of Kotak's own. It is never the exchange's token, so that a
    program that confuses the two fails."""
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
    """Return the limits, which are at the root of their answer: Net = CollateralValue + credits -
    MarginUsed."""
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
    """Return the margin row of an order; its last three amounts are zero if funds suffice."""
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
