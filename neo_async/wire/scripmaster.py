"""The scrip master: the broker's instrument files, both ways.

One CSV per segment, with a header whose names carry stray blanks and a semicolon, money in paise
and -1 for whatever does not apply. Rows that cannot be right are named and left out; they never
spoil the file.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from operator import itemgetter
from typing import Final

import msgspec

from neo_async.errors import ProtocolError
from neo_async.model.enums import Segment
from neo_async.model.instruments import Instrument

HEADER: Final = (
    "pSymbol,pGroup,pExchSeg,pInstType,pSymbolName,pTrdSymbol,pOptionType,pScripRefKey,pISIN,"
    "pAssetCode,pSubGroup,pCombinedSymbol,pDesc,pAmcCode,pContractId,dTickSize ,lLotSize,"
    "lExpiryDate ,lMultiplier ,lPrecision,dStrikePrice;,pExchange,pInstName,pExpiryDate,"
    "pIssueDate,pMaturityDate,pListingDate,pNoDelStartDate,pNoDelEndDate,pBookClsStartDate,"
    "pBookClsEndDate,pRecordDate,pCreditRating,pReAdminDate,pExpulsionDate,pLocalUpdateTime,"
    "pDeliveryUnits,pPriceUnits,pLastTradingDate,pTenderPeridEndDate,pTenderPeridStartDate,"
    "pSellVarMargin,pBuyVarMargin,pInstrumentInfo,pRemarksText,pSegment,pNav,pNavDate,pMfAmt,"
    "pSipSecurity,pFaceValue,pTrdUnits,pExerciseStartDate,pExerciseEndDate,pElmMargin,pVarMargin,"
    "pTotProposedLimitValue,pScripBasePrice,pSettlementType,pCurrectionTime,iPermittedToTrade,"
    "iBoardLotQty ,iMaxOrderSize ,iLotSize,dOpenInterest ,dHighPriceRange ,dLowPriceRange ,"
    "dPriceNum   ,dGenDen,dGenNum,dPriceQuatation ,dIssuerate ,dPriceDen,dWarningQty ,"
    "dIssueCapital ,dExposureMargin ,dMinRedemptionQty ,lFreezeQty"
)
"""The cash file's 78 columns, blanks included."""

_READ: Final = (
    "pSymbol",
    "pExchSeg",
    "pTrdSymbol",
    "pSymbolName",
    "pGroup",
    "pInstType",
    "pDesc",
    "pISIN",
    "lLotSize",
    "dTickSize",
    "lPrecision",
    "lMultiplier",
    "lExpiryDate",
    "pExpiryDate",
    "dStrikePrice",
    "pOptionType",
    "lFreezeQty",
    "pCreditRating",
    "dLowPriceRange",
    "dHighPriceRange",
)
"""Columns that are read, in the order in which `_read_row` takes them."""

_NO_FREEZE: Final = 99_999_999
"""What the file writes for instruments without a largest quantity."""

_SINCE_1980: Final = 315_513_000
"""Unix seconds of 1980-01-01 00:00 in India, which the NSE's files count from."""
_COUNTED_SINCE_1980: Final = (Segment.NSE_FO, Segment.CDE_FO)
_IST: Final = timedelta(hours=5, minutes=30)
_PAST: Final = timedelta(days=7)
_FUTURE: Final = timedelta(days=8 * 366)


class BadRow(msgspec.Struct, frozen=True):
    """A row that was left out."""

    line: int
    """In the file; the header is line 1."""
    token: str
    reason: str


class ScripMaster(msgspec.Struct, frozen=True):
    """One file, read."""

    instruments: tuple[Instrument, ...]
    """In the order of the file. Indices are among them, with a tick size of 0."""
    bad_rows: tuple[BadRow, ...]


# --- reading ----------------------------------------------------------------------------------


