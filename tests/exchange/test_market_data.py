from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from datetime import date, datetime, timedelta
from typing import Any

import pytest

from neo_async.exchange.engine.listings import default_listings
from neo_async.exchange.engine.trading_hours import CALENDAR
from neo_async.exchange.history.synthetic import Candle, SyntheticHistory
from neo_async.model.enums import Segment
from tests.exchange.callers import START, Answered, Caller, Clock, trading, visiting

UNKNOWN = {"stat": "Not_Ok", "emsg": "Invalid instrument/code", "stCode": 1009}

QUOTES = "/script-details/1.0/quotes/neosymbol"
EXPIRIES = "/market-data/1.0/watchlist/expiries"
CHAIN = "/market-data/1.0/watchlist/option-chain"
CANDLES = "/market-data/1.0/historical/details"

TODAY = date(2026, 11, 23)
"""Of the caller's clock, a Monday."""

LISTED = default_listings(date(2026, 11, 23))
HDFCBANK = next(listing for listing in LISTED if listing.symbol == "HDFCBANK-EQ")


async def data(caller: Caller, path: str, **query: str) -> Answered:
    """With the access token and nothing else."""
    return await caller.request(
        "GET",
        f"{caller.exchange.base_url}{path}",
        params=query,
        headers={"Authorization": caller.credentials.consumer_key},
    )


async def quoted(caller: Caller, tail: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (await data(caller, f"{QUOTES}/{tail}")).json()
    return rows


# --- quotes ---------------------------------------------------------------------------------------


async def test_a_quote_has_every_key_and_every_value_is_text() -> None:
    async with trading() as caller:
        await caller.placed(qt="10", pr="39.00")
        await caller.placed(ts="HDFCBANK-EQ", qt="4", pr="793.15", tt="B", pc="MIS")
        await caller.placed(ts="HDFCBANK-EQ", qt="3", pr="793.10", tt="S", pc="MIS")
        await caller.placed(ts="HDFCBANK-EQ", qt="7", pr="793.30", tt="S", pc="MIS")
        (row,) = await quoted(caller, "nse_cm|1333/all")
        assert row == {
            "exchange_token": "1333",
            "display_symbol": "HDFCBANK-EQ",
            "exchange": "nse_cm",
            "lstup_time": f"{START:.0f}",
            "ltp": "793.1500",
            "last_traded_quantity": "3",
            "total_buy": "1",
            "total_sell": "7",
            "last_volume": "3",
            "avg_cost": "793.1500",
            "open_int": "0",
            "change": "-0.0500",
            "per_change": "-0.0100",
            "low_price_range": "713.9000",
            "high_price_range": "872.5000",
            "year_high": row["year_high"],
            "year_low": row["year_low"],
            "ohlc": {
                "open": "793.1500",
                "high": "793.1500",
                "low": "793.1500",
                "close": "793.2000",
            },
            "depth": {
                "buy": [level("793.1500", 1, 1), *[level("0.0000", 0, 0)] * 4],
                "sell": [level("793.3000", 7, 1), *[level("0.0000", 0, 0)] * 4],
            },
        }
        assert float(row["year_low"]) < 713.9
        assert float(row["year_high"]) > 872.5


def level(price: str, quantity: int, orders: int) -> dict[str, str]:
    return {"price": price, "quantity": str(quantity), "orders": str(orders)}


IDENTITY = {"exchange_token", "display_symbol", "exchange", "lstup_time"}


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("ltp", {"ltp"}),
        ("ohlc", {"ohlc"}),
        ("oi", {"open_int"}),
        ("52W", {"year_high", "year_low"}),
        ("52w", {"year_high", "year_low"}),
        ("circuit_limits", {"low_price_range", "high_price_range"}),
        ("depth", {"depth"}),
        ("market_depth", {"depth"}),
        (
            "scrip_details",
            {
                *("ltp", "last_traded_quantity", "total_buy", "total_sell"),
                *("last_volume", "avg_cost", "change", "per_change"),
            },
        ),
    ],
)
async def test_a_filter_brings_its_keys_and_those_that_tell_what_it_is(
    kind: str, keys: set[str]
) -> None:
    async with visiting() as caller:
        (row,) = await quoted(caller, f"nse_cm|1333/{kind}")
        assert set(row) == IDENTITY | keys


