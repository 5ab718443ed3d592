"""The breaker as a state machine, then before servers that go and come back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from neo_async.config import BreakerConfig, PoolLimits, RateLimits
from neo_async.errors import AnswerLost, BreakerOpen, NotSent, UsageError
from neo_async.transport.breaker import PROBE_PATIENCE, Breaker, Breakers, BreakerState
from neo_async.transport.http import HttpClient
from neo_async.transport.kinds import Kind
from neo_async.transport.lane import Lane
from neo_async.transport.limiter import Limiter
from tests.transport.lanes import lane_to, send, starts_of
from tests.transport.servers import Peer, echo, never, reply, serving, until

LIMITS = BreakerConfig()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("orders at h:443", LIMITS, clock=clock)


def open_up(breaker: Breaker, *, connected: bool = True, failures: int = LIMITS.failures) -> None:
    for _ in range(failures):
        breaker.failed("no complete answer within 10 s", connected=connected)


# --- the state machine ------------------------------------------------------------------------


def test_it_opens_after_so_many_failures_in_a_row(breaker: Breaker) -> None:
    open_up(breaker, failures=LIMITS.failures - 1)
    breaker.answered()
    open_up(breaker, failures=LIMITS.failures - 1)
    assert breaker.state is BreakerState.CLOSED
    assert breaker.admit() is False
    open_up(breaker, failures=1)
    assert breaker.state is BreakerState.OPEN
    assert breaker.openings == 1


def test_while_it_is_open_calls_fail_and_say_why(breaker: Breaker, clock: Clock) -> None:
    open_up(breaker)
    breaker._probe_at = clock.now + 0.25
    with pytest.raises(BreakerOpen, match=r"orders at h:443: down for 0\.0 s") as caught:
        breaker.admit()
    error = caught.value
    assert (error.breaker, error.last_failure) == (
        "orders at h:443",
        "no complete answer within 10 s",
    )
    assert (error.open_for, error.probe_in) == (0.0, pytest.approx(0.25))
    assert isinstance(error, NotSent)
    assert breaker.refusals == 1


def test_one_call_is_let_through_after_a_while(breaker: Breaker, clock: Clock) -> None:
    open_up(breaker)
    clock.now += LIMITS.first_wait
    assert breaker.admit() is True
    assert breaker.state is BreakerState.HALF_OPEN
    with pytest.raises(BreakerOpen):
        breaker.admit()
    breaker.answered()
    breaker.probed()
    assert breaker.state is BreakerState.CLOSED
    assert breaker.failures == 0


def test_a_probe_in_vain_leads_to_a_longer_wait(breaker: Breaker, clock: Clock) -> None:
    open_up(breaker)
    clock.now += LIMITS.first_wait
    breaker.admit()
    breaker.failed("again", connected=True)
    breaker.probed()
    assert breaker.state is BreakerState.OPEN
    assert 0 <= breaker._probe_at - clock.now <= 2 * LIMITS.first_wait


def test_a_probe_that_hangs_holds_others_back_for_a_second_only(
    breaker: Breaker, clock: Clock
) -> None:
    open_up(breaker)
    clock.now += LIMITS.first_wait
    breaker.admit()
    clock.now += PROBE_PATIENCE - 0.001
    with pytest.raises(BreakerOpen):
        breaker.check()
    clock.now += 0.002
    assert breaker.admit() is True
    # The answer to the first comes after all, and is as good.
    breaker.answered()
    breaker.probed()
    assert breaker.is_closed


def test_urgent_calls_are_always_let_through(breaker: Breaker, clock: Clock) -> None:
    open_up(breaker)
    breaker._probe_at = clock.now + 1
    assert breaker.admit(is_urgent=True) is True
    breaker.failed("again", connected=True)
    breaker.probed()
    assert breaker.state is BreakerState.OPEN


def test_a_connection_closes_what_lost_connections_opened_and_nothing_else(
    clock: Clock,
) -> None:
    unreachable, silent = (Breaker(name, LIMITS, clock=clock) for name in "us")
    open_up(unreachable, connected=False)
    open_up(silent, connected=True)
    unreachable.connected()
    silent.connected()
    assert (unreachable.state, silent.state) == (BreakerState.CLOSED, BreakerState.OPEN)
    assert unreachable.failures == 0


def test_failures_of_calls_that_were_under_way_do_not_open_it_twice(
    breaker: Breaker, clock: Clock
) -> None:
    open_up(breaker)
    probe_at = breaker._probe_at
    clock.now += 0.05
    open_up(breaker)
    assert (breaker.openings, breaker._probe_at) == (1, probe_at)


@pytest.mark.parametrize(("outage", "longest"), [(0, 0.5), (60, 0.5), (600, 5.0), (86_400, 10.0)])
def test_long_outages_are_probed_less_often(
    breaker: Breaker, clock: Clock, outage: float, longest: float
) -> None:
    open_up(breaker)
    clock.now += outage
    waits = [breaker.wait(50) for _ in range(2000)]
    assert max(waits) <= longest
    assert max(waits) > 0.9 * longest
    assert min(waits) < 0.1 * longest


events = st.lists(
    st.tuples(
        st.sampled_from(["call", "urgent", "answer", "lose", "refuse", "connect"]),
        st.floats(0.0, 2.0),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(events)
def test_whatever_happens_a_probe_is_at_most_a_second_away(happenings: list[Any]) -> None:
    clock = Clock()
    breaker = Breaker("h", LIMITS, clock=clock)
    out = 0
    for event, seconds in happenings:
        clock.now += seconds
        if event in ("call", "urgent"):
            due_in = breaker._probe_at - clock.now
            assert breaker.is_closed or due_in <= PROBE_PATIENCE
            with contextlib.suppress(BreakerOpen):
                out += breaker.admit(is_urgent=event == "urgent")
        elif event == "answer":
            breaker.answered()
            assert breaker.is_closed
        elif event == "connect":
            breaker.connected()
        else:
            breaker.failed(event, connected=event == "lose")
        if out and event in ("answer", "lose", "refuse"):
            breaker.probed()
            out -= 1
        assert breaker.is_closed or breaker.failures >= LIMITS.failures
        assert breaker._probes_out == out
    clock.now += PROBE_PATIENCE
    breaker.check()


@pytest.mark.parametrize("limits", [{"failures": 0}, {"first_wait": 0}, {"longest_wait": -1}])
def test_settings_that_cannot_be_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"must be a (whole number, 1 or more|number of seconds)"):
        BreakerConfig(**limits)


def test_the_waits_are_in_order() -> None:
    with pytest.raises(UsageError, match=r"longest_wait=0\.1: is below first_wait=0\.2"):
        BreakerConfig(first_wait=0.2, longest_wait=0.1)


def test_every_host_has_one_for_its_orders_and_one_for_the_rest() -> None:
    breakers = Breakers()
    assert breakers.orders("h:1") is breakers.orders("h:1")
    assert len({breakers.orders("h:1"), breakers.reads("h:1"), breakers.orders("h:2")}) == 3
    assert [each.name for each in breakers] == ["orders at h:1", "reads at h:1", "orders at h:2"]


# --- at the lane ------------------------------------------------------------------------------


def answering_with(*statuses: bytes) -> Any:
    """Answers with these in turn; the last one stays."""
    left = iter(statuses)
    last = statuses[-1]

    async def script(peer: Peer) -> None:
        while True:
            body = await peer.take()
            peer.send(reply(body, status=next(left, last)))

    return script


async def test_a_gateway_with_nobody_behind_it_opens_and_an_answer_closes() -> None:
    script = answering_with(*[b"503 Service Unavailable"] * LIMITS.failures, b"200 OK")
    async with lane_to(script) as (lane, server):
        for _ in range(LIMITS.failures):
            assert (await send(lane)).status == 503
        # Not at once: the first probe may be due after no time at all.
        lane.breaker._probe_at += 0.05
        with pytest.raises(BreakerOpen, match="answered with HTTP 503"):
            await send(lane)
        assert len(server.arrivals) == LIMITS.failures
        await asyncio.sleep(LIMITS.first_wait + 0.05)
        assert (await send(lane)).status == 200
        assert lane.breaker.is_closed


async def test_refusals_and_the_brokers_own_failures_are_answers() -> None:
    statuses = [b"429 Slow Down", b"400 Bad", b"401 Who", b"500 Oops", b"404 Nothing"]
    async with lane_to(answering_with(*statuses * 3)) as (lane, _):
        for _ in range(15):
            await send(lane)
        assert lane.breaker.is_closed


async def test_orders_that_hang_open_and_cancels_go_through() -> None:
    async with lane_to(never, maximum=16) as (lane, server):
        calls = [send(lane, within=10.0) for _ in range(LIMITS.failures)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(result, AnswerLost) and result.is_timeout for result in results)
        lane.breaker._probe_at += 0.05
        with pytest.raises(BreakerOpen):
            await send(lane)
        with pytest.raises(AnswerLost):
            await send(lane, b"cancel", kind=Kind.CANCEL, within=0.01)
        assert server.arrivals[-1][1] == b"cancel"


async def test_those_who_queue_when_it_opens_are_turned_away_and_take_no_start() -> None:
    limiter = Limiter(RateLimits(orders=1, total=1), clock=asyncio.get_running_loop().time)
    async with lane_to(echo, limiter=limiter) as (lane, server):
        await send(lane)
        queued = [asyncio.create_task(send(lane)) for _ in range(5)]
        await asyncio.sleep(0.1)
        open_up(lane.breaker)
        lane.breaker._probe_at += 60
        results = await asyncio.gather(*queued, return_exceptions=True)
        assert all(isinstance(result, BreakerOpen) for result in results)
        assert limiter.starts == starts_of(place=1)
        assert len(server.arrivals) == 1


@pytest.mark.real_time("a busy loop waits for a real clock")
async def test_a_caller_that_tries_for_ever_does_not_hold_up_the_loop() -> None:
    async with lane_to(echo) as (lane, _):
        open_up(lane.breaker)

        async def try_for_ever() -> None:
            while True:
                try:
                    await send(lane)
                    return
                except BreakerOpen:
                    pass

        async with asyncio.timeout(5):
            await try_for_ever()


async def test_a_probe_whose_caller_gives_up_keeps_nobody_back() -> None:
    async with lane_to(never) as (lane, server):
        open_up(lane.breaker)
        await asyncio.sleep(LIMITS.first_wait)
        probe = asyncio.create_task(send(lane))
        await until(lambda: server.arrivals)
        assert lane.breaker.state is BreakerState.HALF_OPEN
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)
        assert lane.breaker.state is BreakerState.OPEN
        assert lane.breaker._probe_at - asyncio.get_running_loop().time() <= 2 * LIMITS.first_wait


async def test_a_hung_connection_is_never_used_again() -> None:
    async def hang_once(peer: Peer) -> None:
        if len(peer.server.peers) == 1:
            await peer.take()
            await asyncio.sleep(1.0)
            peer.send(reply(b"late, and nobody's"))
            await peer.take()
        await echo(peer)

    async with lane_to(hang_once) as (lane, server):
        with pytest.raises(AnswerLost, match=r"within 0\.5 s"):
            await send(lane, within=0.5)
        hung = server.peers[0]
        for number in range(20):
            body = b"%d" % number
            assert (await send(lane, body)).body == body
            await asyncio.sleep(0.1)
        assert hung.requests == 1
        assert hung not in server.open


# --- at the client ----------------------------------------------------------------------------


async def get(http: HttpClient, url: str, *, within: float = 5.0) -> int:
    return (await http.request("POST", url, headers={}, body=b"x", timeout=within)).status


async def test_reads_fail_at_once_and_orders_do_not_with_them() -> None:
    breakers = Breakers()
    async with serving(never) as server:
        http = HttpClient(connect_timeout=1.0, breakers=breakers)
        calls = [get(http, server.url) for _ in range(LIMITS.failures)]
        await asyncio.gather(*calls, return_exceptions=True)
        reads, orders = (
            each(server.url.removeprefix("http://")) for each in (breakers.reads, breakers.orders)
        )
        reads._probe_at += 0.05
        with pytest.raises(BreakerOpen, match="reads at"):
            await get(http, server.url)
        with pytest.raises(BreakerOpen):
            await http.check(server.url)
        assert len(server.arrivals) == LIMITS.failures
        orders.check()
        await http.close()


async def test_a_download_counts_as_well() -> None:
    async with serving(answering_with(b"503 Nobody")) as server:
        http = HttpClient(connect_timeout=1.0)
        for _ in range(LIMITS.failures):
            async with http.download(server.url, timeout=5.0, between=1.0) as file:
                assert file.status == 503
        http._breaker(URL(server.url))._probe_at += 60
        with pytest.raises(BreakerOpen):
            await http.download(server.url, timeout=5.0, between=1.0).__aenter__()
        await http.close()


async def test_a_file_that_trickles_has_a_deadline() -> None:
    async def trickle(peer: Peer) -> None:
        await peer.take()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            peer.send(b"x")
            await asyncio.sleep(0.9)

    async with serving(trickle) as server:
        http = HttpClient(connect_timeout=1.0)

        async def read_all() -> None:
            async with http.download(server.url, timeout=10.0, between=1.0) as file:
                async for _ in file.pieces:
                    pass

        with pytest.raises(AnswerLost, match="within 10 s"):
            await read_all()
        await http.close()


async def test_a_hung_connection_of_the_client_is_never_used_again() -> None:
    async def hang_once(peer: Peer) -> None:
        if len(peer.server.peers) == 1:
            await peer.take()
            await asyncio.sleep(1.0)
            peer.send(reply(b"late"))
            await peer.take()
        await echo(peer)

    async with serving(hang_once) as server:
        http = HttpClient(connect_timeout=1.0)
        with pytest.raises(AnswerLost) as caught:
            await get(http, server.url, within=0.5)
        assert caught.value.is_timeout
        hung = server.peers[0]
        for _ in range(20):
            assert await get(http, server.url) == 200
            await asyncio.sleep(0.1)
        assert hung.requests == 1
        assert hung not in server.open
        await http.close()


# --- an outage --------------------------------------------------------------------------------

OUTAGE = 5.0
RATE = 10


async def keep_placing(lane: Lane, until: float) -> None:
    """A bot that has always more to do than it may."""
    loop = asyncio.get_running_loop()
    while loop.time() < until:
        try:
            await send(lane, within=3.0)
        except (NotSent, AnswerLost):
            await asyncio.sleep(0.05)


def windows(times: list[float]) -> Iterator[int]:
    """Arrivals in the second that begins with each."""
    for at in times:
        yield sum(1 for other in times if at <= other < at + 1.0)


@pytest.mark.parametrize("kind", ["down", "silent", "busy"])
async def test_the_rate_is_back_within_a_second_after_an_outage_and_never_above(kind: str) -> None:
    loop = asyncio.get_running_loop()
    begin, end = 2.0, 2.0 + OUTAGE

    def is_out() -> bool:
        return begin <= loop.time() < end

    async def script(peer: Peer) -> None:
        while True:
            body = await peer.take()
            if not is_out():
                peer.send(reply(body))
            elif kind == "down":
                peer.reset()
            elif kind == "busy":
                peer.send(reply(b"", status=b"503 Busy"))

    async with serving(script) as server:
        limiter = Limiter(RateLimits(orders=RATE, total=RATE), clock=loop.time)
        lane = Lane(server.url, limiter, PoolLimits(warm=2, maximum=16), connect_timeout=5.0)
        await lane.open()
        open_connection = lane.pool._open_connection

        async def refused_while_down() -> Any:
            if kind == "down" and is_out():
                raise NotSent("cannot connect: refused")
            return await open_connection()

        lane.pool._open_connection = refused_while_down  # type: ignore[method-assign]
        if kind == "down":
            loop.call_at(begin, lambda: [peer.reset() for peer in list(server.open)])
        await asyncio.gather(*(keep_placing(lane, end + 5.0) for _ in range(3 * RATE)))
        await lane.close()
        times = [at for at, _ in server.arrivals]
        assert max(windows(times)) <= RATE
        first = next(later for earlier, later in pairwise(times) if later >= end)
        assert first - end < 1.0
        # From then on as many as before: ten in each second, less the limiter's margin.
        after = [at for at in times if at >= first]
        assert sum(1 for at in after if at < first + 3.0) >= 2.9 * RATE * 0.98
        during = [at for at in times if begin + 3.5 <= at < end]
        assert len(during) <= 12
