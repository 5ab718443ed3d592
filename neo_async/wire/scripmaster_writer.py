"""Write the scrip master in the layouts of the broker's files, for the simulator and tests.

The cash layout is that of nse_cm of 2023, the one of derivatives that of nse_fo of August 2026.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from decimal import Decimal
from typing import Final

from neo_async.model.enums import Segment
from neo_async.model.instruments import Instrument
from neo_async.model.numbers import EXACT
from neo_async.wire.scripmaster import COUNTED_SINCE_1980, HEADER, NO_FREEZE

DERIVATIVES_HEADER: Final = f"{HEADER},CASEligible"
"""The 79 columns of the files of derivatives, blanks included."""

_DAY: Final = 86_400
_DAYS_BEFORE_EXPIRY: Final = 34
"""Days from a contract's listing to its expiry, as in the recorded row."""
_EPOCH: Final = date(1970, 1, 1)
_EPOCH_OF_NSE: Final = date(1980, 1, 1)
_MONTHS: Final = (
    *("JAN", "FEB", "MAR", "APR", "MAY", "JUN"),
    *("JUL", "AUG", "SEP", "OCT", "NOV", "DEC"),
)


def write_scripmaster(instruments: Iterable[Instrument]) -> bytes:
    """Return a file: in the layout of derivatives if there is one among the instruments, otherwise
    in that of the cash file.

    Columns for which an instrument has no value get the broker's constants.
    """
    rows = list(instruments)
    is_cash = all(row.segment.is_cash for row in rows)
    return "".join(scripmaster_lines(rows, is_cash=is_cash)).encode()


def scripmaster_lines(instruments: Sequence[Instrument], *, is_cash: bool) -> Iterator[str]:
    """Yield the lines of a file, the header first, each with its line end: some 10 µs a row."""
    yield f"{HEADER if is_cash else DERIVATIVES_HEADER}\n"
    cash_end = "\n" if is_cash else ",\n"
    for instrument in instruments:
        if not instrument.segment.is_cash:
            columns = _common(instrument) | _derivative_columns(instrument)
            yield f"{_DERIVATIVE_ROW.format_map(columns)}\n"
        else:
            layout = _CASH_ROW if instrument.tick_size else _INDEX_ROW
            columns = _common(instrument) | _cash_columns(instrument)
            yield layout.format_map(columns) + cash_end


# --- layouts --------------------------------------------------------------------------------------


def _layout(header: str, variable: Iterable[str], constants: dict[str, str]) -> str:
    """Return the format of a row: the variable columns by name, and the constants."""
    fields = constants | {name: f"{{{name}}}" for name in variable}
    return ",".join(fields.get(name.strip(" ;"), "") for name in header.split(","))


_COMMON: Final = (
    *("pSymbol", "pGroup", "pExchSeg", "pInstType", "pSymbolName", "pTrdSymbol", "pOptionType"),
    *("pScripRefKey", "pISIN", "pAssetCode", "dTickSize", "lLotSize", "lExpiryDate"),
    *("lMultiplier", "lPrecision", "dStrikePrice", "pExchange", "pSegment", "iMaxOrderSize"),
    *("iLotSize", "dHighPriceRange", "dLowPriceRange", "dPriceNum", "dGenDen", "dGenNum"),
    *("dPriceDen", "lFreezeQty", "pFaceValue", "pDesc"),
)
_ZERO: Final = dict.fromkeys(
    (
        *("pNoDelStartDate", "pNoDelEndDate", "pBookClsStartDate", "pBookClsEndDate"),
        *("pRecordDate", "pReAdminDate", "pExpulsionDate", "dOpenInterest", "dPriceQuatation"),
        *("dIssuerate", "dWarningQty", "dMinRedemptionQty"),
    ),
    "0",
)
_CASH_ROW: Final = _layout(
    HEADER,
    (*_COMMON, "pCreditRating", "pExpiryDate", "pSettlementType"),
    _ZERO
    | {
        "pIssueDate": "0",
        "pListingDate": "0",
        "pLocalUpdateTime": "0",
        "pCurrectionTime": "315513000",
        "iPermittedToTrade": "0",
        "iBoardLotQty": "1",
        "dIssueCapital": "0",
        "dExposureMargin": "0",
    },
)
_INDEX_ROW: Final = _layout(
    HEADER,
    (*_COMMON, "pCreditRating"),
    {
        "iPermittedToTrade": "0",
        "iBoardLotQty": "1",
        "dOpenInterest": "0",
        "dPriceQuatation": "0",
        "dIssuerate": "0",
        "dWarningQty": "0",
        "dIssueCapital": "-1",
        "dExposureMargin": "0",
        "dMinRedemptionQty": "0",
    },
)
"""Row of an index in the cash files: no dates, no exchange, no settlement."""
_DERIVATIVE_ROW: Final = _layout(
    DERIVATIVES_HEADER,
    (
        *(*_COMMON, "pInstName", "pExpiryDate", "pIssueDate", "pMaturityDate", "pListingDate"),
        *("pLocalUpdateTime", "pExerciseStartDate", "pExerciseEndDate"),
    ),
    _ZERO
    | {
        "pSettlementType": "Cash",
        "iPermittedToTrade": "1",
        "iBoardLotQty": "1",
        "dIssueCapital": "1e+12",
        "dExposureMargin": "1",
        "CASEligible": "false",
    },
)

# --- columns --------------------------------------------------------------------------------------


