"""Variants of the broker's rules, where they have changed or its documents and users disagree."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

EndedSessionCode = Literal[1003, 1037, 100008, 100010, 100022]

ENDED_SESSION_TEXTS: Final[dict[EndedSessionCode, str]] = {
    1003: "Invalid session",
    1037: "session ip doesnt match with reqest ip",
    100008: "unauthorized",
    100010: "invalid session token",
    100022: "invalid session token",
}
"""Texts with which calls of an ended session have been refused, by code."""


class BrokerSettings(msgspec.Struct, frozen=True, kw_only=True):
    static_ips: tuple[str, ...] | None = None
    """Addresses from which orders may come, modifications and cancellations included; and only
    from the one that the login came from. None: from anywhere. The broker has had this rule since
    April 2026; it does not hold for logins, reports, data and feeds."""
    login_failures_as_200: bool = False
    """Failed logins are answered with status 200 and the code in the body, as has been seen."""
    refusals_as_200: bool = False
    """Refused orders, reports and calls of ended sessions are answered with status 200 and the code
    in the body, as users have seen; otherwise with 400, 401 or 403."""
    ended_session_code: EndedSessionCode = 1003
    """Code with which a call of an ended session is refused. The broker documents 1003; users have
    seen the others too."""
    old_duplicate_code: bool = False
    """A repeated tag is refused with the older 5204 instead of 32."""
