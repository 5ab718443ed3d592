"""Names of the indices in quotes and feeds. They are case-sensitive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from neo_async.model.enums import Segment

INDEX_NAMES: Final[Mapping[Segment, tuple[str, ...]]] = {
    Segment.NSE_CM: (
        "NIFTY AlphaLowVol",
        "Nifty Commodities",
        "Nifty Consumption",
        "Nifty Div Opps 50",
        "Nifty Energy",
        "Nifty Infra",
        "Nifty Media",
        "Nifty Metal",
        "Nifty MNC",
        "Nifty Serv Sector",
        "NIFTY SMLCAP 100",
        "Nifty100 Liq 15",
        "NIFTY LARGEMID250",
        "NIFTY MIDSML 400",
        "Nifty FinSrv25 50",
        "NIFTY100 EQL Wgt",
        "NIFTY100 LowVol30",
        "NIFTY500 MULTICAP",
        "NIFTY Alpha 50",
        "NIFTY CONSR DURBL",
        "NIFTY HEALTHCARE",
        "Nifty GrowSect 15",
        "Nifty200Momentm30",
        "Nifty Mid Liq 15",
        "Nifty Pvt Bank",
        "NIFTY OIL AND GAS",
        "Nifty 100",
        "Nifty 200",
        "Nifty Auto",
        "Nifty FMCG",
        "NIFTY MIDCAP 100",
        "Nifty Next 50",
        "Nifty Pharma",
        "Nifty PSU Bank",
        "NIFTY100 Qualty30",
        "NIFTY MIDCAP 150",
        "NIFTY200 QUALTY30",
        "NIFTY SMLCAP 250",
        "NIFTY SMLCAP 50",
        "Nifty Realty",
        "Nifty 500",
        "Nifty 50",
        "Nifty IT",
        "Nifty Bank",
        "Nifty Midcap 50",
        "INDIA VIX",
        "Nifty PSE",
        "Nifty Fin Service",
        "Nifty CPSE",
        "NIFTY MID SELECT",
        "NIFTY MICROCAP250",
    ),
    Segment.BSE_CM: (
        "SNSX50",
        "SENSEX",
        "BANKEX",
        "BSE100",
        "BSE200",
        "BSE500",
        "BSE CG",
        "BSE CD",
        "BSEPSU",
        "TECK",
        "AUTO",
        "OILGAS",
        "DOL30",
        "DOL100",
        "DOL200",
        "REALTY",
        "POWER",
        "BSEIPO",
        "SMEIPO",
        "INFRA",
        "CPSE",
        "MIDCAP",
        "SMLCAP",
        "BSEFMC",
        "BSE HC",
        "BSE IT",
        "MFG",
        "ALLCAP",
        "COMDTY",
        "CONDIS",
        "ENERGY",
        "FINSER",
        "INDSTR",
        "LRGCAP",
        "MIDSEL",
        "SMLSEL",
        "TELCOM",
        "UTILS",
        "SNXT50",
        "BHRT22",
        "ESG100",
        "MID150",
        "SML250",
        "LMI250",
        "MSL400",
        "BSEDSI",
        "BSEEVI",
        "BSELVI",
        "BSEMOI",
        "BSEQUI",
        "DFRGRI",
        "LCTMCI",
        "BSEPBI",
        "BSESER",
        "SNXN30",
        "SNSX60",
        "SS6535",
        "POWENE",
        "200EQW",
        "INTECO",
        "CAPINS",
        "FOCIT",
        "PRECON",
        "FOCMID",
        "BBGEFS",
        "SENEQW",
        "SELIPO",
        "PSUBNK",
        "INSLDR",
        "BS1000",
        "NXT500",
        "BSM250",
        "NXT250",
        "1000EQ",
        "IND150",
        "BSE5S",
        "BN5TIP",
        "BSLMIP",
        "BSHOIP",
        "BS5TIP",
        "BDISB",
        "BSEBIP",
        "BSREIT",
        "BSMSIP",
    ),
}

NAMES_BY_NUMBER: Final = {
    "26000": "Nifty 50",
    "26009": "Nifty Bank",
    "26037": "Nifty Fin Service",
    "26074": "NIFTY MID SELECT",
}
"""Index names by their tokens in the NSE scrip master."""
_NUMBERS: Final = {name: number for number, name in NAMES_BY_NUMBER.items()}

INDEX_UNDERLYINGS: Final[Mapping[str, str]] = {
    "nse_cm|Nifty 50": "NIFTY",
    "nse_cm|Nifty Bank": "BANKNIFTY",
    "nse_cm|Nifty Fin Service": "FINNIFTY",
    "nse_cm|NIFTY MID SELECT": "MIDCPNIFTY",
    "nse_cm|Nifty Next 50": "NIFTYNXT50",
    "bse_cm|SENSEX": "SENSEX",
    "bse_cm|BANKEX": "BANKEX",
    "bse_cm|SNSX50": "SENSEX50",
}
"""Names under which contracts on indices are listed, by the key of the index."""
_INDEX_OF: Final = {name: key for key, name in INDEX_UNDERLYINGS.items()}


def _plain(text: str) -> str:
    return "".join(text.split()).casefold()


_EXACT: Final = {
    (segment.value, _plain(name)): name for segment, names in INDEX_NAMES.items() for name in names
}


def exact_index_name(segment: str, text: str) -> str | None:
    """Return the broker's spelling of an index given by token, or by name in any case; None for an
    index that is not listed. Blanks do not count."""
    if segment == Segment.NSE_CM and text in NAMES_BY_NUMBER:
        return NAMES_BY_NUMBER[text]
    return _EXACT.get((segment, _plain(text)))


def index_number(segment: str, text: str) -> str | None:
    """Return the token in the NSE scrip master of an index given by name or token; None for an
    index that is not in it."""
    name = exact_index_name(segment, text)
    return _NUMBERS.get(name) if name is not None and segment == Segment.NSE_CM else None


def index_key(segment: str | None, text: str) -> str | None:
    """Return the key of an index given by its name in any case, or by the name of its contracts:
    `nse_cm|Nifty 50` for `nifty 50`, `NIFTY50` and `NIFTY`. None for one that is not listed."""
    for place in INDEX_NAMES:
        if segment in (None, place.value) and not text.isdecimal():
            name = exact_index_name(place, text)
            if name is not None:
                return f"{place.value}|{name}"
    key = _INDEX_OF.get(_plain(text).upper(), "")
    return key if key and segment in (None, key.partition("|")[0]) else None