async def test_without_a_filter_a_quote_is_whole() -> None:
    async with visiting() as caller:
        assert await quoted(caller, "nse_cm|1333") == await quoted(caller, "nse_cm|1333/all")


async def test_instruments_nobody_knows_are_left_out() -> None:
    async with visiting() as caller:
        rows = await quoted(caller, "nse_cm|11536,nse_cm|0,xyz|1333,nse_cm,nse_cm|1333/ltp")
        assert [row["display_symbol"] for row in rows] == ["TCS-EQ", "HDFCBANK-EQ"]


async def test_nothing_known_is_refused_with_status_200() -> None:
    async with visiting() as caller:
        refused = await data(caller, f"{QUOTES}/nse_cm|0,bse_cm|1333/ltp")
        assert (refused.status, refused.json()) == (200, UNKNOWN)


async def test_an_index_is_asked_for_by_its_exact_name_or_its_number() -> None:
    async with visiting() as caller:
        by_name, by_number = await quoted(caller, "nse_cm|Nifty%2050,nse_cm|26000")
        assert by_name == by_number | {"exchange_token": "Nifty 50"}
        assert by_name["display_symbol"] == "Nifty 50-IN"
        assert by_name["ltp"] == by_name["ohlc"]["close"] == "24412.3500"
        left_out = {"avg_cost", "open_int", "low_price_range", "high_price_range"}
        (share,) = await quoted(caller, "nse_cm|1333")
        assert set(by_name) == set(share) - left_out
        assert (await data(caller, f"{QUOTES}/nse_cm|NIFTY 50")).json() == UNKNOWN


async def test_fifty_instruments_are_the_most() -> None:
    async with visiting() as caller:
        shares = [f"nse_cm|{x.token}" for x in LISTED if x.segment == "nse_cm"][:50]
        assert len(await quoted(caller, ",".join(shares))) == 50
        refused = await data(caller, f"{QUOTES}/{','.join([*shares, 'nse_cm|1'])}")
        assert refused.status == 400
        assert "51 instruments" in refused.json()["emsg"]


async def test_older_paths_and_the_login_host_serve_the_same_quotes() -> None:
    async with visiting() as caller:
        expected = await quoted(caller, "nse_cm|1333/ltp")
        for path in ("/apim/quotes/1.0/quotes/neosymbol", "/apim/quotes/2.0/quotes/neosymbol"):
            assert (await data(caller, f"{path}/nse_cm|1333/ltp")).json() == expected
        headers = {"Authorization": f"Bearer {caller.credentials.consumer_key}"}
        url = f"{caller.exchange.login_url}{QUOTES}/nse_cm%7C1333/ltp"
        assert (await caller.request("GET", url, headers=headers)).json() == expected


@pytest.mark.parametrize("path", [f"{QUOTES}/nse_cm|1333", EXPIRIES, CHAIN, CANDLES])
async def test_market_data_needs_an_access_token(path: str) -> None:
    async with trading() as caller:
        assert (await caller.get(path)).status == 401


async def test_an_unknown_filter_is_refused() -> None:
    async with visiting() as caller:
        refused = await data(caller, f"{QUOTES}/nse_cm|1333/greeks")
        assert (refused.status, refused.json()["emsg"]) == (400, "invalid quote type 'greeks'")


# --- expiries and chains --------------------------------------------------------------------------


async def expiries(caller: Caller, **query: str) -> list[str]:
    body = (await data(caller, EXPIRIES, exchange="nse_fo", underlying="NIFTY", **query)).json()
    assert (body["exchange"], body["underlying"]) == ("nse_fo", "NIFTY")
    days: list[str] = body["expiries"]
    return days


