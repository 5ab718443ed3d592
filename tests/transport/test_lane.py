from __future__ import annotations

import asyncio
import gc
import random
import time
import warnings
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neo_async.config import PoolLimits, RateLimits
from neo_async.errors import AnswerLost, Halted, NotSent, UsageError
from neo_async.transport.connection import Connection
from neo_async.transport.hidden import Hidden
from neo_async.transport.kinds import Kind
from neo_async.transport.lane import Lane
from neo_async.transport.limiter import Limiter
from tests.simulation.virtual_time import in_virtual_time
from tests.transport.lanes import UNLIMITED, assert_usable, lane_to, send, starts_of
from tests.transport.servers import (
    AUTHORITY,
    Peer,
    echo,
    never,
    reply,
    request,
    serving,
    trust,
    until,
)

both_loops = pytest.mark.usefixtures("loop_factory")


def new_lane(url: str, *, warm: int = 1, maximum: int = 4, **options) -> Lane:
    options = {"connect_timeout": 1.0} | options
    return Lane(url, Limiter(UNLIMITED), PoolLimits(warm=warm, maximum=maximum), **options)


async def closed_port() -> int:
    """A port on which nobody listens."""
    async with serving(echo) as server:
        return int(server.url.rpartition(":")[2])


class Held:
    """A script that answers a request when told to, and not before."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Event] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            body = await peer.take()
            go = asyncio.Event()
            self.waiting.append(go)
            await go.wait()
            peer.send(reply(body))

    async def answer_all(self) -> None:
        """Until nobody has asked for a while."""
        while self.waiting:
            for go in self.waiting:
                go.set()
            self.waiting.clear()
            await asyncio.sleep(0.005)


# --- opening ----------------------------------------------------------------------------------


@both_loops
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
async def test_the_warm_connections_are_there_before_the_first_request(tls):
    async with lane_to(echo, tls=tls, warm=3) as (lane, server):
        await until(lambda: len(server.open) == 3)
        assert lane.opened == 3
        await assert_usable(lane)
        assert lane.opened == 3


@both_loops
async def test_nobody_listening_is_not_sent():
    port = await closed_port()
    with pytest.raises(NotSent, match=f"cannot connect to 127.0.0.1:{port}"):
        await new_lane(f"http://127.0.0.1:{port}", warm=2).open()


@both_loops
async def test_a_certificate_of_an_unknown_authority_is_not_sent():
    async with serving(echo, tls=AUTHORITY) as server:
        with pytest.raises(NotSent, match="certificate verify failed"):
            await new_lane(server.url).open()


@both_loops
async def test_a_server_that_never_shakes_hands_is_not_sent_in_time():
    async with serving(never) as server:
        lane = new_lane(
            server.url.replace("http:", "https:"), connect_timeout=0.05, tls=trust(AUTHORITY)
        )
        with pytest.raises(NotSent, match=r"no connection to 127.0.0.1:\d+ within 0\.05 s"):
            await lane.open()


@both_loops
async def test_one_warm_connection_is_enough_to_open():
    async with serving(echo) as server:
        lane = new_lane(server.url, warm=2)
        connect, attempts = lane.pool._connect, []

        async def fail_once() -> None:
            attempts.append(1)
            if len(attempts) == 1:
                raise NotSent("no")
            await connect()

        lane.pool._connect = fail_once
        await lane.open()
        await assert_usable(lane)
        await until(lambda: len(lane.pool.idle) == 2)
        await lane.close()


@both_loops
async def test_giving_up_opening_leaves_no_connection():
    async with serving(echo) as server:
        lane = new_lane(server.url, warm=2, connect_timeout=30)
        connect, attempts = lane.pool._connect, []

        async def slow_after_the_first() -> None:
            attempts.append(1)
            if len(attempts) > 1:
                await asyncio.sleep(30)
            await connect()

        lane.pool._connect = slow_after_the_first
        opening = asyncio.create_task(lane.open())
        await until(lambda: server.open)
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        await until(lambda: not server.open)
        assert opening.cancelled()


def test_an_address_without_a_host_is_refused():
    with pytest.raises(UsageError, match="has no host"):
        new_lane("localhost:8080")


# --- connections that go ----------------------------------------------------------------------


@both_loops
async def test_connections_that_the_server_closes_are_opened_again():
    async with lane_to(echo, warm=2) as (lane, server):
        for _ in range(3):
            await assert_usable(lane)
        for peer in list(server.open):
            peer.close()
        await until(lambda: len(server.peers) == 4 and len(server.open) == 2, seconds=8)
        await assert_usable(lane)


@both_loops
async def test_a_warm_lane_is_restored_after_the_server_was_away():
    async with lane_to(echo, warm=2) as (lane, server):
        refused = asyncio.Event()
        connect = lane.pool._connect

        async def refuse() -> None:
            refused.set()
            raise NotSent("away")

        lane.pool._connect = refuse
        for peer in list(server.open):
            peer.close()
        await until(lambda: not lane.pool.connections)
        # A request that fails meanwhile has no part in restoring the rest.
        with pytest.raises(NotSent, match="away"):
            await send(lane)
        await refused.wait()
        lane.pool._connect = connect
        await until(lambda: len(lane.pool.idle) == 2, seconds=8)


@both_loops
async def test_the_lane_warms_up_again_after_a_connection_for_a_request_failed():
    async with lane_to(never, maximum=1) as (lane, _):
        connect = lane.pool._connect

        async def refuse() -> None:
            await asyncio.sleep(0.01)
            lane.pool._connect = connect
            raise NotSent("away")

        first = asyncio.create_task(send(lane))
        await until(lambda: not lane.pool.idle)
        second = asyncio.create_task(send(lane))
        await asyncio.sleep(0)
        lane.pool._connect = refuse
        next(
            iter(lane.pool.connections)
        ).close()  # the connection that replaces it is for the second
        with pytest.raises(AnswerLost):
            await first
        with pytest.raises(NotSent, match="away"):
            await second
        await until(lambda: lane.pool.idle)


async def test_a_connection_lost_before_it_was_counted_is_never_counted(monkeypatch):
    async with lane_to(echo) as (lane, _):
        loop = asyncio.get_running_loop()
        create_connection = loop.create_connection

        async def lose_at_once(*arguments, **options):
            transport, connection = await create_connection(*arguments, **options)
            transport.abort()
            await asyncio.sleep(0.01)
            return transport, connection

        monkeypatch.setattr(loop, "create_connection", lose_at_once)
        next(iter(lane.pool.connections)).close()
        with pytest.raises(NotSent, match="closed the connection as soon as it was open"):
            await send(lane)
        assert not lane.pool.connections
        monkeypatch.undo()
        await assert_usable(lane)


@both_loops
async def test_a_request_while_nobody_listens_is_not_sent_and_gives_its_start_back():
    limiter = Limiter(RateLimits(orders=1, total=1))
    async with serving(echo) as server:
        lane = Lane(server.url, limiter, PoolLimits(warm=1, maximum=1), connect_timeout=1.0)
        await lane.open()
    await until(lambda: not lane.pool.connections)
    for _ in range(3):  # at once: nothing was sent
        with pytest.raises(NotSent):
            await send(lane)
    assert limiter.starts == starts_of()
    await lane.close()


@both_loops
async def test_a_server_that_accepts_and_closes_at_once_is_not_hammered():
    async def close_at_once(peer: Peer) -> None:
        peer.close()

    async with serving(close_at_once) as server:
        lane = new_lane(server.url, warm=2, maximum=16)
        try:
            await lane.open()
        except NotSent:
            return
        await asyncio.sleep(0.5)
        assert len(server.peers) <= 12
        for _ in range(5):
            with pytest.raises((NotSent, AnswerLost)):
                await send(lane)
        # Three tries a request, each of which also replaces the one that is kept for cancels.
        assert len(server.peers) <= 12 + 5 * 3 * 2
        await lane.close()


@both_loops
async def test_a_request_does_not_wait_for_ever_for_a_connection_that_lives():
    async with lane_to(echo) as (lane, _):
        open_connection = lane.pool._open_connection

        async def stillborn() -> Connection:
            connection = await open_connection()
            connection.close()
            return connection

        lane.pool._open_connection = stillborn
        next(iter(lane.pool.connections)).close()
        async with asyncio.timeout(5):
            with pytest.raises(NotSent, match="as soon as they are open"):
                await send(lane)


# --- the pool ---------------------------------------------------------------------------------


@both_loops
async def test_the_connection_used_last_is_used_next():
    async with lane_to(echo, warm=3) as (lane, server):
        for _ in range(10):
            await assert_usable(lane)
        assert sorted(peer.requests for peer in server.peers) == [0, 0, 10]


@both_loops
async def test_the_pool_grows_by_those_who_wait_and_not_beyond_its_limit():
    held = Held()
    async with lane_to(held, warm=1, maximum=3) as (lane, server):
        requests = []
        for waiting, connections in ((1, 1), (2, 2), (3, 3), (5, 3)):
            while len(requests) < waiting:
                requests.append(asyncio.create_task(send(lane)))
            await until(lambda n=connections: len(held.waiting) == n)
            await asyncio.sleep(0.01)
            assert len(server.open) == len(server.peers) == connections
        assert repr(lane).endswith("0 idle, 3 busy, 0 connecting, 2 waiting>")
        while not all(request.done() for request in requests):
            await held.answer_all()
            await asyncio.sleep(0.005)
        await asyncio.gather(*requests)
        assert repr(lane).endswith("3 idle, 0 busy, 0 connecting, 0 waiting>")


class Load:
    """Callers that come, wait, give up and are answered, against a lane."""

    def __init__(self, callers: list[tuple[float, float, float | None]]) -> None:
        self.callers = callers

    async def run(self, maximum: int) -> None:
        async def slow(peer: Peer) -> None:
            while True:
                body = await peer.take()
                await asyncio.sleep(float(body.partition(b" ")[2]))
                peer.send(reply(body))

        async with lane_to(slow, warm=1, maximum=maximum) as (lane, _):
            connect, most = lane.pool._connect, 0

            async def watched_connect() -> None:
                nonlocal most
                most = max(most, len(lane.pool.connections) + len(lane.pool._connecting))
                await asyncio.sleep(0.01)
                await connect()

            lane.pool._connect = watched_connect

            async def caller(number: int, at: float, takes: float, patience: float | None) -> None:
                await asyncio.sleep(at)
                body = b"%d %f" % (number, takes)
                async with asyncio.timeout(patience):
                    assert (await send(lane, body, within=60)).body == body

            results = await asyncio.gather(
                *(caller(number, *times) for number, times in enumerate(self.callers)),
                return_exceptions=True,
            )
            for (_, _, patience), result in zip(self.callers, results, strict=True):
                assert result is None or (isinstance(result, TimeoutError) and patience is not None)
            assert most <= maximum
            await until(lambda: not lane.pool._connecting)
            assert len(lane.pool.idle) == len(lane.pool.connections) <= maximum
            assert lane.waiting == 0, "a waiter was left behind"
            assert lane._limiter._held_ahead == [0] * len(Kind), "a start was left behind"


moments = st.integers(0, 20).map(lambda hundredths: hundredths / 100)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(moments, moments, st.none() | moments), min_size=1, max_size=25),
    st.integers(1, 5),
)
def test_the_pool_keeps_its_limit_and_serves_everybody_under_any_load(callers, maximum):
    in_virtual_time(Load(callers).run)(maximum)


@both_loops
async def test_kinds_are_served_in_order_when_connections_are_scarce():
    held = Held()
    async with lane_to(held, maximum=1) as (lane, server):
        first = asyncio.create_task(send(lane, b"first"))
        await until(lambda: held.waiting)
        kinds = [Kind.PLACE, Kind.CANCEL, Kind.MODIFY, Kind.PLACE, Kind.CANCEL]
        tasks = [
            asyncio.create_task(send(lane, kind.name.encode() + b"%d" % number, kind=kind))
            for number, kind in enumerate(kinds)
        ]
        await asyncio.sleep(0)
        await held.answer_all()
        await asyncio.gather(first, *tasks)
        assert [body for _, body in server.arrivals] == [
            b"first",
            b"CANCEL1",
            b"CANCEL4",
            b"MODIFY2",
            b"PLACE0",
            b"PLACE3",
        ]


@both_loops
async def test_a_cancelled_waiter_takes_no_connection_with_it():
    held = Held()
    async with lane_to(held, maximum=1) as (lane, _):
        first, second, third = (asyncio.create_task(send(lane)) for _ in range(3))
        await until(lambda: held.waiting)
        second.cancel()
        await held.answer_all()
        await asyncio.gather(first, third)
        assert len(lane.pool.idle) == len(lane.pool.connections) == 1


@both_loops
async def test_a_request_cancelled_just_as_it_gets_a_connection_was_sent_and_holds_up_no_other():
    async with lane_to(never, maximum=1) as (lane, server):
        first = asyncio.create_task(send(lane))
        connection = next(iter(lane.pool.connections))
        await until(lambda: connection.requests == 1)
        record = SimpleNamespace(was_sent=False)
        second = asyncio.create_task(send(lane, record=record))
        third = asyncio.create_task(send(lane, b"third"))
        await asyncio.sleep(0)
        assert not record.was_sent
        connection.data_received(reply(b""))  # the second is written in this moment
        assert record.was_sent
        second.cancel()
        await until(lambda: [body for _, body in server.arrivals][-1:] == [b"third"])
        third_connection = next(iter(lane.pool.connections))
        assert third_connection is not connection
        third_connection.data_received(reply(b"to the third"))
        assert (await third).body == b"to the third"
        await first
        assert second.cancelled()


@both_loops
async def test_whoever_comes_while_a_connection_is_being_counted_gets_one_of_his_own():
    """The connection is open, its task not yet done: it must not count for the next one too."""
    async with lane_to(never, maximum=3) as (lane, server):
        tasks = [asyncio.create_task(send(lane))]
        await until(lambda: len(server.arrivals) == 1)
        connect = lane.pool._connect

        async def connect_and_one_more() -> None:
            lane.pool._connect = connect
            await connect()
            tasks.append(asyncio.create_task(send(lane)))
            await asyncio.sleep(0)

        lane.pool._connect = connect_and_one_more
        tasks.append(asyncio.create_task(send(lane)))
        await until(lambda: len(server.arrivals) == 3)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# --- connections for cancels ------------------------------------------------------------------


class Busy:
    """A script that answers cancels at once, and nothing else until it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, peer: Peer) -> None:
        while True:
            body = await peer.take()
            if not body.startswith(b"cancel"):
                await self.go.wait()
            peer.send(reply(body))


