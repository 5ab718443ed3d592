"""The metrics of clients in a registry of `prometheus_client`; `pip install neo-async[metrics]`.

    from neo_async.prometheus import register

    async with NeoClient(...) as neo:
        register(neo)  # beside the metrics of the service, in its own registry

Without that package, `neo.metrics().to_prometheus()` is the same as text.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections.abc import Iterator
from weakref import WeakKeyDictionary, WeakValueDictionary

from prometheus_client.core import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from neo_async.client import NeoClient
from neo_async.model.metrics import Metrics
from neo_async.model.prometheus import families

SCRAPE_SECONDS = 5.0
"""Seconds for which a scrape in another thread waits for the event loop of a client. The metrics of
a client whose loop is held up for longer are left out of that scrape."""


class ClientCollector(Collector):
    """Collects the metrics of clients, one for each account; see `register`."""

    def __init__(self) -> None:
        # Weak: a client that is gone has no metrics.
        self._clients: WeakValueDictionary[str, NeoClient] = WeakValueDictionary()

    def add(self, client: NeoClient) -> None:
        """Collect from a client, in place of an earlier one of the same account."""
        self._clients[client.ucc] = client

    def remove(self, client: NeoClient) -> None:
        """Collect from a client no more."""
        if self._clients.get(client.ucc) is client:
            del self._clients[client.ucc]

    def collect(self) -> Iterator[Metric]:
        """Yield every family once, with the samples of all clients. Any thread may call it."""
        found = [metrics for one in [*self._clients.values()] if (metrics := _metrics(one))]
        for family in families(*found):
            metric = Metric(family.name, family.help, family.type)
            for name, labels, value in family.samples:
                metric.add_sample(name, dict(labels), float(value))
            yield metric


_collectors: WeakKeyDictionary[CollectorRegistry, ClientCollector] = WeakKeyDictionary()


def register(client: NeoClient, registry: CollectorRegistry = REGISTRY) -> None:
    """Add the metrics of a client to a registry. Any number of clients may be in one registry: the
    label `ucc` distinguishes them, and a second client of an account replaces the first."""
    collector = _collectors.get(registry)
    if collector is None:
        collector = _collectors[registry] = ClientCollector()
        registry.register(collector)
    collector.add(client)


def unregister(client: NeoClient, registry: CollectorRegistry = REGISTRY) -> None:
    """Take the metrics of a client out of a registry; those that are not in it are passed over."""
    collector = _collectors.get(registry)
    if collector is not None:
        collector.remove(client)


def _metrics(client: NeoClient) -> Metrics | None:
    """Return the metrics of a client, read in its event loop; None where that does not answer."""
    loop = client.loop
    if loop is None or not loop.is_running() or loop is _running_loop():
        return client.metrics()
    result: concurrent.futures.Future[Metrics] = concurrent.futures.Future()

    def read() -> None:
        try:
            result.set_result(client.metrics())
        except Exception as error:
            result.set_exception(error)

    with contextlib.suppress(RuntimeError, TimeoutError):  # the former from a loop that is closed
        loop.call_soon_threadsafe(read)
        return result.result(SCRAPE_SECONDS)
    return None


def _running_loop() -> asyncio.AbstractEventLoop | None:
    with contextlib.suppress(RuntimeError):
        return asyncio.get_running_loop()
    return None
