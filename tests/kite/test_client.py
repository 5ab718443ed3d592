"""The client as a whole: pace, refusals, many rows, and funds lived through on the exchange."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import traceback
from datetime import date
from pathlib import Path

import pytest

from neo_async import (
    InsufficientFunds,
    NeoError,
    RateLimited,
    RateLimits,
    Rejected,
    SessionEnded,
    Side,
)
from neo_async.exchange import Exchange, Faults
from neo_async.kite import FundOrderStatus, KiteMutualFunds, SipStatus
from tests.fake_servers import Reply
from tests.kite.fake_kite import (
    ACCESS_TOKEN,
    API_KEY,
    ISIN,
    PAYLOADS,
    fund_exchange,
    kite_of,
    scripted_kite,
)

DAY = 86_400.0
TOO_MANY = Reply(
    {"status": "error", "error_type": "NetworkException", "message": "Too many requests"},
    429,
    headers={"Retry-After": "1"},
)


async def test_from_an_order_over_the_batch_to_a_holding_and_back(tmp_path: Path) -> None:
    async with fund_exchange(tmp_path) as (exchange, kite):
        order_id = await kite.place_order(ISIN, Side.BUY, amount="5000", tag="first")
        order = await kite.order(order_id)
        assert (order.status, order.quantity, order.tag) == (FundOrderStatus.OPEN, 0.0, "first")
        assert (order.purchase_type, order.exchange_timestamp) == ("FRESH", None)
        exchange.advance_clock(3.5 * 3600)  # from ten to half past one
        (order,) = await kite.orders()
        assert order.status == FundOrderStatus.COMPLETE
        assert order.exchange_timestamp == date(2026, 11, 23)
        assert order.exchange_order_id
        assert order.quantity == pytest.approx(5000 / order.average_price, abs=0.001)
        holding = (await kite.holdings())[-1]
        assert (holding.tradingsymbol, holding.quantity) == (ISIN, order.quantity)
        assert holding.folio == order.folio
        sold = await kite.place_order(ISIN, Side.SELL, quantity=holding.quantity)
        exchange.advance_clock(2 * DAY)  # over a holiday
        order = await kite.order(sold)
        assert (order.status, order.purchase_type) == (FundOrderStatus.COMPLETE, None)
        assert order.amount == pytest.approx(holding.quantity * order.average_price, abs=0.01)
        assert ISIN not in {holding.tradingsymbol for holding in await kite.holdings()}


async def test_a_sip_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    async with fund_exchange(tmp_path) as (exchange, kite):
        with pytest.raises(Rejected, match="initial_amount"):
            await kite.place_sip(ISIN, 1000, frequency="weekly")
        sip_id = await kite.place_sip(
            ISIN, 1000, frequency="weekly", instalments=3, initial_amount=5000, tag="plan"
        )
        sip = await kite.sip(sip_id)
        assert (sip.status, sip.next_instalment) == (SipStatus.ACTIVE, date(2026, 11, 30))
        assert [order.amount for order in await kite.orders()] == [5000.0]
        exchange.advance_clock(7 * DAY)
        (newest, *_), (sip,) = await kite.orders(), await kite.sips()
        assert (newest.variety, newest.amount, newest.tag) == ("sip", 1000.0, "plan")
        assert newest.purchase_type == "ADDITIONAL"
        assert (sip.completed_instalments, sip.pending_instalments) == (1, 2)
        assert sip.last_instalment is not None
        assert sip.last_instalment.date() == date(2026, 11, 30)
        await kite.modify_sip(sip_id, status=SipStatus.PAUSED)
        exchange.advance_clock(7 * DAY)
        (sip,) = await kite.sips()
        assert (sip.status, sip.completed_instalments) == (SipStatus.PAUSED, 1)
        await kite.modify_sip(sip_id, status="active", amount=2000)
        exchange.advance_clock(14 * DAY)
        assert await kite.sips() == []
        sip = await kite.sip(sip_id)
        assert (sip.status, sip.next_instalment) == (SipStatus.CANCELLED, None)
        assert (sip.completed_instalments, sip.pending_instalments) == (3, 0)
        with pytest.raises(Rejected, match="is cancelled"):
            await kite.cancel_sip(sip_id)


async def test_refusals_are_exceptions(tmp_path: Path) -> None:
    async with fund_exchange(tmp_path) as (_, kite):
        order_id = await kite.place_order(ISIN, Side.BUY, amount=5000)
        assert await kite.cancel_order(order_id) == order_id
        with pytest.raises(Rejected, match="is CANCELLED") as caught:
            await kite.cancel_order(order_id)
        assert (caught.value.code, caught.value.status) == ("OrderException", 400)
        with pytest.raises(Rejected, match="Insufficient units"):
            await kite.place_order("INF205K01NT8", Side.SELL, quantity=1000)
        with pytest.raises(Rejected, match="There is no order 7"):
            await kite.order("7")
        kite.use_token("another")
        with pytest.raises(SessionEnded, match="Incorrect"):
            await kite.orders()


async def test_missing_money_has_an_exception_of_its_own(tmp_path: Path) -> None:
    async with scripted_kite(tmp_path) as (fake_kite, kite):
        body = {"status": "error", "error_type": "MarginException", "message": "no money"}
        fake_kite.script("POST", "/mf/orders", Reply(body, 400))
        with pytest.raises(InsufficientFunds, match="no money"):
            await kite.place_order(ISIN, Side.BUY, amount=5000)


async def test_a_429_is_waited_out_since_it_had_no_effect(tmp_path: Path) -> None:
    async with fund_exchange(tmp_path) as (exchange, kite):
        exchange.faults.set(Faults(throttle=0.5, calls=("orders",)))
        numbers = [await kite.place_order(ISIN, Side.BUY, amount=5000) for _ in range(4)]
        assert [order.order_id for order in exchange.funds.orders()] == numbers[::-1]
        assert exchange.faults.injected["throttle"] > 0
        assert kite.limiter.pauses == exchange.faults.injected["throttle"]


async def test_a_429_that_does_not_end_is_raised_and_was_not_taken(tmp_path: Path) -> None:
    async with fund_exchange(tmp_path) as (exchange, kite):
        exchange.faults.set(Faults(throttle=1.0, calls=("orders",)))
        with pytest.raises(RateLimited):
            await kite.place_order(ISIN, Side.BUY, amount=5000)
        assert exchange.funds.orders() == []


async def test_kites_limit_is_kept(tmp_path: Path) -> None:
    """In real time, against the exchange's own count of a second."""
    async with (
        Exchange(seed=7, limits=RateLimits()) as exchange,
        kite_of(exchange, tmp_path, rate_limit=10, clock=time.time) as kite,
    ):
        await asyncio.gather(*(kite.holdings() for _ in range(14)))
        assert kite.limiter.pauses == 0