async def test_expiries_are_ascending_days_of_options_or_futures_or_both() -> None:
    async with visiting() as caller:
        options = await expiries(caller, instrument_type="option")
        futures = await expiries(caller, instrument_type="fut")
        every = await expiries(caller)
        assert every == sorted(set(options) | set(futures))
        assert all(date.fromisoformat(day) >= TODAY for day in every)


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (EXPIRIES, {"exchange": "nse_fo", "underlying": "NOPE"}),
        (EXPIRIES, {"exchange": "nse_cm", "underlying": "TCS"}),
        (EXPIRIES, {"exchange": "nse_fo", "underlying": "TCS", "instrument_type": "swap"}),
        (EXPIRIES, {}),
        (CHAIN, {"exchange": "nse_fo", "underlying": "NOPE"}),
        (CHAIN, {"exchange": "nse_fo", "underlying": "NIFTY", "expiry": "2020-01-01"}),
        (CHAIN, {"exchange": "nse_fo", "underlying": "NIFTY", "expiry": "soon"}),
    ],
)
async def test_what_has_no_contracts_is_refused_as_a_quote_is(
    path: str, query: dict[str, str]
) -> None:
    async with visiting() as caller:
        refused = await data(caller, path, **query)
        assert (refused.status, refused.json()) == (200, UNKNOWN)


async def test_an_option_chain_has_calls_and_puts_of_the_nearest_expiry_by_strike() -> None:
    async with visiting() as caller:
        nearest = (await expiries(caller, instrument_type="option"))[0]
        query = {"exchange": "nse_fo", "underlying": "NIFTY"}
        content = (await data(caller, CHAIN, **query)).json()["data"]
        assert content["common_data"] == {
            "mktLot": "65",
            "multiplier": "1",
            "unlSymbol": "NIFTY",
            "exSeg": "nse_fo",
            "expiryDt": nearest,
        }
        assert set(content) == {"common_data", "call", "put"}
        again = await data(caller, CHAIN, **query, expiry=nearest, count="40")
        assert again.json()["data"] == content
        strikes: dict[str, list[float]] = {}
        for side, kind in (("call", "CE"), ("put", "PE")):
            for row in content[side]:
                check_option(caller, row, kind)
            strikes[kind] = [float(row["instrument"]["strikePrice"]) for row in content[side]]
            assert strikes[kind] == sorted(strikes[kind])
            at_the_money = [r for r in content[side] if r["instrument"]["moneyness"] == "ATM"]
            assert len(at_the_money) == 1
        assert strikes["CE"] == strikes["PE"]
        assert len(strikes["CE"]) <= 40


def check_option(caller: Caller, row: dict[str, Any], kind: str) -> None:
    assert set(row) == {"instrument", "quote", "openInterest"}
    segment, token = row["instrument"]["neoSymbol"].split("|")
    listing = caller.exchange.market.listing_by_token(Segment(segment), token)
    assert listing is not None
    assert row["instrument"]["symbol"] == listing.symbol
    assert row["instrument"]["optionType"] == listing.option_type == kind
    assert row["instrument"]["moneyness"] in ("ITM", "ATM", "OTM")
    quote = row["quote"]
    assert quote.pop("close") is None
    assert isinstance(quote.pop("volume"), int)
    assert set(quote) == {"ltp", "open", "high", "low", "prevClose"}
    assert all(len(price.partition(".")[2]) == 4 for price in quote.values())
    assert set(row["openInterest"]) == {"current", "previous", "change", "changePct"}


async def test_moneyness_tells_calls_from_puts() -> None:
    async with visiting() as caller:
        content = (await data(caller, CHAIN, exchange="nse_fo", underlying="NIFTY")).json()["data"]
        sides = {
            side: {r["instrument"]["strikePrice"]: r["instrument"]["moneyness"] for r in rows}
            for side, rows in content.items()
            if side != "common_data"
        }
        mirrored = {"ITM": "OTM", "OTM": "ITM", "ATM": "ATM"}
        assert sides["put"] == {strike: mirrored[m] for strike, m in sides["call"].items()}


