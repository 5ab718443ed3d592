"""The effects of reports, messages and fills on the position book."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from neo_async.model.portfolio import PositionKey


class Fill(NamedTuple):
    """Units that an order message has added to an order's filled quantity."""

    key: PositionKey | None
    """The position; None when the message does not say which, or how many units."""
    bought: int
    sold: int


UNKNOWN_FILL = Fill(None, 0, 0)


class MessageEffect(NamedTuple):
    """The effect of a position message."""

    changed: PositionKey | None = None
    """The position that it has changed."""
    is_unlisted: bool = False
    """Whether it waits for a report that lists its position."""
    is_unidentified: bool = False
    """Whether it does not say which position has changed, or how: only a report can."""


class Overruled(NamedTuple):
    """A position of which the report has lacked trades for so long that the messages no longer
    count."""

    key: PositionKey
    seconds: float
    reported: tuple[int, int]
    """Units bought and sold today by the report."""
    known: tuple[int, int]
    """The same by the messages."""


class ReportEffect(NamedTuple):
    """The effect of a report."""

    changed: Sequence[PositionKey]
    overruled: Sequence[Overruled]
    dropped: Sequence[PositionKey]
    """Positions of which messages have waited for `UNLISTED_READS` reports without being listed."""
