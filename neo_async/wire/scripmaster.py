"""Read the scrip master: the broker's instrument files.

One CSV per segment, with a header whose names have stray blanks and a semicolon, money in paise,
and -1 for columns that do not apply. Invalid rows are left out and reported; they never spoil the
file.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from operator import itemgetter
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from neo_async.base.india import date_of
from neo_async.errors import ProtocolError
from neo_async.model.answer import Answer
from neo_async.model.enums import Segment
from neo_async.model.instrument_table import InstrumentTable
from neo_async.model.instruments import Instrument, Rows, Shared, Texts
from neo_async.wire.answers import failure
from neo_async.wire.compressed import Inflater
from neo_async.wire.rows import read_object

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
"""The 78 columns of the cash file, blanks included."""

_OWN: Final = (
    "pSymbol",
    "pTrdSymbol",
    "pSymbolName",
    "pDesc",
    "pISIN",
    "dStrikePrice",
    "pCreditRating",
    "dLowPriceRange",
    "dHighPriceRange",
    "lFreezeQty",
)
"""Columns in which rows differ, in the order in which `ScripMasterReader` unpacks them."""

_SHARED: Final = (
    "pExchSeg",
    "pGroup",
    "pInstType",
    "lLotSize",
    "dTickSize",
    "lPrecision",
    "lMultiplier",
    "lExpiryDate",
    "pExpiryDate",
    "pOptionType",
    "pAssetCode",
    "pFaceValue",
    "dPriceNum",
    "dPriceDen",
    "dGenNum",
    "dGenDen",
)
"""Columns that many rows have in common, in the order in which `_read_shared` unpacks them. They
are decoded once for all of these rows."""

_OPTIONAL: Final = frozenset(
    {"pAssetCode", "pFaceValue", "dPriceNum", "dPriceDen", "dGenNum", "dGenDen"}
)
"""Columns that may be missing."""

_BAD_ROWS_KEPT: Final = 1_000
"""Most invalid rows that are kept; all are counted."""

NO_FREEZE: Final = 99_999_999
"""The file's freeze quantity of instruments without one."""

_NONE: Final = math.nan
"""Price of a table that means none."""

_EXACT: Final = 2**53
"""Bound of the whole numbers that a float holds exactly."""

_LARGEST_WHOLE: Final = 2**63 - 1
_LARGEST: Final = 512 << 20
"""Largest file in bytes; the largest real one has less than a tenth of it."""
_LONGEST_LINE: Final = 1 << 17

SINCE_1980: Final = 315_513_000
"""Unix seconds of 1980-01-01 00:00 in India, the epoch of the NSE files."""
COUNTED_SINCE_1980: Final = (Segment.NSE_FO, Segment.CDE_FO)
_PAST: Final = timedelta(days=7)
_FUTURE: Final = timedelta(days=8 * 366)


class BadRow(msgspec.Struct, frozen=True):
    """An invalid row, which was left out."""

    line: int
    """Line in the file; the header is line 1."""
    token: str
    reason: str


class ScripMaster(msgspec.Struct, frozen=True):
    """The content of one file."""

    instruments: tuple[Instrument, ...]
    """Instruments in the order of the file. Indices are included, with a tick size of 0."""
    bad_rows: tuple[BadRow, ...]
    """The first thousand invalid rows."""


# --- which files there are --------------------------------------------------------------------


def read_file_list(answer: Answer) -> list[str]:
    """Return the addresses of the day's files. Raises the exception that any other answer stands
    for."""
    content = read_object(answer)
    addresses = content.get("filesPaths")
    if not isinstance(addresses, list):
        raise failure(answer, lacking="filesPaths")
    return [address for address in addresses if isinstance(address, str)]