async def test_a_futures_chain_lists_every_contract_as_text() -> None:
    async with visiting() as caller:
        query = {"exchange": "nse_fo", "underlying": "NIFTY", "instrument_type": "fut"}
        content = (await data(caller, CHAIN, **query)).json()["data"]
        assert content["common_data"]["expiryDt"] is None
        assert (content["call"], content["put"]) == ([], [])
        days = await expiries(caller, instrument_type="fut")
        told = [row["inst"]["expiryDt"] for row in content["fut"]]
        assert told == [f"{date.fromisoformat(day):%d-%b-%Y}".upper() for day in days]
        for row in content["fut"]:
            assert set(row["quote"]) == {"ltp", "o", "h", "l", "c", "pc", "vol"}
            assert set(row["oi"]) == {"cur", "prev", "chg", "chgPct"}
            assert all(isinstance(v, str) for v in (*row["quote"].values(), *row["oi"].values()))
        one = (await data(caller, CHAIN, **query, expiry=days[0])).json()["data"]
        assert one["fut"] == content["fut"][:1]
        assert one["common_data"]["expiryDt"] == days[0]


FUTURE = next(listing for listing in LISTED if listing.symbol == "NIFTY26NOVFUT")


async def test_open_interest_is_one_story_in_chains_quotes_and_candles() -> None:
    lots = str(2 * FUTURE.lot_size)
    instrument = f"nse_fo|{FUTURE.token}"
    async with trading(cash="100000000") as caller:
        before = caller.exchange.market.session_stats(FUTURE).open_interest
        terms = {"es": "nse_fo", "ts": FUTURE.symbol, "pc": "NRML", "pt": "L", "qt": lots}
        price = f"{FUTURE.base_price / 100:.2f}"
        await caller.placed(**terms, pr=price, tt="S")
        # Somebody takes it: both sides have opened.
        printed = {"segment": "nse_fo", "token": FUTURE.token, "price": price}
        await caller.admin("POST", "price", json=printed)
        query = {"exchange": "nse_fo", "underlying": "NIFTY", "instrument_type": "fut"}
        (row, *_) = (await data(caller, CHAIN, **query)).json()["data"]["fut"]
        now = before + 2 * FUTURE.lot_size
        percent = f"{100 * (now - before) / before:.2f}"
        assert row["oi"] == {"cur": str(now), "prev": str(before), "chg": lots, "chgPct": percent}
        (quote,) = await quoted(caller, f"{instrument}/oi")
        assert quote["open_int"] == str(now)
        days = await candles(caller, "D", date(2026, 11, 19), TODAY, instrument)
        # The last day of the past ends with what this one began with.
        assert [day[6] for day in days[1:]] == [before, now]
        assert days[0][6] not in (0, before)


async def test_options_of_a_chain_change_in_open_interest_as_they_trade() -> None:
    async with visiting(market_makers=True) as caller:
        query = {"exchange": "nse_fo", "underlying": "NIFTY"}
        await data(caller, CHAIN, **query)
        caller.clock.now += 10
        content = (await data(caller, CHAIN, **query)).json()["data"]
        changes = []
        for row in (*content["call"], *content["put"]):
            told = row["openInterest"]
            assert told["current"] == told["previous"] + told["change"] > 0
            assert told["changePct"] == round(100 * told["change"] / told["previous"], 2)
            changes.append(told["change"])
        assert min(changes) < 0 < max(changes)


async def test_a_count_that_is_no_multiple_of_ten_is_refused() -> None:
    async with visiting() as caller:
        for count in ("0", "15", "-10", "many"):
            refused = await data(caller, CHAIN, exchange="nse_fo", underlying="NIFTY", count=count)
            assert (refused.status, refused.json()["stCode"]) == (400, 400)


# --- candles --------------------------------------------------------------------------------------


