"""Settings of the faults: the probability of each, and how long those with a duration last.

    Faults(lose_after=0.1, throttle=0.05, delay_before=0.2, delay_seconds=Uniform(low=0.1, high=2))

The same as JSON, for `POST /faults` and `--faults`; a number of seconds stands for itself:

    {"lose_after": 0.1, "delay_before": 0.2, "delay_seconds": {"kind": "uniform", "low": 0.1,
     "high": 2}, "hang_before": 0.01, "hang_seconds": 30, "seed": 5}
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import StrEnum
from typing import Final, Literal, get_args

import msgspec

from neo_async.errors import UsageError
from neo_async.exchange.faults.durations import Seconds, Uniform, check_seconds, is_number
from neo_async.wire.lenient import UNREADABLE

Calls = Literal["orders", "reads", "logins", "bank"]
"""Kinds of requests: placing, changing or cancelling an order; logging in; anything else that the
broker answers; anything that the bank does."""

CALLS: Final[tuple[Calls, ...]] = get_args(Calls)


class ResponseFault(StrEnum):
    """Faults of a request; at most one happens. Named as its probability is set."""

    LOSE_BEFORE = "lose_before"
    LOSE_AFTER = "lose_after"
    HANG_BEFORE = "hang_before"
    HANG_AFTER = "hang_after"
    THROTTLE = "throttle"
    ERROR_BEFORE = "error_before"
    ERROR_AFTER = "error_after"
    MALFORMED = "malformed"
    TRUNCATED = "truncated"
    DRIP = "drip"
    ODD_VALUE = "odd_value"

    @property
    def before_accept(self) -> bool:
        """Whether a request with this fault has no effect."""
        return self in _BEFORE


_BEFORE = (
    ResponseFault.LOSE_BEFORE,
    ResponseFault.HANG_BEFORE,
    ResponseFault.THROTTLE,
    ResponseFault.ERROR_BEFORE,
)


class ConnectionFault(StrEnum):
    """Faults of a connection after a good answer on it; at most one happens."""

    IDLE = "close_idle"
    CROSSING = "close_crossing"


class FeedFault(StrEnum):
    """Faults of a feed's message; at most one happens."""

    LOSE = "feed_lose"
    LATE = "feed_late"
    REPEAT = "feed_repeat"
    REORDER = "feed_reorder"
    ODD_VALUE = "feed_odd_value"


class Faults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Probabilities from 0 to 1, and the durations that go with them; by default none happens.

    The first group excludes each other: a request meets one of them at most, and their sum is the
    share of requests that meet one. Delays are drawn besides, so that an order that comes late can
    lose its answer, too.
    """

    seed: int | None = None
    """Seed of the faults; the same requests meet the same ones. None uses the exchange's seed."""
    calls: tuple[Calls, ...] = ("orders", "reads")
    """Requests that are hit. The exchange's own control surface never is."""

    lose_before: float = 0.0
    """The connection breaks, by end of stream or reset, and the request has no effect."""
    lose_after: float = 0.0
    """The request takes effect, and the connection breaks in place of its answer."""
    hang_before: float = 0.0
    """No effect and no answer; after `hang_seconds` the connection breaks."""
    hang_after: float = 0.0
    """The request takes effect and gets no answer; after `hang_seconds` the connection breaks."""
    throttle: float = 0.0
    """429 with `Retry-After`, and no effect."""
    error_before: float = 0.0
    """500, 502, 503 or 504, with a body of the service, of a gateway or none; no effect."""
    error_after: float = 0.0
    """The request takes effect, and is answered as by `error_before`."""
    malformed: float = 0.0
    """The request takes effect, and its answer is no JSON, half of it, JSON of another shape or an
    HTML page."""
    truncated: float = 0.0
    """The request takes effect, and the connection ends within its answer's body."""
    drip: float = 0.0
    """The request takes effect, and its answer comes byte by byte over `drip_seconds`."""
    odd_value: float = 0.0
    """The request takes effect, and in the rows of its answer stands, once, text or null in place
    of a number."""

    delay_before: float = 0.0
    """The request is handled `delay_seconds` after it came: an order appears late."""
    delay_after: float = 0.0
    """The request is handled at once, and its answer leaves `delay_seconds` later."""

    close_idle: float = 0.0
    """Per answer: the connection is closed once it was idle for `idle_seconds`."""
    close_crossing: float = 0.0
    """Per answer: the connection is closed just as the next request comes in, which is not read."""

    feed_lose: float = 0.0
    """Per message of a feed: it never comes."""
    feed_late: float = 0.0
    """Per message: it comes `feed_late_seconds` later, with the tick after that, and behind newer
    ones."""
    feed_repeat: float = 0.0
    """Per message: it comes twice."""
    feed_reorder: float = 0.0
    """Per message: it changes places with the next one."""
    feed_odd_value: float = 0.0
    """Per message: it holds text or null in place of a number. Messages of the market feed, which
    are binary, stay as they are."""
    feed_stall: float = 0.0
    """Per tick (there are four a second): both feeds fall silent for `feed_stall_seconds`."""

    bank_expire: float = 0.0
    """Per call of the bank's services: its token has just expired. Whatever `calls` are hit."""
    bank_repeat: float = 0.0
    """Per fetch: the batch that was acknowledged last comes again. Whatever `calls` are hit."""

    delay_seconds: Seconds = Uniform(low=0.05, high=0.5)
    hang_seconds: Seconds = 60.0
    drip_seconds: Seconds = 2.0
    idle_seconds: Seconds = 0.05
    feed_late_seconds: Seconds = Uniform(low=0.0, high=1.0)
    feed_stall_seconds: Seconds = 5.0

    def __post_init__(self) -> None:
        for name in PROBABILITIES:
            value = getattr(self, name)
            if not (is_number(value) and 0 <= value <= 1):
                raise UsageError(f"{name}={value!r}: must be a probability from 0 to 1")
        for group in (ResponseFault, ConnectionFault, FeedFault):
            self._check_sum(list(group))
        for name in DURATIONS:
            check_seconds(name, getattr(self, name))
        for call in self.calls:
            if call not in CALLS:
                raise UsageError(f"calls={call!r}: must be among {', '.join(CALLS)}")

    def _check_sum(self, names: Iterable[str]) -> None:
        """Check the sum of probabilities that exclude each other."""
        chances = {name: getattr(self, name) for name in names if getattr(self, name)}
        total = math.fsum(chances.values())
        if total > 1 + 1e-9:
            raise UsageError(
                f"{' + '.join(chances)} = {total:g}: only one of them can happen at a time, so "
                "together they must not be above 1"
            )


DURATIONS: Final = tuple(name for name in Faults.__struct_fields__ if name.endswith("_seconds"))
PROBABILITIES: Final = tuple(
    name for name in Faults.__struct_fields__ if name not in (*DURATIONS, "seed", "calls")
)


def read_faults(content: bytes | str) -> Faults:
    """Read them from JSON. Raises UsageError that names what is wrong."""
    try:
        settings = msgspec.json.decode(content, type=dict[str, object])
        for name in settings:
            if name not in Faults.__struct_fields__:
                known = ", ".join(Faults.__struct_fields__)
                raise UsageError(f"faults: {name!r} is none of them; there are {known}")
        return msgspec.convert(settings, Faults)
    except UNREADABLE as error:
        raise UsageError(f"faults: {error}") from None
