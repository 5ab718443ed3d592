"""The instruments that trade here when nobody loads a scrip master.

Tokens, ISINs, descriptions and freeze quantities of the NSE shares and funds are those of the
broker's scrip master; prices are round about late 2026.

Derivatives depend on the day: those that expire next are listed, by the exchanges' rules of 2026
(NIFTY options every Tuesday, the other contracts of NSE on the last Tuesday of the month, of BSE on
the last Thursday, crude oil on the 19th, or on the Friday before a weekend). Holidays move nothing
here. Their tokens are made up, and say which contract it is: the same ones every day.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from datetime import date, datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import msgspec

from neo_async.exchange.engine.pricing import fair_value
from neo_async.exchange.engine.types import Listing
from neo_async.model.enums import Segment
from neo_async.model.india import IST

_FINE_TICK_BELOW: Final = 250_00
"""Shares below this price have ticks of one paisa, others of five."""

# Symbol, token, description, ISIN, previous close in paise, freeze quantity.
_FUNDS: Final = (
    ("ITBEES", "19084", "NIP IND ETF IT", "INF204KB15V2", 3940, 3312133),
    ("NIFTYBEES", "10576", "NIP IND ETF NIFTY BEES", "INF204KB14I2", 28540, 512961),
    ("GOLDBEES", "14428", "NIP IND ETF GOLD BEES", "INF204KB17I5", 10235, 1936381),
    ("BANKBEES", "11439", "NIP IND ETF BANK BEES", "INF204KB15I9", 59620, 237712),
    ("JUNIORBEES", "10939", "NIP IND ETF JUNIOR BEES", "INF732E01045", 74810, 245085),
)
_SHARES: Final = (
    ("TCS", "11536", "TATA CONSULTANCY SERV LT", "INE467B01029", 211700, 29272),
    ("RELIANCE", "2885", "RELIANCE INDUSTRIES LTD", "INE002A01018", 141250, 40592),
    ("HDFCBANK", "1333", "HDFC BANK LTD", "INE040A01034", 79320, 55797),
    ("IDEA", "14366", "VODAFONE IDEA LIMITED", "INE669E01016", 939, 16502414),
    ("INFY", "1594", "INFOSYS LIMITED", "INE009A01021", 150240, 70525),
    ("ICICIBANK", "4963", "ICICI BANK LTD.", "INE090A01021", 136800, 104727),
    ("SBIN", "3045", "STATE BANK OF INDIA", "INE062A01020", 97235, 187416),
    ("AXISBANK", "5900", "AXIS BANK LIMITED", "INE238A01034", 126200, 113831),
    ("KOTAKBANK", "1922", "KOTAK MAHINDRA BANK LTD", "INE237A01028", 209550, 51649),
    ("ITC", "1660", "ITC LTD", "INE154A01025", 40525, 248407),
    ("HINDUNILVR", "1394", "HINDUSTAN UNILEVER LTD.", "INE030A01027", 243200, 37593),
    ("BHARTIARTL", "10604", "BHARTI AIRTEL LIMITED", "INE397D01024", 214560, 128228),
    ("LT", "11483", "LARSEN & TOUBRO LTD.", "INE018A01030", 401250, 43568),
    ("BAJFINANCE", "317", "BAJAJ FINANCE LIMITED", "INE296A01024", 101540, 16346),
    ("ASIANPAINT", "236", "ASIAN PAINTS LIMITED", "INE021A01026", 286800, 35490),
    ("MARUTI", "10999", "MARUTI SUZUKI INDIA LTD.", "INE585B01010", 1592000, 11479),
    ("TITAN", "3506", "TITAN COMPANY LIMITED", "INE280A01028", 389000, 38174),
    ("SUNPHARMA", "3351", "SUN PHARMACEUTICAL IND L", "INE044A01036", 178200, 98372),
    ("ULTRACEMCO", "11532", "ULTRATECH CEMENT LIMITED", "INE481G01011", 1172000, 12990),
    ("WIPRO", "3787", "WIPRO LTD", "INE075A01022", 24430, 268907),
    ("HCLTECH", "7229", "HCL TECHNOLOGIES LTD", "INE860A01027", 160800, 92264),
    ("TECHM", "13538", "TECH MAHINDRA LIMITED", "INE669C01036", 145200, 91569),
    ("POWERGRID", "14977", "POWER GRID CORP. LTD.", "INE752E01010", 27280, 432478),
    ("NTPC", "11630", "NTPC LTD", "INE733E01010", 32640, 572103),
    ("ONGC", "2475", "OIL AND NATURAL GAS CORP.", "INE213A01029", 24735, 629013),
    ("COALINDIA", "20374", "COAL INDIA LTD", "INE522F01014", 37860, 437553),
    ("TATASTEEL", "3499", "TATA STEEL LIMITED", "INE081A01020", 17245, 928836),
    ("JSWSTEEL", "11723", "JSW STEEL LIMITED", "INE019A01038", 116800, 137781),
    ("HINDALCO", "1363", "HINDALCO INDUSTRIES LTD", "INE038A01020", 79200, 235955),
    ("ADANIENT", "25", "ADANI ENTERPRISES LIMITED", "INE423A01024", 242000, 52440),
    ("ADANIPORTS", "15083", "ADANI PORT & SEZ LTD", "INE742F01042", 149600, 149049),
    ("TATAPOWER", "3426", "TATA POWER CO LTD", "INE245A01021", 38820, 508058),
    ("BPCL", "526", "BHARAT PETROLEUM CORP LT", "INE029A01011", 36230, 299356),
    ("IOC", "1624", "INDIAN OIL CORP LTD", "INE242A01010", 16825, 1285032),
    ("GAIL", "4717", "GAIL (INDIA) LTD", "INE129A01019", 18210, 920513),
    ("PNB", "10666", "PUNJAB NATIONAL BANK", "INE160A01022", 12145, 2092092),
    ("BANKBARODA", "4668", "BANK OF BARODA", "INE028A01039", 28690, 579192),
    ("CANBK", "10794", "CANARA BANK", "INE476A01014", 14730, 342870),
    ("YESBANK", "11915", "YES BANK LIMITED", "INE528G01035", 2271, 6498541),
    ("SUZLON", "12018", "SUZLON ENERGY LIMITED", "INE040H01021", 5510, 12420116),
    ("NHPC", "17400", "NHPC LTD", "INE848E01016", 7830, 2330448),
    ("IRFC", "2029", "INDIAN RAILWAY FIN CORP L", "INE053F01010", 11860, 3633044),
    ("SAIL", "2963", "STEEL AUTHORITY OF INDIA", "INE114A01011", 13420, 1222635),
    ("IDFCFIRSTB", "11184", "IDFC FIRST BANK LIMITED", "INE092T01019", 8015, 1846985),
    ("CIPLA", "694", "CIPLA LTD", "INE059A01026", 152100, 108964),
    ("DRREDDY", "881", "DR. REDDY S LABORATORIES", "INE089A01023", 124200, 20482),
    ("M&M", "2031", "MAHINDRA & MAHINDRA LTD", "INE101A01026", 371200, 82072),
)


def bands(price: int, percent: int, tick: int) -> tuple[int, int]:
    """Circuit limits that far from a price, on ticks inside the distance."""
    lower = -(-price * (100 - percent) // 100 // tick) * tick
    upper = price * (100 + percent) // 100 // tick * tick
    return lower, upper


def _nse_cash(
    name: str,
    token: str,
    description: str,
    isin: str,
    price: int,
    freeze_quantity: int,
    *,
    tick: int,
    percent: int,
) -> Listing:
    lower, upper = bands(price, percent, tick)
    return Listing(
        segment=Segment.NSE_CM,
        token=token,
        symbol=f"{name}-EQ",
        name=name,
        description=description,
        isin=isin,
        tick=tick,
        base_price=price,
        lower_band=lower,
        upper_band=upper,
        freeze_quantity=freeze_quantity,
    )


def _bse_cash(name: str, token: str, description: str, isin: str, price: int) -> Listing:
    lower, upper = bands(price, 10, 5)
    return Listing(
        segment=Segment.BSE_CM,
        token=token,
        symbol=name,
        name=name,
        series="A",
        description=description,
        isin=isin,
        base_price=price,
        lower_band=lower,
        upper_band=upper,
    )


class _Family(msgspec.Struct, frozen=True, kw_only=True):
    """The derivatives of one underlying."""

    name: str
    number: int
    """Sets its tokens apart from other families'."""
    segment: Segment = Segment.NSE_FO
    suffix: str
    """Of its kinds: `IDX STK COM`."""
    underlying: str = ""
    """`nse_cm|26000`; empty when it does not trade here."""
    price: int
    """Of the underlying, in paise."""
    lot_size: int
    lots_frozen: int
    """Largest order, in lots."""
    tick: int = 10
    months: int = 3
    """Futures listed, the nearest months."""
    strike_step: int = 0
    """Rupees; 0: no options."""
    strikes: int = 0
    """On each side of the one at the money."""
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
        lots_frozen=27,
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
        lots_frozen=20,
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
        lots_frozen=50,
        tick=5,
        months=2,
    ),
    _Family(
        name="TCS",
        number=4,
        suffix="STK",
        underlying="nse_cm|11536",
        price=211700,
        lot_size=225,
        lots_frozen=50,
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
        lots_frozen=40,
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
        lots_frozen=30,
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
        lots_frozen=100,
        tick=100,
        months=2,
    ),
)