async def candles(
    caller: Caller,
    interval: str,
    first: date,
    last: date,
    instrument: str = "nse_cm|1333",
) -> list[list[Any]]:
    answered = await data(
        caller,
        CANDLES,
        neosymbol=instrument,
        fromdate=first.isoformat(),
        todate=last.isoformat(),
        interval=interval,
    )
    body = answered.json()
    assert {name: body[name] for name in ("status", "interval")} == {
        "status": "success",
        "interval": interval,
    }
    rows: list[list[Any]] = body["data"]["candles"]
    return rows


async def test_a_past_week_has_five_sessions_whatever_day_it_is() -> None:
    first, last = date(2026, 11, 16), date(2026, 11, 22)
    async with visiting() as caller:
        minutes = await candles(caller, "1min", first, last)
        assert len(minutes) == 5 * 375
        assert minutes[0][0] == "2026-11-16T09:15:00+0530"
        assert minutes[-1][0] == "2026-11-20T15:29:00+0530"
        for _, opened, high, low, close, volume, interest in minutes:
            assert low <= min(opened, close) <= max(opened, close) <= high
            assert (volume >= 0, interest) == (True, 0)
    async with visiting() as caller:
        assert await candles(caller, "1min", first, last) == minutes
    async with visiting(seed=8) as caller:
        assert await candles(caller, "1min", first, last) != minutes


@pytest.mark.parametrize(
    ("interval", "length"),
    [("3min", 3), ("5min", 5), ("10min", 10), ("15min", 15), ("30min", 30), ("60min", 60)],
)
async def test_longer_candles_are_made_of_the_minutes(interval: str, length: int) -> None:
    day = date(2026, 11, 18)
    async with visiting() as caller:
        minutes = await candles(caller, "1min", day, day)
        expected = [
            combined(minutes[start : start + length]) for start in range(0, len(minutes), length)
        ]
        assert await candles(caller, interval, day, day) == expected


async def test_days_and_weeks_are_made_of_the_minutes_too() -> None:
    monday = date(2026, 11, 16)
    async with visiting() as caller:
        days = []
        for number in range(5):
            day = monday + timedelta(days=number)
            whole = combined(await candles(caller, "1min", day, day))
            days.append([f"{day}T00:00:00+0530", *whole[1:]])
        assert await candles(caller, "D", monday, monday + timedelta(days=6)) == days
        assert await candles(caller, "W", monday, monday + timedelta(days=6)) == [combined(days)]


def combined(rows: list[list[Any]]) -> list[Any]:
    return [
        rows[0][0],
        rows[0][1],
        max(row[2] for row in rows),
        min(row[3] for row in rows),
        rows[-1][4],
        sum(row[5] for row in rows),
        0,
    ]


async def test_the_past_ends_at_the_close_with_which_the_exchange_opened() -> None:
    async with visiting() as caller:
        (friday,) = await candles(caller, "D", date(2026, 11, 20), date(2026, 11, 22))
        assert friday[4] == HDFCBANK.base_price / 100


async def test_candles_of_today_are_the_trades_of_today() -> None:
    async with trading() as caller:
        assert await candles(caller, "1min", TODAY, TODAY) == []
        prices = iter(["793.10", "793.50", "792.00", "793.00"])
        for _ in range(2):
            for price in (next(prices), next(prices)):
                await caller.placed(ts="HDFCBANK-EQ", qt="2", pr=price, tt="B", pc="MIS")
                await caller.placed(ts="HDFCBANK-EQ", qt="2", pr=price, tt="S", pc="MIS")
            caller.clock.now += 60
        first = ["2026-11-23T10:00:00+0530", 793.1, 793.5, 793.1, 793.5, 4, 0]
        second = ["2026-11-23T10:01:00+0530", 792.0, 793.0, 792.0, 793.0, 4, 0]
        assert await candles(caller, "1min", TODAY, TODAY) == [first, second]
        whole = combined([first, second])
        assert await candles(caller, "15min", TODAY, TODAY) == [whole]
        day = ["2026-11-23T00:00:00+0530", *whole[1:]]
        assert await candles(caller, "D", TODAY, TODAY) == [day]
        (*_, last) = await candles(caller, "D", date(2026, 11, 16), TODAY + timedelta(days=3))
        assert last == day
        assert await candles(caller, "1min", TODAY, TODAY, "nse_cm|11536") == []


