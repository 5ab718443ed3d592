"""What has been counted and timed since a client was made."""

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
    """Times, as far as buckets tell: the middle half of a bucket is a quarter off its bounds."""

    counts: tuple[int, ...]
    """Times in each of BUCKETS, each above the bound before and not above its own; the last entry
    is of those above all bounds."""
    total: float
    """Sum of all times, in seconds."""

    @property
    def count(self) -> int:
        return sum(self.counts)

    @property
    def mean(self) -> float | None:
        """Seconds; None when there is nothing."""
        return self.total / self.count if self.count else None

    def quantile(self, share: float) -> float | None:
        """About the time, in seconds, that `share` (0 to 1) of all do not exceed: between the
        bounds of its bucket in proportion. None when there is nothing."""
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
    """Everything since the client was made, over all its logins.

    Kinds are `cancel`, `modify`, `place`, `read` and `login`.
    """

    requests: Mapping[str, int]
    """Handed to a socket, by kind."""
    outcomes: Mapping[str, Mapping[str, int]]
    """Of order requests, by kind, as their calls saw them: accepted, rejected, not sent, unknown.
    What became of unknown ones is in `unknowns_resolved`."""
    queue: Mapping[str, Histogram]
    """Waiting for the limiter, by kind."""
    send: Mapping[str, Histogram]
    """From there to the hand-over to the socket: waiting for a connection, opening one."""
    first_byte: Mapping[str, Histogram]
    """From the hand-over to the first byte of the answer."""
    decode: Mapping[str, Histogram]
    """Making a struct of the answer."""
    retries: int
    """Requests made again: nothing had been sent, the session had ended, or a 429 came."""
    rate_limited: int
    """429s."""
    server_errors: int
    """Answers with 5xx."""
    timeouts: int
    """Answers that did not come by their deadline."""
    duplicate_reads: int
    """Reads that were made once more because they hung."""
    breaker_openings: Mapping[str, int]
    """Times a circuit breaker opened, by breaker."""
    breaker_refusals: Mapping[str, int]
    """Calls that failed at once because of it."""
    reconnects: Mapping[str, int]
    """Times that a feed was live again after a loss, by feed."""
    ticks: int
    """Of the market feeds; of a column feed, rows."""
    order_updates: int
    """Of the order feed, updates of positions included."""
    unknowns_opened: int
    """Order requests of which it had to be found out what became of them."""
    unknowns_resolved: Mapping[str, int]
    """Those of which it is known, by outcome."""
    journal_writes: int

    def to_prometheus(self) -> str:
        """In Prometheus' text format, version 0.0.4."""
        return "".join(_exposition(self))


_HELP: Final = {
    "requests": "Requests handed to a socket.",
    "outcomes": "What order requests came to, as their calls saw them.",
    "queue": "Time that requests waited for the limiter.",
    "send": "Time from the limiter to the hand-over to a socket.",
    "first_byte": "Time from the hand-over to the first byte of the answer.",
    "decode": "Time that decoding an answer took.",
    "retries": "Requests made again.",
    "rate_limited": "Refusals for too many requests (429).",
    "server_errors": "Answers with HTTP 5xx.",
    "timeouts": "Answers that did not come by their deadline.",
    "duplicate_reads": "Reads made once more because they hung.",
    "breaker_openings": "Times a host was taken for gone.",
    "breaker_refusals": "Calls that failed at once because of that.",
    "reconnects": "Times a feed was live again after a loss.",
    "ticks": "Ticks of the market feeds.",
    "order_updates": "Updates of the order feed.",
    "unknowns_opened": "Order requests whose outcome had to be found out.",
    "unknowns_resolved": "Order requests whose outcome was found out.",
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
    """Each number with the labels on the way to it."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _counted(inner, names, (*labels, _escaped(str(key))))
        return
    pairs = ",".join(f'{name}="{label}"' for name, label in zip(names, labels, strict=True))
    yield (f"{{{pairs}}}" if pairs else ""), value


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
