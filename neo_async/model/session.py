"""The session that a login opens."""

from __future__ import annotations

import msgspec


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to the second login step. `token` and `sid` are secrets and never printed."""

    token: str
    sid: str
    base_url: str
    """Base address of every call after the login, without a trailing slash; it may have a path."""
    feed_url: str
    realtime_url: str
    ucc: str
    data_center: str

    def __repr__(self) -> str:
        return f"Session(ucc={self.ucc!r}, base_url={self.base_url!r}, ...)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("ucc", self.ucc), ("base_url", self.base_url)]
