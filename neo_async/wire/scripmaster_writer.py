"""Write the scrip master in the layout of the broker's cash file, for the simulator and tests."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Final

from neo_async.model.enums import Segment
from neo_async.model.instruments import Instrument
from neo_async.model.numbers import EXACT
from neo_async.wire.scripmaster import COUNTED_SINCE_1980, HEADER, NO_FREEZE, SINCE_1980


def write_scripmaster(instruments: Iterable[Instrument]) -> bytes:
    """Return a file in the layout of the broker's cash file.

    Columns for which an instrument has no value get the broker's constants.
    """
    columns = HEADER.split(",")
    keys = [name.strip(" ;") for name in columns]
    lines = [HEADER]
    for instrument in instruments:
        row = _CONSTANTS | _row(instrument)
        lines.append(",".join(row.get(key, "") for key in keys))
    return "".join(f"{line}\n" for line in lines).encode()


_CONSTANTS: Final = {
    "pIssueDate": "0",
    "pListingDate": "0",
    "pNoDelStartDate": "0",
    "pNoDelEndDate": "0",
    "pBookClsStartDate": "0",
    "pBookClsEndDate": "0",
    "pRecordDate": "0",
    "pReAdminDate": "0",
    "pExpulsionDate": "0",
    "pLocalUpdateTime": "0",
    "pCurrectionTime": str(SINCE_1980),
    "iPermittedToTrade": "0",
    "iBoardLotQty": "1",
    "dOpenInterest": "0",
    "dPriceQuatation": "0",
    "dIssuerate": "0",
    "dWarningQty": "0",
    "dIssueCapital": "0",
    "dExposureMargin": "0",
    "dMinRedemptionQty": "0",
}


def _row(instrument: Instrument) -> dict[str, str]:
    is_index = instrument.tick_size == 0
    exchange = instrument.segment.value.partition("_")[0].upper()
    key = instrument.name
    if instrument.segment.is_cash and instrument.series not in ("", "EQ"):
        key = f"{key}-{instrument.series}"
    row = {
        "pSymbol": instrument.token,
        "pGroup": instrument.series,
        "pExchSeg": instrument.segment.value,
        "pInstType": instrument.kind,
        "pSymbolName": instrument.name,
        "pTrdSymbol": instrument.symbol,
        "pOptionType": instrument.option_type or ("" if instrument.segment.is_cash else "XX"),
        "pScripRefKey": key,
        "pISIN": instrument.isin,
        "pDesc": instrument.description,
        "pAssetCode": instrument.underlying_token,
        "dTickSize": "-1" if is_index else _hundredfold(instrument.tick_size),
        "lLotSize": str(instrument.lot_size),
        "iLotSize": str(instrument.lot_size),
        "lMultiplier": "-1" if instrument.multiplier == 1 else str(instrument.multiplier),
        "lPrecision": str(instrument.precision),
        "dStrikePrice": "-1" if instrument.strike is None else _hundredfold(instrument.strike),
        "pExchange": "" if is_index else exchange,
        "pSettlementType": "" if is_index else "T+1",
        "lExpiryDate": "-1",
        "iMaxOrderSize": str(instrument.freeze_quantity or 0),
        "lFreezeQty": str(instrument.freeze_quantity or NO_FREEZE),
        "pSegment": "" if is_index else "CASH" if instrument.segment.is_cash else "FO",
        "dPriceNum": _plain_decimal(Decimal(repr(instrument.price_numerator))),
        "dPriceDen": _plain_decimal(Decimal(repr(instrument.price_denominator))),
        "dGenNum": _plain_decimal(Decimal(repr(instrument.general_numerator))),
        "dGenDen": _plain_decimal(Decimal(repr(instrument.general_denominator))),
    }
    if instrument.face_value is not None:
        row["pFaceValue"] = _hundredfold(instrument.face_value)
    if instrument.expiry is not None:
        row["lExpiryDate"] = row["pExpiryDate"] = _expiry_number(
            instrument.segment, instrument.expiry
        )
    if instrument.lower_band is not None and instrument.upper_band is not None:
        row["pCreditRating"] = f"{_plain(instrument.lower_band)}-{_plain(instrument.upper_band)}"
        row["dLowPriceRange"] = _hundredfold(instrument.lower_band)
        row["dHighPriceRange"] = _hundredfold(instrument.upper_band)
    return row


def _expiry_number(segment: Segment, expiry: date) -> str:
    midnight = int(datetime(expiry.year, expiry.month, expiry.day, tzinfo=UTC).timestamp())
    if segment in COUNTED_SINCE_1980:
        return str(midnight + 9 * 3600 - SINCE_1980)  # 14:30 in India
    return str(midnight + 86_399)


def _hundredfold(rupees: float) -> str:
    return _plain_decimal(EXACT.multiply(Decimal(repr(rupees)), Decimal(100)))


def _plain(rupees: float) -> str:
    """Return rupees with at least two decimals, as the broker writes bands."""
    text = f"{Decimal(repr(rupees)):f}"
    whole, _, decimals = text.partition(".")
    return f"{whole}.{decimals:0<2}"


def _plain_decimal(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
