"""A price trigger without a broker: when it places its order, and when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from neo_async import NotLoggedIn, Order, OrderRequest, Product, Rejected, Segment, Side
from neo_async.exits.trigger import PriceTrigger, TriggerState, TriggerStatus
from neo_async.model.orders import OrderTerms
from neo_async.wire.rules import check_order
from tests.simulation.virtual_time import now

D = Decimal
TERMS = check_order(
    OrderRequest(Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10, product=Product.MIS, price="40.60")
)


class Placements:
    """Stands for the broker: what was placed, and the answers."""

    def __init__(self, *answers: object) -> None:
        self.answers = [*answers]
        self.requests: list[OrderRequest] = []
        self.states: list[TriggerState] = []
        self.ended: list[PriceTrigger] = []

    async def place(self, request: OrderRequest) -> Order:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Order(str(answer), TERMS)

    def write(self, state: TriggerState) -> None:
        self.states.append(msgspec.json.decode(msgspec.json.encode(state), type=TriggerState))


def trigger_of(
    broker: Placements,
    *,
    found: list[Order] | None = None,
    opens_in: Callable[[], float] = lambda: 0.0,
    **terms: object,
):
    state = TriggerState(
        id="abcde",
        instrument="nse_cm|19084",
        **{"above": D("40.50"), "order": TERMS, **terms},
    )
    return PriceTrigger(
        state,
        place=broker.place,
        find_orders=lambda tag, numbers: found or [],
        write=broker.write,
        clock=now,
        opens_in=opens_in,
        on_end=broker.ended.append,
    )


async def test_the_order_is_placed_once_and_every_step_is_written_before_it() -> None:
    broker = Placements("1001")
    trigger = trigger_of(broker)
    trigger.start()
    for price in ("40.49", "40.50", "41"):
        trigger.on_price(D(price))
    assert await trigger.wait(timeout=1) is TriggerStatus.PLACED
    assert [request.tag for request in broker.requests] == ["_abcde0"]
    assert [state.status for state in broker.states] == ["placing", "placed"]
    assert broker.states[-1].order == TERMS == check_order(broker.requests[0])


async def test_a_refusal_ends_it_with_its_reason() -> None:
    broker = Placements(Rejected("no margin"))
    trigger = trigger_of(broker, above=None, below=D("39"))
    trigger.start()
    trigger.on_price(D("38.99"))
    assert await trigger.wait(timeout=1) is TriggerStatus.FAILED
    assert trigger.reason == "no margin"


async def test_without_a_login_it_waits_for_the_price_again() -> None:
    broker = Placements(NotLoggedIn("not logged in"), "1001")
    trigger = trigger_of(broker)
    trigger.start()
    trigger.on_price(D("41"))
    await asyncio.sleep(1)
    assert trigger.status is TriggerStatus.WAITING
    trigger.on_price(D("41"))
    assert await trigger.wait(timeout=1) is TriggerStatus.PLACED


async def test_it_ends_at_the_midnight_after_its_last_day() -> None:
    broker = Placements()
    today = date.fromtimestamp(now() + 19_800)
    trigger = trigger_of(broker, until=today)
    trigger.start()
    assert await trigger.wait(timeout=90_000) is TriggerStatus.EXPIRED
    assert broker.ended == [trigger]


async def test_a_placement_under_way_at_midnight_or_at_a_logout_keeps_its_outcome() -> None:
    for end_of_day in (True, False):
        broker = Placements("1001")
        placed = broker.place

        async def slowly(request: OrderRequest, placed: Any = placed) -> Order:
            await asyncio.sleep(90_000)
            return await placed(request)

        broker.place = slowly  # type: ignore[method-assign]
        trigger = trigger_of(broker)
        trigger.start()
        trigger.on_price(D("41"))
        await asyncio.sleep(1)
        if not end_of_day:
            await trigger.stop()
            trigger.take_up()
            trigger.start()
        assert trigger.status is TriggerStatus.PLACING
        assert await trigger.wait(timeout=100_000) is TriggerStatus.PLACED
        await asyncio.sleep(0)
        assert len(broker.requests) == 1


async def test_a_refusal_before_the_open_waits_for_the_price_in_market_hours() -> None:
    broker = Placements(Rejected("market closed"), "1001")
    opens_at = asyncio.get_running_loop().time() + 3600

    def opens_in() -> float:
        return max(0.0, opens_at - asyncio.get_running_loop().time())

    trigger = trigger_of(broker, opens_in=opens_in)
    trigger.start()
    trigger.on_price(D("41"))
    await asyncio.sleep(60)
    trigger.on_price(D("41"))
    await asyncio.sleep(60)
    assert (trigger.status, len(broker.requests)) == (TriggerStatus.WAITING, 1)
    assert broker.states[-1].status is TriggerStatus.WAITING
    await asyncio.sleep(3600)
    trigger.on_price(D("41"))
    assert await trigger.wait(timeout=1) is TriggerStatus.PLACED


@pytest.mark.parametrize("was_accepted", [True, False])
async def test_a_crash_while_it_was_placing_places_nothing_twice(was_accepted: bool) -> None:
    broker = Placements("1002")
    found = [Order("1001", TERMS)] if was_accepted else []
    trigger = trigger_of(broker, found=found, status=TriggerStatus.PLACING)
    trigger.take_up()
    trigger.start()
    trigger.on_price(D("41"))
    assert await trigger.wait(timeout=1) is TriggerStatus.PLACED
    assert trigger.order is not None
    assert trigger.order.number == ("1001" if was_accepted else "1002")
    assert len(broker.requests) == (0 if was_accepted else 1)


async def test_a_crash_while_it_was_placing_on_an_earlier_day_places_nothing() -> None:
    """The order book of today does not show how yesterday's order ended."""
    broker = Placements("1002")
    yesterday = date.fromtimestamp(now() + 19_800 - 86_400)
    trigger = trigger_of(broker, status=TriggerStatus.PLACING, placed_on=yesterday)
    trigger.take_up()
    trigger.start()
    trigger.on_price(D("41"))
    assert await trigger.wait(timeout=1) is TriggerStatus.FAILED
    assert trigger.reason == (
        f"the process ended while its order was placed on {yesterday}: whether the broker took it "
        "is not known, compare the trade book of that day"
    )
    assert not broker.requests
    assert broker.states[-1].status is TriggerStatus.FAILED


