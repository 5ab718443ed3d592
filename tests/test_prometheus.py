"""The metrics as Prometheus reads them: as text, and in a registry of its client library."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from neo_async import (
    Metrics,
    NeoClient,
    Policy,
    Product,
    RateLimits,
    Segment,
    Side,
    prometheus_text,
)
from neo_async.model.metrics import BUCKETS
from neo_async.transport.kinds import Kind
from neo_async.transport.meter import LOGIN, NAMES, Meter
from tests.clients import client_of, exchange_of

prometheus_client = pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry, generate_latest  # noqa: E402
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

from neo_async.prometheus import register, unregister  # noqa: E402

BUY = (Segment.NSE_CM, "ITBEES-EQ", Side.BUY, 10)
CNC: dict[str, Any] = {"price": "39.00", "product": Product.CNC}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parse(text: str) -> tuple[dict[str, str], Samples]:
    """Types by metric, and samples by name and labels, by Prometheus' own parser."""
    types: dict[str, str] = {}
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.name not in types, "a family stands in one place"
        assert family.documentation
        types[family.name] = family.type
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in samples
            samples[key] = sample.value
    return types, samples


def key(name: str, ucc: str = "ABC12", **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset({"ucc": ucc, **labels}.items())


def sample_metrics(**changes: Any) -> Metrics:
    meter = Meter()
    for kind in (Kind.PLACE, LOGIN):
        for value in (3e-7, 0.0012, 0.0012, 0.3, 70.0):
            meter.sent(kind, value, value)
            meter.answered(kind, value, value)
    meter.ended(Kind.PLACE, "accepted")
    values: dict[str, Any] = {
        "ucc": "ABC12",
        "is_healthy": True,
        "is_halted": False,
        "feeds_live": {"order feed": True},
        "feed_ages": {"order feed": 0.5},
        "waiting": {"place": 12},
        "pnl": {"realised": -12.5, "unrealised": None},
        "requests": {"place": 5, "login": 5},
        "outcomes": meter.outcomes,
        "queue": meter.queue.histograms(),
        "send": meter.send.histograms(),
        "first_byte": meter.first_byte.histograms(),
        "decode": meter.decode.histograms(),
        "breaker_openings": {"orders at h:443": 2},
        "breaker_refusals": {"orders at h:443": 30},
        "reconnects": {"order feed": 4},
        "ticks_lost": {"conflate": 7},
        "unknowns_resolved": {"not accepted": 1},
    }
    names = set(Metrics.__struct_fields__) - set(values)
    values |= {name: number for number, name in enumerate(sorted(names), 1)}
    return Metrics(**(values | changes))


# --- text -------------------------------------------------------------------------------------


def test_the_text_is_what_a_scraper_reads() -> None:
    metrics = sample_metrics()
    types, samples = parse(metrics.to_prometheus())
    assert len(types) == len(Metrics.__struct_fields__) - 1  # the account is a label
    assert types["neo_requests"] == "counter"
    assert types["neo_queue_seconds"] == "histogram"
    assert types["neo_open_orders"] == "gauge"
    expected = {
        key("neo_requests_total", kind="place"): 5,
        key("neo_outcomes_total", kind="place", outcome="accepted"): 1,
        key("neo_duplicate_reads_total"): metrics.duplicate_reads,
        key("neo_breaker_openings_total", breaker="orders at h:443"): 2,
        key("neo_healthy"): 1,
        key("neo_halted"): 0,
        key("neo_feed_live", feed="order feed"): 1,
        key("neo_feed_age_seconds", feed="order feed"): 0.5,
        key("neo_limiter_waiting", kind="place"): 12,
        key("neo_pnl_rupees", part="realised"): -12.5,
        key("neo_ticks_lost_total", policy="conflate"): 7,
        key("neo_queue_seconds_count", kind="place"): 5,
    }
    assert {name: samples[name] for name in expected} == expected
    assert key("neo_pnl_rupees", part="unrealised") not in samples  # not known
    assert samples[key("neo_queue_seconds_sum", kind="place")] == pytest.approx(70.3024003)
    bounds = ("1e-06", "0.001", "0.002", "0.5", "50", "+Inf")
    counts = [samples[key("neo_queue_seconds_bucket", kind="place", le=one)] for one in bounds]
    assert counts == [1, 1, 3, 4, 4, 5]


def test_buckets_are_cumulative_and_end_with_the_count() -> None:
    _, samples = parse(sample_metrics().to_prometheus())
    for stage in ("queue", "send", "first_byte", "decode"):
        for kind in NAMES:
            buckets = sorted(
                (float(dict(labels)["le"]), count)
                for (name, labels), count in samples.items()
                if name == f"neo_{stage}_seconds_bucket" and ("kind", kind) in labels
            )
            counts = [count for _, count in buckets]
            assert counts == sorted(counts)
            assert len(counts) == len(BUCKETS) + 1
            assert counts[-1] == samples[key(f"neo_{stage}_seconds_count", kind=kind)]


def test_labels_are_escaped() -> None:
    name = 'a "host"\\ of\nours'
    text = sample_metrics(reconnects={name: 1}).to_prometheus()
    assert 'feed="a \\"host\\"\\\\ of\\nours"} 1\n' in text
    _, samples = parse(text)
    assert samples[key("neo_reconnects_total", feed=name)] == 1


def test_the_text_of_two_accounts_has_each_family_once() -> None:
    text = prometheus_text(sample_metrics(), sample_metrics(ucc="XYZ99", is_healthy=False))
    types, samples = parse(text)
    assert len(types) == len(Metrics.__struct_fields__) - 1
    assert samples[key("neo_healthy")] == 1
    assert samples[key("neo_healthy", ucc="XYZ99")] == 0


async def test_a_clients_text_can_be_read_from_the_first_moment_on() -> None:
    async with exchange_of() as exchange:
        neo, ucc = client_of(exchange), exchange.credentials.ucc
        before, samples = parse(neo.metrics().to_prometheus())
        assert samples[key("neo_healthy", ucc)] == 0
        assert key("neo_session_age_seconds", ucc) not in samples
        async with neo:
            await neo.orders.book()
            after, samples = parse(neo.metrics().to_prometheus())
        assert before == after
        assert samples[key("neo_requests_total", ucc, kind="login")] == 2


# --- gauges of a client -----------------------------------------------------------------------


async def test_the_gauges_show_what_one_alerts_on() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        await neo.order_feed.until_live()
        await neo.portfolio.live.start()
        await asyncio.sleep(1.0)
        order = await neo.orders.place(*BUY, **CNC)
        async with neo.market_feed() as feed, neo.market_feed() as other:
            await asyncio.gather(feed.until_live(), other.until_live())
            await asyncio.sleep(2.0)
            metrics = neo.metrics()
            assert (metrics.ucc, metrics.is_healthy) == (exchange.credentials.ucc, True)
            assert metrics.feeds_live == {"order feed": True, "market feed": True}
            assert 0 <= metrics.feed_ages["order feed"] <= 2.5
            assert metrics.session_age == pytest.approx(3.0, abs=0.5)
            assert (metrics.open_orders, metrics.is_halted) == (1, False)
            assert metrics.waiting == {kind.name.lower(): 0 for kind in Kind}
            assert metrics.pnl == {"realised": 0.0, "unrealised": 0.0}
            other._connection.state = other._connection.state.WAITING
            assert neo.metrics().feeds_live == {"order feed": True, "market feed": False}
            other._connection.state = feed.state
        await neo.halt(reason="enough")
        assert order.is_final
        halted = neo.metrics()
        assert (halted.is_halted, halted.is_healthy, halted.open_orders) == (True, False, 0)


async def test_orders_that_wait_for_the_limiter_are_a_gauge() -> None:
    async with exchange_of() as exchange:
        neo = client_of(exchange, limits=RateLimits(orders=2, total=2))
        neo.limiter._clock = asyncio.get_running_loop().time
        async with neo:
            placing = [asyncio.create_task(neo.orders.place(*BUY, **CNC)) for _ in range(6)]
            await asyncio.sleep(1.5)
            assert 0 < neo.metrics().waiting["place"] < 6
            await asyncio.gather(*placing)
            assert neo.metrics().waiting["place"] == 0


async def test_lost_ticks_stay_counted_when_their_feed_is_gone() -> None:
    async with exchange_of() as exchange, client_of(exchange) as neo:
        feed = neo.market_feed(policy=Policy.DROP_OLDEST)
        columns = neo.column_feed()
        feed._buffer.lost, columns._messages.lost = 5, 3
        metrics = neo.metrics()
        assert metrics.ticks_lost == {"drop_oldest": 5}
        assert metrics.column_messages_lost == 3
        del feed, columns
        gc.collect()
        neo.market_feed()._buffer.lost = 1
        gc.collect()
        metrics = neo.metrics()
        assert metrics.ticks_lost == {"drop_oldest": 5, "conflate": 1}
        assert metrics.column_messages_lost == 3


# --- a registry -------------------------------------------------------------------------------


async def test_clients_join_the_registry_of_a_service() -> None:
    registry = CollectorRegistry(auto_describe=True)
    requests = prometheus_client.Counter("http_requests", "Of the service.", registry=registry)
    requests.inc()
    async with exchange_of(accounts=2) as exchange:
        one, two = (each.ucc for each in exchange.accounts[:2])
        second = client_of(exchange, credentials=exchange.accounts[1])
        async with client_of(exchange) as first, second:
            register(first, registry)
            register(second, registry)
            types, samples = parse(generate_latest(registry).decode())
            assert types["http_requests"] == "counter"
            assert samples[key("neo_requests_total", one, kind="login")] == 2
            assert samples[key("neo_requests_total", two, kind="login")] == 2
            own = parse(prometheus_text(first.metrics(), second.metrics()))[0]
            assert own.items() <= types.items()

            unregister(second, registry)
            _, samples = parse(generate_latest(registry).decode())
            assert key("neo_halted", two) not in samples
            again: NeoClient = client_of(exchange)
            register(again, registry)  # a client of the same account takes the place of the first
            _, samples = parse(generate_latest(registry).decode())
            assert samples[key("neo_healthy", one)] == 0


@pytest.mark.real_time("another thread scrapes")
async def test_another_thread_may_scrape() -> None:
    registry = CollectorRegistry()
    async with exchange_of() as exchange, client_of(exchange) as neo:
        await neo.order_feed.until_live()
        await neo.orders.place(*BUY, **CNC)
        register(neo, registry)
        text = await asyncio.to_thread(generate_latest, registry)
        _, samples = parse(text.decode())
        assert samples[key("neo_feed_live", neo.ucc, feed="order feed")] == 1
    ended = parse((await asyncio.to_thread(generate_latest, registry)).decode())[1]
    assert ended[key("neo_healthy", neo.ucc)] == 0
