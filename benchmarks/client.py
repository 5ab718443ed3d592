"""Clients of this library against a benchmark's server, with a rate limiter that never waits."""

from __future__ import annotations

from typing import Any

from benchmarks.placing import TOTP_SECRET
from neo_async import Credentials, Endpoints, NeoClient, RateLimits

UCC = "ABC12"
WIDE = RateLimits(orders=10**6, total=10**6)


def client_of(url: str, *, ca_file: str = "", **settings: Any) -> NeoClient:
    """Return a client of the server at that address, not logged in yet."""
    return NeoClient(
        Credentials(
            consumer_key="consumer-key",
            mobile_number="+919999999999",
            ucc=UCC,
            mpin="123456",
            totp_secret=TOTP_SECRET,
        ),
        endpoints=Endpoints(login=url, ca_file=ca_file),
        limits=WIDE,
        **settings,
    )
