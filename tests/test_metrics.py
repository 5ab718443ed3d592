"""Counts and times: right in every bucket, and readable by whoever scrapes them."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neo_async import (
    Histogram,
    OutcomeUnknown,
    Product,
    Segment,
    ServerError,
    Side,
    Timeouts,
)
from neo_async.errors import AnswerLost
from neo_async.model.metrics import BUCKETS
from neo_async.transport.kinds import Kind
from neo_async.transport.meter import NAMES, Meter
from tests.clients import BOOK, CANCEL, PLACE, client_of, exchange_of
from tests.fake_servers import Cut, Late, Reply, fault_proxy
from tests.transport.lanes import lane_to, send
from tests.transport.servers import Peer, reply

BUY = (Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10)
CNC: dict[str, Any] = {"price": "39.00", "product": Product.CNC}

times = st.floats(0.0, 1000.0)


def histogram_of(values: list[float]) -> Histogram:
    meter = Meter()
    for value in values:
        meter.answered(Kind.PLACE, value, 0.0)
    return meter.first_byte.histograms()["place"]


# --- histograms -------------------------------------------------------------------------------


def test_the_buckets_are_one_two_five() -> None:
    assert BUCKETS[:4] == (1e-6, 2e-6, 5e-6, 1e-5)
    assert BUCKETS[-4:] == (5.0, 10.0, 20.0, 50.0)
    assert list(BUCKETS) == sorted(BUCKETS)


@given(st.lists(times, max_size=50))
def test_every_time_is_in_its_bucket(values: list[float]) -> None:
    histogram = histogram_of(values)
    bounds = [*BUCKETS, math.inf]
    for position, bound in enumerate(bounds):
        lowest = bounds[position - 1] if position else -1.0
        assert histogram.counts[position] == sum(lowest < value <= bound for value in values)
    assert histogram.count == len(values)
    assert histogram.total == pytest.approx(math.fsum(values))


@given(st.lists(st.floats(1e-6, 50.0), min_size=1, max_size=50), st.floats(0.01, 1.0))
def test_a_quantile_is_in_the_bucket_of_the_true_one(values: list[float], share: float) -> None:
    true = sorted(values)[math.ceil(share * len(values)) - 1]
    estimate = histogram_of(values).quantile(share)
    assert estimate is not None
    bound = next(bound for bound in BUCKETS if true <= bound)
    lowest = BUCKETS[BUCKETS.index(bound) - 1] if bound > BUCKETS[0] else 0.0
    assert lowest <= estimate <= bound


def test_a_histogram_is_readable_and_knows_when_it_is_empty() -> None:
    empty, one = histogram_of([]), histogram_of([0.0003])
    assert (empty.mean, empty.quantile(0.5), repr(empty)) == (None, None, "<Histogram of nothing>")
    assert repr(one) == "<Histogram of 1: mean 300 µs, p50 350 µs, p99 497 µs>"
    assert repr(histogram_of([0.003, 70.0])).endswith("mean 35 s, p50 5 ms, p99 50 s>")


# --- what a client counts ---------------------------------------------------------------------


async def test_every_call_is_counted_and_timed_by_kind() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        await neo.order_feed.until_live()
        order = await neo.orders.place(*BUY, **CNC)
        await neo.orders.modify(order, price="39.10")
        await neo.orders.cancel(order)
        await order.wait(timeout=5)
        metrics = neo.metrics()
        assert metrics.requests["login"] == 2
        assert metrics.requests["read"] >= 1
        assert {kind: metrics.requests[kind] for kind in ("place", "modify", "cancel")} == {
            "place": 1,
            "modify": 1,
            "cancel": 1,
        }
        once = {"accepted": 1}
        counted = {kind: counts for kind, counts in metrics.outcomes.items() if counts}
        assert counted == {"cancel": once, "modify": once, "place": once}
        assert metrics.order_updates >= 3
        for stage in ("queue", "send", "first_byte", "decode"):
            by_kind = getattr(metrics, stage)
            assert set(by_kind) == set(NAMES)
            assert {kind: by_kind[kind].count for kind in NAMES} == metrics.requests
            made = [kind for kind in NAMES if metrics.requests[kind]]
            assert len(made) == len(NAMES) - 2, "all but those of exit plans"
            assert all(0 < by_kind[kind].total < 5 for kind in made), stage
        assert (metrics.retries, metrics.timeouts, metrics.duplicate_reads) == (0, 0, 0)


async def test_what_goes_wrong_is_counted() -> None:
    overrides: dict[str, Any] = {}

    def override(path: str, status: int, body: bytes) -> Any:
        answer = overrides.get(path)
        return answer.pop(0) if isinstance(answer, list) and answer else None

    async with (
        exchange_of() as exchange,
        fault_proxy(exchange, override) as endpoints,
        client_of(
            exchange, endpoints=endpoints, live_updates=False, timeouts=Timeouts(order=3.0)
        ) as neo,
    ):
        overrides[PLACE] = [Late(60.0, Reply("late"))]
        order = await neo.orders.place(*BUY, **CNC)
        assert neo.metrics().timeouts == 1
        overrides[PLACE] = [Cut()]
        with pytest.raises(OutcomeUnknown):
            await neo.orders.place(*BUY, **CNC, wait_for_outcome=False)
        assert neo.metrics().unknowns_opened == 2
        overrides[CANCEL] = [Reply({"stCode": 1013, "errMsg": "No", "stat": "Not_Ok"}, 400)]
        with pytest.raises(Exception, match="No"):
            await neo.orders.cancel(order)
        overrides[BOOK] = [Reply("busy", 503)]
        with pytest.raises(ServerError):
            await neo.orders.book()
        overrides[BOOK] = [Late(5.0, Reply("late"))]
        await neo.orders.book()
        overrides[BOOK] = [Reply({}, 429, headers={"Retry-After": "0.01"})]
        await neo.orders.book()
        metrics = neo.metrics()
        assert metrics.outcomes["place"] == {"unknown": 2}
        assert metrics.outcomes["cancel"] == {"rejected": 1}
        assert metrics.unknowns_resolved == {"accepted": 2}
        assert metrics.server_errors == 1
        assert metrics.duplicate_reads == 1
        assert (metrics.rate_limited, metrics.retries) == (1, 1)


async def test_circuits_retries_and_refusals_are_counted() -> None:
    async with exchange_of() as exchange, client_of(exchange, live_updates=False) as neo:
        exchange_lane = neo._session.lane
        breaker = exchange_lane.breaker
        for _ in range(5):
            breaker.failed("gone", connected=True)
        breaker._probe_at += 60
        with pytest.raises(Exception, match="down for"):
            await neo.orders.place(*BUY, **CNC)
        metrics = neo.metrics()
        assert metrics.breaker_openings[breaker.name] == 1
        assert metrics.breaker_refusals[breaker.name] == 1
        assert metrics.requests["place"] == 0


async def test_the_journals_writes_are_counted(tmp_path: Any) -> None:
    async with (
        exchange_of() as exchange,
        client_of(exchange, journal=tmp_path / "orders.db") as neo,
    ):
        await neo.orders.place(*BUY, **CNC)
        assert neo.metrics().journal_writes == 2


@pytest.mark.real_time("the meter reads a real clock")
async def test_each_stage_is_the_time_of_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(peer: Peer) -> None:
        while True:
            body = await peer.take()
            await asyncio.sleep(0.04)
            peer.send(reply(body))

    async with lane_to(slow) as (lane, _):
        acquire, open_connection = lane._limiter.acquire, lane.pool._open_connection

        async def slow_acquire(kind: Kind) -> float:
            await asyncio.sleep(0.01)
            return await acquire(kind)

        async def slow_open() -> Any:
            await asyncio.sleep(0.05)
            return await open_connection()

        # No start is there at once, so the lane waits for one.
        monkeypatch.setattr(lane._limiter, "start_now", lambda kind: None)
        monkeypatch.setattr(lane._limiter, "acquire", slow_acquire)
        monkeypatch.setattr(lane.pool, "_open_connection", slow_open)
        for connection in list(lane.pool.connections):
            connection.close()
        answer = await send(lane, kind=Kind.MODIFY)
        meter = lane._meter
        assert 0.01 <= meter.queue.histograms()["modify"].total < 0.03
        assert 0.03 <= meter.send.histograms()["modify"].total < 0.2
        assert 0.04 <= answer.first_byte < 0.2


def test_an_answer_by_its_deadline_is_a_loss_and_no_timeout() -> None:
    meter = Meter()
    meter.lost(AnswerLost("closed"))
    meter.lost(AnswerLost("late", is_timeout=True))
    assert meter.timeouts == 1