def choose_file(addresses: Iterable[str], segment: Segment) -> str | None:
    """Return the address of a segment's newest file. The name may have a version behind the segment
    (`nse_cm-v1.csv`)."""
    pattern = re.compile(rf"{segment.value}(?:-v([0-9]+))?(?![a-z0-9]).*", re.IGNORECASE)
    found = []
    for address in addresses:
        match = pattern.fullmatch(_file_name(address))
        if match is not None:
            found.append((int(match[1] or 0), address))
    # `max` takes the first of equals.
    return max(found, key=itemgetter(0))[1] if found else None


def _file_name(address: str) -> str:
    try:
        return urlsplit(address).path.rpartition("/")[2]
    except ValueError:  # half an IPv6 address
        return ""


# --- reading ----------------------------------------------------------------------------------


def parse_scripmaster(text: str | bytes, today: date) -> ScripMaster:
    """Read a whole file. `today`, a date in India, decides which epoch an expiry counts from.

    Takes under 10 µs a row: use ScripMasterReader on an event loop with other work. Raises
    ProtocolError when the header lacks a required column.
    """
    reader = ScripMasterReader(today)
    reader.feed(text.encode() if isinstance(text, str) else text)
    reader.finish()
    return ScripMaster(tuple(reader.table), tuple(reader.bad_rows))


