"""Quotes, chains and candles over real sockets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from neo_async import (
    Candle,
    Candles,
    Instrument,
    NeoClient,
    Product,
    QuoteFilter,
    RateLimits,
    Rejected,
    Segment,
    ServerError,
    SessionEnded,
    Side,
    TransportError,
    UsageError,
)
from tests.clients import WIDE, client_of, exchange_of
from tests.contracts import NIFTY_FUTURE
from tests.data_broker import UPSTREAM, DataBroker, candles_of
from tests.fake_servers import CREDENTIALS, Cut, Reply
from tests.simulation.virtual_time import now

PAYLOADS = Path(__file__).parents[1] / "payloads"

QUOTES = "/script-details/1.0/quotes/neosymbol"
CHAIN = "/market-data/1.0/watchlist/option-chain"


def documented(name: str) -> Reply:
    return Reply((PAYLOADS / f"{name}.json").read_bytes())


def client(broker: DataBroker, limits: RateLimits = WIDE) -> NeoClient:
    return NeoClient(
        CREDENTIALS, endpoints=broker.endpoints, totp="123456", limits=limits, clock=now
    )


@asynccontextmanager
async def market() -> AsyncIterator[tuple[NeoClient, DataBroker]]:
    async with DataBroker() as broker, client(broker) as neo:
        yield neo, broker


def instruments(count: int) -> list[str]:
    return [f"nse_cm|{number}" for number in range(1, count + 1)]


# --- quotes -----------------------------------------------------------------------------------


async def test_data_calls_carry_the_access_token_only() -> None:
    async with market() as (neo, broker):
        await neo.market.quotes(["nse_cm|1333"])
        await neo.market.candles("nse_cm|1333", "D", start=date(2026, 8, 1), end=date(2026, 8, 9))
        for path, headers, _ in broker.requests[-2:]:
            assert path in broker.raw
            assert headers["authorization"] == CREDENTIALS.consumer_key
            assert not {"sid", "auth", "neo-fin-key", "content-type"} & set(headers)


async def test_paths_go_out_to_the_letter() -> None:
    async with market() as (neo, broker):
        names = ["nse_cm|1333", "nse_cm|nifty 50", "nse_fo|53001"]
        quotes = await neo.market.quotes(names, filter="52w")
        assert broker.raw == [f"{QUOTES}/nse_cm|1333,nse_cm|Nifty%2050,nse_fo|53001/52W"]
        assert list(quotes) == names
        assert [quote.instrument for quote in quotes.values()] == names
        index = quotes["nse_cm|nifty 50"]
        assert (index.symbol, index.last_price, index.bids) == ("Nifty 50-IN", 24000.1, ())


async def test_instruments_may_be_structs_and_are_asked_once() -> None:
    bank = Instrument(segment=Segment.NSE_CM, token="1333", symbol="HDFCBANK-EQ", name="HDFCBANK")
    async with market() as (neo, broker):
        names = [bank, "nse_cm|1333", "nse_cm|26000", "nse_cm|Nifty 50"]
        quotes = await neo.market.quotes(names, filter=QuoteFilter.LAST_PRICE)
        assert broker.raw == [f"{QUOTES}/nse_cm|1333,nse_cm|Nifty%2050/ltp"]
        assert list(quotes) == ["nse_cm|1333", "nse_cm|26000", "nse_cm|Nifty 50"]
        assert quotes["nse_cm|26000"].last_price == quotes["nse_cm|Nifty 50"].last_price


async def test_no_instrument_is_no_request() -> None:
    async with market() as (neo, broker):
        quotes = await neo.market.quotes([])
        assert (quotes, quotes.missing, broker.raw) == ({}, {}, [])


async def test_many_instruments_go_in_batches_of_fifty() -> None:
    async with market() as (neo, broker):
        names = instruments(120)
        broker.unknown = {"nse_cm|7", "nse_cm|101"}
        quotes = await neo.market.quotes(iter(names))
        assert sorted(path.count("|") for path in broker.raw) == [20, 50, 50]
        assert list(quotes) == [name for name in names if name not in broker.unknown]
        assert quotes["nse_cm|42"].last_price == 42.5
        assert set(quotes.missing) == broker.unknown
        assert "does not have the instrument" in quotes.missing["nse_cm|7"]
        assert repr(quotes) == "<Quotes 118 of 120 instruments>"


async def test_a_batch_of_which_none_is_known_does_not_lose_the_others() -> None:
    async with market() as (neo, broker):
        names = instruments(120)
        broker.unknown = set(names[50:100])
        quotes = await neo.market.quotes(names)
        assert len(broker.raw) == 3
        assert list(quotes) == names[:50] + names[100:]
        assert list(quotes.missing) == names[50:100]


@pytest.mark.parametrize("poison", [{1}, {50}, {51}, {120}, {1, 2}, {3, 60, 61, 119}])
async def test_a_refused_instrument_among_120_does_not_lose_the_others(poison: set[int]) -> None:
    async with market() as (neo, broker):
        broker.poison = {f"nse_cm|{number}" for number in poison}
        quotes = await neo.market.quotes(instruments(120))
        assert set(quotes.missing) == broker.poison
        assert len(quotes) == 120 - len(poison)
        assert all("malformed request" in reason for reason in quotes.missing.values())
        assert len(broker.raw) <= 3 + 12 * len(poison)


async def test_when_every_request_is_refused_the_refusal_is_raised() -> None:
    async with market() as (neo, broker):
        broker.instead = lambda number, path: UPSTREAM
        with pytest.raises(Rejected, match="upstream"):
            await neo.market.quotes(instruments(50))
        assert len(broker.raw) <= 20  # rather than once for every instrument
        with pytest.raises(Rejected, match="upstream"):
            await neo.market.quotes(["nse_cm|1"])


async def test_nothing_known_is_no_error() -> None:
    async with market() as (neo, broker):
        broker.unknown = set(instruments(2))
        quotes = await neo.market.quotes(instruments(2))
        assert (len(quotes), list(quotes.missing)) == (0, instruments(2))


async def test_malformed_instruments_and_filters_are_refused_at_once() -> None:
    async with market() as (neo, broker):
        asked: list[Any] = [["nse_cm|1", "RELIANCE"], "nse_cm|1", [None], [b"nse_cm|1"]]
        for names in asked:
            with pytest.raises(UsageError):
                await neo.market.quotes(names)
        with pytest.raises(UsageError, match=r"filter='greeks': must be one of all, ltp .*, ohlc"):
            await neo.market.quotes(["nse_cm|1"], filter="greeks")
        assert broker.raw == []


async def test_a_lost_answer_is_raised_and_ends_the_other_requests() -> None:
    async with market() as (neo, broker):
        broker.instead = lambda number, path: Cut(b"[{") if number == 3 else None
        with pytest.raises(TransportError) as caught:
            await neo.market.quotes(instruments(500))
        assert len(str(caught.value)) < 400  # though the path names fifty instruments
        assert len(broker.raw) < 10


async def test_bulk_requests_leave_room_for_others() -> None:
    async with market() as (neo, broker):
        await neo.market.quotes(instruments(1000))
        assert len(broker.raw) == 20
        assert broker.most_under_way <= 4


async def test_a_refused_access_token_does_not_renew_the_login() -> None:
    async with market() as (neo, broker):
        session = neo.session
        broker.instead = lambda number, path: Reply("", 401)
        with pytest.raises(SessionEnded):
            await neo.market.quotes(["nse_cm|1"])
        assert len(broker.raw) == 1
        assert neo.session is session
        assert len([path for path in broker.paths() if "/login/" in path]) == 2


async def test_quotes_keep_to_the_rate_limit_and_wait_out_a_429() -> None:
    async with DataBroker() as broker:
        neo = client(broker, RateLimits())
        neo.limiter._clock = asyncio.get_running_loop().time
        throttled = Reply({"stat": "Not_Ok", "stCode": 429}, 429, headers={"Retry-After": "2"})
        times: list[float] = []

        def instead(number: int, path: str) -> Reply | None:
            times.append(now())
            return throttled if number == 5 else None

        broker.instead = instead
        async with neo:
            quotes = await neo.market.quotes(instruments(1500))
        assert len(quotes) == 1500
        assert len(times) == 31
        for earlier, later in zip(times, times[10:], strict=False):
            assert later - earlier >= 1.0
        assert max(later - earlier for earlier, later in pairwise(times)) >= 2.0
        assert times[-1] - times[0] <= 6.0


# --- expiries and chains ----------------------------------------------------------------------


async def test_expiries_and_chains_are_asked_for_as_documented() -> None:
    async with market() as (neo, broker):
        names = iter(["expiries", "option_chain", "option_chain", "futures_chain"])
        broker.instead = lambda number, path: documented(next(names))
        expiries = await neo.market.expiries(Segment.NSE_FO, "NIFTY", kind="option")
        assert expiries == [date(2026, 6, 25), date(2026, 7, 2)]
        chain = await neo.market.option_chain("nse_fo", "M&M")
        assert chain.rows[0].call is not None
        await neo.market.option_chain(Segment.NSE_FO, "NIFTY", date(2026, 6, 23), 20)
        futures = await neo.market.futures_chain(Segment.NSE_FO, "NIFTY")
        assert futures.rows[0].last_price == 24485.2
        assert broker.raw == [
            "/market-data/1.0/watchlist/expiries"
            "?exchange=nse_fo&underlying=NIFTY&instrument_type=option",
            f"{CHAIN}?exchange=nse_fo&underlying=M%26M&instrument_type=option&count=40",
            f"{CHAIN}?exchange=nse_fo&underlying=NIFTY&instrument_type=option"
            "&expiry=2026-06-23&count=20",
            f"{CHAIN}?exchange=nse_fo&underlying=NIFTY&instrument_type=fut",
        ]


async def test_an_unknown_underlying_is_rejected() -> None:
    async with market() as (neo, _):
        with pytest.raises(Rejected, match="Invalid instrument/code"):
            await neo.market.expiries(Segment.NSE_FO, "NIFTI")
        with pytest.raises(Rejected, match="Invalid instrument/code"):
            await neo.market.option_chain(Segment.NSE_FO, "NIFTI")
        with pytest.raises(Rejected, match="Invalid instrument/code"):
            await neo.market.futures_chain(Segment.NSE_FO, "NIFTI")


# --- candles ----------------------------------------------------------------------------------


def expected(start: date, end: date, interval: str) -> list[datetime]:
    days = (start + timedelta(days=n) for n in range((end - start).days + 1))
    return [datetime.fromisoformat(row[0]) for day in days for row in candles_of(day, interval)]


@pytest.mark.parametrize(
    ("interval", "days", "windows"),
    [
        ("5min", 30, 1),
        ("5min", 31, 2),
        ("15min", 366, 7),
        ("60min", 500, 6),
        ("D", 3653, 21),
        ("W", 3653, 21),
    ],
)
async def test_long_ranges_come_in_windows_and_leave_whole(
    interval: str, days: int, windows: int
) -> None:
    start = date(2016, 11, 17)
    end = start + timedelta(days=days - 1)
    async with market() as (neo, broker):
        reported: list[tuple[int, int]] = []
        candles = await neo.market.candles(
            "nse_cm|1333",
            interval,
            start=start,
            end=end,
            progress=lambda done, total: reported.append((done, total)),
        )
        assert len(broker.queries) == windows
        assert {query["neosymbol"] for query in broker.queries} == {"nse_cm|1333"}
        assert candles.time == expected(start, end, interval)
        assert candles.open == [float(time.date().toordinal()) for time in candles.time]
        assert len(candles.volume) == len(candles)
        assert reported == [(done, windows) for done in range(windows + 1)]
        assert broker.most_under_way <= 4


async def test_candles_end_today_by_default() -> None:
    async with (
        DataBroker() as broker,
        client(broker) as neo,
    ):
        candles = await neo.market.candles("nse_cm|1", "D", start=date(2026, 11, 20))
        assert broker.queries[0]["todate"] == "2026-11-23"
        assert [time.day for time in candles.time] == [20, 23]


async def test_windows_without_business_are_empty() -> None:
    start, end = date(2026, 1, 1), date(2026, 3, 31)
    async with market() as (neo, broker):
        broker.no_business = {start + timedelta(days=n) for n in range(60)}
        nothing = Reply({"status": "ERROR", "fault": {"code": 404, "message": "No data found"}})
        broker.instead = lambda number, path: nothing if "fromdate=2026-01-01" in path else None
        candles = await neo.market.candles("nse_cm|1", "5min", start=start, end=end)
        assert candles.time[0].date() == date(2026, 3, 2)
        assert candles.time == expected(date(2026, 3, 2), end, "5min")


async def test_a_window_that_fails_is_asked_for_again() -> None:
    start, end = date(2026, 1, 1), date(2026, 6, 30)
    failures: list[Any] = [Cut(), Reply("", 502), Cut(b"{")]
    async with (
        DataBroker() as broker,
        client(broker) as neo,
    ):
        broker.instead = lambda number, path: (
            failures.pop() if failures and number in (2, 4, 5) else None
        )
        candles = await neo.market.candles("nse_cm|1", "5min", start=start, end=end)
        assert candles.time == expected(start, end, "5min")
        assert len(broker.raw) == 7 + 3


async def test_a_range_of_which_a_window_keeps_failing_fails() -> None:
    async with (
        DataBroker() as broker,
        client(broker) as neo,
    ):
        broker.instead = lambda number, path: (
            Reply("", 503) if "fromdate=2026-01-31" in path else None
        )
        with pytest.raises(ServerError):
            await neo.market.candles(
                "nse_cm|1", "5min", start=date(2026, 1, 1), end=date(2026, 12, 31)
            )
        assert sum("fromdate=2026-01-31" in path for path in broker.raw) == 3


async def test_refused_candles_are_not_asked_for_again() -> None:
    async with market() as (neo, broker):
        broker.instead = lambda number, path: documented("candles_refused")
        with pytest.raises(Rejected, match="Invalid interval value"):
            await neo.market.candles("nse_cm|1", "D", start=date(2026, 1, 1), end=date(2026, 1, 2))
        assert len(broker.raw) == 1


async def test_candles_that_cannot_be_are_not_asked_for() -> None:
    async with market() as (neo, broker):
        day = date(2026, 1, 1)
        with pytest.raises(UsageError, match="must be one of 1min, 3min"):
            await neo.market.candles("nse_cm|1", "2min", start=day)
        with pytest.raises(UsageError, match="candles of nse_cm, nse_fo, bse_cm, bse_fo only"):
            await neo.market.candles("mcx_fo|1", "5min", start=day)
        with pytest.raises(UsageError, match="must not be before"):
            await neo.market.candles("nse_cm|1", "5min", start=day, end=date(2025, 12, 31))
        assert broker.raw == []


async def test_a_month_of_minutes_does_not_hold_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Others get their turn while the candles of an answer are decoded."""
    rows = [
        [f"2026-08-{day:02d}T{hour:02d}:{minute:02d}:00+0530", 1.5, 2.5, 0.5, 1.0, 10, 0]
        for day in range(1, 31)
        for hour in range(9, 15)
        for minute in range(60)
    ]
    async with market() as (neo, broker):
        broker.instead = lambda number, path: Reply(
            {"status": "success", "data": {"candles": rows}}
        )
        decoded: list[int] = []
        turns = 0

        def count() -> None:
            nonlocal turns
            turns += 1
            asyncio.get_running_loop().call_soon(count) if not finished else None

        finished = False
        from neo_async.market_data import market as module

        read = module.read_candles

        def noted(part: Any, odd: list[str]) -> Any:
            decoded.append(turns)
            return read(part, odd)

        monkeypatch.setattr(module, "read_candles", noted)
        count()
        candles = await neo.market.candles(
            "nse_cm|1", "1min", start=date(2026, 8, 1), end=date(2026, 8, 30)
        )
        finished = True
        assert len(candles) == len(rows) == 10_800
        assert len(decoded) == 11
        assert len(set(decoded)) == 11  # a turn of the loop between any two portions


