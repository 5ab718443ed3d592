"""The exchanges' hours as callers see them, on a clock that is moved on."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

from neo_async.exchange import Hours, Rules
from neo_async.exchange.engine.trading_hours import CALENDAR
from neo_async.model.enums import Segment
from neo_async.model.ticks import MarketState, MarketStatus
from tests.exchange.callers import START, Caller, Clock, trading
from tests.exchange.feeds.readers import MarketReader, market_reader

KEPT = Rules(hours=Hours.EXCHANGE)
MONDAY_8 = START - 2 * 3600


async def moved_to(caller: Caller, time: str) -> None:
    """On which a new login may be needed: they end at midnight."""
    assert (await caller.admin("POST", "clock", json={"now": time})).status == 200


async def states(caller: Caller) -> dict[str, str]:
    """Tag to state."""
    return {
        entry["client_tag"]: entry["state"]
        for entry in (await caller.admin("GET", "ledger")).json()
    }


async def test_a_day_from_before_the_open_to_the_next_morning() -> None:
    async with trading(rules=KEPT, clock=Clock(MONDAY_8)) as caller:
        refused = (await caller.place(ig="early")).json()
        assert (refused["stCode"], refused["errMsg"]) == (1008, "market closed")
        await caller.placed(ig="amo", am="YES", pr="39.40", qt="100")
        (row,) = await caller.book()
        assert (row["ordSt"], row["ordGenTp"]) == ("after market order req received", "AMO")

        await moved_to(caller, "2026-11-23T09:15:00")
        assert await states(caller) == {"amo": "open"}
        refused = (await caller.place(ig="amo_late", am="YES")).json()
        assert refused["stCode"] == 1008
        await sold(caller)
        await caller.placed(ig="intraday", pc="MIS", pr="39.60", qt="7")
        await sold(caller, "39.60")
        await caller.placed(ig="day", pr="38.00")
        assert await states(caller) == {"amo": "complete", "intraday": "complete", "day": "open"}

        await moved_to(caller, "2026-11-23T15:30:00")
        after = await states(caller)
        assert after["day"] == "cancelled"
        assert (await caller.place(ig="late")).json()["stCode"] == 1008
        mis = next(p for p in await positions(caller) if p["prod"] == "MIS")
        assert mis["flBuyQty"] == mis["flSellQty"] == "7"

        caller.clock.now += 86_400 - 7 * 3600
        await caller.log_in_again()
        assert (await caller.get("/quick/user/orders")).json()["stCode"] == 5203
        assert (await caller.get("/portfolio/v2/positions")).json()["stCode"] == 5203
        held = {row["symbol"]: row for row in (await holdings(caller))}
        assert held["ITBEES"]["quantity"] == 145


async def sold(caller: Caller, price: str = "39.40") -> None:
    """Somebody from outside sells down to a price."""
    wanted = {"segment": "nse_cm", "token": "19084", "price": price}
    await caller.admin("POST", "price", json=wanted)


async def positions(caller: Caller) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (await caller.get("/portfolio/v2/positions")).json()["data"]
    return rows


async def holdings(caller: Caller) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (await caller.get("/portfolio/v1/holdings")).json()["data"]
    return rows


async def test_the_market_feed_tells_when_segments_open_and_close() -> None:
    clock = Clock(MONDAY_8)
    async with trading(rules=KEPT, clock=clock) as caller, market_reader(caller) as reader:
        segments = {segment.value for segment in caller.exchange.market.segments}
        await reader.send({"event": "subscribeExchange"})
        assert await states_of(reader, segments) == dict.fromkeys(segments, MarketState.CLOSED)
        await moved_to(caller, "2026-11-23T09:15:00")
        assert await states_of(reader, segments) == dict.fromkeys(segments, MarketState.OPEN)
        await moved_to(caller, "2026-11-23T15:30:00")
        shares = {"nse_cm", "bse_cm"}
        assert await states_of(reader, shares) == dict.fromkeys(shares, MarketState.CLOSED)
        await moved_to(caller, "2026-11-23T15:40:00")
        closed = segments - {"mcx_fo"} - shares
        assert await states_of(reader, closed) == dict.fromkeys(closed, MarketState.CLOSED)


async def states_of(reader: MarketReader, segments: set[str]) -> dict[str, int]:
    """Return the next state of each segment that the feed reports."""
    states: dict[str, int] = {}
    while states.keys() != segments:
        for status in await reader.ticks():
            assert isinstance(status, MarketStatus)
            states[status.segment] = status.code
    return states


async def test_a_kept_market_wakes_up_on_another_day(tmp_path: Path) -> None:
    file = tmp_path / "state.db"
    async with trading(state=file, rules=KEPT) as caller:
        await caller.placed(ig="bought", pr="39.40", qt="100")
        await sold(caller)
        await caller.placed(ig="day", pr="38.00")
    wednesday = START + 2 * 86_400  # after a holiday
    async with trading(state=file, rules=KEPT, clock=Clock(wednesday)) as caller:
        held = {row["symbol"]: row["quantity"] for row in await holdings(caller)}
        assert held["ITBEES"] == 145
        assert (await caller.get("/quick/user/orders")).json()["stCode"] == 5203
        assert await states(caller) == {"bought": "complete", "day": "cancelled"}
        number = await caller.placed(ig="day")
        assert number.startswith("261125")


async def test_prices_of_a_new_day_count_from_the_last_close() -> None:
    async with trading(rules=KEPT) as caller:
        await sold(caller, "40.00")
        caller.clock.now += 86_400
        headers = {"Authorization": caller.credentials.consumer_key}
        root = caller.exchange.base_url
        url = f"{root}/script-details/1.0/quotes/neosymbol/nse_cm|19084/all"
        (row,) = (await caller.request("GET", url, headers=headers)).json()
        assert (row["ohlc"]["close"], row["change"]) == ("40.0000", "0.0000")
        listing = caller.exchange.market.listing(Segment.NSE_CM, "ITBEES-EQ")
        assert listing is not None
        assert row["high_price_range"] == f"{listing.upper_band / 100:.4f}"
        files = await caller.request(
            "GET", f"{root}/script-details/1.0/masterscrip/file-paths", headers=headers
        )
        (path,) = (p for p in files.json()["data"]["filesPaths"] if "nse_cm" in p)
        content = (await caller.request("GET", path)).body.decode()
        (line,) = (line for line in content.splitlines() if ",ITBEES-EQ," in line)
        band = f"{listing.lower_band / 100:.2f}-{listing.upper_band / 100:.2f}"
        assert band in line


async def test_on_a_holiday_orders_are_refused_and_the_feed_says_closed() -> None:
    holiday = Clock(START + 86_400)
    async with trading(rules=KEPT, clock=holiday) as caller, market_reader(caller) as reader:
        refused = (await caller.place(ig="holiday")).json()
        assert (refused["stCode"], refused["errMsg"]) == (1008, "market closed")
        segments = {segment.value for segment in caller.exchange.market.segments}
        await reader.send({"event": "subscribeExchange"})
        assert await states_of(reader, segments) == dict.fromkeys(segments, MarketState.CLOSED)
        await moved_to(caller, "2026-11-24T17:00:00")  # MCX has an evening session
        assert await states_of(reader, {"mcx_fo"}) == {"mcx_fo": MarketState.OPEN}
        await moved_to(caller, "2026-11-25T09:15:00")
        await caller.log_in_again()
        await caller.placed(ig="day after", pr="38.00")


async def test_a_holiday_that_was_declared_late_is_kept() -> None:
    calendar = CALENDAR.with_holiday(date(2026, 11, 23), "Elections")
    async with trading(rules=KEPT, calendar=calendar) as caller:
        assert (await caller.place(ig="late")).json()["errMsg"] == "market closed"
        expiries = {each.expiry for each in caller.exchange.market.contracts(Segment.NSE_FO, "TCS")}
        assert min(expiries) == date(2026, 12, 29)  # November's was moved to Friday the 20th