async def cancel(lane: Lane, *, within: float = 5.0) -> None:
    answer = await send(lane, b"cancel", kind=Kind.CANCEL, within=within)
    assert answer.body == b"cancel"


@both_loops
@pytest.mark.parametrize("kind", [Kind.PLACE, Kind.MODIFY])
@pytest.mark.parametrize(
    ("warm", "maximum", "reserved", "used"),
    [
        (2, 4, 2, 4),
        (1, 4, 2, 4),
        (1, 1, 1, 1),
        (3, 3, 2, 3),
        (2, 30, 2, 30),
        (1, 1, 2, 1),
        (2, 4, 0, 4),
    ],
)
async def test_others_that_hang_leave_the_reserved_connections_to_cancels(
    kind, warm, maximum, reserved, used
):
    busy = Busy()
    async with lane_to(busy, warm=warm, maximum=maximum, reserved=reserved) as (lane, server):
        hanging = [asyncio.create_task(send(lane, kind=kind)) for _ in range(maximum + 5)]
        await until(lambda: len(server.arrivals) == used)
        await asyncio.sleep(0.02)
        assert len(server.arrivals) == used
        if reserved:
            await asyncio.gather(*(cancel(lane) for _ in range(20)))
        assert lane.waiting == maximum + 5 - used
        busy.go.set()
        await asyncio.gather(*hanging)
        assert len(server.arrivals) == maximum + 5 + (20 if reserved else 0)
        assert len(lane.pool.connections) <= maximum + reserved