NIFTY = ("nse_cm|Nifty 50", "nse_cm|26000")


async def test_an_index_has_a_past_that_ends_at_its_previous_close() -> None:
    first, last = date(2026, 11, 9), date(2026, 11, 22)
    async with visiting() as caller:
        by_name, by_number = [await candles(caller, "D", first, last, name) for name in NIFTY]
        assert by_name == by_number
        assert len(by_name) == 9  # 10 November was a holiday
        assert by_name[-1][4] == 24412.35
        minutes = await candles(caller, "1min", first, first, NIFTY[0])
        assert len(minutes) == 375
        assert [f"{first}T00:00:00+0530", *combined(minutes)[1:]] == by_name[0]
        assert {row[5] for row in minutes} == {0}
        await refused_candles(caller, "Invalid neosymbol value", neosymbol="nse_cm|NIFTY 50")


async def test_candles_of_an_index_follow_its_members_and_agree_with_its_quote() -> None:
    async with visiting(market_makers=True) as caller:
        await quoted(caller, "nse_cm|Nifty%2050")
        for _ in range(40):
            caller.clock.now += 3
            await quoted(caller, "nse_cm|Nifty%2050/ltp")
        (quote,) = await quoted(caller, "nse_cm|Nifty%2050")
        minutes = await candles(caller, "1min", TODAY, TODAY, NIFTY[0])
        assert [row[0][11:16] for row in minutes] == ["10:00", "10:01", "10:02"]
        ((_, *prices, volume, _),) = await candles(caller, "D", TODAY, TODAY, NIFTY[0])
        told = quote["ohlc"]
        assert prices == [
            float(text) for text in (told["open"], told["high"], told["low"], quote["ltp"])
        ]
        assert (volume, len(set(prices))) == (0, 4)
        # A trade prints in a member, and the index with it.
        caller.exchange.market.print_price(Segment.NSE_CM, "1333", 8_00_00)
        (quote,) = await quoted(caller, "nse_cm|Nifty%2050")
        (*_, last) = await candles(caller, "1min", TODAY, TODAY, NIFTY[0])
        assert last[2] == last[4] == float(quote["ltp"]) == float(quote["ohlc"]["high"])


