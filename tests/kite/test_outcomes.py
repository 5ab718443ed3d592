"""Changes whose answers were lost: never sent again, and never left unknown for long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from neo_async import (
    NotAccepted,
    NotLoggedIn,
    NotSent,
    OrderAlreadyFinal,
    OutcomeUnknown,
    Rejected,
    Side,
    Timeouts,
)
from neo_async.base.india import IST
from neo_async.config import KiteEndpoints
from neo_async.exchange import Exchange, Faults
from neo_async.kite import FundOrder, KiteMutualFunds
from neo_async.kite.in_flight import Placement, find_order
from neo_async.kite.wire import read_order
from tests.fake_servers import Cut, Late, Reply
from tests.kite.fake_kite import ISIN, PAYLOADS, arrivals, fund_exchange, kite_of, scripted_kite

RESOLUTION_TIMEOUT = 30.0
TIMEOUTS = Timeouts(order=2.0)

AFTER = ["lose_after", "error_after", "malformed", "truncated", "hang_after"]
BEFORE = ["lose_before", "error_before", "hang_before"]


def seconds() -> float:
    return asyncio.get_running_loop().time()


def faults(name: str) -> Faults:
    return Faults(**{name: 1.0, "calls": ("orders",), "hang_seconds": 60})


async def sent(exchange: Exchange) -> list[str]:
    """Changes that arrived, by method and path."""
    return [asked for asked in await arrivals(exchange) if not asked.startswith("GET ")]


Change = Callable[[Exchange, KiteMutualFunds], Coroutine[Any, Any, str]]


async def place_order(exchange: Exchange, kite: KiteMutualFunds) -> str:
    return await kite.place_order(ISIN, Side.BUY, amount=5000)


async def place_sip(exchange: Exchange, kite: KiteMutualFunds) -> str:
    return await kite.place_sip("INF205K01NT8", 500, frequency="weekly")


async def cancel_order(exchange: Exchange, kite: KiteMutualFunds) -> str:
    (order,) = exchange.funds.orders()
    return await kite.cancel_order(order.order_id)


async def modify_sip(exchange: Exchange, kite: KiteMutualFunds) -> str:
    (sip,) = exchange.funds.sips()
    return await kite.modify_sip(sip.sip_id, amount=1000, status="paused", instalments=7)


async def cancel_sip(exchange: Exchange, kite: KiteMutualFunds) -> str:
    (sip,) = exchange.funds.sips()
    return await kite.cancel_sip(sip.sip_id)


CHANGES: list[tuple[Change, Change | None]] = [
    (place_order, None),
    (place_sip, None),
    (cancel_order, place_order),
    (modify_sip, place_sip),
    (cancel_sip, place_sip),
]
"""With what has to be there before."""


@pytest.mark.parametrize("fault", AFTER)
@pytest.mark.parametrize(("change", "before"), CHANGES)
async def test_a_lost_answer_is_resolved_and_nothing_is_sent_again(
    change: Change, before: Change | None, fault: str, tmp_path: Path
) -> None:
    async with fund_exchange(tmp_path, timeouts=TIMEOUTS) as (exchange, kite):
        if before is not None:
            await before(exchange, kite)
        prepared = len(await sent(exchange))
        exchange.faults.set(faults(fault))
        number = await change(exchange, kite)
        assert len(await sent(exchange)) == prepared + 1
        assert sum(exchange.faults.injected.values()) == 1
        assert seconds() < TIMEOUTS.order + 2
        house = exchange.funds
        orders, sips = house.orders(), list(house.state.sips.values())
        assert [order.order_id for order in orders] + [sip.sip_id for sip in sips] == [number]
        assert [order.state for order in orders] == (
            [] if sips else ["CANCELLED" if change is cancel_order else "OPEN"]
        )


@pytest.mark.parametrize("fault", BEFORE)
@pytest.mark.parametrize(("change", "before"), CHANGES)
async def test_a_request_without_effect_by_the_resolution_timeout_was_not_accepted(
    change: Change, before: Change | None, fault: str, tmp_path: Path
) -> None:
    async with fund_exchange(tmp_path, timeouts=TIMEOUTS) as (exchange, kite):
        if before is not None:
            await before(exchange, kite)
        exchange.faults.set(faults(fault))
        with pytest.raises(NotAccepted, match="no trace") as caught:
            await change(exchange, kite)
        # A request that hangs would arrive later; here the exchange is closed before.
        assert RESOLUTION_TIMEOUT <= seconds() <= RESOLUTION_TIMEOUT + TIMEOUTS.order + 0.1
        error = caught.value
        assert bool(error.client_tag) is (change in (place_order, place_sip))
        assert bool(error.order_number) is not bool(error.client_tag)
        assert ("list of SIPs" if "SIP" in error.action else "list of orders") in str(error)


async def test_an_order_that_appears_late_is_waited_for(tmp_path: Path) -> None:
    async with fund_exchange(tmp_path, timeouts=TIMEOUTS) as (exchange, kite):
        house = exchange.funds
        listed = house.orders
        house.orders = lambda: listed() if seconds() >= 12 else []  # type: ignore[method-assign]
        exchange.faults.set(faults("lose_after"))
        number = await kite.place_order(ISIN, Side.BUY, amount=5000, tag="late")
        assert number == listed()[0].order_id
        assert 12 <= seconds() <= 17


async def test_without_waiting_the_outcome_can_be_awaited_later(tmp_path: Path) -> None:
    async with fund_exchange(tmp_path) as (exchange, kite):
        exchange.faults.set(faults("lose_after"))
        with pytest.raises(
            OutcomeUnknown, match="look for tag 'mine' in the list of orders"
        ) as one:
            await kite.place_order(ISIN, Side.BUY, amount=5000, tag="mine", wait_for_outcome=False)
        assert seconds() == 0
        assert one.value.client_tag == "mine"
        assert await one.value.outcome() == exchange.funds.orders()[0].order_id
        # Not only once, and not only by one.
        assert len({await one.value.outcome() for _ in range(2)}) == 1


async def test_a_list_that_cannot_be_read_leaves_it_unknown(tmp_path: Path) -> None:
    async with fund_exchange(tmp_path) as (exchange, kite):
        exchange.faults.set(Faults(error_before=1.0, calls=("orders", "reads")))
        with pytest.raises(OutcomeUnknown) as caught:
            await kite.place_order(ISIN, Side.BUY, amount=5000)
        assert RESOLUTION_TIMEOUT + Timeouts().read == pytest.approx(seconds(), abs=1)
        asked = len(await arrivals(exchange))
        await asyncio.sleep(600)
        assert len(await arrivals(exchange)) - asked <= 600 / 30 + 1
        exchange.faults.set(Faults())
        with pytest.raises(NotAccepted):
            await caught.value.outcome()


async def test_a_list_that_can_never_be_read_is_not_asked_for_for_ever(tmp_path: Path) -> None:
    async with fund_exchange(tmp_path) as (exchange, kite):
        exchange.faults.set(Faults(error_before=1.0, calls=("orders", "reads")))
        with pytest.raises(OutcomeUnknown) as caught:
            await kite.place_order(ISIN, Side.BUY, amount=5000, tag="mine", wait_for_outcome=False)
        with pytest.raises(OutcomeUnknown, match="look for tag 'mine'"):
            await caught.value.outcome()
        assert seconds() < RESOLUTION_TIMEOUT + 3600 + 60
        asked = len(await arrivals(exchange))
        await asyncio.sleep(3600)
        assert len(await arrivals(exchange)) == asked


@pytest.mark.parametrize("kind", ["TokenException", "PermissionException"])
async def test_a_refused_list_is_not_asked_for_again(kind: str, tmp_path: Path) -> None:
    async with scripted_kite(tmp_path) as (fake_kite, kite):
        refusal = {"status": "error", "error_type": kind, "message": "no"}
        fake_kite.script("POST", "/mf/orders", Cut())
        fake_kite.script("GET", "/mf/orders", Reply(refusal, 403))
        with pytest.raises(OutcomeUnknown, match="look for tag 'mine'"):
            await kite.place_order(ISIN, Side.BUY, amount=5000, tag="mine")
        await asyncio.sleep(600)
    assert [asked.method for asked in fake_kite.asked] == ["POST", "GET"]


async def test_an_order_with_odd_values_beside_it_is_found_all_the_same(tmp_path: Path) -> None:
    async with scripted_kite(tmp_path) as (fake_kite, kite):
        odd = {"order_id": "mine", "tag": "mine", "tradingsymbol": ISIN, "transaction_type": "BUY"}
        rows = [{"order_id": "x", "amount": "N/A"}, {**odd, "amount": None, "quantity": "?"}]
        fake_kite.script("POST", "/mf/orders", Cut())
        fake_kite.script("GET", "/mf/orders", Reply({"data": rows}))
        assert await kite.place_order(ISIN, Side.BUY, amount=5000, tag="mine") == "mine"


async def test_closing_ends_the_search(tmp_path: Path) -> None:
    async with fund_exchange(tmp_path) as (exchange, kite):
        exchange.faults.set(faults("lose_before"))
        with pytest.raises(OutcomeUnknown) as caught:
            await kite.place_order(ISIN, Side.BUY, amount=5000, wait_for_outcome=False)
        waiting = asyncio.create_task(caught.value.outcome())
        await asyncio.sleep(1)
        await kite.close()
        with pytest.raises(NotLoggedIn):
            await waiting
        with pytest.raises(NotLoggedIn, match="closed"):
            await kite.orders()


async def test_a_waiter_that_is_cancelled_leaves_the_outcome_to_the_others(tmp_path: Path) -> None:
    async with fund_exchange(tmp_path) as (exchange, kite):
        exchange.faults.set(faults("lose_after"))
        with pytest.raises(OutcomeUnknown) as caught:
            await kite.place_order(ISIN, Side.BUY, amount=5000, wait_for_outcome=False)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(caught.value.outcome(), 0.1)
        assert await caught.value.outcome()


# --- a tag of the caller's own is not unique ------------------------------------------------------


async def test_an_older_order_with_the_same_tag_is_not_taken_for_the_lost_one(
    tmp_path: Path,
) -> None:
    async with fund_exchange(tmp_path) as (exchange, kite), kite_of(exchange, tmp_path) as other:
        await other.place_order(ISIN, Side.BUY, amount=5000, tag="mine")
        await asyncio.sleep(60)
        exchange.faults.set(faults("lose_before"))
        with pytest.raises(NotAccepted):
            await kite.place_order(ISIN, Side.BUY, amount=5000, tag="mine")


async def test_an_order_just_placed_is_not_taken_for_the_lost_one_either(tmp_path: Path) -> None:
    async with fund_exchange(tmp_path) as (exchange, kite):
        await kite.place_order(ISIN, Side.BUY, amount=5000, tag="mine")
        exchange.faults.set(faults("lose_before"))
        with pytest.raises(NotAccepted):
            await kite.place_order(ISIN, Side.BUY, amount=5000, tag="mine")


async def test_two_lost_at_once_are_two_orders(tmp_path: Path) -> None:
    async with fund_exchange(tmp_path) as (exchange, kite):
        exchange.faults.set(faults("lose_after"))
        call = {"amount": 5000, "tag": "mine"}
        numbers = await asyncio.gather(
            *(kite.place_order(ISIN, Side.BUY, **call) for _ in range(3))
        )
        assert len(set(numbers)) == 3
        assert set(numbers) == {order.order_id for order in exchange.funds.orders()}


async def test_an_order_that_its_own_caller_lists_meanwhile_is_still_found(tmp_path: Path) -> None:
    async with fund_exchange(tmp_path) as (exchange, kite):
        exchange.faults.set(faults("lose_after"))
        placing = asyncio.create_task(kite.place_order(ISIN, Side.BUY, amount=5000, tag="mine"))
        await asyncio.sleep(0.1)  # it has been lost, and is being looked for
        (order,) = await kite.orders()
        assert await placing == order.order_id


SENT_AT = datetime(2021, 6, 29, 12, 20, 28, tzinfo=IST).timestamp()
"""The second at which the document's sample order was taken."""