SAID = f"cannot take token {API_KEY}:{ACCESS_TOKEN}"


@pytest.mark.parametrize(
    "reply",
    [
        Reply({"status": "error", "error_type": "TokenException", "message": SAID}, 403),
        Reply({"status": "error", "error_type": "InputException", "message": SAID}, 400),
        Reply(f"<h1>{SAID}</h1>" + "x" * 5000, 502, "text/html"),
        Reply("x" * 290 + ACCESS_TOKEN, 200, "text/html"),
        Reply({"status": "error", "message": SAID.upper()}, 429, headers={"Retry-After": "3600"}),
        Reply({"data": [{"fund": SAID}]}),
    ],
)
async def test_no_error_repeats_the_token(reply: Reply, tmp_path: Path) -> None:
    for path in ("/mf/orders", "/mf/orders/1", "/mf/instruments"):
        async with scripted_kite(tmp_path) as (fake_kite, kite):
            fake_kite.script("GET", path, reply)
            calls = {"orders": kite.orders, "1": lambda: kite.order("1")}
            with pytest.raises(NeoError) as caught:
                await calls.get(path.rpartition("/")[2], kite.instruments)()
            shown = "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value))
            assert ACCESS_TOKEN not in shown.lower()
            assert API_KEY not in shown.lower()
            assert ACCESS_TOKEN[:9] not in shown.lower()


async def test_a_long_list_holds_the_loop_for_moments_only(tmp_path: Path) -> None:
    sample = json.loads((PAYLOADS / "sips.json").read_bytes())["data"]
    body = {"data": [{**sample[0], "sip_id": str(number)} for number in range(2000)]}
    async with scripted_kite(tmp_path) as (fake_kite, kite):
        fake_kite.script("GET", "/mf/sips", Reply(body))
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        sips = await kite.sips()
        counting.cancel()
        assert [sip.sip_id for sip in sips] == [str(number) for number in range(2000)]
        assert turns > 20


async def test_a_row_that_cannot_be_read_is_no_short_list(tmp_path: Path) -> None:
    async with scripted_kite(tmp_path) as (fake_kite, kite):
        fake_kite.script("GET", "/mf/holdings", Reply({"data": [{"quantity": 1.5}]}))
        with pytest.raises(Exception, match="missing required field"):
            await kite.holdings()


def test_neither_client_loads_the_other() -> None:
    code = "import sys, neo_async.kite; print(*(name for name in sys.modules if 'neo_' in name))"
    loaded = set(
        subprocess.run(
            [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
    )
    rooms = {".".join(name.split(".")[:2]) for name in loaded}
    assert "neo_async.kite" in rooms
    assert not rooms & {
        "neo_async.client", "neo_async.session.manager", "neo_async.orders", "neo_async.exchange",
        "neo_async.cli", "neo_async.execution.order_cache", "neo_async.execution.in_flight",
    }  # fmt: skip
    code = "import sys; from neo_async import NeoClient; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "neo_async.kite" not in done.stdout.split()


def test_every_public_name_says_what_it_is() -> None:
    import neo_async.kite

    for name in neo_async.kite.__all__:
        own = vars(getattr(neo_async.kite, name)).get("__doc__") or ""
        assert own.strip(), f"{name} has no docstring"
        assert not own.startswith(f"{name}(")
    assert KiteMutualFunds.__module__ == "neo_async.kite.client"