class ScripMasterReader:
    """Reads a file as it arrives, piece by piece.

    It may be plain or gzipped, with or without a byte order mark, with line ends of either kind,
    and with fields quoted or padded. Rows of another segment than `segment` are invalid; None
    allows all.
    """

    def __init__(self, today: date, segment: Segment | None = None) -> None:
        self.table = InstrumentTable()
        self.bad_rows: list[BadRow] = []
        """The first thousand invalid rows."""
        self.bad_row_count = 0
        self._today = today
        self._segment = segment
        self._inflater = Inflater("the scrip master")
        self._size = 0
        """Bytes so far, inflated."""
        self._rest = b""
        """The line that has begun and not ended yet."""
        self._line_number = 0
        self._is_over = False
        self._width = 0
        self._own: Callable[[Sequence[str]], tuple[str, ...]] = tuple
        self._shared: Callable[[Sequence[str]], tuple[str, ...]] = tuple
        self._places: dict[tuple[str, ...], int] = {}
        """Index of a Shared in the table, by its columns as written."""
        self._is_option: list[bool] = []
        """Whether the instruments are options, by index of the Shared."""

    def feed(self, piece: bytes) -> None:
        """Read the lines that end in this piece: under 10 µs each, some 300 bytes long.

        Raises ProtocolError when the header lacks a required column, or the file is not a scrip
        master.
        """
        for _ in self.feed_in_steps(piece):
            pass

    def feed_in_steps(self, piece: bytes) -> Iterator[None]:
        """Read a piece as `feed` does, in steps of half a millisecond; other tasks can run between
        them."""
        for plain in self._inflater.feed(piece):
            self._feed(plain)
            yield

    def _feed(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > _LARGEST:
            raise ProtocolError(f"the scrip master has more than {_LARGEST >> 20} MiB")
        lines, newline, rest = piece.rpartition(b"\n")
        if not newline:
            self._rest += piece
            if len(self._rest) > _LONGEST_LINE:
                raise ProtocolError(f"the scrip master has a line of over {_LONGEST_LINE} bytes")
            return
        whole, self._rest = self._rest + lines, rest
        self._read(whole.decode("utf-8", "replace").split("\n"))

    def finish(self) -> None:
        """Read the last line, if it has no line end. Raises ProtocolError when the file is cut
        off."""
        self._feed(self._inflater.finish())
        rest, self._rest = self._rest, b""
        self._is_over = True
        if rest or not self._width:
            line = rest.decode("utf-8", "replace")
            if self._width and line.strip() and line.count(",") + 1 < self._width:
                raise ProtocolError(
                    f"the scrip master is cut off: its last line has {line.count(',') + 1} columns "
                    f"and no end, where the header has {self._width}"
                )
            self._read([line])

    def _read(self, lines: list[str]) -> None:
        while not self._width:
            if not lines:
                return
            self._read_header(lines.pop(0))
        # Column by column from the start: a tuple a row would cost as much as all the rest.
        rows: list[list[Any]] = [[] for _ in Rows._fields]
        added = [column.append for column in rows]
        new_tokens: set[str] = set()
        width, own, shared_of, places = self._width, self._own, self._shared, self._places
        for line in lines:
            self._line_number += 1
            try:
                fields = line.split(",") if '"' not in line else _unquoted(line)
                if len(fields) != width and not (
                    len(fields) == width + 1 and not fields[-1].strip()
                ):
                    if not line.strip():
                        continue
                    raise ValueError(f"{len(fields)} columns, where the header has {width}")
                token, symbol, name, description, isin, strike, band, low, high, freeze = map(
                    str.strip, own(fields)
                )
                self._check_names(token, symbol, new_tokens)
                shared = shared_of(fields)
                place = places.get(shared)
                if place is None:
                    place = places[shared] = self._share(shared)
                strike_price = _strike(strike) if self._is_option[place] else _NONE
                lower_band, upper_band = _band(band, low, high)
                freeze_quantity = _freeze(freeze)
            except (ValueError, OverflowError, OSError, csv.Error) as error:
                self._leave_out(line, error)
                continue
            new_tokens.add(token)
            row = (
                token,
                symbol,
                name,
                description,
                isin,
                place,
                strike_price,
                lower_band,
                upper_band,
                freeze_quantity,
            )
            for append, value in zip(added, row, strict=True):
                append(value)
        tokens, symbols, names, descriptions, isins, *numbers = rows
        self.table.add(
            Rows(tokens, symbols, names, Texts.of(descriptions), Texts.of(isins), *numbers)
        )

    def _check_names(self, token: str, symbol: str, new_tokens: set[str]) -> None:
        if not token:
            raise ValueError("no token")
        if not symbol:
            raise ValueError("no trading symbol")
        if token in new_tokens or self.table.has_token(token):
            raise ValueError("the token is that of an earlier row")

    def _share(self, fields: tuple[str, ...]) -> int:
        shared = _read_shared(tuple(map(str.strip, fields)), self._today)
        if self._segment is not None and shared.segment is not self._segment:
            raise ValueError(f"a row of {shared.segment} in the file of {self._segment}")
        self._is_option.append(bool(shared.option_type))
        return self.table.share(shared)

    def _leave_out(self, line: str, error: Exception) -> None:
        self.bad_row_count += 1
        if len(self.bad_rows) < _BAD_ROWS_KEPT:
            token = line.partition(",")[0].strip()
            self.bad_rows.append(BadRow(self._line_number, token, str(error)))

    def _read_header(self, header: str) -> None:
        self._line_number += 1
        header = header.removeprefix("\ufeff")
        if not header.strip() and not self._is_over:
            return  # blank lines before it
        try:
            names = [name.strip(" ;\r\t") for name in _unquoted(header)]
        except csv.Error as error:
            raise ProtocolError(f"scrip master header: {error}", body=header) from error
        columns = dict.fromkeys((*_OWN, *_SHARED))
        missing = [name for name in columns if name not in names and name not in _OPTIONAL]
        if missing:
            raise ProtocolError(f"scrip master header lacks {', '.join(missing)}", body=header)
        self._width = len(names)
        self._own = itemgetter(*(names.index(name) for name in _OWN))
        present = [name for name in _SHARED if name in names]
        pick = itemgetter(*(names.index(name) for name in present))
        if len(present) == len(_SHARED):
            self._shared = pick
        else:
            self._shared = lambda fields: tuple(
                dict(zip(present, pick(fields), strict=True)).get(name, "") for name in _SHARED
            )


def _unquoted(line: str) -> list[str]:
    # Line by line, so that a stray quote can spoil no row but its own.
    return next(csv.reader([line.strip()], skipinitialspace=True))


def _read_shared(fields: tuple[str, ...], today: date) -> Shared:
    (
        segment_code,
        series,
        kind,
        lot,
        tick,
        precision,
        multiplier,
        expiry_number,
        expiry_number_again,
        option_type,
        underlying_token,
        face_value,
        price_numerator,
        price_denominator,
        general_numerator,
        general_denominator,
    ) = fields
    segment = Segment(segment_code)
    expiry = _expiry(segment, expiry_number, expiry_number_again, today)
    if expiry is None and kind.startswith(("FUT", "OPT")):
        raise ValueError("a derivative without an expiry")
    return Shared(
        series,
        kind,
        _count(lot) or 1,
        max(_hundredth(tick), 0.0),
        _whole(precision) if precision else 2,
        _count(multiplier) or 1,
        expiry,
        option_type if option_type in ("CE", "PE") else "",
        underlying_token,
        max(_hundredth(face_value), 0.0) or None,
        _factor(price_numerator),
        _factor(price_denominator),
        _factor(general_numerator),
        _factor(general_denominator),
        segment,
    )


def _strike(text: str) -> float:
    strike = _hundredth(text)
    if strike <= 0:
        raise ValueError("an option without a strike")
    return strike


def _factor(text: str) -> float:
    number = _finite(float(text)) if text else 0.0
    return number if number > 0 else 1.0


def _whole(text: str) -> int:
    """Return a whole number, which some versions of the file write as `65.0`."""
    try:
        whole = int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer():
            raise ValueError(f"{text[:20]!r} is not a whole number") from None
        whole = int(number)
    if abs(whole) > _LARGEST_WHOLE:
        raise ValueError(f"{text[:20]!r} is beyond any number of units")
    return whole


def _count(text: str) -> int | None:
    """Return a positive number; None for empty, 0 and -1."""
    number = _whole(text) if text else 0
    return number if number > 0 else None


def _freeze(text: str) -> int:
    """Return a freeze quantity; 0 for none."""
    quantity = _count(text) or 0
    return 0 if quantity == NO_FREEZE else quantity


def _hundredth(text: str) -> float:
    """Return paise as rupees, rounded once: the float nearest to the decimal as written."""
    if not text:
        return 0.0
    number = float(text)
    if number.is_integer() and abs(number) < _EXACT:
        return number / 100
    if "e" in text.lower():
        return _finite(number / 100)
    return _finite(float(f"{text.strip()}e-2"))


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError(f"{number} is no amount")
    return number


def _band(text: str, lower: str, upper: str) -> tuple[float, float]:
    """Return the circuit limits in rupees, from `16.65-20.35` or else from the two columns in
    paise; NaN for none.

    The text is exact. The columns have six significant digits, too few above 9,999.99 rupees.
    """
    low, dash, high = text.partition("-")
    if dash:
        try:
            return _finite(float(low)), _finite(float(high))
        except ValueError:
            pass
    low_price, high_price = _hundredth(lower), _hundredth(upper)
    if high_price <= 0 or low_price < 0:
        return _NONE, _NONE
    return low_price, high_price


def _expiry(segment: Segment, text: str, text_again: str, today: date) -> date | None:
    if segment.is_cash:
        return None
    number = _count(text) or _count(text_again)
    if number is None:
        return None
    since_1980 = date_of(number + SINCE_1980)
    # Written as the last second of the day in UTC, which is the next day already in India.
    since_1970 = datetime.fromtimestamp(number, UTC).date()
    expected, other = since_1970, since_1980
    if segment in COUNTED_SINCE_1980:
        expected, other = since_1980, since_1970
    for expiry in (expected, other):
        if today - _PAST <= expiry <= today + _FUTURE:
            return expiry
    raise ValueError(f"expiry {number} is {expected} or {other}, neither of them near {today}")
