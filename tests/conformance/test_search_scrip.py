"""The official SDK's scrip search beside ours, on the files of one exchange and on the broker's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from neo_async import Instrument, NeoClient, Segment
from neo_async.wire.scripmaster import parse_scripmaster
from tests.conformance.conftest import Ours, Sdk
from tests.conftest import SHARED

REAL_FILE = SHARED / "data" / "scripmaster" / "nse_cm.csv"


NO_FREEZE = (0, 99_999_999)
"""How the file writes that there is no largest quantity."""


@pytest.fixture(scope="module")
def loaded(neo: NeoClient, ours: Ours[Any], tmp_path_factory: pytest.TempPathFactory) -> NeoClient:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("instruments")))
        ours(neo.instruments.load(Segment.NSE_CM, Segment.NSE_FO))
    return neo


def summary(row: dict[str, Any]) -> tuple[Any, ...]:
    """What both sides say of an instrument, from a row of the SDK."""
    return (
        str(row["pSymbol"]),
        row["pTrdSymbol"],
        row["pSymbolName"],
        row["lLotSize"],
        row["dTickSize"] / 100,
        row["dStrikePrice;"] / 100 if row["pOptionType"] in ("ce", "pe", "CE", "PE") else None,
        row["lFreezeQty"] if row["lFreezeQty"] not in NO_FREEZE else None,
    )


def our_summary(row: Instrument) -> tuple[Any, ...]:
    return (
        row.token,
        row.symbol,
        row.name,
        row.lot_size,
        row.tick_size,
        row.strike,
        row.freeze_quantity,
    )


def assert_same(theirs: list[dict[str, Any]], ours: list[Instrument]) -> None:
    assert ours, "an empty search compares nothing"
    assert sorted(map(summary, theirs)) == sorted(map(our_summary, ours))


def test_a_share_is_the_same_to_both(sdk: Sdk, loaded: NeoClient) -> None:
    theirs = sdk.search_scrip("nse_cm", "ITBEES")
    assert_same(theirs, loaded.instruments.search("ITBEES", segment=Segment.NSE_CM))


def test_options_of_an_expiry_and_a_range_of_strikes_are_the_same_to_both(
    sdk: Sdk, loaded: NeoClient
) -> None:
    every = loaded.instruments.search("BANKNIFTY", kind="OPT", segment=Segment.NSE_FO)
    assert every, "the exchange lists no options to search"
    expiry = every[0].expiry
    assert expiry is not None
    strikes = sorted({row.strike for row in every if row.expiry == expiry and row.strike})
    low, high = strikes[len(strikes) // 4], strikes[-len(strikes) // 4]
    theirs = sdk.search_scrip(
        "nse_fo",
        "BANKNIFTY",
        expiry=f"{expiry:%d%b%Y}".upper(),
        option_type="CE",
        strike_price=f"{low:g}-{high:g}",
    )
    ours = loaded.instruments.search("BANKNIFTY", expiry=expiry, option="CE", strike=(low, high))
    assert_same(theirs, ours)


def test_futures_and_their_expiries_are_the_same_to_both(sdk: Sdk, loaded: NeoClient) -> None:
    theirs = sdk.search_scrip("nse_fo", "TCS", option_type="FUT")
    ours = loaded.instruments.search("TCS", kind="FUT", segment=Segment.NSE_FO)
    assert {row["pExpiryDate"] for row in theirs} == {f"{row.expiry:%d%b%Y}" for row in ours}
    assert {row["pTrdSymbol"] for row in theirs} == {row.symbol for row in ours} != set()


@pytest.mark.skipif(not REAL_FILE.exists(), reason="the broker's file is not here")
def test_the_brokers_own_file_is_the_same_to_both(new_sdk: Callable[[], Sdk]) -> None:
    from neo_api_client.utils import scrip_cache

    content = REAL_FILE.read_bytes()
    # Under a code whose file nothing else here searches.
    scrip_cache.write_csv("bse_cm", content)
    every = parse_scripmaster(content, date(2023, 4, 14)).instruments
    theirs = new_sdk().search_scrip("bse_cm", "")
    # Indices, which have neither tick nor lot, are -1 in the file.
    assert_same(
        [row for row in theirs if row["dTickSize"] > 0], [row for row in every if row.tick_size]
    )
