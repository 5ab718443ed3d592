"""Variants of the feeds, where the broker's documents, clients and users disagree."""

from __future__ import annotations

from enum import Enum

import msgspec


class AuthAnswer(Enum):
    """Answers of the market feed to a valid authentication."""

    OK = "1117"
    CONNECTED_THEN_OK = "1119 and 1117"
    CONNECTED = "1119"
    """Seen in production: success by a code that is not documented."""


class FeedSettings(msgspec.Struct, frozen=True, kw_only=True):
    interval: float = 0.05
    """Seconds between two messages with prices to a subscriber, at least."""
    auth_answer: AuthAnswer = AuthAnswer.OK
    long_auctions: bool = False
    """Call-auction packets of 48 bytes instead of 33."""
    old_status: bool = False
    """Market open and close as bare headers, codes 6511 and 6521, instead of code 105."""
    answers_heartbeat: bool = False
    """Order feed: `{type:hb}` gets an answer."""
    zero_averages: bool = False
    """Order feed: every fill is sent twice, at first with an average price of 0.00."""