@both_loops
async def test_a_warm_connection_is_idle_when_a_cancel_comes():
    busy = Busy()
    async with lane_to(busy, warm=2, maximum=8, reserved=2) as (lane, server):
        hanging = [asyncio.create_task(send(lane)) for _ in range(4)]
        await until(lambda: len(server.arrivals) == 4)
        opened = lane.opened
        assert lane.idle == 1
        await cancel(lane)
        assert lane.opened == opened
        busy.go.set()
        await asyncio.gather(*hanging)


@both_loops
async def test_a_connection_kept_for_cancels_is_replaced_when_the_server_closes_it():
    busy = Busy()
    async with lane_to(busy, warm=2, maximum=8, reserved=2) as (lane, server):
        hanging = [asyncio.create_task(send(lane)) for _ in range(4)]
        await until(lambda: len(server.arrivals) == 4 and lane.idle == 1)
        kept = lane.pool.idle[0]
        kept.close()
        await until(lambda: lane.pool.idle and lane.pool.idle[0] is not kept)
        await cancel(lane)
        busy.go.set()
        await asyncio.gather(*hanging)


@both_loops
async def test_a_connection_that_a_cancel_takes_is_replaced_for_the_next_one():
    busy = Busy()
    async with lane_to(never, warm=2, maximum=8, reserved=2) as (lane, server):
        calls = [asyncio.create_task(send(lane)) for _ in range(3)]
        await until(lambda: len(server.arrivals) == 3 and lane.idle == 1)
        for number in range(4, 7):
            calls.append(asyncio.create_task(send(lane, kind=Kind.CANCEL)))
            await until(lambda number=number: len(server.arrivals) == number and lane.idle == 1)
        busy.go.set()
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


