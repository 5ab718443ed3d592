"""The state of a feed's connection, and the event that reports a change of it."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class FeedState(StrEnum):
    """The state of a feed, from its start until it is closed."""

    CONNECTING = "connecting"
    """Opening a socket, or logging in on it."""
    LIVE = "live"
    """Logged in: messages arrive."""
    WAITING = "waiting"
    """Between two attempts to connect; or, after a refusal, until the program logs in again."""
    CLOSED = "closed"
    """Closed by the caller, or not started yet."""


class FeedEvent(msgspec.Struct, frozen=True):
    """A change of a feed's state, and the reason for it."""

    state: FeedState
    reason: str
    at: float
    """Unix seconds of the change."""
