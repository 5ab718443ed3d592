"""Reads asked twice: whichever answers, one answer, and no connection left waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from neo_async import (
    AnswerLost,
    NeoClient,
    NotSent,
    OrderSettings,
    OutcomeUnknown,
    Product,
    Segment,
    Side,
)
from neo_async.config import Timeouts
from neo_async.errors import NeoError
from neo_async.model.answer import Answer
from neo_async.transport.duplicate_read import with_duplicate
from neo_async.transport.http import HttpClient
from tests.clients import WIDE
from tests.fake_servers import CREDENTIALS, LOGIN, Late, Reply, Scripted, scripted_broker
from tests.simulation.virtual_time import now
from tests.transport.servers import Peer, echo, reply, serving

BOOK = "/quick/user/orders"
PLACE = "/quick/order/rule/ms/place"
EMPTY = Reply({"stCode": 5203, "errMsg": "No Data", "stat": "Not_Ok"})
BUSY = Reply("busy", 503)


def seconds() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def client_of(broker: Scripted, **timeouts: Any) -> AsyncIterator[NeoClient]:
    async with NeoClient(
        CREDENTIALS,
        endpoints=broker.endpoints,
        limits=WIDE,
        timeouts=Timeouts(**timeouts),
        orders=OrderSettings(live_updates=False),
        clock=now,
    ) as neo:
        yield neo


@pytest.mark.parametrize(
    ("answers", "asked", "takes"),
    [
        ([EMPTY], 1, 0.0),
        ([Late(1.9, EMPTY)], 1, 1.9),
        ([Late(60.0, EMPTY), EMPTY], 2, 2.0),
        ([Late(3.0, EMPTY), Late(60.0, EMPTY)], 2, 3.0),
        ([Late(5.0, EMPTY), BUSY], 2, 5.0),
        ([Late(5.0, BUSY), Late(5.0, EMPTY)], 2, 7.0),
    ],
    ids=["at once", "slow", "hangs", "slower", "the second fails", "the first fails"],
)
async def test_the_first_good_answer_wins(answers: Any, asked: int, takes: float) -> None:
    async with scripted_broker() as broker, client_of(broker) as neo:
        broker.script(BOOK, *answers)
        began = seconds()
        assert await neo.orders.book() == []
        assert seconds() - began == pytest.approx(takes, abs=0.01)
        assert broker.paths().count(BOOK) == asked


async def test_what_fails_before_the_delay_is_not_asked_again() -> None:
    async with scripted_broker() as broker, client_of(broker) as neo:
        broker.script(BOOK, Late(1.0, BUSY), EMPTY)
        with pytest.raises(NeoError, match="HTTP 503"):
            await neo.orders.book()
        assert broker.paths().count(BOOK) == 1


async def test_two_that_hang_end_at_the_deadline_of_the_first() -> None:
    async with (
        scripted_broker() as broker,
        client_of(broker, read=15.0, duplicate_read_after=2.0) as neo,
    ):
        broker.script(BOOK, Late(60.0, EMPTY))
        began = seconds()
        with pytest.raises(AnswerLost, match="within 15 s"):
            await neo.orders.book()
        assert seconds() - began == pytest.approx(15.0, abs=0.01)


async def test_it_can_be_turned_off() -> None:
    async with scripted_broker() as broker, client_of(broker, duplicate_read_after=None) as neo:
        broker.script(BOOK, Late(10.0, EMPTY))
        assert await neo.orders.book() == []
        assert broker.paths().count(BOOK) == 1


async def test_orders_and_logins_are_never_asked_twice() -> None:
    async with scripted_broker() as broker:
        (login,) = broker.answers[LOGIN]
        assert isinstance(login, Reply)
        broker.script(LOGIN, Late(10.0, login))
        async with client_of(broker) as neo:
            broker.script(PLACE, Late(9.0, Reply({"nOrdNo": "1" * 15, "stat": "Ok"})))
            await neo.orders.place(
                Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 1, price="39", product=Product.CNC
            )
            broker.script(PLACE, Late(60.0, Reply("late")))
            with pytest.raises(OutcomeUnknown):
                await neo.orders.place(
                    Segment.NSE_CM,
                    "ITBEES-EQ",
                    Side.BUY,
                    1,
                    price="39",
                    product=Product.CNC,
                    wait_for_outcome=False,
                )
        assert broker.paths().count(LOGIN) == 1
        assert broker.paths().count(PLACE) == 2


async def test_the_second_waits_for_the_limiter_and_no_longer_than_the_deadline() -> None:
    async with scripted_broker() as broker, client_of(broker) as neo:
        broker.script(BOOK, Late(60.0, EMPTY))
        began = seconds()
        reading = asyncio.create_task(neo.orders.book())
        await asyncio.sleep(1.0)
        neo.limiter._clock = asyncio.get_running_loop().time
        neo.limiter.pause(100.0)
        with pytest.raises(AnswerLost):
            await reading
        assert seconds() - began == pytest.approx(15.0, abs=0.01)
        assert broker.paths().count(BOOK) == 1
        assert neo.limiter.waiting == 0


async def test_the_losers_connection_is_closed_and_never_used_again() -> None:
    async def hang_first(peer: Peer) -> None:
        if len(peer.server.peers) == 1:
            await peer.take()
            await asyncio.sleep(1.0)
            peer.send(reply(b"late"))
            await peer.take()
        await echo(peer)

    async with serving(hang_first) as server:
        http = HttpClient(connect_timeout=1.0)

        async def ask() -> Answer:
            return await http.request("POST", server.url, headers={}, body=b"x", timeout=5.0)

        assert (await with_duplicate(ask(), ask, delay=0.5, timeout=5.0)).body == b"x"
        for _ in range(10):
            assert (await ask()).body == b"x"
            await asyncio.sleep(0.2)
        assert server.peers[0].requests == 1
        assert server.peers[0] not in server.open
        assert len(server.peers) == 2
        await http.close()


async def test_a_caller_that_gives_up_ends_both() -> None:
    asked: list[asyncio.Task[Any] | None] = []

    async def ask() -> Answer:
        asked.append(asyncio.current_task())
        await asyncio.sleep(60)
        raise NotSent("never")

    call = asyncio.create_task(with_duplicate(ask(), ask, delay=1.0, timeout=30.0))
    await asyncio.sleep(2.0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert [task is not None and task.cancelled() for task in asked] == [True, True]


async def test_the_first_is_asked_in_this_very_turn_of_the_loop() -> None:
    asked: list[str] = []

    async def ask() -> Answer:
        asked.append("first")
        return Answer(200, {}, b"")

    loop = asyncio.get_running_loop()
    loop.call_soon(asked.append, "next turn")
    await with_duplicate(ask(), ask, delay=1.0, timeout=5.0)
    await asyncio.sleep(0)
    assert asked == ["first", "next turn"]


async def test_two_answers_at_the_same_moment_are_one() -> None:
    async def ask(seconds: float, body: bytes) -> Answer:
        await asyncio.sleep(seconds)
        return Answer(200, {}, body)

    for first in (1.999999, 2.0, 2.000001):
        answer = await with_duplicate(
            ask(first, b"1"), lambda: ask(1.0, b"2"), delay=1.0, timeout=5.0
        )
        assert answer.body in (b"1", b"2")
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
