"""A check for bytes in a socket that have not been read.

An answer belongs to the request that was on the wire when it came. Bytes that lie unread on a
connection before a request is written are not the answer to it.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from functools import partial
from typing import Any

TURNS = 3
"""Turns of the event loop in which unread bytes are read; a TLS session ticket, which asyncio reads
itself, needs one."""


def unread_check(transport: asyncio.BaseTransport) -> Callable[[], object]:
    """Return a function that returns something true while bytes, or the end of the stream, wait in
    a transport's socket. It costs half a microsecond, and must not be called once the transport is
    closing."""
    fileno = getattr(transport.get_extra_info("socket"), "fileno", None)
    if fileno is None:  # a transport without a socket, as in tests
        return bool
    number: int = fileno()
    if not hasattr(select, "poll"):  # Windows
        return lambda: bool(select.select([number], [], [], 0)[0])
    poll: Any = select.poll()
    poll.register(number, select.POLLIN)
    return partial(poll.poll, 0)