_OPTION_TICK: Final = 5
_TUESDAY, _THURSDAY, _SATURDAY = 1, 3, 5
_MONTH_CODES: Final = "123456789OND"
"""Of weekly contracts: `NIFTY26D0124500CE`."""


@lru_cache(maxsize=8)
def default_listings(today: date) -> tuple[Listing, ...]:
    """What trades on a day: shares and funds, and the derivatives that expire next."""
    return (
        *(_nse_cash(*row, tick=1, percent=20) for row in _FUNDS),
        *(
            _nse_cash(*row, tick=1 if row[4] < _FINE_TICK_BELOW else 5, percent=10)
            for row in _SHARES
        ),
        _bse_cash("TCS", "532540", "TATA CONSULTANCY SERVICES", "INE467B01029", 2116_50),
        _bse_cash("RELIANCE", "500325", "RELIANCE INDUSTRIES LTD", "INE002A01018", 1412_20),
        *new_contracts(today),
    )


def new_contracts(
    today: date,
    spots: Mapping[str, int] = MappingProxyType({}),
    known: Container[tuple[Segment, str]] = (),
) -> Iterator[Listing]:
    """The derivatives that expire next, without those that are `known` by segment and token.

    `spots` are previous closes of underlyings, by `nse_cm|26000`, where they are not those with
    which the exchange begins: strikes lie around them.
    """
    for family in _FAMILIES:
        spot = spots.get(family.underlying, family.price)
        for expiry, strike, option_type in _terms(family, today, spot):
            if (family.segment, _token(family, expiry, strike, option_type)) not in known:
                yield _contract(family, expiry, today, spot, strike, option_type)