@pytest.mark.parametrize(
    ("interval", "days", "at_once"), [("1min", 30, 1), ("60min", 90, 1), ("D", 180, 7)]
)
async def test_candles_of_many_days_are_drawn_in_turns(
    interval: str, days: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day of minutes in each turn of the loop, or a week of days, however many ask: counted, as
    times depend on the machine."""
    turn = 0

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    drawn: Counter[int] = Counter()
    draw = SyntheticHistory.day

    def counted(past: SyntheticHistory, day: date) -> Candle | None:
        drawn[turn] += 1
        return draw(past, day)

    first, last = TODAY - timedelta(days=days), TODAY - timedelta(days=1)
    async with visiting(market_makers=False) as caller:
        expected = await candles(caller, interval, first, last)
        monkeypatch.setattr(SyntheticHistory, "day", counted)
        counting = asyncio.create_task(count_turns())
        asked = [candles(caller, interval, first, last) for _ in range(2)]
        assert await asyncio.gather(*asked) == [expected, expected]
        counting.cancel()
    assert drawn.total() == 2 * days
    assert max(drawn.values()) == at_once


async def test_a_reset_clears_the_candles_of_today() -> None:
    async with trading(market_makers=False) as caller:
        price = {"segment": "nse_cm", "token": "1333", "price": "790"}
        await caller.admin("POST", "price", json=price)
        assert len(await candles(caller, "D", TODAY, TODAY)) == 1
        await caller.admin("POST", "reset")
        assert await candles(caller, "D", TODAY, TODAY) == []


async def test_trades_at_any_hour_of_the_day_have_candles() -> None:
    async with trading(clock=Clock(START - 36_000 + 90)) as caller:
        price = {"segment": "nse_cm", "token": "1333", "price": "790"}
        await caller.admin("POST", "price", json=price)
        caller.clock.now += 9 * 3600
        await caller.admin("POST", "price", json=price)
        times = [row[0][11:16] for row in await candles(caller, "60min", TODAY, TODAY)]
        assert times == ["00:00", "08:15"]


@pytest.mark.parametrize(
    ("interval", "days"),
    [("1min", 30), ("5min", 30), ("10min", 60), ("15min", 60), ("60min", 90), ("D", 180)],
)
async def test_a_span_longer_than_allowed_is_refused(interval: str, days: int) -> None:
    async with visiting() as caller:
        first = TODAY - timedelta(days=days - 1)
        assert await candles(caller, interval, first, TODAY)
        await refused_candles(
            caller,
            f"Date range exceeds {days} days for interval {interval}",
            interval=interval,
            fromdate=(first - timedelta(days=1)).isoformat(),
        )


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"interval": "2min"}, "Invalid interval value"),
        ({"interval": ""}, "Missing required parameter 'interval'"),
        ({"neosymbol": "nse_cm|0"}, "Invalid neosymbol value"),
        ({"neosymbol": "mcx_fo|451201"}, "Invalid neosymbol value"),
        ({"neosymbol": "HDFCBANK"}, "Invalid neosymbol value"),
        ({"fromdate": "23-11-2026"}, "Invalid date value"),
        ({"todate": "20261123"}, "Invalid date value"),
        ({"fromdate": "2026-11-24"}, "fromdate must not be after todate"),
    ],
)
async def test_a_wrong_request_for_candles_is_refused(wrong: dict[str, str], text: str) -> None:
    async with visiting() as caller:
        await refused_candles(caller, text, **wrong)


async def refused_candles(caller: Caller, text: str, **changes: str) -> None:
    query = {
        "neosymbol": "nse_cm|1333",
        "fromdate": TODAY.isoformat(),
        "todate": TODAY.isoformat(),
        "interval": "5min",
    } | changes
    answered = await data(caller, CANDLES, **query)
    assert (answered.status, answered.json()) == (
        400,
        {"status": "ERROR", "fault": {"code": 400, "message": text}},
    )


def test_a_past_day_of_every_instrument_is_consistent_with_its_minutes() -> None:
    rng = random.Random(3)
    for listing in LISTED:
        past = SyntheticHistory(listing, seed=1, opened=TODAY)
        day = TODAY - timedelta(days=rng.randrange(1, 2000))
        whole, minutes = past.day(day), list(past.minutes(day))
        sessions = CALENDAR.sessions(listing.segment, day)
        if not sessions:
            assert (whole, minutes) == (None, [])
            continue
        assert whole is not None
        (session,) = sessions
        opens, closes = (each.hour * 60 + each.minute for each in (session.open, session.close))
        assert [m.minute for m in minutes] == list(range(opens, closes))
        check_whole(whole, minutes)
        for candle in minutes:
            assert candle.volume % listing.lot_size == 0
            assert candle.open_interest % listing.lot_size == 0
            assert bool(candle.open_interest) is not listing.segment.is_cash
            assert not any(price % listing.tick for price in candle[1:5])
            assert candle.low > 0


def check_whole(whole: Candle | None, minutes: list[Candle]) -> None:
    assert whole is not None
    assert whole.open == minutes[0].open
    assert whole.close == minutes[-1].close
    assert whole.high == max(m.high for m in minutes)
    assert whole.low == min(m.low for m in minutes)
    assert whole.volume == sum(m.volume for m in minutes)
    assert whole.open_interest == minutes[-1].open_interest
    for before, after in itertools.pairwise(minutes):
        assert after.open == before.close
    for candle in minutes:
        _, opened, high, low, close, volume, interest = candle
        assert low <= min(opened, close) <= max(opened, close) <= high
        assert volume >= 0
        assert interest >= 0


def test_candles_are_of_the_days_with_a_session() -> None:
    past = SyntheticHistory(HDFCBANK, seed=1, opened=TODAY)
    days = [TODAY - timedelta(days=number) for number in range(320)]
    assert {day for day in days if past.day(day) is not None} == {
        day for day in days if CALENDAR.sessions("nse_cm", day)
    }
    diwali = list(past.minutes(date(2026, 11, 8)))
    assert [diwali[0].minute, diwali[-1].minute] == [18 * 60 + 15, 19 * 60 + 14]
    check_whole(past.day(date(2026, 11, 8)), diwali)


def test_no_past_day_moves_as_far_as_a_circuit_limit() -> None:
    past = SyntheticHistory(HDFCBANK, seed=1, opened=TODAY)
    closes = [
        whole.close
        for number in range(1000, 0, -1)
        if (whole := past.day(TODAY - timedelta(days=number))) is not None
    ]
    moves = [after / before - 1 for before, after in itertools.pairwise(closes)]
    assert max(map(abs, moves)) < 0.08
    assert len(set(closes)) > 100


def test_start_is_the_day_these_tests_say() -> None:
    assert (datetime(1970, 1, 1) + timedelta(seconds=START + 19_800)).date() == TODAY


# --- indices --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("nse_cm|Nifty 50", "Nifty 50-IN"),
        ("nse_cm|26009", "Nifty Bank-IN"),
        ("nse_cm|Nifty Fin Service", "Nifty Fin Service-IN"),
        ("nse_cm|26037", "Nifty Fin Service-IN"),
        ("nse_cm|NIFTY MID SELECT", "NIFTY MID SELECT-IN"),
        ("nse_cm|Nifty Next 50", "Nifty Next 50-IN"),
        ("nse_cm|Nifty IT", "Nifty IT-IN"),
        ("nse_cm|INDIA VIX", "INDIA VIX-IN"),
        ("nse_cm|India VIX", "INDIA VIX-IN"),
        ("bse_cm|SENSEX", "SENSEX-IN"),
        ("bse_cm|BANKEX", "BANKEX-IN"),
    ],
)
async def test_every_index_has_a_quote_under_its_names(name: str, shown: str) -> None:
    async with visiting() as caller:
        url = f"{caller.exchange.base_url}/script-details/1.0/quotes/neosymbol/{name}/all"
        headers = {"Authorization": caller.credentials.consumer_key}
        (row,) = (await caller.request("GET", url, headers=headers)).json()
        assert (row["exchange_token"], row["display_symbol"]) == (name.partition("|")[2], shown)
        assert float(row["ltp"]) > 0


async def test_india_vix_falls_as_shares_rise() -> None:
    async with visiting(market_makers=False) as caller:
        market = caller.exchange.market
        (vix,) = (each for each in market.live_indices if each.index.name == "INDIA VIX")
        before = vix.stats.last_price
        share = market.listing(Segment.NSE_CM, "RELIANCE-EQ")
        assert share is not None
        market.print_price(share.segment, share.token, share.base_price * 105 // 100)
        assert vix.stats.last_price < before


async def test_sensex_has_an_option_chain_and_weekly_expiries() -> None:
    async with visiting() as caller:
        answered = await data(caller, EXPIRIES, exchange="bse_fo", underlying="SENSEX")
        days = answered.json()["expiries"]
        assert days[:2] == ["2026-11-26", "2026-12-03"]  # Thursdays
        chain = f"{caller.exchange.base_url}/market-data/1.0/watchlist/option-chain"
        answered = await caller.request(
            "GET",
            f"{chain}?exchange=bse_fo&underlying=SENSEX",
            headers={"Authorization": caller.credentials.consumer_key},
        )
        assert answered.status == 200