def sample_order(**changes: Any) -> FundOrder:
    body = msgspec.json.decode((PAYLOADS / "order.json").read_bytes())
    fields = {**body["data"], "tag": "mine", **changes}
    return read_order(msgspec.Raw(msgspec.json.encode(fields)))


def placement(**changes: Any) -> Placement:
    fields: dict[str, Any] = {
        "tag": "mine",
        "is_tag_unique": False,
        "tradingsymbol": "INF761K01EE1",
        "terms": ("BUY",),
        "value": Decimal(5000),
        "sent_at": SENT_AT,
    }
    return Placement(**{**fields, **changes})


@pytest.mark.parametrize(
    ("wanted", "row", "skew", "is_found"),
    [
        ({}, {}, 0.0, True),
        ({"value": Decimal("5000.00")}, {}, 0.0, True),
        ({}, {"tag": "yours"}, 0.0, False),
        ({}, {"tag": None}, 0.0, False),
        ({}, {"tradingsymbol": ISIN}, 0.0, False),
        ({}, {"transaction_type": "SELL"}, 0.0, False),
        ({}, {"amount": 4000}, 0.0, False),
        ({"sent_at": SENT_AT + 1.5}, {}, 0.0, True),  # its clock shows whole seconds
        ({"sent_at": SENT_AT + 60}, {}, 0.0, False),
        ({"sent_at": SENT_AT + 60}, {}, -60.0, True),  # our clock is ahead of Kite's
        ({"sent_at": SENT_AT - 60}, {}, 0.0, True),
        ({"sent_at": SENT_AT - 60}, {}, 120.0, False),  # our clock is behind
        ({"known": frozenset({"2b6ad4b7-c84e-4c76-b459-f3a8994184f1"})}, {}, 0.0, False),
        ({"terms": ("SELL",), "value": Decimal("1.5")},
         {"transaction_type": "SELL", "quantity": 1.5}, 0.0, True),
        # Nobody else has a tag that was made for it.
        ({"is_tag_unique": True, "sent_at": SENT_AT + 60}, {"amount": 1}, 0.0, True),
    ],
)  # fmt: skip
def test_what_an_order_is_recognised_by(
    wanted: dict[str, Any], row: dict[str, Any], skew: float, is_found: bool
) -> None:
    found = find_order(placement(**wanted), [sample_order(**row)], set(), skew)
    assert (found is not None) is is_found


