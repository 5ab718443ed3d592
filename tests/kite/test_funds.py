"""The list of funds: kept for the day, searched, and used to check requests."""

from __future__ import annotations

import asyncio
import logging
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from neo_async import (
    InvalidOrder,
    ProtocolError,
    Rejected,
    ServerError,
    SessionEnded,
    Side,
    UsageError,
)
from neo_async.exchange.funds.types import NewOrder
from neo_async.exchange.funds.types import Side as HouseSide
from neo_async.kite import Funds
from tests.fake_servers import Cut, Reply
from tests.kite.fake_kite import ISIN, PAYLOADS, arrivals, fund_exchange, kite_of, scripted_kite
from tests.simulation.virtual_time import START

FILE = "/mf/instruments"
DAY = 86_400.0
TODAY = date(2026, 11, 23)


def kept(directory: Path) -> list[Path]:
    return list(directory.iterdir())


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


async def test_a_list_is_downloaded_once_a_day(tmp_path: Path) -> None:
    clock = Clock()
    async with scripted_kite(tmp_path, clock=clock) as (fake_kite, kite):
        fake_kite.sample("GET", FILE, "instruments.csv")
        first = await kite.instruments()
        assert (len(first), first.day, first.is_stale) == (4, TODAY, False)
        assert await kite.instruments() is first
        assert len(fake_kite.asked) == 1
        assert await kite.instruments(refresh=True) is not first
        clock.now += DAY
        assert (await kite.instruments()).day == date(2026, 11, 24)
        assert len(fake_kite.asked) == 3
        assert [path.name[-14:] for path in kept(tmp_path)] == ["2026-11-24.csv"]


async def test_the_next_process_reads_it_from_disk(tmp_path: Path) -> None:
    async with fund_exchange(tmp_path) as (exchange, _):
        clock = Clock()
        async with kite_of(exchange, tmp_path, clock=clock) as first:
            funds = await first.instruments()
        async with kite_of(
            exchange, tmp_path, clock=clock, endpoints=exchange.kite_endpoints
        ) as second:
            assert list(await second.instruments()) == list(funds)
        assert (await arrivals(exchange)).count(f"GET {FILE}") == 1
        (file,) = kept(tmp_path)
        assert file.stat().st_mode & 0o077 == 0


async def test_one_download_for_many_who_ask_at_once(tmp_path: Path) -> None:
    async with scripted_kite(tmp_path) as (fake_kite, kite):
        fake_kite.sample("GET", FILE, "instruments.csv")
        lists = await asyncio.gather(*(kite.instruments() for _ in range(5)))
        assert all(one is lists[0] for one in lists)
        assert len(fake_kite.asked) == 1


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (
            Reply({"status": "error", "error_type": "TokenException", "message": "m"}, 403),
            SessionEnded,
        ),
        (Reply("down", 503, "text/html"), ServerError),
        (Reply("<html>\n</html>", 200, "text/html"), ProtocolError),
        (Reply("", 302), ProtocolError),
    ],
)
async def test_yesterdays_list_serves_where_todays_cannot_be_had(
    answer: Any, kind: type[Exception], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    async with scripted_kite(tmp_path, clock=clock) as (fake_kite, kite):
        fake_kite.script("GET", FILE, answer)
        with pytest.raises(kind):
            await kite.instruments()
        fake_kite.sample("GET", FILE, "instruments.csv")
        await kite.instruments()
        clock.now += DAY
        fake_kite.script("GET", FILE, answer)
        with caplog.at_level(logging.WARNING):
            funds = await kite.instruments()
        assert (funds.day, funds.is_stale, len(funds)) == (TODAY, True, 4)
        assert "using the one of 2026-11-23" in caplog.text
        assert "stale" in repr(funds)
        with pytest.raises(kind):
            await kite.instruments(refresh=True)
        # A fund that came since is no mistake of the caller's.
        fake_kite.sample("POST", "/mf/orders", "order_placed.json")
        assert await kite.place_order("INF179K01VY8", Side.BUY, amount=5)


async def test_a_list_that_is_cut_off_is_not_taken(tmp_path: Path) -> None:
    async with scripted_kite(tmp_path) as (fake_kite, kite):
        fake_kite.script("GET", FILE, Cut((PAYLOADS / "instruments.csv").read_bytes()[:600]))
        with pytest.raises(Exception, match="was lost"):
            await kite.instruments()
        assert kept(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"\xff\xfe nonsense", b"tradingsymbol\n"])