def parse_scripmaster(text: str | bytes, today: date) -> ScripMaster:
    """Read a file. `today`, a date in India, tells which epoch an expiry counts from.

    Takes under 10 µs a row: whole files belong in a thread. Raises ProtocolError when the header
    lacks a column that is needed.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    header, *lines = text.removeprefix("\ufeff").split("\n")
    names = [name.strip(" ;\r") for name in header.split(",")]
    missing = [name for name in _READ if name not in names]
    if missing:
        raise ProtocolError(f"scrip master header lacks {', '.join(missing)}", body=header)
    pick = itemgetter(*(names.index(name) for name in _READ))

    instruments: list[Instrument] = []
    bad_rows: list[BadRow] = []
    tokens: set[str] = set()
    for number, line in enumerate(lines, 2):
        if not line.strip():
            continue
        row = [line]
        try:
            row = _split(line)
            if len(row) != len(names):
                raise ValueError(f"{len(row)} columns, where the header has {len(names)}")
            instrument = _read_row(tuple(map(str.strip, pick(row))), today)
            if instrument.token in tokens:
                raise ValueError("the token is that of an earlier row")
        except (ValueError, OverflowError, OSError, csv.Error) as error:
            token = row[0].partition(",")[0].strip()
            bad_rows.append(BadRow(number, token, str(error)))
        else:
            tokens.add(instrument.token)
            instruments.append(instrument)
    return ScripMaster(tuple(instruments), tuple(bad_rows))


def _split(line: str) -> list[str]:
    # Line by line, so that a stray quote can spoil no row but its own.
    return next(csv.reader([line])) if '"' in line else line.split(",")


def _read_row(fields: tuple[str, ...], today: date) -> Instrument:
    (
        token,
        segment_code,
        symbol,
        name,
        series,
        kind,
        description,
        isin,
        lot,
        tick,
        precision,
        multiplier,
        expiry_number,
        expiry_number_again,
        strike,
        option_type,
        freeze,
        band,
        lower,
        upper,
    ) = fields
    if not token:
        raise ValueError("no token")
    if not symbol:
        raise ValueError("no trading symbol")
    segment = Segment(segment_code)
    is_option = option_type in ("CE", "PE")
    strike_price = _hundredth(strike) if is_option else None
    if strike_price is not None and strike_price <= 0:
        raise ValueError("an option without a strike")
    expiry = _expiry(segment, expiry_number, expiry_number_again, today)
    if expiry is None and kind.startswith(("FUT", "OPT")):
        raise ValueError("a derivative without an expiry")
    lower_band, upper_band = _band(band, lower, upper)
    tick_size = _hundredth(tick)
    return Instrument(
        segment=segment,
        token=token,
        symbol=symbol,
        name=name,
        series=series,
        kind=kind,
        description=description,
        isin=isin,
        lot_size=_count(lot) or 1,
        tick_size=tick_size if tick_size > 0 else 0.0,
        precision=_whole(precision) if precision else 2,
        multiplier=_count(multiplier) or 1,
        expiry=expiry,
        strike=strike_price,
        option_type=option_type if is_option else "",
        freeze_quantity=_freeze(freeze),
        lower_band=lower_band,
        upper_band=upper_band,
    )


def _whole(text: str) -> int:
    """A whole number, which some versions of the file write as `65.0`."""
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer():
            raise ValueError(f"{text[:20]!r} is not a whole number") from None
        return int(number)


def _count(text: str) -> int | None:
    """A number of something; None for nothing, 0 and -1."""
    number = _whole(text) if text else 0
    return number if number > 0 else None


def _freeze(text: str) -> int | None:
    quantity = _count(text)
    return None if quantity == _NO_FREEZE else quantity


def _hundredth(text: str) -> float:
    """Paise to rupees. Read as a decimal, as dividing by a hundred would round twice."""
    if not text:
        return 0.0
    return _finite(float(text) / 100 if "e" in text.lower() else float(f"{text}e-2"))


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError(f"{number} is no amount")
    return number


def _band(text: str, lower: str, upper: str) -> tuple[float | None, float | None]:
    """The circuit limits in rupees, of `16.65-20.35` or else of the two columns in paise.

    The text is exact; the columns are written with six significant digits, which falls short
    above 9,999.99 rupees.
    """
    low, dash, high = text.partition("-")
    if dash and low and high:
        try:
            return _finite(float(low)), _finite(float(high))
        except ValueError:
            pass
    low_price, high_price = _hundredth(lower), _hundredth(upper)
    if high_price <= 0 or low_price < 0:
        return None, None
    return low_price, high_price


def _expiry(segment: Segment, text: str, text_again: str, today: date) -> date | None:
    if segment.is_cash:
        return None
    number = _count(text) or _count(text_again)
    if number is None:
        return None
    since_1980 = (datetime.fromtimestamp(number + _SINCE_1980, UTC) + _IST).date()
    # Written as the last second of the day in UTC, which is the next day already in India.
    since_1970 = datetime.fromtimestamp(number, UTC).date()
    expected, other = since_1970, since_1980
    if segment in _COUNTED_SINCE_1980:
        expected, other = since_1980, since_1970
    for expiry in (expected, other):
        if today - _PAST <= expiry <= today + _FUTURE:
            return expiry
    raise ValueError(f"expiry {number} is {expected} or {other}, neither of them near {today}")


# --- writing ----------------------------------------------------------------------------------


def write_scripmaster(instruments: Iterable[Instrument]) -> bytes:
    """Write a file in the layout of the broker's cash file.

    Columns that an instrument knows nothing of get what the broker writes for none.
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
    "pCurrectionTime": str(_SINCE_1980),
    "iPermittedToTrade": "0",
    "iBoardLotQty": "1",
    "dOpenInterest": "0",
    "dPriceNum": "1",
    "dGenDen": "1",
    "dGenNum": "1",
    "dPriceQuatation": "0",
    "dIssuerate": "0",
    "dPriceDen": "1",
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
        "lFreezeQty": str(instrument.freeze_quantity or _NO_FREEZE),
        "pSegment": "" if is_index else "CASH" if instrument.segment.is_cash else "FO",
    }
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
    if segment in _COUNTED_SINCE_1980:
        return str(midnight + 9 * 3600 - _SINCE_1980)  # 14:30 in India
    return str(midnight + 86_399)


def _hundredfold(rupees: float) -> str:
    return _plain_decimal(Decimal(repr(rupees)) * 100)


def _plain(rupees: float) -> str:
    """At least two decimals, as the broker writes bands."""
    value = Decimal(repr(rupees))
    return f"{value:.2f}" if value == round(value, 2) else f"{value:f}"


def _plain_decimal(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