def test_an_order_of_another_placement_is_not_matched_again() -> None:
    first, second = sample_order(order_id="new"), sample_order(order_id="old")
    assert find_order(placement(), [first, second], set(), 0.0) == "old"
    assert find_order(placement(), [first, second], {"old"}, 0.0) == "new"
    assert find_order(placement(), [first, second], {"old", "new"}, 0.0) is None


# --- too late, and never sent ---------------------------------------------------------------------


async def test_a_cancel_that_came_too_late(tmp_path: Path) -> None:
    async with fund_exchange(tmp_path) as (exchange, kite):
        number = await kite.place_order(ISIN, Side.BUY, amount=5000)
        exchange.faults.set(faults("lose_before"))
        cancelling = asyncio.create_task(kite.cancel_order(number))
        await asyncio.sleep(1)
        exchange.advance_clock(86_400)
        with pytest.raises(OrderAlreadyFinal, match=f"order {number} is COMPLETE"):
            await cancelling


async def test_a_change_of_what_does_not_exist(tmp_path: Path) -> None:
    async with fund_exchange(tmp_path) as (exchange, kite):
        exchange.faults.set(faults("lose_before"))
        with pytest.raises(Rejected, match=r"There is no SIP 123\."):
            await kite.cancel_sip("123")


async def test_a_sip_that_was_cancelled_meanwhile_cannot_change(tmp_path: Path) -> None:
    async with fund_exchange(tmp_path) as (exchange, kite):
        number = await place_sip(exchange, kite)
        exchange.funds.cancel_sip(number)
        exchange.faults.set(faults("lose_before"))
        with pytest.raises(OrderAlreadyFinal):
            await kite.modify_sip(number, amount=1000)