@both_loops
async def test_cancels_that_hang_hold_up_no_other_cancel():
    async with lane_to(never, maximum=2, reserved=2, for_cancels=6) as (lane, server):
        calls = [asyncio.create_task(send(lane, kind=Kind.CANCEL)) for _ in range(9)]
        await until(lambda: len(server.arrivals) == 9)
        calls += [asyncio.create_task(send(lane)) for _ in range(3)]
        calls += [asyncio.create_task(send(lane, kind=Kind.CANCEL)) for _ in range(3)]
        await until(lambda: len(server.arrivals) == 10)
        await asyncio.sleep(0.02)
        assert (lane.busy, lane.waiting, lane.connecting) == (10, 5, 0), "the limit for cancels"
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


@both_loops
async def test_connections_beyond_the_limit_are_for_cancels_only():
    busy = Busy()
    async with lane_to(busy, maximum=2, reserved=2, for_cancels=6) as (lane, server):
        hanging = [asyncio.create_task(send(lane)) for _ in range(9)]
        await until(lambda: len(server.arrivals) == 2)
        await asyncio.gather(*(cancel(lane) for _ in range(8)))
        await asyncio.sleep(0.02)
        assert (lane.busy, lane.waiting) == (2, 7)
        busy.go.set()
        await asyncio.gather(*hanging)


