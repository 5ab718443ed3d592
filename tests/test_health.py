"""How a client says it is: ok when it is, and what is wrong when it is not."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from neo_async import NeoClient, OutcomeUnknown, Product, RiskLimits, Segment, Side, Timeouts
from tests.clients import BOOK, PLACE, client_of, exchange_of, paths
from tests.fake_servers import VALIDATE, Reply, fault_proxy
from tests.simulation.virtual_time import now

BUY = (Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10)
CNC: dict[str, Any] = {"price": "39.00", "product": Product.CNC}


async def until_ok(neo: NeoClient, *, within: float) -> None:
    async with asyncio.timeout(within):
        while not neo.health().ok:  # noqa: ASYNC110 - of many causes
            await asyncio.sleep(0.05)


async def test_before_and_after_a_login_there_is_nothing_to_look_at() -> None:
    async with exchange_of() as exchange:
        neo = client_of(exchange)
        for _ in range(2):
            health = neo.health()
            assert (health.ok, health.problems) == (False, ("not logged in",))
            assert (health.logged_in_since, health.lane, health.feeds) == (None, None, ())
            async with neo:
                pass


async def test_a_client_that_is_well_says_so(tmp_path: Any) -> None:
    path = tmp_path / "orders.db"
    async with exchange_of() as exchange, client_of(exchange, journal=path) as neo:
        await neo.order_feed.until_live()
        async with neo.market_feed(level=None) as feed:
            await feed.until_live()
            await asyncio.sleep(1.0)
            health = neo.health()
            assert (health.ok, health.problems, health.unknown) == (True, (), ())
            assert repr(health) == ("<Health ok: logged in, order feed live, market feed live>")
            assert health.logged_in_since == pytest.approx(now() - 1.0, abs=0.1)
            assert health.lane is not None
            assert (health.lane.idle, health.lane.busy, health.lane.opened) == (2, 0, 2)
            assert {breaker.state for breaker in health.breakers} == {"closed"}
            assert [breaker.name.partition(" ")[0] for breaker in health.breakers] == [
                "reads",
                "orders",
            ]
            order_feed = health.feeds[0]
            assert (order_feed.state, order_feed.reconnects, order_feed.reason) == ("live", 0, "")
            assert order_feed.age is None or 0 <= order_feed.age <= 1.1
            assert health.journal == str(path)
        assert [each.name for each in neo.health().feeds] == ["order feed"]


async def test_every_kind_of_trouble_has_its_words() -> None:
    dropped: set[str] = set()
    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, lambda *answer: None, dropped=dropped) as endpoints,
        client_of(
            exchange, endpoints=endpoints, live_updates=False, timeouts=Timeouts(order=2.0)
        ) as neo,
    ):
        neo.limiter._clock = asyncio.get_running_loop().time
        await until_ok(neo, within=5.0)

        dropped.add(PLACE)
        with pytest.raises(OutcomeUnknown) as caught:
            await neo.orders.place(*BUY, **CNC, tag="lost", wait_for_outcome=False)
        tag = caught.value.client_tag
        assert neo.health().problems == (f"place of tag {tag!r} may have taken effect, or not",)
        assert neo.health().unknown == (f"place of tag {tag!r}",)
        await until_ok(neo, within=40.0)

        neo.limiter.pause(3.0)
        assert neo.health().problems == ("no request starts for 3.0 s: the broker answered 429",)
        await until_ok(neo, within=4.0)

        breaker = neo._session.lane.breaker
        for _ in range(5):
            breaker.failed("answered with HTTP 503", connected=True)
        await asyncio.sleep(1.5)
        assert neo.health().problems == (
            f"{breaker.name}: down for 1.5 s (answered with HTTP 503)",
        )
        assert repr(neo.health()) == f"<Health: {neo.health().problems[0]}>"
        dropped.clear()
        await neo.orders.place(*BUY, **CNC)
        await until_ok(neo, within=1.0)


async def test_a_feed_that_is_lost_is_a_problem_until_it_is_back() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        await neo.order_feed.until_live()
        lost: list[str] = []
        neo.order_feed.on_event(lambda event: lost.extend(neo.health().problems))
        exchange.feeds.drop_connections()
        async with asyncio.timeout(10.0):
            while not neo.order_feed.reconnects:  # noqa: ASYNC110 - nothing else tells
                await asyncio.sleep(0.05)
        await until_ok(neo, within=1.0)
        assert any(problem.startswith("the order feed is waiting (") for problem in lost)
        health = neo.health()
        assert health.feeds[0].reconnects == 1
        assert health.feeds[0].reason


async def test_a_halt_is_a_problem_until_it_is_over() -> None:
    async with exchange_of() as exchange, client_of(exchange, live_updates=False) as neo:
        await neo.halt(reason="enough")
        assert neo.health().halted == "enough"
        assert neo.health().problems == ("halted: enough",)
        neo.resume_orders()
        assert neo.health().ok


async def test_a_session_that_is_being_renewed_is_a_problem() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        await neo.order_feed.until_live()
        since = neo.health().logged_in_since
        exchange.end_sessions()
        reading = asyncio.create_task(neo.orders.book())
        await asyncio.sleep(1.0)
        assert "the broker has ended the session: logging in again" in neo.health().problems
        await reading
        await until_ok(neo, within=10.0)
        health = neo.health()
        assert health.renewals == 1
        assert since is not None
        assert health.logged_in_since is not None
        assert health.logged_in_since > since


async def test_an_order_lane_without_a_connection_is_a_problem() -> None:
    async with exchange_of() as exchange, client_of(exchange, live_updates=False) as neo:
        lane = neo._session.lane
        for connection in list(lane.pool.connections):
            connection.close()
        await asyncio.sleep(0)
        assert neo.health().problems == ("no connection for orders",)
        await until_ok(neo, within=2.0)


async def test_limits_that_refuse_for_what_they_do_not_know_are_a_problem() -> None:
    is_busy = False
    async with (
        exchange_of() as exchange,
        fault_proxy(
            exchange, lambda path, *_: Reply("busy", 503) if path == BOOK and is_busy else None
        ) as endpoints,
        client_of(
            exchange,
            endpoints=msgspec.structs.replace(endpoints, realtime="ws://127.0.0.1:9/realtime"),
            risk=RiskLimits(max_open_orders=5),
        ) as neo,
    ):
        is_busy = True
        await asyncio.sleep(60)
        (problem,) = [each for each in neo.health().problems if each.startswith("limits")]
        assert problem.startswith(
            "limits refuse orders: the open orders of the account were last known 60 s ago: the "
            "order feed is down"
        )
        is_busy = False
        await asyncio.sleep(20)
        assert not any(each.startswith("limits") for each in neo.health().problems)


async def test_a_feed_whose_login_is_refused_is_a_problem_and_makes_no_more_logins() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        await neo.order_feed.until_live()
        async with neo.market_feed(level=None) as feed:
            await feed.until_live()
            right = neo._session._authenticator._credentials
            neo._session._authenticator._credentials = msgspec.structs.replace(right, mpin="000000")
            exchange.end_sessions()
            exchange.feeds.drop_connections()
            await asyncio.sleep(3600)
            seen = (await paths(exchange)).count(VALIDATE)
            assert seen <= 3  # the first login, and one for each feed at most
            for name in ("order feed", "market feed"):
                assert any(
                    each.startswith(f"the {name} is waiting (the broker refuses the login (")
                    for each in neo.health().problems
                )
            neo._session._authenticator._credentials = right
            await neo.login()
            await until_ok(neo, within=60.0)
            assert feed.is_live
