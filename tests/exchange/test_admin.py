from __future__ import annotations

import pytest

from tests.exchange.callers import START, trading, visiting

PRICE = {"segment": "nse_cm", "token": "19084", "price": "38.50"}


async def test_the_ledger_tells_every_order_in_order_of_acceptance() -> None:
    async with trading() as caller:
        first = await caller.placed(ig="one", qt="10", pr="39.00")
        second = await caller.placed(ig="two", qt="5", pr="37.00")
        await caller.admin("POST", "price", json=PRICE)
        filled, resting = (await caller.admin("GET", "ledger")).json()
        assert filled == {
            "number": first,
            "account": caller.credentials.ucc,
            "client_tag": "one",
            "state": "complete",
            "segment": "nse_cm",
            "token": "19084",
            "symbol": "ITBEES-EQ",
            "side": "B",
            "product": "CNC",
            "order_type": "L",
            "validity": "DAY",
            "price": 39.0,
            "trigger": 0.0,
            "quantity": 10,
            "filled_quantity": 10,
            "pending_quantity": 0,
            "cancelled_quantity": 0,
            "reject_reason": "",
            "modifications": 0,
            "arrivals": 1,
            "accepted_ns": filled["accepted_ns"],
            "updated_ns": filled["updated_ns"],
            "fills": [
                {
                    "trade_number": filled["fills"][0]["trade_number"],
                    "quantity": 10,
                    "price": 39.0,
                    "time_ns": filled["fills"][0]["time_ns"],
                }
            ],
        }
        assert (resting["number"], resting["state"], resting["fills"]) == (second, "open", [])


async def test_every_request_is_on_record_but_the_owners() -> None:
    async with trading() as caller:
        await caller.admin("GET", "ledger")
        caller.clock.now += 2.5
        await caller.get("/no/such/path")
        assert (await caller.admin("GET", "requests")).json() == [
            {"time": START, "method": "POST", "path": "/login/1.0/tradeApiLogin"},
            {"time": START, "method": "POST", "path": "/login/1.0/tradeApiValidate"},
            {"time": START + 2.5, "method": "GET", "path": "/neo/no/such/path"},
        ]


@pytest.mark.parametrize("price", ["38.50", 38.5, "38.5"])
async def test_a_price_may_be_number_or_text(price: str | float) -> None:
    async with trading() as caller:
        printed = await caller.admin("POST", "price", json=PRICE | {"price": price})
        assert (printed.status, printed.json()) == (
            200,
            PRICE | {"symbol": "ITBEES-EQ", "price": 38.5},
        )
        listing = caller.exchange.market.ledger
        assert listing == []
        await caller.placed(pr="39.00")
        await caller.admin("POST", "price", json=PRICE | {"price": price})
        (row,) = (await caller.get("/portfolio/v2/positions")).json()["data"]
        assert row["ltp"] == "38.50"


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"segment": "NSE"}, "its segment must be one of nse_cm, "),
        ({"token": "7"}, "'nse_cm|7': is not listed here"),
        ({"price": "0"}, "must be rupees above 0"),
        ({"price": "-3"}, "must be rupees above 0"),
        ({"price": "38.501"}, "must be rupees above 0"),
        ({"price": ""}, "must be rupees above 0"),
        ({"price": None}, "send"),
        ({"token": 7}, "send"),
    ],
)
async def test_a_price_that_cannot_print_says_why(wrong: dict[str, object], text: str) -> None:
    async with visiting() as caller:
        refused = await caller.admin("POST", "price", json=PRICE | wrong)
        assert refused.status == 400
        assert set(refused.json()) == {"error"}
        assert text in refused.json()["error"]


async def test_a_reset_starts_the_market_over_and_keeps_logins() -> None:
    async with trading() as caller:
        number = await caller.placed(ig="one")
        before = caller.exchange.market
        assert (await caller.admin("POST", "reset")).json() == {"reset": True}
        assert caller.exchange.market is not before
        assert (await caller.admin("GET", "requests")).json() == []
        assert (await caller.get("/quick/user/orders")).json()["stCode"] == 5203
        assert await caller.placed(ig="one") == number


# --- the clock ------------------------------------------------------------------------------------


async def test_the_clock_moves_on_by_seconds_or_to_a_time() -> None:
    async with trading() as caller:
        moved = await caller.admin("POST", "clock", json={"advance": 90.5})
        assert moved.json() == {"now": START + 90.5, "india": "2026-11-23T10:01:30"}
        moved = await caller.admin("POST", "clock", json={"now": "2026-11-23T15:29:00"})
        assert moved.json() == {"now": START + 19_740, "india": "2026-11-23T15:29:00"}
        moved = await caller.admin("POST", "clock", json={"now": "2026-11-23T10:00:00+00:00"})
        assert moved.json()["india"] == "2026-11-23T15:30:00"
        moved = await caller.admin("POST", "clock", json={"now": START + 20_000})
        assert moved.json()["now"] == START + 20_000
        caller.clock.now += 5
        await caller.placed()
        (row,) = await caller.book()
        assert row["ordDtTm"] == "23-Nov-2026 15:33:25"


async def test_codes_and_the_date_go_by_the_callers_clock() -> None:
    """Theirs has not been moved."""
    async with visiting() as caller:
        await caller.admin("POST", "clock", json={"advance": 3600})
        answered = await caller.first_step()
        assert answered.status == 200
        assert answered.headers["Date"] == "Mon, 23 Nov 2026 04:30:00 GMT"


async def test_logins_end_when_the_clock_is_moved_past_midnight() -> None:
    async with trading() as caller:
        await caller.admin("POST", "clock", json={"now": "2026-11-23T23:59:59"})
        assert (await caller.get("/quick/user/orders")).json()["stCode"] == 5203
        await caller.admin("POST", "clock", json={"now": "2026-11-24T00:00:00"})
        assert (await caller.get("/quick/user/orders")).json()["stCode"] == 1003


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({}, "either now or advance"),
        ({"now": START, "advance": 1}, "either now or advance"),
        ({"now": START - 1}, "must not be before"),
        ({"now": "2026-11-23T09:59:59"}, "must not be before"),
        ({"now": "soon"}, "no date and time"),
        ({"advance": -1}, "not below 0"),
        ({"advance": 1e308}, "beyond the year 2100"),
        ({"advance": 1e12}, "beyond the year 2100"),
        ({"now": "9999-12-31T23:59:59"}, "beyond the year 2100"),
        ({"now": 1e300}, "beyond the year 2100"),
        ({"advance": "1"}, "Expected"),
    ],
)
async def test_a_clock_that_cannot_be_says_why(wrong: dict[str, object], text: str) -> None:
    async with visiting() as caller:
        refused = await caller.admin("POST", "clock", json=wrong)
        assert (await caller.admin("GET", "ledger")).status == 200
        assert refused.status == 400
        assert text in refused.json()["error"]
        assert '{"advance": seconds}' in refused.json()["error"]


async def test_unknown_names_and_methods_are_answered_with_the_known_ones() -> None:
    async with visiting() as caller:
        missing = await caller.admin("GET", "orders")
        assert missing.status == 404
        assert missing.json()["error"] == (
            "no /admin/orders here; there are ledger, requests, price, clock, faults, settings, "
            "reset, bank/credit, bank/refund"
        )
        refused = await caller.admin("POST", "ledger")
        assert (refused.status, refused.json()["error"]) == (
            405,
            "/admin/ledger takes GET, not POST",
        )
