"""Variants of the broker's rules, where they have changed or its documents and users disagree."""

from __future__ import annotations

import msgspec


class BrokerSettings(msgspec.Struct, frozen=True, kw_only=True):
    static_ips: tuple[str, ...] | None = None
    """Addresses from which orders may come, modifications and cancellations included; and only
    from the one that the login came from. None: from anywhere. The broker has had this rule since
    April 2026; it does not hold for logins, reports, data and feeds."""
    login_failures_as_200: bool = False
    """Failed logins are answered with status 200 and the code in the body, as has been seen."""
    old_duplicate_code: bool = False
    """A repeated tag is refused with the older 5204 instead of 32."""