async def test_a_pool_that_is_busy_with_hanging_orders_serves_cancels_and_reads_their_starts():
    """What waits for a connection keeps no start from others, and never takes it twice."""
    limiter = Limiter(RateLimits(), clock=asyncio.get_running_loop().time)
    loop = asyncio.get_running_loop()
    busy = Busy()
    async with lane_to(busy, warm=2, maximum=2, reserved=2, limiter=limiter) as (lane, server):
        hanging = [asyncio.create_task(send(lane, within=60)) for _ in range(40)]
        await asyncio.sleep(3)
        assert len(server.arrivals) == 2
        assert lane.waiting == 9, "no more than could start at once"
        assert limiter.waiting == 29
        began = loop.time()
        await asyncio.gather(cancel(lane), limiter.acquire(Kind.READ), send_later(lane))
        assert loop.time() - began < 0.1
        busy.go.set()
        await asyncio.gather(*hanging)
        times = sorted(at for at, _ in server.arrivals)
        assert all(
            later - earlier >= 1.0 for earlier, later in zip(times, times[10:], strict=False)
        )
        assert sum(limiter.starts) == len(times) + 1


async def send_later(lane: Lane) -> None:
    await asyncio.sleep(0.05)
    await cancel(lane)


# --- giving up --------------------------------------------------------------------------------


@both_loops
async def test_who_gives_up_learns_whether_anything_was_sent():
    busy = Busy()
    limiter = Limiter(RateLimits(orders=2, total=2))
    async with lane_to(busy, maximum=1, limiter=limiter) as (lane, server):
        for waits_for, is_sent in (("an answer", True), ("a connection", False), ("a turn", False)):
            record = SimpleNamespace(was_sent=False)
            call = asyncio.create_task(send(lane, record=record))
            if is_sent:
                await until(lambda: server.arrivals)
                sent = call
                assert record.was_sent
                continue
            await asyncio.sleep(0.6)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert not record.was_sent, waits_for
        assert len(server.arrivals) == 1
        sent.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sent


