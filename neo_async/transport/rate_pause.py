"""The pause that a 429 begins, by kind of request."""

from __future__ import annotations

import logging
from typing import Final

from neo_async.base import logs
from neo_async.base.logs import logger_of
from neo_async.transport.backoff import backoff
from neo_async.transport.kinds import Kind

LONGEST_PAUSE: Final = 60.0
"""Seconds for which a 429 stops anything, whatever the server requested: limits count seconds, and
one answer of a gateway must not end a trading day."""


class RatePause:
    """Pause, by kind of request, during which a 429 keeps requests from starting."""

    def __init__(self, window: float) -> None:
        """`window` is the length of the server's rate window, in seconds."""
        self._window = window
        self.until = [0.0] * len(Kind)
        """Clock time, by kind, before which none starts."""
        self.refusals_in_a_row = 0
        """Number of 429 answers since the server last took a request."""
        self.log = logger_of(logs.TRANSPORT)

    def begin(self, retry_after: float | None, kind: Kind | None, now: float) -> None:
        """Pause for the seconds that the server requested (or a growing, jittered time when it
        named none), `LONGEST_PAUSE` at most.

        `kind` is what the server refused. Where it is known, the others do not pay for it: after an
        order, cancels wait for one window at most, and after a read not at all, while changes and
        placements wait for one window.
        """
        until = self.until
        # A 429 during the pause is one more answer to the requests from before it.
        is_new = now >= until[Kind.PLACE if kind is None else kind]
        if is_new:
            self.refusals_in_a_row += 1
        # A server that sends 0 would be called again at once, for ever; NaN is no time at all.
        if retry_after is None or not retry_after > 0:
            retry_after = backoff(self.refusals_in_a_row, base=0.5, cap=30.0)
        longest = min(retry_after, LONGEST_PAUSE)
        window = min(longest, self._window)
        self._extend(Kind.READ, now + longest)
        for other in (Kind.EXIT, Kind.MODIFY, Kind.PLACE, Kind.TRAIL):
            self._extend(other, now + (window if kind is Kind.READ else longest))
        # One more answer to requests from before the pause begins none anew for cancels.
        if kind is None:
            self._extend(Kind.CANCEL, now + longest)
        elif kind is not Kind.READ and now >= until[Kind.CANCEL]:
            self._extend(Kind.CANCEL, now + window)
        self._write(logging.WARNING if is_new else logging.DEBUG, longest, kind, now)

    def _extend(self, kind: Kind, until: float) -> None:
        self.until[kind] = max(self.until[kind], until)

    def _write(self, level: int, longest: float, kind: Kind | None, now: float) -> None:
        if kind is not None and (kind is Kind.READ or longest > self._window):
            self.log.log(
                level,
                "rate limit hit (429): cancels, other orders and reads start again in "
                "%.2f, %.2f and %.2f s",
                *(
                    max(0.0, self.until[each] - now)
                    for each in (Kind.CANCEL, Kind.PLACE, Kind.READ)
                ),
            )
        else:
            rest = self.until[Kind.PLACE] - now
            self.log.log(level, "rate limit hit (429): nothing starts for %.2f s", rest)