async def test_a_file_that_is_spoilt_is_read_anew(content: bytes, tmp_path: Path) -> None:
    async with scripted_kite(tmp_path) as (fake_kite, kite):
        fake_kite.sample("GET", FILE, "instruments.csv")
        await kite.instruments()
        (file,) = kept(tmp_path)
        file.write_bytes(content)
        async with scripted_kite(tmp_path) as (other, again):
            other.sample("GET", FILE, "instruments.csv")
            assert len(await again.instruments()) == 4


@pytest.mark.parametrize("mode", [0o666, 0o644, 0o620])
async def test_a_file_that_others_can_touch_is_read_anew(mode: int, tmp_path: Path) -> None:
    async with fund_exchange(tmp_path) as (exchange, kite):
        await kite.instruments()
        (file,) = kept(tmp_path)
        file.chmod(mode)
        async with kite_of(exchange, tmp_path) as other:
            await other.instruments()
        assert (await arrivals(exchange)).count(f"GET {FILE}") == 2
        (file,) = kept(tmp_path)
        assert file.stat().st_mode & 0o077 == 0


async def test_a_bad_row_does_not_prove_that_there_is_no_such_fund(tmp_path: Path) -> None:
    async with scripted_kite(tmp_path) as (fake_kite, kite):
        content = (PAYLOADS / "instruments.csv").read_bytes()
        fake_kite.script("GET", "/mf/instruments", Reply(content + b"INF179K01VY8,odd\n"))
        fake_kite.script("POST", "/mf/orders", Reply({"data": {"order_id": "1"}}))
        assert (await kite.instruments()).bad_row_count == 1
        assert await kite.place_order("INF179K01VY8", Side.BUY, amount=5) == "1"


