from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from neo_async.errors import UsageError
from neo_async.exchange import Exchange
from neo_async.exchange.engine.listings import default_listings
from neo_async.model.enums import Segment
from neo_async.model.instruments import Instrument
from neo_async.wire.scripmaster import parse_scripmaster
from neo_async.wire.scripmaster_writer import DERIVATIVES_HEADER, write_scripmaster
from tests.conftest import SHARED
from tests.exchange.callers import Caller, Clock, trading, visiting

LISTED = default_listings(date(2026, 11, 23))

REAL_FILE = SHARED / "data" / "scripmaster" / "nse_cm.csv"
REAL = pytest.mark.skipif(not REAL_FILE.exists(), reason="the broker's file is not here")
FILE_PATHS = "/script-details/1.0/masterscrip/file-paths"


async def addresses(caller: Caller, root: str, path: str = FILE_PATHS) -> list[str]:
    headers = {"Authorization": caller.credentials.consumer_key}
    answered = (await caller.request("GET", f"{root}{path}", headers=headers)).json()
    files: list[str] = answered["data"]["filesPaths"]
    assert all(file.startswith(answered["data"]["baseFolder"]) for file in files)
    return files


async def address_of(caller: Caller, code: str) -> str:
    (url,) = [url for url in await addresses(caller, caller.exchange.base_url) if code in url]
    return url


async def test_the_list_needs_an_access_token_and_no_login() -> None:
    async with visiting() as caller:
        url = f"{caller.exchange.base_url}{FILE_PATHS}"
        assert (await caller.request("GET", url)).status == 401
        expected = await addresses(caller, caller.exchange.base_url)
        # Before the login answer there is no base URL, and clients fall back on the login host.
        assert await addresses(caller, caller.exchange.login_url) == expected
        for older in ("/Files/1.0/masterscrip/v2", "/apim/files/2.0/masterscrip/v1"):
            path = f"{older}/file-paths"
            assert await addresses(caller, caller.exchange.base_url, path) == expected


async def test_an_address_names_its_day_and_one_segment_only() -> None:
    async with visiting() as caller:
        files = await addresses(caller, caller.exchange.base_url)
        assert all("/2026-11-23/" in file for file in files)
        codes = (*Segment, "nse_com")
        named = [[code for code in codes if code in file] for file in files]
        assert all(len(segments) == 1 for segments in named)
        assert {segments[0] for segments in named} == set(codes)
        assert len(files) == 7


@pytest.mark.parametrize("code", ["cde_fo", "nse_com"])
async def test_a_file_of_a_segment_without_listings_has_its_header_only(code: str) -> None:
    async with visiting() as caller:
        url = await address_of(caller, code)
        answered = await caller.request("GET", url)
        assert answered.body.decode() == f"{DERIVATIVES_HEADER}\n"


INDICES = {
    *(("nse_cm", "26000", "NIFTY"), ("nse_cm", "26009", "BANKNIFTY")),
    *(("nse_cm", "26037", "FINNIFTY"), ("nse_cm", "26074", "MIDCPNIFTY")),
    *(("bse_cm", "1", "SENSEX"), ("bse_cm", "12", "BANKEX")),
}
"""Rows of indices in the cash files."""


async def test_the_files_list_what_trades() -> None:
    async with visiting() as caller:
        listed: set[tuple[str, str, str]] = set()
        indices: set[tuple[str, str, str]] = set()
        for url in await addresses(caller, caller.exchange.base_url):
            answered = await caller.request("GET", url)
            assert answered.headers["Content-Type"] == "text/csv"
            read = parse_scripmaster(answered.body, date(2026, 11, 23))
            assert read.bad_rows == ()
            listed |= {(row.segment, row.token, row.symbol) for row in read.instruments}
            indices |= {
                (row.segment, row.token, row.symbol)
                for row in read.instruments
                if not row.tick_size
            }
        assert indices == INDICES
        assert listed - indices == {(row.segment, row.token, row.symbol) for row in LISTED}


@REAL
async def test_an_index_row_is_the_brokers_own() -> None:
    async with visiting() as caller:
        (url,) = [
            url for url in await addresses(caller, caller.exchange.base_url) if "nse_cm" in url
        ]
        ours = (await caller.request("GET", url)).body.decode().splitlines()
    theirs = [line for line in REAL_FILE.read_text().splitlines() if line.startswith("26000,")]
    mine = [line for line in ours if line.startswith("26000,")]
    columns = DERIVATIVES_HEADER.split(",")[:-1]
    (our_row,), (their_row,) = (
        [dict(zip(columns, line.split(","), strict=True)) for line in lines]
        for lines in (mine, theirs)
    )
    differing = {name for name in columns if our_row[name] != their_row[name]}
    assert differing == set()


async def test_a_contract_names_its_underlying_and_itself() -> None:
    async with visiting() as caller:
        (url,) = [
            url for url in await addresses(caller, caller.exchange.base_url) if "nse_fo" in url
        ]
        header, *lines = (await caller.request("GET", url)).body.decode().splitlines()
        rows = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]
        keys = {row["pScripRefKey"] for row in rows}
        assert len(keys) == len(rows)
        assert "NIFTY01DEC2624500.00CE" in keys
        assert "TCS29DEC26FUT" in keys
        assert {row["pAssetCode"] for row in rows if row["pSymbolName"] == "NIFTY"} == {"26000"}
        assert {row["pAssetCode"] for row in rows if row["pSymbolName"] == "TCS"} == {"11536"}
        assert all(row["pInstName"] == row["pInstType"] for row in rows)
        assert all(int(row["pIssueDate"]) % 86_400 == 0 for row in rows)
        assert {row["lFreezeQty"] for row in rows if row["pSymbolName"] == "NIFTY"} == {"1801"}


