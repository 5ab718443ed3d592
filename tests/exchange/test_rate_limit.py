from __future__ import annotations

import pytest

from neo_async.config import RateLimits
from neo_async.exchange.rest.throttle import Throttle, Throttled
from tests.exchange.callers import START, second_account, trading


def admitted(throttle: Throttle, now: float, *, is_order: bool = False, account: str = "A") -> bool:
    try:
        throttle.admit(account, now, is_order=is_order)
    except Throttled:
        return False
    return True


def test_any_window_of_a_second_holds_so_many_and_no_more() -> None:
    throttle = Throttle(RateLimits(orders=3, total=3))
    times = [START, START + 0.4, START + 0.8, START + 0.999, START + 1.0, START + 1.2, START + 1.4]
    assert [admitted(throttle, now) for now in times] == [
        *(True, True, True),
        False,
        True,
        False,
        True,
    ]


def test_orders_have_a_window_of_their_own_inside_the_total() -> None:
    throttle = Throttle(RateLimits(orders=2, total=4))
    assert [admitted(throttle, START, is_order=True) for _ in range(3)] == [True, True, False]
    # The refused order took no place from the reads.
    assert [admitted(throttle, START) for _ in range(3)] == [True, True, False]


def test_accounts_do_not_borrow_from_each_other() -> None:
    throttle = Throttle(RateLimits(orders=1, total=1))
    assert admitted(throttle, START, account="A")
    assert admitted(throttle, START, account="B")
    assert not admitted(throttle, START, account="A")


def test_no_limits_means_none() -> None:
    throttle = Throttle(None)
    assert all(admitted(throttle, START, is_order=True) for _ in range(1000))


async def test_the_eleventh_call_of_a_second_is_one_too_many() -> None:
    async with trading(limits=RateLimits()) as caller:
        for index in range(10):
            # Orders, reports and data calls count alike; the two login steps do not.
            answered = await (caller.place() if index % 2 else caller.get("/quick/user/orders"))
            assert answered.status == 200
        refused = await caller.place()
        assert refused.status == 429
        assert refused.headers["Retry-After"] == "1"
        assert refused.headers["X-RateLimit-Limit"] == "10"
        assert refused.headers["X-RateLimit-Remaining"] == "0"
        assert refused.headers["X-RateLimit-Reset"] == "1"
        assert refused.json() == {
            "stat": "Not_Ok",
            "emsg": "Too many requests",
            "errMsg": "Too many requests",
            "stCode": 429,
        }
        caller.clock.now += 1
        assert len(await caller.book()) == 5


async def test_a_throttled_order_was_not_accepted() -> None:
    async with trading(limits=RateLimits(orders=1, total=25)) as caller:
        statuses = [(await caller.place(ig=f"tag_{index}")).status for index in range(3)]
        assert statuses == [200, 429, 429]
        assert [row["GuiOrdId"] for row in await caller.book()] == ["tag_0"]


async def test_another_account_goes_on() -> None:
    async with trading(limits=RateLimits(orders=1, total=1)) as caller:
        assert (await caller.place()).status == 200
        assert (await caller.place()).status == 429
        caller.credentials = second_account(caller)
        await caller.log_in()
        assert (await caller.place()).status == 200


@pytest.mark.parametrize("limits", [RateLimits(), None])
async def test_calls_without_a_login_are_not_counted(limits: RateLimits | None) -> None:
    async with trading(limits=limits) as caller:
        url = f"{caller.exchange.base_url}/quick/user/orders"
        statuses = {(await caller.request("GET", url)).status for _ in range(15)}
        assert statuses == {403}
        assert (await caller.place()).status == 200
