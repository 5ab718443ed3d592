"""The kinds of requests, in the order in which they are served."""

from __future__ import annotations

from enum import IntEnum


class Kind(IntEnum):
    """The purpose of a request. The lower value is served first, except that a read that has waited
    for `READ_PATIENCE` without any other read starting comes right after the cancels."""

    CANCEL = 0
    MODIFY = 1
    PLACE = 2
    READ = 3
