"""Counters and latency histograms of a client, and their Prometheus text format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Final

import msgspec

BUCKETS: Final = tuple(
    float(f"{digit}e{exponent}") for exponent in range(-6, 2) for digit in (1, 2, 5)
)
"""Upper bounds of the buckets of every histogram, in seconds: 1, 2, 5, 10 µs … 10, 20, 50 s."""


class Histogram(msgspec.Struct, frozen=True):
    """Durations by bucket. A quantile is interpolated between the bounds of its bucket."""

    counts: tuple[int, ...]
    """Number of durations in each of BUCKETS (above the previous bound, up to its own); the last
    entry counts those above all bounds."""
    total: float
    """Sum of all durations, in seconds."""

    @property
    def count(self) -> int:
        """Number of durations."""
        return sum(self.counts)

    @property
    def mean(self) -> float | None:
        """Mean duration in seconds; None when there is none."""
        return self.total / self.count if self.count else None

    def quantile(self, share: float) -> float | None:
        """Return about the duration, in seconds, that a `share` (0 to 1) of all do not exceed; None
        when there is none."""
        if not self.count:
            return None
        rank = share * self.count
        below = 0
        for position, count in enumerate(self.counts[:-1]):
            if count and below + count >= rank:
                lowest = BUCKETS[position - 1] if position else 0.0
                return lowest + (BUCKETS[position] - lowest) * max(0.0, rank - below) / count
            below += count
        return BUCKETS[-1]

    def __repr__(self) -> str:
        if not self.count:
            return "<Histogram of nothing>"
        shown = ", ".join(
            f"p{share * 100:g} {_readable(self.quantile(share))}" for share in (0.5, 0.99)
        )
        return f"<Histogram of {self.count}: mean {_readable(self.mean)}, {shown}>"


def _readable(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """Counts and durations since the client was made, over all its logins.

    Kinds of requests are `cancel`, `modify`, `place`, `read` and `login`.
    """

    requests: Mapping[str, int]
    """Number of requests handed to a socket, by kind."""
    outcomes: Mapping[str, Mapping[str, int]]
    """Number of order requests by kind and by outcome of their call: accepted, rejected, not sent,
    unknown. The later outcomes of unknown ones are in `unknowns_resolved`."""
    queue: Mapping[str, Histogram]
    """Time in the limiter's queue, by kind."""
    send: Mapping[str, Histogram]
    """Time from the limiter to the hand-over to the socket, by kind: waiting for a connection, or
    opening one."""
    first_byte: Mapping[str, Histogram]
    """Time from the hand-over to the first byte of the answer, by kind."""
    decode: Mapping[str, Histogram]
    """Time to decode the answer, by kind."""
    retries: int
    """Number of repeated requests: nothing had been sent, the session had ended, or a 429 came."""
    rate_limited: int
    """Number of answers with HTTP 429."""
    server_errors: int
    """Number of answers with HTTP 5xx."""
    timeouts: int
    """Number of requests without an answer by their deadline."""
    duplicate_reads: int
    """Number of reads sent once more because the first hung."""
    breaker_openings: Mapping[str, int]
    """Number of times each circuit breaker opened."""
    breaker_refusals: Mapping[str, int]
    """Number of calls that each circuit breaker refused."""
    reconnects: Mapping[str, int]
    """Number of times each feed was live again after a loss."""
    ticks: int
    """Number of ticks of the market feeds; a column feed counts rows."""
    order_updates: int
    """Number of updates of the order feed, position updates included."""
    unknowns_opened: int
    """Number of order requests whose outcome was unknown."""
    unknowns_resolved: Mapping[str, int]
    """Number of order requests whose unknown outcome was resolved, by outcome."""
    journal_writes: int
    """Number of intents and outcomes written to the journal."""

    def to_prometheus(self) -> str:
        """Return everything in the Prometheus text format, version 0.0.4."""
        return "".join(_exposition(self))


_HELP: Final = {
    "requests": "Requests handed to a socket.",
    "outcomes": "Order requests by outcome of the call.",
    "queue": "Time that requests waited for the rate limiter.",
    "send": "Time from the rate limiter to the hand-over to a socket.",
    "first_byte": "Time from the hand-over to the first byte of the answer.",
    "decode": "Time to decode an answer.",
    "retries": "Repeated requests.",
    "rate_limited": "Answers with HTTP 429, too many requests.",
    "server_errors": "Answers with HTTP 5xx.",
    "timeouts": "Requests without an answer by their deadline.",
    "duplicate_reads": "Reads sent once more because the first hung.",
    "breaker_openings": "Times a circuit breaker opened.",
    "breaker_refusals": "Calls refused by an open circuit breaker.",
    "reconnects": "Times a feed was live again after a loss.",
    "ticks": "Ticks received by the market feeds.",
    "order_updates": "Updates received by the order feed.",
    "unknowns_opened": "Order requests whose outcome was unknown.",
    "unknowns_resolved": "Order requests whose unknown outcome was resolved.",
    "journal_writes": "Intents and outcomes written to the journal.",
}
_LABELS: Final = {
    "requests": ("kind",),
    "outcomes": ("kind", "outcome"),
    "breaker_openings": ("breaker",),
    "breaker_refusals": ("breaker",),
    "reconnects": ("feed",),
    "unknowns_resolved": ("outcome",),
}
_HISTOGRAMS: Final = ("queue", "send", "first_byte", "decode")


def _exposition(metrics: Metrics) -> Iterator[str]:
    for field, text in _HELP.items():
        value = getattr(metrics, field)
        if field in _HISTOGRAMS:
            name = f"neo_{field}_seconds"
            yield f"# HELP {name} {text}\n# TYPE {name} histogram\n"
            for kind, histogram in value.items():
                yield from _histogram(name, kind, histogram)
        else:
            name = f"neo_{field}_total"
            yield f"# HELP {name} {text}\n# TYPE {name} counter\n"
            for labels, count in _counted(value, _LABELS.get(field, ())):
                yield f"{name}{labels} {count}\n"


def _histogram(name: str, kind: str, histogram: Histogram) -> Iterator[str]:
    bounds = [*(f"{bound:g}" for bound in BUCKETS), "+Inf"]
    for bound, count in zip(bounds, accumulate(histogram.counts), strict=True):
        yield f'{name}_bucket{{kind="{kind}",le="{bound}"}} {count}\n'
    yield f'{name}_sum{{kind="{kind}"}} {histogram.total!r}\n'
    yield f'{name}_count{{kind="{kind}"}} {histogram.count}\n'


def _counted(
    value: object, names: tuple[str, ...], labels: tuple[str, ...] = ()
) -> Iterator[tuple[str, object]]:
    """Yield each number of a nested mapping with the text of its labels."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _counted(inner, names, (*labels, _escaped(str(key))))
        return
    pairs = ",".join(f'{name}="{label}"' for name, label in zip(names, labels, strict=True))
    yield (f"{{{pairs}}}" if pairs else ""), value


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