async def test_a_file_that_is_not_there_is_not_found() -> None:
    async with visiting() as caller:
        folder = f"{caller.exchange.login_url}/scripmaster/v1/prod/2026-11-23"
        assert (await caller.request("GET", f"{folder}/nse_xx.csv")).status == 404


SHARE = Instrument(
    segment=Segment.BSE_CM,
    token="500001",
    symbol="ACME",
    name="ACME",
    lot_size=5,
    tick_size=0.05,
    lower_band=90.0,
    upper_band=110.15,
    freeze_quantity=1000,
)
INDEX = Instrument(segment=Segment.BSE_CM, token="1", symbol="SENSEX", name="SENSEX", tick_size=0.0)


async def test_a_file_of_the_brokers_decides_what_trades(tmp_path: Path) -> None:
    path = tmp_path / "broker.csv"
    path.write_bytes(write_scripmaster([SHARE, INDEX]))
    async with trading(scripmaster=[path]) as caller:
        market = caller.exchange.market
        listing = market.listing(Segment.BSE_CM, "ACME")
        assert listing is not None
        assert market.listing(Segment.BSE_CM, "SENSEX") is None
        assert market.listing(Segment.NSE_CM, "ITBEES-EQ") is None
        assert (listing.lot_size, listing.tick, listing.freeze_quantity) == (5, 5, 1000)
        assert (listing.lower_band, listing.base_price, listing.upper_band) == (9000, 10005, 11015)
        await caller.placed(es="bse_cm", ts="ACME", pr="95.00")
        assert (await caller.book())[0]["ordSt"] == "open"
        (url,) = await addresses(caller, caller.exchange.base_url)
        assert url.endswith("/bse_cm-v1.csv")
        assert (await caller.request("GET", url)).body == path.read_bytes()


async def test_a_file_without_anything_to_trade_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "indices.csv"
    path.write_bytes(write_scripmaster([INDEX]))
    with pytest.raises(UsageError, match="no row that could trade"):
        async with Exchange(scripmaster=[path]):
            pass


@pytest.mark.parametrize("content", [None, b"what,ever\n1,2\n"])
async def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "wrong.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"wrong\.csv: "):
        async with Exchange(scripmaster=[path]):
            pass


@REAL
async def test_the_brokers_real_file_trades_and_is_served_as_it_is() -> None:
    async with trading(scripmaster=[REAL_FILE]) as caller:
        assert caller.exchange.market.listing_by_token(Segment.NSE_CM, "26000") is None
        listing = caller.exchange.market.listing(Segment.NSE_CM, "PAGEIND-EQ")
        assert listing is not None
        assert (listing.lower_band, listing.upper_band) == (3_392_995, 4_146_985)
        await caller.placed(ts="M&MFIN-N1", pr="1000.00", qt="1")
        (row,) = await caller.book()
        assert row["trdSym"] == "M&MFIN-N1"
        holdings = (await caller.get("/portfolio/v1/holdings")).json()["data"]
        assert holdings[0]["exchangeIdentifier"] == "19084"
        (url,) = await addresses(caller, caller.exchange.base_url)
        assert (await caller.request("GET", url)).body == REAL_FILE.read_bytes()


# --- the day changes ------------------------------------------------------------------------------


async def listed_options(caller: Caller) -> dict[str, Instrument]:
    """Those of NSE derivatives, by symbol, from the file that is served."""
    (url,) = [url for url in await addresses(caller, caller.exchange.base_url) if "nse_fo" in url]
    content = (await caller.request("GET", url)).body
    rows = parse_scripmaster(content, date(2026, 11, 23)).instruments
    return {row.symbol: row for row in rows}


async def expiries(caller: Caller) -> list[str]:
    answered = await caller.request(
        "GET",
        f"{caller.exchange.base_url}/market-data/1.0/watchlist/expiries",
        params={"exchange": "nse_fo", "underlying": "NIFTY", "instrument_type": "option"},
        headers={"Authorization": caller.credentials.consumer_key},
    )
    days: list[str] = answered.json()["expiries"]
    return days


async def test_files_and_expiries_follow_the_clock_over_an_expiry(tmp_path: Path) -> None:
    state = tmp_path / "state.db"
    new = "NIFTY26D1524400CE"
    async with trading(state=state) as caller:
        before = await listed_options(caller)
        assert "NIFTY26NOV24400CE" in before
        assert new not in before
        await caller.admin("POST", "clock", json={"now": "2026-11-25T10:00:00"})
        await caller.log_in_again()
        after = await listed_options(caller)
        assert "NIFTY26NOV24400CE" not in after
        weekly, monthly = ["2026-12-01", "2026-12-08", "2026-12-15"], ["2026-12-29", "2027-01-25"]
        assert await expiries(caller) == weekly + monthly
        lots = str(after[new].lot_size)
        number = await caller.placed(es="nse_fo", ts=new, pc="NRML", qt=lots, pr="5.00")
        refused = await caller.place(es="nse_fo", ts="NIFTY26NOV24400CE", pc="NRML", qt=lots)
        assert refused.json()["errMsg"] == "contract expired"
        later = caller.clock.now
    async with trading(state=state, clock=Clock(later + 60)) as caller:
        # The clock had been moved on, which the file remembers.
        assert await listed_options(caller) == after
        assert [(row["nOrdNo"], row["ordSt"]) for row in await caller.book()] == [(number, "open")]
    async with trading(clock=Clock(later)) as caller:
        await caller.admin("POST", "clock", json={"now": "2026-11-25T10:00:00"})
        await caller.admin("POST", "reset")
        assert new in await listed_options(caller)
