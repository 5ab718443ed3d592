"""The kinds of requests, in the order in which they are served."""

from __future__ import annotations

from enum import IntEnum


class Kind(IntEnum):
    """The purpose of a request. The lower value is served first, except that a read that has waited
    for `READ_PATIENCE` without any other read starting comes right after the cancels."""

    CANCEL = 0
    EXIT = 1
    """A placement or a change that closes a position. A halt does not stop it."""
    MODIFY = 2
    PLACE = 3
    TRAIL = 4
    """A change that only moves a stop with the price."""
    READ = 5