def _common(instrument: Instrument) -> dict[str, str]:
    return {
        "pSymbol": instrument.token,
        "pGroup": instrument.series,
        "pExchSeg": instrument.segment.value,
        "pInstType": instrument.kind,
        "pSymbolName": instrument.name,
        "pTrdSymbol": instrument.symbol,
        "pISIN": instrument.isin,
        "pAssetCode": instrument.underlying_token,
        "pDesc": instrument.description,
        "lLotSize": str(instrument.lot_size),
        "iLotSize": str(instrument.lot_size),
        "lMultiplier": "-1" if instrument.multiplier == 1 else str(instrument.multiplier),
        "lPrecision": str(instrument.precision),
        "dHighPriceRange": _band(instrument.upper_band),
        "dLowPriceRange": _band(instrument.lower_band),
        "dPriceNum": _factor(instrument.price_numerator),
        "dPriceDen": _factor(instrument.price_denominator),
        "dGenNum": _factor(instrument.general_numerator),
        "dGenDen": _factor(instrument.general_denominator),
        "lFreezeQty": str(instrument.freeze_quantity or (NO_FREEZE if instrument.tick_size else 0)),
        "pFaceValue": ""
        if instrument.face_value is None
        else _plain_decimal(_hundredfold(instrument.face_value)),
    }


def _cash_columns(instrument: Instrument) -> dict[str, str]:
    is_share = instrument.tick_size > 0
    key = instrument.name
    if instrument.series not in ("", "EQ"):
        key = f"{key}-{instrument.series}"
    band = ""
    if instrument.lower_band is not None and instrument.upper_band is not None:
        band = f"{_two_decimals(instrument.lower_band)}-{_two_decimals(instrument.upper_band)}"
    return {
        "pOptionType": instrument.option_type,
        "pScripRefKey": key,
        "dTickSize": _plain_decimal(_hundredfold(instrument.tick_size)) if is_share else "-1",
        "dStrikePrice": "-1",
        "pExchange": _exchange(instrument.segment) if is_share else "",
        "pCreditRating": band,
        "lExpiryDate": "-1",
        "pExpiryDate": "",
        "pSegment": "CASH" if is_share else "",
        "pSettlementType": "T+1",
        "iMaxOrderSize": str(instrument.freeze_quantity or 0),
    }


def _derivative_columns(instrument: Instrument) -> dict[str, str]:
    """Return the columns of a contract, whose bands are not repeated as text."""
    expiry, listing, expiry_day = _dates(instrument)
    strike = "-1" if instrument.strike is None else _six_digits(_hundredfold(instrument.strike))
    return {
        "pOptionType": instrument.option_type or "XX",
        "pScripRefKey": _contract_key(instrument),
        "dTickSize": _plain_decimal(_hundredfold(instrument.tick_size)),
        "dStrikePrice": strike,
        "pExchange": _exchange(instrument.segment),
        "pInstName": instrument.kind,
        "lExpiryDate": expiry or "-1",
        "pExpiryDate": expiry,
        "pIssueDate": listing,
        "pMaturityDate": expiry,
        "pListingDate": listing,
        "pLocalUpdateTime": listing or "0",
        "pExerciseStartDate": expiry_day,
        "pExerciseEndDate": expiry,
        "pSegment": "FO",
        "iMaxOrderSize": f"{instrument.freeze_quantity or 0}.00",
    }


def _exchange(segment: Segment) -> str:
    return segment.value.partition("_")[0].upper()


def _contract_key(instrument: Instrument) -> str:
    """Return `NIFTY22SEP2621000.00PE` of an option, `NIFTY25AUG26FUT` of a future."""
    expiry = instrument.expiry
    if expiry is None:
        return instrument.name
    day = f"{expiry.day:02d}{_MONTHS[expiry.month - 1]}{expiry.year % 100:02d}"
    if instrument.strike is None:
        return f"{instrument.name}{day}FUT"
    return f"{instrument.name}{day}{_two_decimals(instrument.strike)}{instrument.option_type}"


def _dates(instrument: Instrument) -> tuple[str, str, str]:
    """Return expiry, listing and the beginning of the day of expiry, in seconds since the epoch of
    the file; empty without an expiry.

    Contracts of NSE expire at 14:30, those of other exchanges with the last second of the day.
    """
    if instrument.expiry is None:
        return "", "", ""
    if instrument.segment in COUNTED_SINCE_1980:
        day = (instrument.expiry - _EPOCH_OF_NSE).days * _DAY
        expiry = day + 14 * 3600 + 1800
    else:
        day = (instrument.expiry - _EPOCH).days * _DAY
        expiry = day + _DAY - 1
    return str(expiry), str(day - _DAYS_BEFORE_EXPIRY * _DAY), str(day)


# --- numbers --------------------------------------------------------------------------------------


def _band(rupees: float | None) -> str:
    """Return a circuit limit in paise; 0 for none.

    All of its digits, where the broker's files have six: the simulator has no limits but these.
    """
    return "0" if rupees is None else _plain_decimal(_hundredfold(rupees))


def _factor(number: float) -> str:
    return "1" if number == 1 else _plain_decimal(Decimal(repr(number)))


def _hundredfold(rupees: float) -> Decimal:
    return EXACT.multiply(Decimal(repr(rupees)), Decimal(100))


def _six_digits(number: Decimal) -> str:
    """Return a number as the broker prints it, `2.1e+06`, unless six digits are not enough."""
    text = f"{float(number):g}"
    return text if Decimal(text) == number else _plain_decimal(number)


def _two_decimals(rupees: float) -> str:
    """Return rupees with at least two decimals, as the broker writes bands."""
    text = f"{Decimal(repr(rupees)):f}"
    whole, _, decimals = text.partition(".")
    return f"{whole}.{decimals:0<2}"


def _plain_decimal(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
