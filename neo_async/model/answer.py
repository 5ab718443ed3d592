"""An HTTP answer as the transport returns it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Answer(msgspec.Struct, frozen=True):
    """A complete HTTP answer."""

    status: int
    headers: Mapping[str, str]
    """Header fields, with names in lower case."""
    body: bytes
    """The body, decompressed."""
    first_byte: float = 0.0
    """Seconds from the hand-over of the request to the first byte of the answer."""

    def __repr__(self) -> str:
        # An answer to a login holds tokens, and local variables of tracebacks may be shown.
        return f"Answer(status={self.status}, {len(self.body)} bytes)"

    def __rich_repr__(self) -> list[tuple[str, int]]:
        return [("status", self.status)]
