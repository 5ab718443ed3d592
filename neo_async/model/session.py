"""A login as the rest of the client needs it."""

from __future__ import annotations

import msgspec


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """What the second login step answered. `token` and `sid` are secrets and never printed."""

    token: str
    sid: str
    base_url: str
    """Base of every call after login, without a trailing slash; may contain a path."""
    feed_url: str
    realtime_url: str
    ucc: str
    data_center: str

    def __repr__(self) -> str:
        return f"Session(ucc={self.ucc!r}, base_url={self.base_url!r}, ...)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("ucc", self.ucc), ("base_url", self.base_url)]
