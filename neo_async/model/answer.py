"""An HTTP answer as the transports hand it up."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Answer(msgspec.Struct, frozen=True):
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    """Decompressed."""
    first_byte: float = 0.0
    """Seconds from the hand-over of the request to the first byte of this."""

    def __repr__(self) -> str:
        # An answer to a login holds tokens, and local variables of tracebacks may be shown.
        return f"Answer(status={self.status}, {len(self.body)} bytes)"

    def __rich_repr__(self) -> list[tuple[str, int]]:
        return [("status", self.status)]