async def test_what_is_logged_of_a_retry_names_the_window(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neo_async.market_data.market.backoff", lambda *_, **__: 0.0)
    async with market() as (neo, broker):
        broker.instead = lambda number, path: Reply("", 502) if number == 1 else None
        with caplog.at_level(logging.INFO, "neo_async.market_data"):
            await neo.market.candles("nse_cm|1", "D", start=date(2026, 1, 1), end=date(2026, 1, 2))
        (record,) = [record for record in caplog.records if record.name == "neo_async.market_data"]
        assert record.getMessage().startswith("ABC12: candles from 2026-01-01 to 2026-01-02: ")
        assert CREDENTIALS.consumer_key not in caplog.text


# --- against the exchange ---------------------------------------------------------------------


async def test_quotes_show_what_traded_and_what_rests() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        exchange.market.print_price(Segment.NSE_CM, "1333", 801_60)
        await neo.orders.place(
            Segment.NSE_CM, "HDFCBANK-EQ", Side.BUY, 10, product=Product.MIS, price="799.50"
        )
        future = f"nse_fo|{NIFTY_FUTURE}"
        names = ["nse_cm|1333", "nse_cm|999999", "nse_cm|NIFTY 50", future]
        quotes = await neo.market.quotes(names)
        assert list(quotes.missing) == ["nse_cm|999999"]
        bank = quotes["nse_cm|1333"]
        assert (bank.symbol, bank.last_price) == ("HDFCBANK-EQ", 801.6)
        assert bank.change == pytest.approx(bank.last_price - (bank.close or 0))
        assert [(row.price, row.quantity, row.orders) for row in bank.bids] == [(799.5, 10, 1)]
        assert (bank.total_buy_quantity, bank.asks) == (10, ())
        assert bank.updated is not None
        assert quotes["nse_cm|NIFTY 50"].symbol == "Nifty 50-IN"
        assert quotes[future].open_interest

        for kind in QuoteFilter:
            (quote,) = (await neo.market.quotes(["nse_cm|1333"], filter=kind)).values()
            assert quote.symbol == "HDFCBANK-EQ"
            assert (quote.last_price == 801.6) == (kind in ("all", "ltp", "scrip_details"))
            assert (quote.year_high is not None) == (kind in ("all", "52W"))
            assert bool(quote.bids) == (kind in ("all", "depth"))
        unknown = await neo.market.quotes(["nse_cm|999999"])
        assert (len(unknown), list(unknown.missing)) == (0, ["nse_cm|999999"])


async def test_chains_and_expiries_of_the_exchange_agree() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        expiries = await neo.market.expiries(Segment.NSE_FO, "NIFTY", kind="option")
        assert expiries == sorted(set(expiries))
        chain = await neo.market.option_chain(Segment.NSE_FO, "NIFTY")
        assert chain.expiry == expiries[0]
        assert sum(row.is_at_the_money for row in chain) == 1
        options = [option for row in chain for option in (row.call, row.put) if option is not None]
        quotes = await neo.market.quotes([option.instrument for option in options])
        assert not quotes.missing
        for option in options:
            quote = quotes[option.instrument]
            assert (quote.symbol, quote.last_price) == (option.symbol, option.last_price)
            assert quote.open_interest == option.open_interest
        futures = await neo.market.futures_chain(Segment.NSE_FO, "NIFTY")
        (future, *_) = futures
        assert futures.lot_size == chain.lot_size
        one = await neo.market.futures_chain(Segment.NSE_FO, "NIFTY", future.expiry)
        assert [row.instrument for row in one] == [future.instrument]
        with pytest.raises(Rejected, match="Invalid instrument/code"):
            await neo.market.expiries(Segment.NSE_FO, "NIFTI")


async def test_candles_of_the_exchange_are_one_history_at_every_interval() -> None:
    start, end = date(2026, 8, 3), date(2026, 10, 16)
    async with exchange_of() as exchange, client_of(exchange) as neo:

        async def candles(interval: str) -> Candles:
            return await neo.market.candles("nse_cm|1333", interval, start=start, end=end)

        minutes, hours, days = await candles("5min"), await candles("60min"), await candles("D")
        for history in (minutes, hours, days):
            assert history.time == sorted(set(history.time))
            assert start <= history.time[0].date() <= history.time[-1].date() <= end
        assert all(time.weekday() < 5 for time in days.time)
        by_day: dict[date, list[Candle]] = {}
        for candle in minutes:
            by_day.setdefault(candle.time.date(), []).append(candle)
        assert list(by_day) == [time.date() for time in days.time]
        for day in days:
            parts = by_day[day.time.date()]
            assert (parts[0].open, parts[-1].close) == (day.open, day.close)
            assert max(part.high for part in parts) == day.high
            assert min(part.low for part in parts) == day.low
            assert sum(part.volume or 0 for part in parts) == day.volume
        weeks = await candles("W")
        assert len(weeks) == len({time.isocalendar()[:2] for time in days.time})
        assert sum(week.volume or 0 for week in weeks) == sum(day.volume or 0 for day in days)
        with pytest.raises(Rejected):
            await neo.market.candles("nse_cm|999999", "D", start=start, end=end)


async def test_an_index_has_candles_up_to_its_quote() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        exchange.market.print_price(Segment.NSE_CM, "1333", 8_00_00)
        quote = (await neo.market.quotes(["nse_cm|Nifty 50"]))["nse_cm|Nifty 50"]
        history = await neo.market.candles(
            "nse_cm|Nifty 50", "D", start=date(2026, 11, 16), end=date(2026, 11, 23)
        )
        before, last = list(history)[-2:]
        assert len(history) == 6
        assert before.close == quote.close
        assert (last.open, last.close) == (quote.open, quote.last_price)
        assert last.close > before.close
