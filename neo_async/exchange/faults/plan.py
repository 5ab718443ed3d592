"""The fault plan: it decides which requests and messages meet which fault.

No socket and no clock. Requests are drawn for per kind of call, messages per feed, each from a
stream of its own: the same seed gives the hundredth order the same fate, however many reports were
requested in between.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from itertools import accumulate
from random import Random
from typing import Final, Literal, NamedTuple, TypeVar

import msgspec

from neo_async.errors import UsageError
from neo_async.exchange.faults.durations import draw
from neo_async.exchange.faults.settings import (
    PROBABILITIES,
    Calls,
    ConnectionFault,
    Faults,
    FeedFault,
    ResponseFault,
)

FeedName = Literal["market", "orders"]
E = TypeVar("E", bound=StrEnum)
Steps = list[tuple[float, E]]
"""Faults that exclude each other, with the sums of probabilities up to each."""


class Decision(NamedTuple):
    """The faults that one request meets."""

    fault: ResponseFault | None = None
    form: int = 0
    """Number that picks the form of the fault, by remainder."""
    seconds: float = 0.0
    """Seconds that the fault lasts, where it has a duration."""
    delay_before: float = 0.0
    delay_after: float = 0.0
    connection_fault: ConnectionFault | None = None
    idle_seconds: float = 0.0


NO_FAULTS: Final = Decision()

_FEED_FAULTS: Final = frozenset((*FeedFault, "feed_stall"))
_BANK_FAULTS: Final = frozenset({"bank_expire", "bank_repeat"})


class FaultPlan:
    def __init__(self, seed: int, settings: Faults = Faults()) -> None:  # noqa: B008 - frozen
        self._seed = seed
        self.set(settings)

    def set(self, settings: Faults) -> None:
        """Inject these faults from now on, and no others; `Faults()` ends all.

        Draws and counts begin anew; what was drawn before takes its course. Raises UsageError for
        what is no Faults, such as a dict.
        """
        if not isinstance(settings, Faults):
            raise UsageError(f"faults={settings!r}: must be such as Faults(lose_after=0.1)")
        self.settings = settings
        active = {name for name in PROBABILITIES if getattr(settings, name)}
        self.hits_requests = not active <= _FEED_FAULTS | _BANK_FAULTS
        self.hits_feeds = bool(active & _FEED_FAULTS)
        self._response_faults = _steps(settings, list(ResponseFault))
        self._connection_faults = _steps(settings, list(ConnectionFault))
        self._feed_faults = _steps(settings, list(FeedFault))
        self.restart()

    @property
    def injected(self) -> dict[str, int]:
        """Count of each fault since the faults were set, or since a reset."""
        return dict(self.counts)

    def restart(self) -> None:
        """Start the random streams and the counts again."""
        self.counts: Counter[str] = Counter()
        """Count of each fault, by the name of its setting."""
        self._streams: dict[str, Random] = {}

    def report(self) -> dict[str, object]:
        """Return the settings that differ from `Faults()`, and the counts."""
        calm = msgspec.to_builtins(Faults())
        settings = msgspec.to_builtins(self.settings)
        return {
            "settings": {name: value for name, value in settings.items() if value != calm[name]},
            "injected": dict(self.counts),
        }

    def for_request(self, calls: Calls) -> Decision:
        """Return the faults that the next request of that kind meets."""
        settings = self.settings
        if calls not in settings.calls:
            return NO_FAULTS
        random = self._stream(calls)
        fault = self._counted(self._response_faults, random)
        form = random.getrandbits(32)
        seconds = 0.0
        if fault in (ResponseFault.HANG_BEFORE, ResponseFault.HANG_AFTER):
            seconds = draw(settings.hang_seconds, random)
        elif fault is ResponseFault.DRIP:
            seconds = draw(settings.drip_seconds, random)
        # Counted once it happens: the client may close first.
        connection_fault = _pick(self._connection_faults, random)
        return Decision(
            fault,
            form,
            seconds,
            self._delay("delay_before", random),
            self._delay("delay_after", random),
            connection_fault,
            draw(settings.idle_seconds, random)
            if connection_fault is ConnectionFault.IDLE
            else 0.0,
        )

    def for_message(self, feed: FeedName) -> tuple[FeedFault | None, float]:
        """Return the fault of the next message of a feed, and the seconds that it is late."""
        random = self._stream(f"{feed} feed")
        fault = self._counted(self._feed_faults, random)
        late = draw(self.settings.feed_late_seconds, random) if fault is FeedFault.LATE else 0.0
        return fault, late

    def stall_seconds(self) -> float:
        """Return the seconds for which the feeds stall from this tick on; mostly 0."""
        if not self.strikes("feed_stall"):
            return 0.0
        return draw(self.settings.feed_stall_seconds, self._stream("feed_stall"))

    def strikes(self, name: Literal["feed_stall", "bank_expire", "bank_repeat"]) -> bool:
        """Return whether a fault happens this time, and count it."""
        probability: float = getattr(self.settings, name)
        if not probability or self._stream(name).random() >= probability:
            return False
        self.count(name)
        return True

    def count(self, name: str) -> None:
        """Count a fault that has happened, as one that depends on the client reports itself."""
        self.counts[str(name)] += 1

    def _counted(self, steps: Steps[E], random: Random) -> E | None:
        name = _pick(steps, random)
        if name is not None:
            self.count(name)
        return name

    def _stream(self, name: str) -> Random:
        random = self._streams.get(name)
        if random is None:
            seed = self._seed if self.settings.seed is None else self.settings.seed
            random = self._streams[name] = Random(f"{seed}|faults|{name}")
        return random

    def _delay(self, name: Literal["delay_before", "delay_after"], random: Random) -> float:
        if random.random() >= getattr(self.settings, name):
            return 0.0
        self.count(name)
        return draw(self.settings.delay_seconds, random)


def _steps(settings: Faults, names: Sequence[E]) -> Steps[E]:
    return list(zip(accumulate(getattr(settings, name) for name in names), names, strict=True))


def _pick(steps: Steps[E], random: Random) -> E | None:
    point = random.random()
    return next((name for limit, name in steps if point < limit), None)
