"""The instruments that trade when no scrip master is loaded.

Tokens, ISINs, descriptions and freeze quantities of the NSE shares and funds are those of the
broker's scrip master, the codes of the BSE shares those of BSE; prices are of about late 2026 (see
listings.csv).

Derivatives depend on the day: those that expire next are listed, by the exchanges' rules of 2026
(NIFTY options every Tuesday and SENSEX options every Thursday, the other contracts of NSE on the
last Tuesday of the month, of BSE on the last Thursday, crude oil on the 19th; each on the trading
day before if that is a holiday). Their tokens are made up from the contract, and are the same every
day.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Container, Iterator, Mapping
from datetime import date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec

from neo_async.base.india import IST
from neo_async.calendar import Calendar
from neo_async.exchange.engine.pricing import fair_value
from neo_async.exchange.engine.trading_hours import CALENDAR
from neo_async.exchange.engine.types import Listing
from neo_async.model.enums import Segment

_CASH_LISTINGS: Final = Path(__file__).with_name("listings.csv")
"""Shares and funds. Closes in paise, ticks in paise, circuit limits in percent of the close."""


def bands(price: int, percent: int, tick: int) -> tuple[int, int]:
    """Return circuit limits in percent around a price, on ticks inside that distance."""
    lower = -(-price * (100 - percent) // 100 // tick) * tick
    upper = price * (100 + percent) // 100 // tick * tick
    return lower, upper


def _cash_listings() -> Iterator[Listing]:
    """Read the shares and funds."""
    with _CASH_LISTINGS.open(newline="", encoding="ascii") as file:
        for row in csv.DictReader(file):
            segment, close, tick = Segment(row["segment"]), int(row["close"]), int(row["tick"])
            lower, upper = bands(close, int(row["band_percent"]), tick)
            yield Listing(
                segment=segment,
                token=row["token"],
                symbol=f"{row['name']}-EQ" if segment is Segment.NSE_CM else row["name"],
                name=row["name"],
                series=row["series"],
                description=row["description"],
                isin=row["isin"],
                tick=tick,
                base_price=close,
                lower_band=lower,
                upper_band=upper,
                freeze_quantity=int(row["freeze_quantity"]),
            )


class _Family(msgspec.Struct, frozen=True, kw_only=True):
    """The derivatives of one underlying."""

    name: str
    number: int
    """Number that keeps its tokens apart from those of other families."""
    segment: Segment = Segment.NSE_FO
    suffix: str
    """Suffix of its kinds: `IDX STK COM`."""
    underlying: str = ""
    """Underlying as `nse_cm|26000`; empty when it does not trade here."""
    price: int
    """Price of the underlying, in paise."""
    lot_size: int
    freeze_quantity: int
    """Freeze quantity as the file has it: an order of that many units is too large."""
    tick: int = 10
    months: int = 3
    """Futures listed, the nearest months."""
    strike_step: int = 0
    """Rupees; 0: no options."""
    strikes: int = 0
    """Strikes on each side of the one at the money."""
    option_months: int = 2
    weeks: int = 0
    """Weekly expiries of its options, the nearest ones."""


_FAMILIES: Final = (
    _Family(
        name="NIFTY",
        number=1,
        suffix="IDX",
        underlying="nse_cm|26000",
        price=24_412_35,
        lot_size=65,
        freeze_quantity=1801,
        strike_step=50,
        strikes=20,
        weeks=3,
    ),
    _Family(
        name="BANKNIFTY",
        number=2,
        suffix="IDX",
        underlying="nse_cm|26009",
        price=55_180_70,
        lot_size=30,
        freeze_quantity=601,
        strike_step=100,
        strikes=20,
    ),
    _Family(
        name="SENSEX",
        number=3,
        segment=Segment.BSE_FO,
        suffix="IDX",
        underlying="bse_cm|1",
        price=79_802_10,
        lot_size=20,
        freeze_quantity=1001,
        tick=5,
        months=2,
        strike_step=100,
        strikes=15,
        weeks=2,
    ),
    _Family(
        name="TCS",
        number=4,
        suffix="STK",
        underlying="nse_cm|11536",
        price=211700,
        lot_size=225,
        freeze_quantity=11251,
        strike_step=20,
        strikes=10,
    ),
    _Family(
        name="RELIANCE",
        number=5,
        suffix="STK",
        underlying="nse_cm|2885",
        price=141250,
        lot_size=500,
        freeze_quantity=20001,
        strike_step=10,
        strikes=10,
    ),
    _Family(
        name="HDFCBANK",
        number=6,
        suffix="STK",
        underlying="nse_cm|1333",
        price=79320,
        lot_size=1100,
        freeze_quantity=33001,
        strike_step=5,
        strikes=10,
    ),
    _Family(
        name="CRUDEOIL",
        number=7,
        segment=Segment.MCX_FO,
        suffix="COM",
        price=5_600_00,
        lot_size=100,
        freeze_quantity=10001,
        tick=100,
        months=2,
    ),
)

_OPTION_TICK: Final = 5
_TUESDAY, _THURSDAY = 1, 3
_MONTH_CODES: Final = "123456789OND"
"""Month codes of weekly contracts: `NIFTY26D0124500CE`."""


@lru_cache(maxsize=8)
def default_listings(today: date, calendar: Calendar = CALENDAR) -> tuple[Listing, ...]:
    """Return what trades on a day: shares and funds, and the derivatives that expire next."""
    return (*_cash_listings(), *new_contracts(today, calendar=calendar))


def new_contracts(
    today: date,
    spots: Mapping[str, int] = MappingProxyType({}),
    known: Container[tuple[Segment, str]] = (),
    calendar: Calendar = CALENDAR,
) -> Iterator[Listing]:
    """Yield the derivatives that expire next, without those that are `known` by segment and token.

    `spots` are previous closes of underlyings, by `nse_cm|26000`, where they are not those with
    which the exchange begins: strikes lie around them.
    """
    for family in _FAMILIES:
        spot = spots.get(family.underlying, family.price)
        expiries = _Expiries(family.segment, calendar)
        for expiry, strike, option_type in _terms(family, expiries, today, spot):
            if (family.segment, _token(family, expiry, strike, option_type)) not in known:
                is_monthly = expiry == expiries.monthly(expiry, 1)[0]
                code = _expiry_code(expiry, is_monthly=is_monthly)
                yield _contract(family, code, expiry, today, spot, strike, option_type)


def _terms(
    family: _Family, expiries: _Expiries, today: date, spot: int
) -> Iterator[tuple[date, int, str]]:
    """Yield expiry, strike in rupees and option type of each contract; 0 and "" for a future."""
    for expiry in expiries.monthly(today, family.months):
        yield expiry, 0, ""
    if not family.strike_step:
        return
    weekly = expiries.weekly(today, family.weeks)
    monthly = expiries.monthly(today, family.option_months)
    middle = round(spot / 100 / family.strike_step)
    for expiry in sorted({*weekly, *monthly}):
        for step in range(middle - family.strikes, middle + family.strikes + 1):
            for option_type in ("CE", "PE"):
                yield expiry, step * family.strike_step, option_type


def _contract(
    family: _Family,
    code: str,
    expiry: date,
    today: date,
    spot: int,
    strike: int,
    option_type: str,
) -> Listing:
    symbol = f"{family.name}{code}{strike or ''}{option_type or 'FUT'}"
    tick = _OPTION_TICK if strike else family.tick
    listing = Listing(
        segment=family.segment,
        token=_token(family, expiry, strike, option_type),
        symbol=symbol,
        name=family.name,
        series="XX",
        description=symbol,
        lot_size=family.lot_size,
        tick=tick,
        base_price=0,
        lower_band=0,
        upper_band=0,
        freeze_quantity=family.freeze_quantity,
        kind=("OPT" if strike else "FUT") + family.suffix,
        expiry=expiry,
        strike=strike * 100,
        option_type=option_type,
        underlying=family.underlying,
    )
    return priced(listing, spot, today)


def priced(listing: Listing, spot: int, today: date) -> Listing:
    """Return a derivative with base price and circuit limits of a day, by its underlying's close.

    Options may move by what they would gain or lose if the underlying hit a circuit limit, and a
    little more: in practice, not at all limited.
    """
    opening = datetime(today.year, today.month, today.day, 9, 15, tzinfo=IST)
    tick = listing.tick
    value = fair_value(listing, spot, int(opening.timestamp()) * 1_000_000_000)
    price = max(round(value / tick), 2) * tick
    lower, upper = bands(price, 10, tick)
    if listing.is_option:
        lower, upper = tick, (price + spot // 5) // tick * tick
    return msgspec.structs.replace(
        listing, base_price=price, lower_band=max(lower, tick), upper_band=upper
    )


def relisted(listing: Listing, close: int) -> Listing:
    """Return a listing for the day after a close.

    Its circuit limits keep their distance: for shares and futures in percent, for options in
    rupees.
    """
    if not close or not listing.base_price or close == listing.base_price:
        return listing
    tick = listing.tick
    if listing.is_option:
        lower = listing.lower_band
        upper = close + listing.upper_band - listing.base_price
    else:
        lower = -(-close * listing.lower_band // listing.base_price // tick) * tick
        upper = close * listing.upper_band // listing.base_price // tick * tick
    return msgspec.structs.replace(
        listing,
        base_price=close,
        lower_band=max(tick, min(lower, close)),
        upper_band=max(upper // tick * tick, close),
    )


def _token(family: _Family, expiry: date, strike: int, option_type: str) -> str:
    """Return expiry, family, strike and side packed into a number below 2**31."""
    days = (expiry - date(2020, 1, 1)).days
    rung = strike // family.strike_step * 2 + (option_type == "PE") if strike else 0
    return str((days * 16 + family.number) * 4096 + rung)


def _expiry_code(expiry: date, *, is_monthly: bool) -> str:
    if is_monthly:
        return f"{expiry:%y}{_MONTHS[expiry.month - 1]}"
    return f"{expiry:%y}{_MONTH_CODES[expiry.month - 1]}{expiry.day:02d}"


_MONTHS: Final = (
    *("JAN", "FEB", "MAR", "APR", "MAY", "JUN"),
    *("JUL", "AUG", "SEP", "OCT", "NOV", "DEC"),
)


class _Expiries:
    """The expiries of a segment's contracts, moved off holidays."""

    def __init__(self, segment: Segment, calendar: Calendar) -> None:
        self._segment = segment
        self._calendar = calendar

    def weekly(self, today: date, count: int) -> list[date]:
        """Return the next weekly expiries, today's included."""
        weekday = _THURSDAY if self._segment is Segment.BSE_FO else _TUESDAY
        first = today - timedelta(days=today.weekday() - weekday)
        days = (first + timedelta(weeks=week) for week in itertools.count())
        return self._next(days, today, count)

    def monthly(self, today: date, count: int) -> list[date]:
        """Return the next monthly expiries, today's included."""
        return self._next(self._month_ends(today), today, count)

    def _next(self, days: Iterator[date], today: date, count: int) -> list[date]:
        expiries = (self._calendar.adjusted_expiry(self._segment, day) for day in days)
        return list(itertools.islice((day for day in expiries if day >= today), count))

    def _month_ends(self, today: date) -> Iterator[date]:
        """Yield the days that the rules name, from this month on."""
        month = today.replace(day=1)
        while True:
            following = (month + timedelta(days=31)).replace(day=1)
            if self._segment is Segment.MCX_FO:
                yield month.replace(day=19)
            else:
                weekday = _THURSDAY if self._segment is Segment.BSE_FO else _TUESDAY
                last = following - timedelta(days=1)
                yield last - timedelta(days=(last.weekday() - weekday) % 7)
            month = following