async def test_the_day_of_the_placement_is_written_before_it() -> None:
    broker = Placements("1001")
    trigger = trigger_of(broker)
    trigger.start()
    trigger.on_price(D("41"))
    await trigger.wait(timeout=1)
    assert broker.states[0].placed_on == date.fromtimestamp(now() + 19_800)


async def test_an_error_of_the_client_ends_it_with_a_reason() -> None:
    broker = Placements(RuntimeError("the disk is full"))
    trigger = trigger_of(broker)
    trigger.start()
    trigger.on_price(D("41"))
    assert await trigger.wait(timeout=1) is TriggerStatus.FAILED
    assert "the disk is full" in trigger.reason


async def test_a_logout_ends_the_waiting_for_it() -> None:
    broker = Placements("1001")
    trigger = trigger_of(broker)
    trigger.start()
    waiting = asyncio.create_task(trigger.wait())
    await asyncio.sleep(1)
    await trigger.stop()
    with pytest.raises(NotLoggedIn, match="abcde"):
        await asyncio.wait_for(waiting, 1)
    trigger.start()
    trigger.on_price(D("41"))
    assert await trigger.wait(timeout=1) is TriggerStatus.PLACED


async def test_an_order_keeps_its_terms_in_the_journal() -> None:
    terms: OrderTerms = check_order(
        OrderRequest(
            Segment.NSE_FO, "NIFTY", Side.SELL, 65, product=Product.NRML, price=1, amo=True
        )
    )
    broker = Placements("1001")
    trigger = trigger_of(broker, order=terms)
    trigger.start()
    trigger.on_price(D("41"))
    assert await trigger.wait(timeout=1) is TriggerStatus.PLACED
    assert broker.states[-1].order == check_order(broker.requests[0]) == terms
