"""Common parts of the reports' rows: text of times and amounts, and the fields of instruments.

The order of keys, their spellings (mistakes included) and the JSON types are the broker's; what it
leaves unexplained is constant here. Money is in paise inside the exchange, and in rupees in
answers.
"""

from __future__ import annotations

from datetime import date
from functools import cache, lru_cache
from typing import Final

from neo_async.base.india import in_india
from neo_async.exchange.engine.types import Listing

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
NS: Final = 1_000_000_000

BRANCH: Final = "08081"
LOCATION: Final = "111111111111100"
NONE: Final = "--"

_FACTORS: Final[Row] = {"genNum": "1", "genDen": "1", "prcNum": "1", "prcDen": "1"}
ALGO: Final[Row] = {"algId": "NA", "algCat": "NA", "algSeqNo": "NA"}


# --- text -------------------------------------------------------------------------------------


def rupees(paise: int) -> str:
    sign = "-" if paise < 0 else ""
    whole, part = divmod(abs(paise), 100)
    return f"{sign}{whole}.{part:02d}"


def average_text(paise: float) -> str:
    return f"{paise / 100:.2f}"


@lru_cache(maxsize=4096)
def second_texts(second: int) -> tuple[str, str, str]:
    """Return date, time and sortable form of a Unix second, in India. Month names are English."""
    at = in_india(second)
    day = f"{at.day:02d}-{_MONTHS[at.month - 1]}-{at.year}"
    clock = f"{at.hour:02d}:{at.minute:02d}:{at.second:02d}"
    return day, clock, f"{at.year}/{at.month:02d}/{at.day:02d} {clock}"


def date_time(time_ns: int) -> str:
    """Return a time as `22-Jan-2025 14:28:01`, or `--` for what has not happened."""
    if not time_ns:
        return NONE
    day, clock, _ = second_texts(time_ns // NS)
    return f"{day} {clock}"


def sortable_time(time_ns: int) -> str:
    """Return a time as `2025/01/22 14:28:01`."""
    return second_texts(time_ns // NS)[2]


def expiry_text(expiry: date | None) -> str:
    """Return a day as `28 Jul, 2026`; `NA` where there is none."""
    return f"{expiry.day:02d} {_MONTHS[expiry.month - 1]}, {expiry.year}" if expiry else "NA"


def order_source(source: str) -> str:
    return f"ADMINCPPAPI_{source}" if source else ""


# --- instruments: the same for every row of one -------------------------------------------------


@cache
def instrument_fields(listing: Listing) -> Row:
    return {
        "exSeg": listing.segment.value,
        "trdSym": listing.symbol,
        "sym": listing.name,
        "series": series_text(listing),
        "stkPrc": rupees(listing.strike),
        "expDt": expiry_text(listing.expiry),
        "lotSz": str(listing.lot_size),
        "multiplier": "1",
        "precision": "2",
        **_FACTORS,
    }


def series_text(listing: Listing) -> str:
    return listing.series if listing.segment.is_cash else "XX"


def kind_text(listing: Listing) -> str:
    """Return `it` of a book's row: the series of a share, the kind of a derivative."""
    return listing.kind or listing.series


def option_type_text(listing: Listing, none: str) -> str:
    return listing.option_type or none
