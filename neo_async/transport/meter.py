"""Counts and times of requests.

Every order passes through it, so it does little there: times are appended as they come, and sorted
into buckets many at once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from typing import Final, Protocol
from weakref import finalize

from neo_async.errors import AnswerLost
from neo_async.model.metrics import BUCKETS, Histogram
from neo_async.transport.kinds import Kind

LOGIN: Final = len(Kind)
"""Index of logins, which come after the kinds of requests."""
NAMES: Final = (*(kind.name.lower() for kind in Kind), "login")

HELD: Final = 256
"""Times that are appended before they are sorted into buckets: a tenth of a millisecond's work."""


class Lossy(Protocol):
    """A buffer that counts what it loses."""

    lost: int


class _Stage:
    """Times of one stage of a request, by kind."""

    def __init__(self) -> None:
        self.new: list[list[float]] = [[] for _ in NAMES]
        """Times that are not in the buckets yet, by kind."""
        self._counts = [[0] * (len(BUCKETS) + 1) for _ in NAMES]
        self._totals = [0.0] * len(NAMES)

    def sort_in(self) -> None:
        """Move the new times into the buckets."""
        for kind, times in enumerate(self.new):
            if not times:
                continue
            self._totals[kind] += sum(times)
            times.sort()
            counts, done = self._counts[kind], 0
            for position, bound in enumerate(BUCKETS):
                upto = bisect_right(times, bound, done)
                counts[position] += upto - done
                done = upto
            counts[-1] += len(times) - done
            times.clear()

    def histograms(self) -> dict[str, Histogram]:
        self.sort_in()
        return {
            name: Histogram(tuple(counts), total)
            for name, counts, total in zip(NAMES, self._counts, self._totals, strict=True)
        }


class Meter:
    """Counts and times of one client's requests. Times are in seconds."""

    def __init__(self) -> None:
        self.queue, self.send, self.first_byte, self.decode = (_Stage() for _ in range(4))
        self.retries = 0
        self.server_errors = 0
        self.timeouts = 0
        self.duplicate_reads = 0
        self.ticks = 0
        self.order_updates = 0
        self.reconnects: dict[str, int] = {}
        self._losses: defaultdict[str, int] = defaultdict(int)
        """Items lost by buffers whose owner is gone, by kind of buffer."""
        self._lossy: dict[int, tuple[str, Lossy]] = {}
        """The buffers whose owner exists, with their kinds."""
        self._outcomes: list[defaultdict[str, int]] = [defaultdict(int) for _ in Kind]

    def sent(self, kind: int, queue: float, send: float) -> None:
        """Note that a request was handed to a socket, and the seconds that it spent in the queue
        and on the way to the socket."""
        times = self.queue.new[kind]
        times.append(queue)
        self.send.new[kind].append(send)
        if len(times) >= HELD:
            for stage in (self.queue, self.send, self.first_byte, self.decode):
                stage.sort_in()

    def answered(self, kind: int, first_byte: float, decode: float) -> None:
        """Note that an answer was decoded, and the seconds to its first byte and for decoding."""
        self.first_byte.new[kind].append(first_byte)
        self.decode.new[kind].append(decode)

    def lost(self, error: AnswerLost) -> None:
        """Note that an answer was lost."""
        self.timeouts += error.is_timeout

    def ended(self, kind: Kind, outcome: str) -> None:
        """Note how an order request ended for its caller."""
        self._outcomes[kind][outcome] += 1

    def reconnected(self, feed: str) -> None:
        """Note that a feed is connected again."""
        self.reconnects[feed] = self.reconnects.get(feed, 0) + 1

    def count_losses(self, owner: object, kind: str, buffer: Lossy) -> None:
        """Count what a buffer loses under that kind, also once its owner is gone. The buffer must
        not refer to its owner."""
        key = id(buffer)
        self._lossy[key] = kind, buffer
        finalize(owner, self._keep_losses, key).atexit = False

    def _keep_losses(self, key: int) -> None:
        kind, buffer = self._lossy.pop(key)
        self._losses[kind] += buffer.lost

    @property
    def losses(self) -> dict[str, int]:
        """Number of items that buffers have lost, by kind of buffer."""
        losses = self._losses.copy()
        for kind, buffer in [*self._lossy.values()]:
            losses[kind] += buffer.lost
        return dict(losses)

    @property
    def outcomes(self) -> dict[str, dict[str, int]]:
        """Number of order requests by kind and outcome."""
        counted = zip(NAMES, self._outcomes, strict=False)
        return {name: dict(outcomes) for name, outcomes in counted if name != "read"}