async def test_what_could_not_be_sent_is_tried_until_the_deadline(tmp_path: Path) -> None:
    async with fund_exchange(tmp_path) as (exchange, _):
        endpoints = KiteEndpoints(api="http://127.0.0.1:9", login=exchange.kite_url)
        async with kite_of(exchange, tmp_path, endpoints=endpoints, timeouts=TIMEOUTS) as lost:
            with pytest.raises(NotSent):
                await lost.place_order(ISIN, Side.BUY, amount=5000)
            assert 1 <= seconds() <= TIMEOUTS.order


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("broken", [Cut(), Cut(b'{"stat'), Late(60.0, Reply(""))])
async def test_not_even_the_transport_sends_a_change_twice(
    broken: Cut | Late, method: str, tmp_path: Path
) -> None:
    """aiohttp repeats these methods by itself when a connection breaks."""
    async with scripted_kite(tmp_path, timeouts=TIMEOUTS) as (fake_kite, kite):
        fake_kite.sample("GET", "/mf/sips/1", "sip.json")
        await kite.sip("1")  # on a connection that is used again
        fake_kite.script(method, "/mf/sips/1", broken)
        call = kite.modify_sip("1", amount=5000) if method == "PUT" else kite.cancel_sip("1")
        if method == "PUT":
            assert await call == "181635213661372"
        else:
            with pytest.raises(NotAccepted):
                await call
        assert [asked.method for asked in fake_kite.asked].count(method) == 1