def _terms(family: _Family, today: date, spot: int) -> Iterator[tuple[date, int, str]]:
    """Expiry, strike in rupees and option type of each contract; 0 and none of a future."""
    for expiry in _monthly(family.segment, today, family.months):
        yield expiry, 0, ""
    if not family.strike_step:
        return
    weekly = _weekly(today, family.weeks)
    monthly = _monthly(family.segment, today, family.option_months)
    middle = round(spot / 100 / family.strike_step)
    for expiry in sorted({*weekly, *monthly}):
        for step in range(middle - family.strikes, middle + family.strikes + 1):
            for option_type in ("CE", "PE"):
                yield expiry, step * family.strike_step, option_type


def _contract(
    family: _Family, expiry: date, today: date, spot: int, strike: int, option_type: str
) -> Listing:
    symbol = f"{family.name}{_expiry_code(family, expiry)}{strike or ''}{option_type or 'FUT'}"
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
        freeze_quantity=family.lots_frozen * family.lot_size,
        kind=("OPT" if strike else "FUT") + family.suffix,
        expiry=expiry,
        strike=strike * 100,
        option_type=option_type,
        underlying=family.underlying,
    )
    return priced(listing, spot, today)


def priced(listing: Listing, spot: int, today: date) -> Listing:
    """A derivative with base price and circuit limits of a day, by its underlying's close.

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
    """As it is listed on the day after a close: its circuit limits lie as far from that, shares'
    and futures' in percent, options' in rupees."""
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
    """Day of expiry, family, strike and side packed into a number below 2**31."""
    days = (expiry - date(2020, 1, 1)).days
    rung = strike // family.strike_step * 2 + (option_type == "PE") if strike else 0
    return str((days * 16 + family.number) * 4096 + rung)


def _expiry_code(family: _Family, expiry: date) -> str:
    if expiry in _monthly(family.segment, expiry, 1):
        return f"{expiry:%y}{_MONTHS[expiry.month - 1]}"
    return f"{expiry:%y}{_MONTH_CODES[expiry.month - 1]}{expiry.day:02d}"


_MONTHS: Final = (
    *("JAN", "FEB", "MAR", "APR", "MAY", "JUN"),
    *("JUL", "AUG", "SEP", "OCT", "NOV", "DEC"),
)


def _weekly(today: date, count: int) -> list[date]:
    first = today + timedelta(days=(_TUESDAY - today.weekday()) % 7)
    return [first + timedelta(weeks=week) for week in range(count)]


def _monthly(segment: Segment, today: date, count: int) -> list[date]:
    """The next monthly expiries, today's included."""
    expiries: list[date] = []
    month = today.replace(day=1)
    while len(expiries) < count:
        following = (month + timedelta(days=31)).replace(day=1)
        expiry = _month_end(segment, month, following)
        if expiry >= today:
            expiries.append(expiry)
        month = following
    return expiries


def _month_end(segment: Segment, month: date, following: date) -> date:
    if segment is Segment.MCX_FO:
        day = month.replace(day=19)
        return day - timedelta(days=max(0, day.weekday() - _SATURDAY + 1))
    weekday = _THURSDAY if segment is Segment.BSE_FO else _TUESDAY
    last = following - timedelta(days=1)
    return last - timedelta(days=(last.weekday() - weekday) % 7)
