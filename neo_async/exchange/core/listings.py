"""The instruments that trade here when nobody loads a scrip master.

Tokens, ISINs, descriptions and freeze quantities of the NSE shares and funds are those of the
broker's scrip master; prices are round about late 2026. Tokens of the derivatives are made up.
"""

from __future__ import annotations

from datetime import date
from typing import Final

from neo_async.exchange.core.types import Listing
from neo_async.model.enums import Segment

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


def _derivative(
    segment: Segment,
    token: str,
    symbol: str,
    name: str,
    kind: str,
    expiry: date,
    *,
    lot_size: int,
    tick: int,
    price: int,
    freeze_quantity: int,
    percent: int = 10,
    strike: int = 0,
    option_type: str = "",
) -> Listing:
    lower, upper = bands(price, percent, tick)
    return Listing(
        segment=segment,
        token=token,
        symbol=symbol,
        name=name,
        series="XX",
        description=symbol,
        lot_size=lot_size,
        tick=tick,
        base_price=price,
        lower_band=max(lower, tick),
        upper_band=upper,
        freeze_quantity=freeze_quantity,
        kind=kind,
        expiry=expiry,
        strike=strike,
        option_type=option_type,
    )


_NSE_EXPIRY: Final = date(2026, 12, 29)
_BSE_EXPIRY: Final = date(2026, 12, 31)
_CRUDE_EXPIRY: Final = date(2026, 12, 18)

DEFAULT_LISTINGS: Final[tuple[Listing, ...]] = (
    *(_nse_cash(*row, tick=1, percent=20) for row in _FUNDS),
    *(_nse_cash(*row, tick=1 if row[4] < _FINE_TICK_BELOW else 5, percent=10) for row in _SHARES),
    _bse_cash("TCS", "532540", "TATA CONSULTANCY SERVICES", "INE467B01029", 2116_50),
    _bse_cash("RELIANCE", "500325", "RELIANCE INDUSTRIES LTD", "INE002A01018", 1412_20),
    _derivative(
        Segment.NSE_FO,
        "53001",
        "NIFTY26DECFUT",
        "NIFTY",
        "FUTIDX",
        _NSE_EXPIRY,
        lot_size=65,
        tick=10,
        price=24_485_20,
        freeze_quantity=1755,
    ),
    _derivative(
        Segment.NSE_FO,
        "61304",
        "TCS26DECFUT",
        "TCS",
        "FUTSTK",
        _NSE_EXPIRY,
        lot_size=225,
        tick=10,
        price=2_121_00,
        freeze_quantity=11_250,
    ),
    _derivative(
        Segment.NSE_FO,
        "71472",
        "NIFTY26DEC24500CE",
        "NIFTY",
        "OPTIDX",
        _NSE_EXPIRY,
        lot_size=65,
        tick=5,
        price=166_75,
        freeze_quantity=1755,
        percent=90,
        strike=24_500_00,
        option_type="CE",
    ),
    _derivative(
        Segment.NSE_FO,
        "71473",
        "NIFTY26DEC24500PE",
        "NIFTY",
        "OPTIDX",
        _NSE_EXPIRY,
        lot_size=65,
        tick=5,
        price=181_30,
        freeze_quantity=1755,
        percent=90,
        strike=24_500_00,
        option_type="PE",
    ),
    _derivative(
        Segment.BSE_FO,
        "861201",
        "SENSEX26DECFUT",
        "SENSEX",
        "FUTIDX",
        _BSE_EXPIRY,
        lot_size=20,
        tick=5,
        price=79_940_00,
        freeze_quantity=1000,
    ),
    _derivative(
        Segment.MCX_FO,
        "451201",
        "CRUDEOIL26DECFUT",
        "CRUDEOIL",
        "FUTCOM",
        _CRUDE_EXPIRY,
        lot_size=100,
        tick=100,
        price=5_612_00,
        freeze_quantity=10_000,
    ),
)