async def test_a_folder_that_cannot_be_written_costs_the_next_start_a_download(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "a file"
    file.write_text("")
    async with scripted_kite(file / "folder") as (fake_kite, kite):
        fake_kite.sample("GET", FILE, "instruments.csv")
        assert len(await kite.instruments()) == 4
        assert "could not be cached" in caplog.text


# --- looking for a fund ---------------------------------------------------------------------------


async def exchange_funds(tmp_path: Path) -> Funds:
    async with fund_exchange(tmp_path) as (_, kite):
        return await kite.instruments()


async def test_funds_are_found_by_all_that_people_know_of_them(tmp_path: Path) -> None:
    funds = await exchange_funds(tmp_path)

    def found(*name: str, **what: str) -> list[str]:
        return [fund.tradingsymbol for fund in funds.search(*name, **what)]

    assert found("kotak SELECT focus") == [ISIN, "INF174K01336"]
    assert found("select", plan="Direct") == [ISIN]
    assert found(isin="inf174k01ls") == [ISIN]
    assert set(found(amc="kotak")) >= {ISIN, "INF174K01336"}
    assert {funds[isin].amc for isin in found(amc="HDFC")} == {"HDFCMUTUALFUND_MF"}
    payouts = funds.search("sbi liquid", dividend_type="PAYOUT")
    assert {fund.plan for fund in payouts} == {"direct", "regular"}
    assert {fund.dividend_type for fund in payouts} == {"payout"}
    assert {fund.scheme_type for fund in funds.search(scheme_type="elss")} == {"elss"}
    assert found("no such fund") == []
    assert len(funds.search()) == len(funds) == len(list(funds))


async def test_lookups_by_isin(tmp_path: Path) -> None:
    funds = await exchange_funds(tmp_path)
    assert funds[ISIN].tradingsymbol == ISIN
    assert ISIN in funds
    assert funds.get("INF000000000") is None
    with pytest.raises(UsageError, match="'INF000000000' in the list of 2026-11-23"):
        funds["INF000000000"]


async def test_dividend_reinvestment_is_not_supported(tmp_path: Path) -> None:
    funds = await exchange_funds(tmp_path)
    with pytest.raises(UsageError, match="does not support dividend reinvestment"):
        funds.search("kotak", dividend_type="Reinvestment")


# --- checks against it ----------------------------------------------------------------------------


async def test_requests_are_checked_once_the_list_is_loaded(tmp_path: Path) -> None:
    async with fund_exchange(tmp_path) as (exchange, kite):
        with pytest.raises(Rejected, match="at least 5000"):  # Kite says so, then we do
            await kite.place_order(ISIN, Side.BUY, amount=50)
        await kite.instruments()
        asked = len(await arrivals(exchange))
        for call in (
            lambda: kite.place_order(ISIN, Side.BUY, amount=50),
            lambda: kite.place_order(ISIN, Side.BUY, amount="5000.50"),
            lambda: kite.place_order("INF179K01ZZ5", Side.BUY, amount=5000),
            lambda: kite.place_sip(ISIN, 99, frequency="weekly"),
            lambda: kite.place_sip(ISIN, 100, frequency="weekly", initial_amount=100),
        ):
            with pytest.raises(InvalidOrder):
                await call()
        assert len(await arrivals(exchange)) == asked


async def test_a_small_sale_asks_what_is_held(tmp_path: Path) -> None:
    async with fund_exchange(tmp_path) as (exchange, kite):
        await kite.instruments()
        with pytest.raises(InvalidOrder, match=r"all of the 382\.488 held"):
            await kite.place_order("INF205K01NT8", Side.SELL, quantity="0.5")
        exchange.funds.place(NewOrder(isin="INF205K01NT8", side=HouseSide.SELL, units=382_000))
        exchange.advance_clock(DAY)
        order_id = await kite.place_order("INF205K01NT8", Side.SELL, quantity=0.488)
        exchange.advance_clock(DAY)  # over a holiday
        assert (await kite.order(order_id)).status == "OPEN"
        exchange.advance_clock(DAY)
        assert (await kite.order(order_id)).status == "COMPLETE"
        assert "INF205K01NT8" not in {one.tradingsymbol for one in await kite.holdings()}


async def test_a_new_amount_of_a_sip_is_checked_against_its_fund(tmp_path: Path) -> None:
    async with fund_exchange(tmp_path) as (_, kite):
        sip_id = await kite.place_sip("INF205K01NT8", 500, frequency="weekly")
        await kite.instruments()
        with pytest.raises(InvalidOrder, match="multiple of 500"):
            await kite.modify_sip(sip_id, amount=700)
        await kite.modify_sip(sip_id, amount=1000)
        assert (await kite.sip(sip_id)).instalment_amount == 1000


async def test_a_fund_that_is_new_today_is_not_missed_in_yesterdays_list(tmp_path: Path) -> None:
    clock = Clock()
    async with scripted_kite(tmp_path, clock=clock) as (fake_kite, kite):
        fake_kite.sample("GET", FILE, "instruments.csv")
        fake_kite.sample("POST", "/mf/orders", "order_placed.json")
        await kite.instruments()
        with pytest.raises(InvalidOrder, match="is no fund of the list of 2026-11-23"):
            await kite.place_order("INF179K01VY8", Side.BUY, amount=5)
        clock.now += DAY
        assert await kite.place_order("INF179K01VY8", Side.BUY, amount=5)
