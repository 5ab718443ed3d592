"""The funds that can be bought here.

First those of Kite's document, under their own ISINs; then families of made-up ones, so that there
is something to search in. Their ISINs are made up, with good check digits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from neo_async.exchange.funds.types import Scheme
from neo_async.model.isin import check_digit


class _Terms(NamedTuple):
    """Terms of a kind of scheme: money in paise, units in thousandths."""

    settlement_type: str
    minimum_purchase: int
    purchase_multiple: int
    minimum_additional: int
    minimum_redemption: int
    redemption_multiple: int = 1


_TERMS: Final = {
    "equity": _Terms("T3", 5000_00, 100, 100_00, 1),
    "elss": _Terms("T3", 500_00, 500_00, 500_00, 1_000),
    "balanced": _Terms("T3", 1000_00, 100, 500_00, 1),
    "debt": _Terms("T2", 1000_00, 1, 1000_00, 1),
    "liquid": _Terms("T1", 500_00, 1, 500_00, 1),
}

# ISIN, AMC, name, scheme type, plan, dividend type, NAV in ten-thousandths of a rupee.
_DOCUMENTED: Final = (
    ("INF846K01DP8", "AXISMUTUALFUND_MF", "Axis Equity Fund - Direct Plan - Growth",
     "equity", "direct", "growth", 20_0900),
    ("INF846K01EW2", "AXISMUTUALFUND_MF", "Axis Long Term Equity Fund - Direct Growth",
     "elss", "direct", "growth", 33_0425),
    ("INF174K01LS2", "KOTAKMAHINDRAMF", "Kotak Select Focus Fund- Direct Plan - Growth",
     "equity", "direct", "growth", 26_5490),
    ("INF174K01336", "KOTAKMAHINDRAMF", "Kotak Select Focus Fund-Growth",
     "equity", "regular", "growth", 25_6350),
    ("INF179K01VY8", "HDFCMUTUALFUND_MF", "HDFC Balanced Advantage Fund - Direct Plan",
     "balanced", "direct", "idcw", 30_6800),
    ("INF179K01WA6", "HDFCMUTUALFUND_MF", "HDFC Balanced Advantage Fund - Direct Plan",
     "balanced", "direct", "growth", 271_7500),
    ("INF179K01XZ1", "HDFCMUTUALFUND_MF", "HDFC Hybrid Equity Fund - Direct Plan",
     "balanced", "direct", "growth", 76_4120),
    ("INF761K01EE1", "BOIAXAMUTUALFUND_MF", "BOI AXA Arbitrage Fund - Direct Plan",
     "equity", "direct", "growth", 10_4324),
    ("INF761K01884", "BOIAXAMUTUALFUND_MF", "BOI AXA TAX ADVANTAGE FUND - DIRECT PLAN",
     "elss", "direct", "growth", 101_1300),
    ("INF109K01V59", "ICICIPRUDENTIALMUTUALFUND_MF", "ICICI Prudential Bond Fund - Direct Plan",
     "debt", "direct", "idcw", 11_5182),
    ("INF209K01VD7", "BIRLASUNLIFEMUTUALFUND_MF",
     "Aditya Birla Sun Life Liquid Fund - Direct Plan", "liquid", "direct", "idcw", 100_1950),
    ("INF209KB1ZH2", "BIRLASUNLIFEMUTUALFUND_MF",
     "Aditya Birla Sun Life Overnight Fund - Direct Plan", "liquid", "direct", "growth", 1113_8020),
    ("INF205K01NT8", "INVESCOMUTUALFUND_MF", "INVESCO INDIA TAX PLAN - DIRECT PLAN",
     "elss", "direct", "growth", 84_8600),
    ("INF666M01451", "INDIABULLSMUTUALFUND_MF", "Indiabulls Liquid Fund - Direct Plan",
     "liquid", "direct", "growth", 2081_4984),
)  # fmt: skip

_HOUSES: Final = (
    ("INF200K01", "SBIMUTUALFUND_MF", "SBI"),
    ("INF204K01", "NIPPONINDIAMUTUALFUND_MF", "Nippon India"),
    ("INF740K01", "DSPMUTUALFUND_MF", "DSP"),
    ("INF769K01", "MIRAEASSETMUTUALFUND_MF", "Mirae Asset"),
    ("INF789F01", "UTIMUTUALFUND_MF", "UTI"),
    ("INF174K01", "KOTAKMAHINDRAMF", "Kotak"),
)
_FAMILIES: Final = (
    ("Large Cap Fund", "equity", 62_3400),
    ("Small Cap Fund", "equity", 141_0700),
    ("Mid, Small and Micro Cap Fund", "equity", 38_9100),
    ("Tax Saver Fund", "elss", 95_5500),
    ("Balanced Advantage Fund", "balanced", 24_1800),
    ("Corporate Bond Fund", "debt", 31_6200),
    ("Liquid Fund", "liquid", 3204_5510),
)
_LETTERS: Final = "ZYXWVUTSRQPONMLKJIHG"


def default_schemes() -> tuple[Scheme, ...]:
    return (*(_scheme(*row) for row in _DOCUMENTED), *_families(), _closed())


def _scheme(
    isin: str, amc: str, name: str, scheme_type: str, plan: str, dividend_type: str, nav: int
) -> Scheme:
    return Scheme(
        isin=isin,
        amc=amc,
        name=name,
        scheme_type=scheme_type,
        plan=plan,
        dividend_type=dividend_type,
        opening_nav=nav,
        **_TERMS[scheme_type]._asdict(),
    )


def _families() -> Iterator[Scheme]:
    for issuer, amc, brand in _HOUSES:
        number = 0
        for family, scheme_type, nav in _FAMILIES:
            for plan in ("direct", "regular"):
                for dividend_type, part in (("growth", 1), ("payout", 3)):
                    body = issuer + _LETTERS[number // 10] + _LETTERS[number % 10]
                    name = f"{brand} {family} - {plan.title()} Plan - {dividend_type.title()}"
                    yield _scheme(
                        body + check_digit(body), amc, name, scheme_type, plan, dividend_type,
                        # Costs of a regular plan and what was paid out are missing from it.
                        (nav if plan == "direct" else nav * 19 // 20) // part,
                    )  # fmt: skip
                    number += 1


def _closed() -> Scheme:
    """Return a scheme that can only be redeemed."""
    return Scheme(
        isin="INF769K01" + "AA" + check_digit("INF769K01AA"),
        amc="MIRAEASSETMUTUALFUND_MF",
        name="Mirae Asset Closed Fund - Direct Plan - Growth",
        scheme_type="equity",
        plan="direct",
        dividend_type="growth",
        opening_nav=18_2500,
        purchase_allowed=False,
        **_TERMS["equity"]._asdict(),
    )
