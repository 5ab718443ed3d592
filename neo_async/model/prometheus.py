"""The metrics of one or more clients as Prometheus has them: families of samples, and their text.

Names follow the conventions of Prometheus: base units in the name, `_total` for counters. Each
sample has the label `ucc`, so that the families of several clients are one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

from neo_async.model.metrics import BUCKETS, Histogram, Metrics


class _Description(NamedTuple):
    """The family of one field of Metrics."""

    name: str
    type: str
    help: str
    labels: tuple[str, ...] = ()
    """Names of the labels of a field that is a mapping, outermost first."""


class Sample(NamedTuple):
    """One value of a family."""

    name: str
    labels: Mapping[str, str]
    value: float


class Family(NamedTuple):
    """The samples of one metric."""

    name: str
    """Name without `_total`."""
    type: str
    """`counter`, `gauge` or `histogram`."""
    help: str
    samples: Sequence[Sample]


_FAMILIES: Final = {
    "is_healthy": _Description("healthy", "gauge", "1 while health() shows no problem."),
    "is_halted": _Description("halted", "gauge", "1 while trading is halted."),
    "session_age": _Description(
        "session_age_seconds", "gauge", "Time since the last login; absent when logged out."
    ),
    "feeds_live": _Description(
        "feed_live", "gauge", "1 while every started feed of that name is live.", ("feed",)
    ),
    "feed_ages": _Description(
        "feed_age_seconds",
        "gauge",
        "Time since the last message of a feed; the longest of the market feeds.",
        ("feed",),
    ),
    "open_orders": _Description("open_orders", "gauge", "Orders that are known and not final."),
    "unknown_orders": _Description(
        "unknown_orders", "gauge", "Order requests whose outcome is unknown at present."
    ),
    "waiting": _Description(
        "limiter_waiting", "gauge", "Requests that wait for the rate limiter.", ("kind",)
    ),
    "pause": _Description(
        "limiter_pause_seconds", "gauge", "Time until requests start again after a 429."
    ),
    "pnl": _Description(
        "pnl_rupees",
        "gauge",
        "Profit and loss of the positions; absent unless they are live and known.",
        ("part",),
    ),
    "requests": _Description("requests", "counter", "Requests handed to a socket.", ("kind",)),
    "outcomes": _Description(
        "outcomes", "counter", "Order requests by outcome of the call.", ("kind", "outcome")
    ),
    "queue": _Description(
        "queue_seconds", "histogram", "Time that requests waited for the rate limiter.", ("kind",)
    ),
    "send": _Description(
        "send_seconds",
        "histogram",
        "Time from the rate limiter to the hand-over to a socket.",
        ("kind",),
    ),
    "first_byte": _Description(
        "first_byte_seconds",
        "histogram",
        "Time from the hand-over to the first byte of the answer.",
        ("kind",),
    ),
    "decode": _Description("decode_seconds", "histogram", "Time to decode an answer.", ("kind",)),
    "retries": _Description("retries", "counter", "Repeated requests."),
    "rate_limited": _Description(
        "rate_limited", "counter", "Answers with HTTP 429, too many requests."
    ),
    "server_errors": _Description("server_errors", "counter", "Answers with HTTP 5xx."),
    "timeouts": _Description(
        "timeouts", "counter", "Requests without an answer by their deadline."
    ),
    "duplicate_reads": _Description(
        "duplicate_reads", "counter", "Reads sent once more because the first hung."
    ),
    "breaker_openings": _Description(
        "breaker_openings", "counter", "Times a circuit breaker opened.", ("breaker",)
    ),
    "breaker_refusals": _Description(
        "breaker_refusals", "counter", "Calls refused by an open circuit breaker.", ("breaker",)
    ),
    "reconnects": _Description(
        "reconnects", "counter", "Times a feed was live again after a loss.", ("feed",)
    ),
    "ticks": _Description("ticks", "counter", "Ticks received by the market feeds."),
    "ticks_lost": _Description(
        "ticks_lost",
        "counter",
        "Ticks conflated or dropped because the consumer was slower, by policy of the feed.",
        ("policy",),
    ),
    "column_messages_lost": _Description(
        "column_messages_lost",
        "counter",
        "Messages that column feeds dropped because the consumer was slower.",
    ),
    "order_updates": _Description(
        "order_updates", "counter", "Updates received by the order feed."
    ),
    "unknowns_opened": _Description(
        "unknowns_opened", "counter", "Order requests whose outcome was unknown."
    ),
    "unknowns_resolved": _Description(
        "unknowns_resolved",
        "counter",
        "Order requests whose unknown outcome was resolved.",
        ("outcome",),
    ),
    "journal_writes": _Description(
        "journal_writes", "counter", "Intents and outcomes written to the journal."
    ),
}


def families(*clients: Metrics) -> Iterator[Family]:
    """Yield every family, with the samples of all these clients, each of another account."""
    for field, description in _FAMILIES.items():
        name = f"neo_{description.name}"
        samples: list[Sample] = []
        for metrics in clients:
            labels = {"ucc": metrics.ucc}
            for values, value in _labelled(getattr(metrics, field), description.labels, labels):
                samples += _samples(name, description.type, values, value)
        yield Family(name, description.type, description.help, samples)


def prometheus_text(*clients: Metrics) -> str:
    """Return the metrics of these clients, each of another account, in the text format of
    Prometheus, version 0.0.4: `prometheus_text(neo.metrics(), other.metrics())`."""
    return "".join(_lines(clients))


def _labelled(
    value: object, names: Sequence[str], labels: Mapping[str, str]
) -> Iterator[tuple[Mapping[str, str], object]]:
    """Yield each value of a nested mapping with its labels; nothing for None."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _labelled(inner, names[1:], {**labels, names[0]: str(key)})
    elif value is not None:
        yield labels, value


def _samples(name: str, kind: str, labels: Mapping[str, str], value: object) -> Iterator[Sample]:
    if isinstance(value, Histogram):
        bounds = [*(f"{bound:g}" for bound in BUCKETS), "+Inf"]
        for bound, count in zip(bounds, accumulate(value.counts), strict=True):
            yield Sample(f"{name}_bucket", {**labels, "le": bound}, count)
        yield Sample(f"{name}_sum", labels, value.total)
        yield Sample(f"{name}_count", labels, value.count)
    else:
        assert isinstance(value, (bool, int, float))
        yield Sample(f"{name}_total" if kind == "counter" else name, labels, +value)


def _lines(clients: Sequence[Metrics]) -> Iterator[str]:
    for family in families(*clients):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        yield f"# HELP {name} {family.help}\n# TYPE {name} {family.type}\n"
        for sample in family.samples:
            pairs = ",".join(f'{key}="{_escaped(label)}"' for key, label in sample.labels.items())
            yield f"{sample.name}{{{pairs}}} {sample.value!r}\n"


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