async def test_a_deadline_around_a_request_is_still_a_deadline():
    async with lane_to(never) as (lane, _):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await send(lane)


class Whim:
    """Callers of all kinds that give up at any moment, at a server that answers, hangs, closes."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    async def serve(self, peer: Peer) -> None:
        while True:
            body = await peer.take()
            dice = self.random.random()
            await asyncio.sleep(self.random.choice([0.0, 0.01, 0.2]))
            if dice < 0.1:
                peer.reset()
                return
            if dice > 0.1:
                peer.send(reply(body))

    async def run(self) -> None:
        pick = self.random
        limiter = Limiter(RateLimits(orders=8, total=9), clock=asyncio.get_running_loop().time)
        async with lane_to(
            self.serve,
            warm=pick.randint(1, 2),
            maximum=pick.randint(2, 5),
            reserved=pick.randint(0, 3),
            limiter=limiter,
        ) as (lane, server):

            async def call() -> None:
                await asyncio.sleep(pick.random() * 3)
                kind = pick.choice([Kind.CANCEL, Kind.MODIFY, Kind.PLACE])
                await send(lane, kind=kind, within=pick.choice([0.1, 1.0, 5.0]))

            calls = [asyncio.create_task(call()) for _ in range(40)]
            while not all(call.done() for call in calls):
                await asyncio.sleep(pick.choice([0.0, 0.001, 0.05, 0.3]))
                if pick.random() < 0.3:
                    pick.choice(calls).cancel()
            for result in await asyncio.gather(*calls, return_exceptions=True):
                assert result is None or isinstance(
                    result, asyncio.CancelledError | NotSent | AnswerLost
                )
            await until(
                lambda: (
                    not lane.pool._connecting and lane.idle >= lane.pool.planner.idle_for_cancels
                ),
                seconds=60,
            )
            assert (lane.waiting, lane.busy, limiter.waiting) == (0, 0, 0)
            assert limiter._turns.promised == limiter._held_ahead == [0] * len(Kind)
            assert sum(limiter.starts) >= len(server.arrivals)


@pytest.mark.parametrize("seed", range(25))
def test_whoever_gives_up_at_any_moment_takes_no_place_with_him(seed):
    in_virtual_time(Whim(seed).run)()


# --- closing ----------------------------------------------------------------------------------


@both_loops
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
async def test_closing_lets_requests_in_flight_end(tls):
    held = Held()
    async with lane_to(held, tls=tls) as (lane, server):
        task = asyncio.create_task(send(lane, b"on its way"))
        await until(lambda: held.waiting)
        closing = asyncio.create_task(lane.close())
        await asyncio.sleep(0.01)
        assert not closing.done()
        with pytest.raises(NotSent, match="the order lane was closed"):
            await send(lane)
        await held.answer_all()
        assert (await task).body == b"on its way"
        await closing
        await until(lambda: not server.open)


@both_loops
async def test_closing_turns_away_those_who_wait_for_a_connection():
    held = Held()
    async with lane_to(held, maximum=1) as (lane, _):
        first = asyncio.create_task(send(lane))
        await until(lambda: held.waiting)
        second = asyncio.create_task(send(lane))
        await asyncio.sleep(0)
        closing = asyncio.create_task(lane.close())
        with pytest.raises(NotSent, match="the order lane was closed"):
            await second
        await held.answer_all()
        await asyncio.gather(first, closing)


@both_loops
async def test_closing_waits_no_longer_than_the_deadlines_and_can_be_cut_short():
    async with lane_to(never) as (lane, server):
        task = asyncio.create_task(send(lane))
        await until(lambda: server.arrivals)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await lane.close()
        with pytest.raises(AnswerLost):
            await task
        await until(lambda: not server.open)


@both_loops
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
async def test_nothing_is_left_after_closing(tls):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        async with lane_to(echo, tls=tls, warm=2) as (lane, server):
            await asyncio.gather(*(send(lane) for _ in range(8)))
            await lane.close()
            await until(lambda: not server.open)
            assert not lane.pool.idle
            assert repr(lane).endswith("0 idle, 0 busy, 0 connecting, 0 waiting>")
        del lane
        gc.collect()


# --- lane and limiter -------------------------------------------------------------------------


async def test_a_slow_handshake_does_not_bring_arrivals_closer():
    async def slow(peer: Peer) -> None:
        while True:
            body = await peer.take()
            await asyncio.sleep(2.5)
            peer.send(reply(body))

    limits = RateLimits(orders=10, total=10)
    limiter = Limiter(limits, clock=asyncio.get_running_loop().time)
    async with lane_to(slow, maximum=40, limiter=limiter) as (lane, server):
        connect, handshakes = lane.pool._connect, 0

        async def slow_connect() -> None:
            nonlocal handshakes
            handshakes += 1
            await asyncio.sleep((0.9, 0.2, 1.3, 0.0, 0.6)[handshakes % 5])
            await connect()

        lane.pool._connect = slow_connect
        await asyncio.gather(*(send(lane, within=60) for _ in range(60)))
        assert handshakes >= 20
        times = sorted(at for at, _ in server.arrivals)
        assert len(times) == 60
        assert all(
            later - earlier >= 1.0 for earlier, later in zip(times, times[10:], strict=False)
        )


@pytest.mark.real_time("the server's clock is real")
async def test_a_server_never_sees_more_than_the_limit_in_a_second():
    """Real time, real TLS handshakes: what the server counts is what matters."""
    async with serving(echo, tls=AUTHORITY) as server:
        lane = Lane(
            server.url,
            Limiter(RateLimits(orders=10, total=10)),
            PoolLimits(warm=1, maximum=16),
            connect_timeout=2.0,
            tls=trust(AUTHORITY),
        )
        await lane.open()
        begin = time.monotonic()
        await asyncio.gather(*(send(lane) for _ in range(22)))
        assert time.monotonic() - begin < 2.5
        await lane.close()
        times = sorted(at for at, _ in server.arrivals)
        assert all(
            later - earlier >= 1.0 for earlier, later in zip(times, times[10:], strict=False)
        )


@both_loops
async def test_round_trips_are_noted_by_kind():
    async with lane_to(echo) as (lane, _):
        await lane.request(Kind.CANCEL, Hidden(request()), 1.0)
        ((kind, seconds),) = lane.round_trips
        assert kind is Kind.CANCEL
        assert 0 < seconds < 1


# --- refusals ---------------------------------------------------------------------------------


async def test_who_waits_for_a_connection_learns_of_a_refusal_at_once_and_frees_it() -> None:
    held, limiter = Held(), Limiter(UNLIMITED)
    async with lane_to(held, maximum=1, limiter=limiter) as (lane, _):
        first = asyncio.create_task(send(lane))
        await until(lambda: held.waiting)
        place = asyncio.create_task(send(lane))
        cancel = asyncio.create_task(send(lane, b"cancel", kind=Kind.CANCEL))
        await asyncio.sleep(0)
        assert lane.is_busy
        limiter.state.halt(Halted("closed", since=0.0))
        lane.drop_refused()
        with pytest.raises(Halted):
            await place
        assert not first.done()  # its bytes are out
        held.waiting.pop().set()
        await until(lambda: held.waiting)
        await held.answer_all()
        assert (await cancel).body == b"cancel"
        await first
        assert not lane.is_busy
        assert limiter.starts == starts_of(cancel=1, place=1)


async def test_a_connection_that_comes_to_a_refused_request_goes_back() -> None:
    held, limiter = Held(), Limiter(UNLIMITED)
    start_held = limiter.start_held

    def refused_in_this_moment(kind: Kind) -> float | None:
        limiter.state.halt(Halted("closed", since=0.0))
        return start_held(kind)

    async with lane_to(held, maximum=1, limiter=limiter) as (lane, _):
        first = asyncio.create_task(send(lane))
        await until(lambda: held.waiting)
        place = asyncio.create_task(send(lane))
        await asyncio.sleep(0)
        limiter.start_held = refused_in_this_moment  # type: ignore[method-assign]
        held.waiting.pop().set()
        await first
        with pytest.raises(Halted):
            await place
        assert not lane.is_busy
        assert limiter.starts == starts_of(place=1)
